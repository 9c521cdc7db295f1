"""Two networks through all measures, on the same data."""

from __future__ import annotations

import html
import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from renyi_lab._utils.batches import freeze_batches
from renyi_lab._utils.estimate import Estimate
from renyi_lab.operators import HessianOperator
from renyi_lab.sharpness._report import sharpness_report
from renyi_lab.sharpness._result import Row, SharpnessReport
from renyi_lab.sharpness._text import check_labels, html_table, lay_out, with_error

if TYPE_CHECKING:
    import pandas as pd

    from renyi_lab._utils.figure import NotebookFigure


@dataclass(frozen=True, repr=False, eq=False)
class Comparison:
    """Two reports and the differences of their measures; ``comparison["trace"]`` is b's trace minus a's.

    The standard error of a difference, ``√(se_a² + se_b²)``, is that of independent estimates. Errors of two networks
    measured with the same probes are often positively correlated, and the true error is then smaller. It covers the
    measurement on the given data: not other samples, nor other trainings of the same kind.

    Attributes:
        a: The first network's report.
        b: The second network's report.
        labels: Names of the two networks.

    Raises:
        TypeError: ``a`` or ``b`` is not a report, or ``labels`` are not two strings.
        ValueError: Both labels are the same.
    """

    a: SharpnessReport
    b: SharpnessReport
    labels: tuple[str, str] = ("a", "b")

    def __post_init__(self) -> None:
        for name, report in (("a", self.a), ("b", self.b)):
            if not isinstance(report, SharpnessReport):
                raise TypeError(
                    f"{name} must be a SharpnessReport, got {type(report).__name__}; rl.compare(a, b, loss_fn, data) "
                    f"compares two models."
                )
        check_labels(self.labels)

    @property
    def rows(self) -> tuple[Row, ...]:
        """Pairs ``(measure, block)`` that both reports have."""
        return tuple(row for row in self.a.estimates if row in self.b.estimates)

    def __getitem__(self, key: str | Row) -> Estimate:
        """``comparison["trace"]``: b's value minus a's; ``comparison["trace", "layer1.weight"]`` that of a block."""
        first, second = self.a[key], self.b[key]
        if first is second and math.isfinite(first.value):
            return Estimate(0.0)
        pairs = zip(_errors(first), _errors(second), strict=True)
        standard, truncation, rounding = (math.hypot(x, y) for x, y in pairs)
        spent = first.num_matvecs + second.num_matvecs
        return Estimate(second.value - first.value, standard, spent, truncation, rounding)

    def to_frame(self) -> pd.DataFrame:
        """One row per measure and block.

        Returns:
            Columns ``measure``, ``block``, ``value_a``, ``value_b``, ``difference`` (b minus a) and ``standard_error``
            (of the difference).
        """
        import pandas as pd

        rows = []
        for row in self.rows:
            difference = self[row]
            values = self.a[row].value, self.b[row].value, difference.value, difference.standard_error
            rows.append((*row, *values))
        columns = ["measure", "block", "value_a", "value_b", "difference", "standard_error"]
        return pd.DataFrame(rows, columns=columns)

    def plot(self) -> NotebookFigure:
        """Plot both networks' measures beside each other, as `SharpnessReport.plot` does."""
        return self.a.plot(self.b, labels=self.labels)

    @property
    def notes(self) -> list[str]:
        """What limits the comparison, and the notes of both reports."""
        (first, second), lines = self.labels, []
        for label, here, there in ((first, self.a, self.b), (second, self.b, self.a)):
            if alone := [block for block in here.blocks if block not in there.blocks]:
                lines.append(f"left out, since only {label} has them: {', '.join(alone)}")
        shared = [block for block in self.a.spectra if block in self.b.spectra]
        sizes = {block: (self.a.spectra[block].dim, self.b.spectra[block].dim) for block in shared}
        if different := [f"{block} {m} and {n}" for block, (m, n) in sizes.items() if m != n]:
            lines.append(f"different numbers of parameters: {', '.join(different)}")
        notes_a, notes_b = self.a.note_lines(), self.b.note_lines()
        lines += [note for note in notes_a if note in notes_b]
        lines += [f"{first}: {note}" for note in notes_a if note not in notes_b]
        return lines + [f"{second}: {note}" for note in notes_b if note not in notes_a]

    def _cells(self, row: Row) -> tuple[str, str, str]:
        return with_error(self.a[row]), with_error(self.b[row]), with_error(self[row], signed=True)

    def _headings(self) -> tuple[str, str, str]:
        first, second = self.labels
        return first, second, f"{second} − {first}"

    def __repr__(self) -> str:
        names, cells = [], []
        for block in dict.fromkeys(block for _, block in self.rows):
            names.append(block)
            cells.append(("", "", ""))
            for row in self.rows:
                if row[1] == block:
                    names.append(f"  {row[0]}")
                    cells.append(self._cells(row))
        columns = dict(zip(self._headings(), zip(*cells, strict=True), strict=True)) if cells else {}
        return "\n".join([lay_out(names, columns), *self.notes])

    def _repr_html_(self) -> str:
        import pandas as pd

        index = pd.MultiIndex.from_tuples(
            [(block, measure) for measure, block in self.rows], names=["block", "measure"]
        )
        table = pd.DataFrame([self._cells(row) for row in self.rows], index=index, columns=list(self._headings()))
        notes = "".join(f"<li>{html.escape(line)}</li>" for line in self.notes)
        return html_table(table) + (f"<ul>{notes}</ul>" if notes else "")


