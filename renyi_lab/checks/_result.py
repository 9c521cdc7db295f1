"""The result of a check-up."""

from __future__ import annotations

import html
import os
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from renyi_lab._utils.fields import check_fields
from renyi_lab._utils.validation import printed, shown
from renyi_lab.checks._finding import OK, PROBLEM, Finding
from renyi_lab.checks._page import findings_table, page, write_page
from renyi_lab.checks._subject import Subject
from renyi_lab.operators import Cost
from renyi_lab.sharpness import SharpnessReport
from renyi_lab.spectrum import Spectrum


@dataclass(frozen=True, repr=False, eq=False)
class Checkup:
    """What `checkup` found; it prints what is trustworthy and what is not.

    Attributes:
        findings: One `Finding` per check, in the order of the checks.
        subject: What was checked: model, data, loss and precision.
        spectrum: The spectrum; ``None`` where a problem made it impossible.
        cost: What a spectrum with as many products costs; ``None`` likewise.
        data_errors: Standard error of the entropy by order that comes from the sample, roughly: from half of the
            difference between two halves of the data, and the change from half of the data to all. Empty where these
            cannot be taken apart.
    """

    findings: list[Finding]
    subject: Subject
    spectrum: Spectrum | None = None
    cost: Cost | None = None
    data_errors: Mapping[float, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def trustworthy(self) -> bool:
        """Whether no check found anything: no warning and no problem."""
        return all(finding.is_ok for finding in self.findings)

    @property
    def troubles(self) -> list[Finding]:
        """The findings that are not ``"ok"``, problems first."""
        return sorted((f for f in self.findings if not f.is_ok), key=lambda finding: finding.status != PROBLEM)

    def _verdict(self) -> str:
        if self.trustworthy:
            return f"nothing found in {len(self.findings)} checks"
        problems = sum(finding.status == PROBLEM for finding in self.findings)
        warned = len(self.troubles) - problems
        counted = [f"{n} {noun}{'s' if n > 1 else ''}" for n, noun in ((problems, "problem"), (warned, "warning")) if n]
        return f"{' and '.join(counted)} in {len(self.findings)} checks"

    def __repr__(self) -> str:
        lines = [f"Checkup of {self.subject}: {self._verdict()}"]
        width = max((len(finding.name) for finding in self.findings), default=0)
        passed = [finding for finding in self.findings if finding.status == OK]
        for title, group in (("Not trustworthy", self.troubles), ("Trustworthy", passed)):
            if group:
                lines.append(f"{title}:")
            for finding in group:
                label = "" if finding.is_ok else f"{finding.status}: "
                text = f"  {finding.name:<{width}}  {label}{finding.message}"
                lines += textwrap.wrap(text, 110, subsequent_indent=" " * (width + 4), drop_whitespace=True)
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(f'Checkup of {self.subject}: {self._verdict()}')}</p>{findings_table(self.findings)}"

    def to_html(
        self,
        path: str | os.PathLike[str],
        *,
        report: SharpnessReport | None = None,
        title: str | None = None,
        date: str | None = None,
    ) -> Path:
        """Write one self-contained HTML page to hand on: findings, spectrum, entropies with their errors, versions.

        It holds its picture, loads nothing from a network, runs no script, and is the same each time it is written.

        Args:
            path: File to write, such as ``"report.html"``; replaced if it exists, written whole or not at all.
            report: Result of `sharpness_report` for the same parameters, for a table of its measures.
            title: Title of the page. ``None``: model, parameters and samples.
            date: A date to show, such as ``str(datetime.date.today())``. ``None``: no date.

        Returns:
            The path.

        Raises:
            OSError: The folder does not exist or cannot be written to, or ``path`` is a folder.
            TypeError: ``path`` is not a path, ``report`` not a report, or ``title`` or ``date`` not text.
            ValueError: ``report`` is of a network of another size.
        """
        self._check_report(report)
        if title is not None and not isinstance(title, str):
            raise TypeError(f"title must be text or None, got {printed(title)}.")
        if date is not None and not isinstance(date, str):
            raise TypeError(f"date must be text such as str(datetime.date.today()), or None; got {shown(date)}.")
        return write_page(path, page(self, self._verdict(), report, title, date))

    def _check_report(self, report: SharpnessReport | None) -> None:
        if report is None:
            return
        if not isinstance(report, SharpnessReport):
            raise TypeError(f"report must be the result of sharpness_report, got {type(report).__name__}.")
        sizes = {spectrum.dim for block, spectrum in report.spectra.items() if block == "whole"}
        if sizes - {self.subject.num_parameters}:
            raise ValueError(
                f"report is of a network of {sizes.pop():,} parameters, the check-up of one of "
                f"{self.subject.num_parameters:,}; pass the report of the same network."
            )
