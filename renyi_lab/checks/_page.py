"""One self-contained HTML page about a check-up."""

from __future__ import annotations

import base64
import html
import io
import math
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template
from typing import Any, Protocol

import numpy as np
import torch

from renyi_lab._utils.validation import printed
from renyi_lab._utils.whole_file import whole_file
from renyi_lab._version import __version__
from renyi_lab.checks._claims import claims
from renyi_lab.checks._finding import Finding
from renyi_lab.checks._subject import Subject
from renyi_lab.operators import Cost
from renyi_lab.sharpness import SharpnessReport
from renyi_lab.spectrum import Spectrum

_TEMPLATE = Path(__file__).with_name("_page.html")
_LONGEST_NUMBER = 20  # characters that are not broken into two lines
_MOST_BLOCKS = 200  # rows of the table of parameters


class Result(Protocol):
    """The parts of a `Checkup` that the page shows."""

    @property
    def findings(self) -> list[Finding]: ...
    @property
    def troubles(self) -> list[Finding]: ...
    @property
    def subject(self) -> Subject: ...
    @property
    def spectrum(self) -> Spectrum | None: ...
    @property
    def cost(self) -> Cost | None: ...
    @property
    def data_errors(self) -> Any: ...


def page(result: Result, verdict: str, report: SharpnessReport | None, title: str | None, date: str | None) -> str:
    """The page as text."""
    title = title or f"Hessian spectrum of {result.subject}"
    passed = [finding for finding in result.findings if finding.is_ok]
    parts = {
        "title": html.escape(title),
        "verdict": html.escape(verdict),
        "summary": _table(["", ""], _summary(result), head=False),
        "troubles": findings_table(result.troubles) if result.troubles else "<p>Nothing.</p>",
        "passed": findings_table(passed),
        "claims": "".join(f"<li>{html.escape(claim)}</li>" for claim in claims(result.findings, result.spectrum)),
        "spectrum": _spectrum(result.spectrum),
        "entropies": _entropies(result.spectrum, result.data_errors),
        "measures": _measures(report),
        "blocks": _blocks(result.subject),
        "versions": html.escape(f"{date}. {_versions()}" if date else _versions()),
    }
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(parts)


