"""The result of `sharpness_report`: estimates by measure and block, as tables and figures."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from renyi_lab._utils.estimate import Estimate
from renyi_lab._utils.fields import check_fields
from renyi_lab._utils.validation import check_flag, shown
from renyi_lab.sharpness._text import ERRORS, check_labels, html_table, lay_out, with_error
from renyi_lab.spectrum import Spectrum

if TYPE_CHECKING:
    import pandas as pd

    from renyi_lab._utils.figure import NotebookFigure

WHOLE = "whole"
NAN = Estimate(math.nan, math.nan)
Row = tuple[str, str]


@dataclass(frozen=True, repr=False, eq=False)
class SharpnessReport:
    """Every measure of one network, of the whole network and of its blocks.

    Attributes:
        estimates: Estimates by ``(measure, block)``, where the block ``"whole"`` is the whole network; NaN where a
            measure could not be computed, with the reason in ``notes``.
        spectra: Spectra by block.
        notes: Remarks on single estimates by ``(measure, block)``; those on a spectrum by ``("spectrum", block)``.
        precision: The arithmetic, such as ``"float32 on cuda:0"``.
    """

    estimates: Mapping[Row, Estimate]
    spectra: Mapping[str, Spectrum]
    notes: Mapping[Row, str]
    precision: str = ""

    def __post_init__(self) -> None:
        check_fields(self)

    def __getitem__(self, key: str | Row) -> Estimate:
        """``report["trace"]`` of the whole network, ``report["trace", "layer1.weight"]`` of a block."""
        pair = (key, WHOLE) if isinstance(key, str) else key
        if not isinstance(pair, tuple) or [type(part) for part in pair] != [str, str]:
            raise TypeError(f"key must be a measure, or a measure and a block, as texts, got {shown(key)}.")
        measure, block = pair
        try:
            return self.estimates[measure, block]
        except KeyError:
            measures, blocks = (list(dict.fromkeys(part)) for part in zip(*self.estimates, strict=True))
            raise KeyError(f"no {measure!r} of {block!r}; measures: {measures}; blocks: {blocks}") from None

    def to_frame(self) -> pd.DataFrame:
        """One row per estimate, with columns ``measure``, ``block``, ``value`` and ``standard_error``."""
        import pandas as pd

        rows = [(*key, estimate.value, estimate.standard_error) for key, estimate in self.estimates.items()]
        return pd.DataFrame(rows, columns=["measure", "block", "value", "standard_error"])

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of the measures, in the order of the rows."""
        return tuple(dict.fromkeys(measure for measure, _ in self.estimates))

    @property
    def blocks(self) -> tuple[str, ...]:
        """``"whole"`` and the names of the blocks."""
        return tuple(dict.fromkeys(block for _, block in self.estimates))

    def table(self, *, errors: bool = False) -> pd.DataFrame:
        """One row per measure, one column per block.

        Args:
            errors: Text such as ``"-5.87 ± 0.02"`` with one standard error, instead of values.
        """
        import pandas as pd

        errors = check_flag("errors", errors)
        cells = {
            block: [self._cell(measure, block) if errors else self._value(measure, block) for measure in self.measures]
            for block in self.blocks
        }
        return pd.DataFrame(cells, index=pd.Index(self.measures, name="measure")).rename_axis(columns="block")

    def _value(self, measure: str, block: str) -> float:
        return self.estimates.get((measure, block), NAN).value

    def _cell(self, measure: str, block: str) -> str:
        estimate = self.estimates.get((measure, block))
        return "" if estimate is None else with_error(estimate)

    def plot(self, other: SharpnessReport | None = None, *, labels: tuple[str, str] = ("a", "b")) -> NotebookFigure:
        """Plot all measures with two standard errors, of one network or of two beside each other.

        Measures of a spectrum have a panel each, with a row per block. Those of the whole network alone have different
        units: of one network they are shown on one logarithmic axis, of two as ratios, with both values as text.
        Values without a finite standard error are hollow; those that are NaN, or not positive where the axis is
        logarithmic, are left out.

        Args:
            other: The report of a second network.
            labels: Names of this network and of the other.

        Returns:
            The figure.

        Raises:
            TypeError: ``other`` is not a report, or ``labels`` are not two strings.
            ValueError: Both labels are the same.

        Example:
            >>> import torch
            >>> from torch import nn
            >>> from renyi_lab.sharpness import sharpness_report
            >>> data = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1)
            >>> report = sharpness_report(nn.Linear(2, 1), nn.MSELoss(), data)
            >>> report.plot().alt[:58]
            'Measures of sharpness of the whole network and of 2 blocks'
        """
        if other is not None and not isinstance(other, SharpnessReport):
            raise TypeError(
                f"other must be a SharpnessReport, got {type(other).__name__}; rl.compare(a, b, loss_fn, data) "
                "compares two models."
            )
        names = check_labels(labels)
        from renyi_lab.sharpness._report_plot import plot_reports  # matplotlib loads slowly

        return plot_reports([self.estimates] if other is None else [self.estimates, other.estimates], names)

    def note_lines(self) -> list[str]:
        """One line per different note, after the names of all rows that have it; the precision first."""
        rows: dict[str, list[str]] = {}
        for (measure, block), note in self.notes.items():
            rows.setdefault(note, []).append(measure if block == WHOLE else f"{measure}, {block}")
        lines = [f"{'; '.join(names)}: {note}" for note, names in rows.items()]
        legend = [ERRORS] if any(estimate.standard_error for estimate in self.estimates.values()) else []
        return [*([f"computed in {self.precision}"] if self.precision else []), *legend, *lines]

    def __repr__(self) -> str:
        columns = {block: [self._cell(measure, block) for measure in self.measures] for block in self.blocks}
        return "\n".join([lay_out(self.measures, columns, "measure"), *self.note_lines()])

    def _repr_html_(self) -> str:
        notes = "".join(f"<li>{html.escape(line)}</li>" for line in self.note_lines())
        return html_table(self.table(errors=True)) + (f"<ul>{notes}</ul>" if notes else "")
