"""Choosing α from the spectrum's shape alone, before any generalization gap is known.

The paper's rule (Zhang et al., arXiv:2510.07758 (2025)): beside the near-zero bulk, a spectrum with a middle group
clearly below its top group ("multi-cluster") gets α = 0.5, since for α > 1 the top would dominate the middle; one with
a few large values and no middle ("uniform") gets α = 1.5, since for α < 1 the bulk would dominate them. The paper's
rule is qualitative; here groups are defined as separated by gaps in ``log10 |λ|``, and the lowest group is the bulk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from renyi_lab._utils.typing import FloatArray
from renyi_lab.spectrum._rule import QuadratureRule
from renyi_lab.spectrum._spectrum import Spectrum, check_spectrum

ALPHA_MULTI_CLUSTER = 0.5
ALPHA_UNIFORM = 1.5
# A gap must span a factor 2. Heuristic: less is not "clearly below"; the margin to it is part of the evidence.
SEPARATION_DECADES = 0.3
# In a power law the k-th spacing of the logarithms, times k, is exponential with one mean for every k (Rényi 1953).
# A gap must exceed that mean among its neighbours by this factor. Heuristic: random power laws over a bulk of zeros,
# whose first values are often a factor 2 apart, are then classified as multi-cluster in 3 % of cases, synthetic
# clusters a factor 4 apart in all.
CONTRAST = 6.0
# Weights below this do not count as an eigenvalue: what an estimate may leave inside a gap.
_NEGLIGIBLE_WEIGHT = 0.5
# One eigenvalue is not a group.
SMALLEST_GROUP = 2
# Magnitudes are clipped this many decades below the largest. Heuristic: a few hundred products resolve little below.
DEPTH_DECADES = 4.0
# At half the steps a gap's ends may be this much (in decades) further inside, and this share of the eigenvalues above
# it may be within it. Heuristic: little compared with a gap that counts; an artificial gap between two nodes of too
# short a run contains more.
_EDGE = 0.02
_UNSURE_SHARE = 0.05


@dataclass(frozen=True)
class AlphaChoice:
    """The order that the rule chooses, and its evidence.

    Attributes:
        alpha: Chosen order, 0.5 or 1.5.
        profile: Shape of the spectrum, ``"multi-cluster"`` or ``"uniform"``.
        evidence: ``num_top`` and ``num_middle`` (numbers of eigenvalues in these groups; 0: there is no such group),
            ``bulk_fraction`` (share of all other eigenvalues), ``gap`` and ``second_gap`` (the two widest significant
            gaps, in decades; the second is searched for only if the first is at least 0.3), ``margin`` (``second_gap``
            minus 0.3: negative for ``"uniform"``, and near 0 where the choice is uncertain).
    """

    alpha: float
    profile: str
    evidence: dict[str, float]

    def __repr__(self) -> str:
        evidence = ", ".join(f"{name}={value:.3g}" for name, value in self.evidence.items())
        return f"AlphaChoice(alpha={self.alpha}, profile={self.profile!r}, {evidence})"


def choose_alpha(spectrum: Spectrum) -> AlphaChoice:
    """Apply the paper's rule to a spectrum: 0.5 for a multi-cluster profile, 1.5 for a uniform one.

    A gap in ``log10 |λ|`` is significant when it exceeds the spacings around it and leaves groups of two or more. The
    widest one, and then the widest on either side of it, separate groups if they span 0.3 decades. The lowest group
    is the near-zero bulk and holds at least half of the eigenvalues; with a top *and* a middle above it the profile is
    multi-cluster. A middle without a gap to the bulk counts as bulk. In an estimated spectrum a gap must be present
    at half the steps already.

    Args:
        spectrum: An exact or estimated spectrum.

    Raises:
        TypeError: ``spectrum`` is not a `Spectrum`.
        ValueError: The spectrum is all zero.

    Source: Zhang et al., arXiv:2510.07758 (2025).

    Example:
        >>> choose_alpha(Spectrum.from_eigenvalues([10.0, 9.0, 8.0] + [0.5, 0.4, 0.3] + [1e-3] * 100)).alpha
        0.5
        >>> choose_alpha(Spectrum.from_eigenvalues([10.0, 9.0, 8.0, 7.0] + [1e-3] * 100)).alpha
        1.5
    """
    largest = check_spectrum(spectrum).magnitudes.max()
    if largest == 0:
        raise ValueError("the spectrum is all zero, so no order can be chosen from its shape.")
    # With weights of both signs, nodes do not stand for numbers of eigenvalues: then the last rule alone.
    logs, counts = _descending(spectrum if spectrum.weights.min() >= 0 else spectrum.last_rule, largest)
    earlier = _descending(spectrum.sampling.half, largest) if spectrum.sampling else None
    half = counts.sum() / 2
    gap, last, cut = _widest_gap(logs, counts, half, earlier)
    second_gap, top, end = 0.0, cut, cut
    if gap >= SEPARATION_DECADES:
        upper_gap, _, upper_cut = _widest_gap(logs[: last + 1], counts[: last + 1], half, earlier)
        lower_gap, _, lower_cut = _widest_gap(logs[cut:], counts[cut:], half - counts[:cut].sum(), earlier)
        second_gap = max(upper_gap, lower_gap)
        if second_gap >= SEPARATION_DECADES:
            top, end = (upper_cut, cut) if upper_gap > lower_gap else (cut, cut + lower_cut)
    else:
        top = end = 0
    evidence = {
        "num_top": float(counts[:top].sum()),
        "num_middle": float(counts[top:end].sum()),
        "bulk_fraction": float(counts[end:].sum()) / spectrum.dim,
        "gap": gap,
        "second_gap": second_gap,
        "margin": second_gap - SEPARATION_DECADES,
    }
    if end > top:
        return AlphaChoice(ALPHA_MULTI_CLUSTER, "multi-cluster", evidence)
    return AlphaChoice(ALPHA_UNIFORM, "uniform", evidence)


def _descending(rule: QuadratureRule, largest: float) -> tuple[FloatArray, FloatArray]:
    """``log10(|λ|/largest)`` in descending order, and how many eigenvalues each represents."""
    order = np.argsort(-rule.magnitudes, kind="stable")
    return np.log10(np.maximum(rule.magnitudes[order] / largest, 10**-DEPTH_DECADES)), rule.weights[order]


def _widest_gap(
    logs: FloatArray, counts: FloatArray, max_size: float, earlier: tuple[FloatArray, FloatArray] | None
) -> tuple[float, int, int]:
    """Widest significant gap with at most ``max_size`` eigenvalues above it, and the indices at its two ends."""
    above = np.cumsum(counts)
    below = np.searchsorted(above, above + _NEGLIGIBLE_WEIGHT)
    size = SMALLEST_GROUP - _NEGLIGIBLE_WEIGHT
    allowed = (above >= size) & (above <= np.minimum(max_size + 1e-9, above[-1] - size)) & (below < len(logs))
    if not allowed.any():
        return 0.0, 0, 0
    k, below, upper = above[allowed], below[allowed], logs[allowed]
    lower = logs[below]
    # Σ j·spacing_j over the ranks j < r is the sum of the logarithms' excess over the r-th: up to k ranks on either
    # side of the gap give the usual spacing there.
    rank = np.minimum(2 * k + 1, above[-1])
    last = np.maximum(np.minimum(np.searchsorted(above, rank - 1e-6), len(logs) - 1), below)
    excess = np.cumsum(counts * logs)[last] - above[last] * logs[last]
    gaps = upper - lower
    significant = k * gaps * (rank - 2) >= CONTRAST * np.maximum(excess - k * gaps, 0)
    if earlier is not None:
        inside = _count_above(*earlier, lower + _EDGE) - _count_above(*earlier, upper - _EDGE)
        significant &= inside <= np.maximum(_NEGLIGIBLE_WEIGHT, _UNSURE_SHARE * k)
    gaps = np.where(significant, gaps, 0.0)
    widest = int(np.argmax(gaps))
    return float(gaps[widest]), int(np.flatnonzero(allowed)[widest]), int(below[widest])


def _count_above(logs: FloatArray, counts: FloatArray, levels: FloatArray) -> FloatArray:
    return np.concatenate([[0.0], np.cumsum(counts)])[np.searchsorted(-logs, -levels)]
