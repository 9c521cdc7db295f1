"""What may be claimed on the strength of a check-up, and what not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from renyi_lab.checks._finding import PROBLEM, Finding
from renyi_lab.spectrum import Spectrum


def claims(findings: Sequence[Finding], spectrum: Spectrum | None) -> list[str]:
    """Sentences for the report, from the findings."""
    found = {finding.name: finding for finding in findings if not finding.is_ok}
    if spectrum is None or not np.any(spectrum.magnitudes) or any(f.status == PROBLEM for f in found.values()):
        return ["Nothing may be claimed about the spectrum before the problems are solved."]
    part = "of the trainable part of the network" if "frozen parameters" in found else "of the network"
    said = [f"The numbers are those of the loss Hessian {part}, on these data, at these weights."]
    if "gradient" in found or "negative curvature" in found:
        said.append("The point may not be called a minimum.")
    else:
        said.append(
            "The gradient is small, which does not make the point a minimum: training minimises another function where "
            "there is weight decay, and cross-entropy that is separated has no finite minimum."
        )
    if "loss" in found:
        said.append("Nothing may be claimed about trained networks: this one is no better than no model.")
    if "mode" in found or "repeatability" in found:
        said.append("The numbers are not those of the network that predicts; name the mode with them.")
    if {"twice the samples", "number of samples", "data", "data set"} & set(found):
        said.append("Nothing may be claimed about other data than these samples.")
    else:
        said.append("Differences between networks count from about two standard errors on, that of the data included.")
    if {"twice the steps", "rounding"} & set(found):
        said.append("Entropies may be quoted only with their standard errors, and not those that rounding hides.")
    if {"dead units", "unused parameters"} & set(found):
        said.append("Comparisons with networks of another size need care: a part of the parameters has no effect.")
    said.append("A flat spectrum is no evidence of good generalization by itself; compare networks of one family.")
    return said