def write_page(path: str | os.PathLike[str], text: str) -> Path:
    """Write the page whole or not at all.

    Raises:
        IsADirectoryError: ``path`` is a folder.
        FileNotFoundError: Its folder does not exist.
        OSError: The folder cannot be written to.
        TypeError: ``path`` is not a path.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f'path must be the name of a file, such as "report.html", got {printed(path)}.')
    target = Path(path)
    if os.path.isdir(target):
        raise IsADirectoryError(f"path={str(target)!r} is a folder; name a file in it, such as report.html.")
    if not os.path.isdir(target.parent):
        raise FileNotFoundError(f"the folder {str(target.parent)!r} of path={str(target)!r} does not exist; make it.")
    try:
        with whole_file(target) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise type(error)(
            f"the report cannot be written to {str(target)!r} ({reason}); choose another folder."
        ) from error
    return target


def findings_table(findings: Iterable[Finding]) -> str:
    """Findings as rows of a table; the status is a word, not a colour alone."""
    rows = "".join(
        f'<tr class="{finding.status}"><th scope="row">{html.escape(finding.name)}</th><td>{finding.status}</td>'
        f"<td>{html.escape(finding.message)}</td></tr>"
        for finding in findings
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("check", "status", "what was found"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _summary(result: Result) -> Sequence[Sequence[str]]:
    subject = result.subject
    frozen = f" and {subject.num_frozen:,} frozen" if subject.num_frozen else ""
    rows = [
        ("model", f"{subject.model}, {subject.num_parameters:,} trainable parameters{frozen}"),
        ("data", _counted(subject.num_samples, "sample") + " in " + _counted(subject.num_batches, "batch", "batches")),
        ("loss", f"{subject.loss_fn}: {_number(subject.loss)}"),
        ("mode", {"eval": "evaluation", "train": "training"}[subject.mode]),
        ("precision", subject.precision),
    ]
    if result.spectrum is not None:
        kind = "exact" if result.spectrum.is_exact else f"estimated from {result.spectrum.num_matvecs} products"
        rows.append(("spectrum", kind))
    if result.cost is not None:
        rows.append(("memory of a spectrum", repr(result.cost).rpartition("; ")[2]))
    return rows


def _spectrum(spectrum: Spectrum | None) -> str:
    if spectrum is None or not np.any(spectrum.magnitudes[spectrum.weights != 0]):
        return "<p>There is no spectrum to show; see the problems above.</p>"
    figure: Any = spectrum.plot()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    data, (width, height) = base64.b64encode(buffer.getvalue()).decode(), figure.get_size_inches() * 110
    trace = spectrum.trace
    values = [
        ("largest eigenvalue", _number(spectrum.max_eigenvalue)),
        ("smallest eigenvalue", _number(float(spectrum.nodes[0]))),
        ("trace", f"{_number(trace.value)} ± {trace.standard_error:.2g}"),
        ("share of tr |H| that is negative", f"{100 * spectrum.negative_fraction:.2g} %"),
    ]
    alt = html.escape(figure.alt, quote=True)
    image = f'<img src="data:image/png;base64,{data}" alt="{alt}" width="{width:.0f}" height="{height:.0f}">'
    return image + _table(["", ""], values, head=False)


def _entropies(spectrum: Spectrum | None, data_errors: Any) -> str:
    if spectrum is None or not np.any(spectrum.magnitudes[spectrum.weights != 0]):
        return "<p>There is no entropy of a spectrum that is zero or unknown.</p>"
    rows = []
    for alpha, row in spectrum.report().iterrows():
        data = data_errors.get(alpha, math.nan)
        total = math.hypot(row["standard_error"], 0.0 if math.isnan(data) else data)
        errors = (total, row["sampling_error"], row["truncation_error"], row["rounding_error"])
        rows.append([f"{alpha:g}", _number(row["entropy"]), *map(_error, errors), _rough(data), str(row["remark"])])
    columns = ["α", "H_α in nats", "standard error", "probes", "truncation", "rounding", "data", "remark"]
    return _table(columns, rows)


def _measures(report: SharpnessReport | None) -> str:
    if report is None:
        return ""
    rows = [
        (row.measure, row.block, _number(row.value), _error(row.standard_error))
        for row in report.to_frame().itertuples()
    ]
    notes = "".join(
        f"<li>{html.escape(f'{measure} of {block}: {note}')}</li>" for (measure, block), note in report.notes.items()
    )
    table = _table(["measure", "block", "value", "standard error"], rows)
    return f"<h2>Sharpness measures</h2>{table}{f'<ul>{notes}</ul>' if notes else ''}"


def _blocks(subject: Subject) -> str:
    rows = [
        (name, " × ".join(map(str, shape)) or "1", f"{math.prod(shape):,}")
        for name, shape in list(subject.blocks.items())[:_MOST_BLOCKS]
    ]
    more = len(subject.blocks) - len(rows)
    return _table(["parameter", "shape", "entries"], rows) + (f"<p>… and {more:,} more.</p>" if more else "")


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], head: bool = True) -> str:
    top = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in columns)
    body = "".join(
        f'<tr><th scope="row">{html.escape(first)}</th>{"".join(map(_cell, rest))}</tr>' for first, *rest in rows
    )
    return f"<table>{f'<thead><tr>{top}</tr></thead>' if head else ''}<tbody>{body}</tbody></table>"


def _cell(text: str) -> str:
    number = ' class="number"' if len(text) < _LONGEST_NUMBER else ""
    return f"<td{number}>{html.escape(text)}</td>"


def _counted(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _number(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.4g}"


def _rough(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.1g}"


def _error(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.2g}"


def _versions() -> str:
    packages = f"renyi_lab {__version__}, torch {torch.__version__}, NumPy {np.__version__}"
    return f"{packages}, Python {platform.python_version()}"