def _errors(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.standard_error, estimate.truncation_error, estimate.rounding_error


def compare(
    a: nn.Module,
    b: nn.Module,
    loss_fn: Callable[..., Tensor],
    data: Any,
    *,
    labels: tuple[str, str] = ("a", "b"),
    **options: Any,
) -> Comparison:
    """Compute the `sharpness_report` of two networks on the same data, and the differences of all measures.

    Both networks see the same batches, frozen once, the same random subsets of samples and the same random numbers.
    They may be of different architectures: blocks are compared where both networks have one of that name. Both models
    are left unchanged.

    Args:
        a: The first network, measured in evaluation mode.
        b: The second network. The same object as ``a`` gives differences of exactly 0.
        loss_fn: As for `sharpness_report`, the same for both networks.
        data: As for `sharpness_report`; a loader that shuffles is read once.
        labels: Names of the networks in tables, figures and messages.
        **options: Keyword arguments of `sharpness_report`, the same for both networks.

    Returns:
        A `Comparison`.

    Raises:
        TypeError: ``a`` or ``b`` is not a model, ``labels`` are not two strings, or an option is unknown.
        ValueError: As for `sharpness_report`; the message names the network. Both labels are the same.

    Example:
        >>> import torch
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> a, b = nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)
        >>> with torch.no_grad():
        ...     _ = a.weight.fill_(1.0), b.weight.fill_(3.0)
        >>> comparison = compare(a, b, nn.MSELoss(), (x, torch.zeros(2, 1)))
        >>> comparison["trace"].value, round(comparison["parameter_norm"].value, 4)
        (0.0, 2.8284)
    """
    names = check_labels(labels)
    _check_model("a", a)
    _check_model("b", b)
    if unknown := sorted(options.keys() - _option_names()):
        raise TypeError(f"compare has no option {unknown[0]!r}; options: {', '.join(sorted(_option_names()))}.")
    batches = [batch.content for batch in freeze_batches(data, torch.device("cpu"))]
    networks = [(names[0], a), (names[1], b)][: 1 if a is b else 2]
    for name, model in networks:  # both before the long computations
        with _naming(name):
            masses = options.get("reduction"), options.get("batch_mass")
            HessianOperator(model, loss_fn, iter(batches), reduction=masses[0], batch_mass=masses[1])
    reports = []
    for name, model in networks:
        with _naming(name):
            reports.append(sharpness_report(model, loss_fn, iter(batches), **options))
    return Comparison(reports[0], reports[-1], names)


def _option_names() -> set[str]:
    parameters = inspect.signature(sharpness_report).parameters.values()
    return {parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY}


def _check_model(name: str, model: Any) -> None:
    if isinstance(model, SharpnessReport):
        raise TypeError(
            f"{name} must be a torch.nn.Module, got a SharpnessReport; rl.sharpness.Comparison(report_a, report_b) "
            f"compares two reports."
        )
    if not isinstance(model, nn.Module):
        raise TypeError(f"{name} must be a torch.nn.Module, got {type(model).__name__}.")


@contextmanager
def _naming(label: str) -> Iterator[None]:
    """Say in an error's message which network it is about."""
    try:
        yield
    except (TypeError, ValueError, RuntimeError) as error:
        kind = next(kind for kind in (TypeError, ValueError, RuntimeError) if isinstance(error, kind))
        raise kind(f"model {label!r}: {error}") from error
