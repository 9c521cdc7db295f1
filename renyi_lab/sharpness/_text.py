"""Estimates as text: as many digits as the standard error allows, in tables that fit a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from renyi_lab._utils.estimate import Estimate
from renyi_lab._utils.validation import printed

if TYPE_CHECKING:
    import pandas as pd

WIDTH = 120
ERRORS = "±: one standard error; values without are exact to the digits shown"
_LARGEST_FIXED = 1e6  # beyond, and below its inverse, numbers are written with a power of ten
_NEGLIGIBLE = 5e-5  # relative errors that change none of four digits
_GAP = "  "


def with_error(estimate: Estimate, *, signed: bool = False) -> str:
    """``value ± standard error``, both rounded to the error's first digit, or its first two where that is a one.

    An exact value, and one whose error changes none of four digits, is written alone with four digits.

    Example:
        >>> with_error(Estimate(-5.8731, 0.0214)), with_error(Estimate(1234.5, 162.0)), with_error(Estimate(0.125))
        ('-5.87 ± 0.02', '1230 ± 160', '0.125')
    """
    value, error = estimate.value, estimate.standard_error
    sign = "+" if signed and value else ""
    if math.isnan(value):
        return "NaN"
    if not math.isfinite(value) or error <= _NEGLIGIBLE * abs(value):
        return f"{value:{sign}.4g}"
    if not math.isfinite(error):
        return f"{value:{sign}.4g} ± {'inf' if error > 0 else '?'}"
    size = max(abs(value), error)
    if not 1 / _LARGEST_FIXED <= size < _LARGEST_FIXED:
        power = math.floor(math.log10(size))
        scaled = Estimate(value / 10.0**power, error / 10.0**power)
        return f"({with_error(scaled, signed=signed)})e{power:+03d}"
    digits = _digits(error)
    decimals = max(digits, 0)
    return f"{round(value, digits) + 0.0:{sign}.{decimals}f} ± {round(error, digits):.{decimals}f}"


def _digits(error: float) -> int:
    """Decimals of an error's last digit shown, negative for tens and more."""
    first, power = f"{error:.1e}".split("e")
    return -int(power) + (1 if first.startswith("1") else 0)


def lay_out(rows: Sequence[str], columns: Mapping[str, Sequence[str]], corner: str = "") -> str:
    """A table as text with the signs ± of a column under each other, in parts that are at most 120 characters wide.

    Args:
        rows: Names of the rows.
        columns: Cells by the name of the column; ``""`` for none. A part leaves out rows without a cell in it.
        corner: Heading of the names of the rows.
    """
    aligned = {name: _aligned(name, cells) for name, cells in columns.items()}
    label = max(map(len, [corner, *rows]), default=0)
    parts: list[list[str]] = []
    used = WIDTH + 1
    for name, (head, *_) in aligned.items():
        used += len(_GAP) + len(head)
        if used > WIDTH:
            parts.append([])
            used = label + len(_GAP) + len(head)
        parts[-1].append(name)
    whole = len(parts) == 1
    return "\n\n".join(
        _part(rows, {name: columns[name] for name in part}, {name: aligned[name] for name in part}, corner, whole)
        for part in parts
    )


def _part(
    rows: Sequence[str],
    columns: Mapping[str, Sequence[str]],
    aligned: Mapping[str, Sequence[str]],
    corner: str,
    keep_all: bool,
) -> str:
    kept = [i for i in range(len(rows)) if keep_all or any(cells[i] for cells in columns.values())]
    label = max(map(len, [corner, *(rows[i] for i in kept)]), default=0)
    lines = [_GAP.join([corner.ljust(label), *(cells[0] for cells in aligned.values())])]
    lines += [_GAP.join([rows[i].ljust(label), *(cells[i + 1] for cells in aligned.values())]) for i in kept]
    return "\n".join(line.rstrip() for line in lines)


def _aligned(name: str, cells: Sequence[str]) -> list[str]:
    """A column's heading and cells, all of one width."""
    halves = [cell.partition(" ±") for cell in cells]
    left = max((len(value) for value, _, _ in halves), default=0)
    right = max((len(sign + error) for _, sign, error in halves), default=0)
    inner = [value.rjust(left) + (sign + error).ljust(right) for value, sign, error in halves]
    width = max(len(name), left + right)
    return [name.rjust(width), *(cell.rjust(width) for cell in inner)]


def html_table(table: pd.DataFrame) -> str:
    """A table of text for a notebook, whose cells are not wrapped."""
    return f'<div style="overflow-x: auto; white-space: nowrap">{table.to_html()}</div>'


def check_labels(labels: tuple[str, str]) -> tuple[str, str]:
    """The names of two networks as a tuple."""
    pair = tuple(labels) if isinstance(labels, (tuple, list)) else ()
    if len(pair) != 2 or not all(isinstance(label, str) for label in pair):
        raise TypeError(f'labels must be two strings such as ("sgd", "sam"), got {printed(labels)}.')
    if pair[0] == pair[1]:
        raise ValueError(f"labels must differ, got {pair[0]!r} twice.")
    return pair
