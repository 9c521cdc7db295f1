"""Choosing α from the spectrum's shape alone, before any generalization gap is seen.

The paper's rule (Zhang et al., arXiv:2510.07758): beside the near-zero bulk, a spectrum with a middle group clearly
below its top group ("multi-cluster") gets α = 0.5, since α > 1 would let the top swallow the middle; one with a few
large values and no middle ("uniform") gets α = 1.5, since α < 1 would smear the few that matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from renyi_lab.spectrum import FloatArray, Spectrum

# Magnitudes below this share of the largest count as the near-zero bulk. Our choice: two decades.
BULK_EDGE = 0.01
# Groups are apart when a gap of a factor 2 lies between them. Our choice; the gap itself is part of the evidence.
SEPARATION_DECADES = 0.3
ALPHA_MULTI_CLUSTER = 0.5
ALPHA_UNIFORM = 1.5


@dataclass(frozen=True)
class AlphaChoice:
    """The order that the rule chooses, and what it saw.

    Attributes:
        alpha: 0.5 or 1.5.
        profile: ``"multi-cluster"`` or ``"uniform"``.
        evidence: ``bulk_fraction`` (share of eigenvalues in the near-zero bulk), ``num_top`` and ``num_middle``
            (eigenvalues above and below the widest gap outside the bulk), ``gap_decades`` (that gap, in ``log10 |λ|``).
    """

    alpha: float
    profile: str
    evidence: dict[str, float]

    def __repr__(self) -> str:
        seen = ", ".join(f"{name}={value:.3g}" for name, value in self.evidence.items())
        return f"AlphaChoice(alpha={self.alpha}, profile={self.profile!r}, {seen})"


def choose_alpha(spectrum: Spectrum) -> AlphaChoice:
    """Apply the paper's rule to a spectrum: 0.5 for a multi-cluster profile, 1.5 for a uniform one.

    Outside the near-zero bulk (``|λ| ≥ 0.01·max|λ|``) the widest gap in ``log10 |λ|`` that leaves at least two
    eigenvalues on either side splits a top from a middle group; from 0.3 decades on they count as clusters.

    Raises:
        ValueError: The spectrum is all zero.

    Example:
        >>> choose_alpha(Spectrum.from_eigenvalues([10.0, 9.0, 8.0] + [0.5, 0.4, 0.3] + [1e-3] * 100)).alpha
        0.5
        >>> choose_alpha(Spectrum.from_eigenvalues([10.0, 9.0, 8.0, 7.0] + [1e-3] * 100)).alpha
        1.5
    """
    magnitudes, weights = _above_bulk(spectrum.last_rule)
    # A node is one eigenvalue or more; a quadrature node that stands for less than half of one is no evidence of any.
    logs = np.log10(magnitudes[weights >= 0.5])
    counts = weights[weights >= 0.5]
    gap, split = _widest_gap(logs, counts)
    multi_cluster = gap >= SEPARATION_DECADES
    middle = float(counts[:split].sum()) if multi_cluster else 0.0
    evidence = {
        "bulk_fraction": 1 - float(weights.sum()) / spectrum.dim,
        "num_top": float(counts.sum()) - middle,
        "num_middle": middle,
        "gap_decades": gap,
    }
    if multi_cluster:
        return AlphaChoice(ALPHA_MULTI_CLUSTER, "multi-cluster", evidence)
    return AlphaChoice(ALPHA_UNIFORM, "uniform", evidence)


def _above_bulk(spectrum: Spectrum) -> tuple[FloatArray, FloatArray]:
    magnitudes = spectrum.magnitudes
    largest = magnitudes.max()
    if largest == 0:
        raise ValueError("the spectrum is all zero, so no order can be chosen from its shape.")
    order = np.argsort(magnitudes)
    order = order[magnitudes[order] >= BULK_EDGE * largest]
    return magnitudes[order], spectrum.weights[order]


def _widest_gap(logs: FloatArray, counts: FloatArray) -> tuple[float, int]:
    """Widest gap between neighbours with at least two eigenvalues on either side, and the index above it."""
    below = np.cumsum(counts)[:-1]
    allowed = (below >= 2) & (counts.sum() - below >= 2)
    if not allowed.any():
        return 0.0, 0
    gaps = np.where(allowed, np.diff(logs), -np.inf)
    split = int(np.argmax(gaps)) + 1
    return float(gaps[split - 1]), split
