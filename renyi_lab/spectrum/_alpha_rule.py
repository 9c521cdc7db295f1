"""Choosing α from the spectrum's shape alone, before any generalization gap is known.

The paper's rule (Zhang et al., arXiv:2510.07758 (2025)): beside the near-zero bulk, a spectrum with a middle group
clearly below its top group ("multi-cluster") gets α = 0.5, since for α > 1 the top would dominate the middle; one with
a few large values and no middle ("uniform") gets α = 1.5, since for α < 1 the bulk would dominate them. The paper's
rule is qualitative. Here groups are modes of the density of ``log10 |λ|``, separated by dips, as in the picture that
`Spectrum.plot` draws; `renyi_lab.spectrum._dips` says how deep a dip is.

*Error rates*, in percent of 20 to 60 random spectra. Called multi-cluster: power laws of exponent 0.5 to 3, alone
(1,000 values) or over zeros (100 values) 0, of 30 values over zeros 3; lognormal 0, over zeros 2; Laplace, normal,
Marchenko-Pastur, 5 to 20 outliers scattered over a bulk, and two groups 0. Doubtful are a flat density over zeros (50
values in three decades: 12), and 10 outliers scattered over a bulk that itself lies over zeros (17). Detected, of
three groups of normally distributed logarithms, the bulk of 2,000:

    top, middle    distance / standard deviation in decades
                   0.6/0.1   1/0.1   1.5/0.1   1/0.2   1.5/0.2   2/0.2   2/0.4
    3, 3              5       30       65       10       20       25       5
    3, 10             5       50       85       10       40       60      10
    5, 10            25       75      100       20       55       85      20
    10, 100          30      100      100       35       90      100      40
    50, 200         100      100      100       85      100      100      90
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from renyi_lab._utils.fields import check_fields
from renyi_lab._utils.typing import FloatArray
from renyi_lab.spectrum._dips import Dip, find_dips
from renyi_lab.spectrum._errors import Sampling
from renyi_lab.spectrum._rule import QuadratureRule
from renyi_lab.spectrum._spectrum import Spectrum, check_spectrum

ALPHA_MULTI_CLUSTER = 0.5
ALPHA_UNIFORM = 1.5
# A dip counts from this depth on.
LEAST_DEPTH = 1.5
# A second dip within this factor of LEAST_DEPTH, in either direction, makes the choice uncertain. Heuristic: below
# LEAST_DEPTH / 1.5 = 1 a dip may be noise.
UNCERTAIN = 1.5
# Heuristic: half the bandwidth of the plotted density.
BIN_DECADES = 0.05
# Smaller magnitudes count as near-zero. Heuristic: a few hundred products resolve little below.
NUM_DECADES = 4
# Nodes of two steps this close are one eigenvalue. Heuristic: about the error of a value that counts as converged.
SAME_DECADES = 1e-3

_EVIDENCE = ("num_top", "num_middle", "bulk_fraction", "depth", "second_depth")


@dataclass(frozen=True)
class AlphaChoice:
    """The order that the rule chooses, and its evidence; it prints as a sentence.

    Attributes:
        alpha: Chosen order, 0.5 or 1.5.
        profile: Shape of the spectrum, ``"multi-cluster"`` or ``"uniform"``.
        evidence: ``num_top`` and ``num_middle`` (numbers of eigenvalues in these groups; 0: there is no such group),
            ``bulk_fraction`` (share of all other eigenvalues), ``depth`` and ``second_depth`` (by what factor the
            density in the two deepest dips is lower than on both sides, less the noise of the counts; below 1 a dip may
            be noise; 0: there is none), ``position`` and ``second_position`` (their centres as ``log10(|λ|/max|λ|)``;
            missing if the depth is 0), ``margin`` (``second_depth`` minus 1.5: negative for ``"uniform"``).
        dips: Intervals ``(low, high)`` of ``|λ|`` that separate the groups, from the largest down: two for
            ``"multi-cluster"``, one or none for ``"uniform"``.
    """

    alpha: float
    profile: str
    evidence: dict[str, float]
    dips: tuple[tuple[float, float], ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        check_fields(self)
        if missing := [name for name in _EVIDENCE if name not in self.evidence]:
            raise ValueError(f"evidence must hold {', '.join(_EVIDENCE)}; it lacks {', '.join(missing)}.")

    @property
    def is_uncertain(self) -> bool:
        """Whether ``second_depth`` is between 1 and 2.25: within a factor 1.5 of the threshold."""
        return LEAST_DEPTH / UNCERTAIN <= self.evidence["second_depth"] <= LEAST_DEPTH * UNCERTAIN

    def __repr__(self) -> str:
        doubt = f" Uncertain: the depth of the second dip is near {LEAST_DEPTH}." if self.is_uncertain else ""
        return f"α = {self.alpha}: {self.profile} profile ({self._reason()}).{doubt}"

    def _reason(self) -> str:
        seen, dips = self.evidence, "in the density of log10|λ|"
        depth, second = (f"{min(seen[name], 1000):.2g}" for name in ("depth", "second_depth"))
        where = " and ".join(f"{low**0.5 * high**0.5:.2g}" for low, high in self.dips)
        if len(self.dips) == 2:
            return (
                f"two dips {dips}, at |λ| = {where}, at least {second} times lower than the groups beside them: "
                f"{seen['num_top']:.0f} top and {seen['num_middle']:.0f} middle eigenvalues above the bulk"
            )
        deepest = seen["second_depth" if self.dips else "depth"]
        rest = f"no {'second dip' if self.dips else 'dip'} {dips} "
        if deepest < 1:
            rest += "stands out from the noise of the counts"
        else:
            rest += f"is deeper than a factor {LEAST_DEPTH}; the deepest one has {deepest:.2g}"
        if self.dips:
            return (
                f"one dip, at |λ| = {where}, at least {depth} times lower than the groups beside it: "
                f"{seen['num_top']:.0f} top eigenvalues above the bulk; {rest}"
            )
        return rest


def choose_alpha(spectrum: Spectrum) -> AlphaChoice:
    """Apply the paper's rule to a spectrum: 0.5 for a multi-cluster profile, 1.5 for a uniform one.

    A dip in the density of ``log10 |λ|`` separates two groups of three or more eigenvalues if the density in it is
    lower than in both by a factor 1.5, after the noise of the counts is allowed for. The lowest group is the near-zero
    bulk and holds at least half of the eigenvalues; zeros, and whatever is below 1e-4 of the largest, belong to it.
    With a top *and* a middle above it the profile is multi-cluster. In an estimated spectrum, nodes that stand for many
    eigenvalues at once show no dips.

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
    largest = float(check_spectrum(spectrum).magnitudes.max())
    if largest == 0:
        raise ValueError("the spectrum is all zero, so no order can be chosen from its shape.")
    # With weights of both signs, nodes do not stand for numbers of eigenvalues: then the last rule alone.
    rule = spectrum if spectrum.weights.min() >= 0 else spectrum.last_rule
    decades, weights = _decades(rule, largest), rule.weights
    per_node = 1.0 if spectrum.sampling is None else _per_node(spectrum.sampling, decades, largest)
    counts = _histogram(decades, weights)
    single, pair = find_dips(counts, _histogram(decades, weights * per_node))
    deeper, shallower = sorted(pair, key=lambda dip: -dip.depth)
    multi = shallower.depth >= LEAST_DEPTH
    dips = pair if multi else (single,) if single.depth >= LEAST_DEPTH else ()
    first = deeper if multi else single
    top, middle, bulk = _group_sizes(counts, dips)
    evidence = {
        "num_top": top,
        "num_middle": middle,
        "bulk_fraction": bulk / spectrum.dim,
        "depth": first.depth,
        "second_depth": shallower.depth,
        **_positions(position=first, second_position=shallower),
        "margin": shallower.depth - LEAST_DEPTH,
    }
    alpha, profile = (ALPHA_MULTI_CLUSTER, "multi-cluster") if multi else (ALPHA_UNIFORM, "uniform")
    edges = largest * 10.0 ** (-BIN_DECADES * np.arange(len(counts) + 1))
    intervals = tuple((float(edges[dip.end]), float(edges[dip.start])) for dip in dips)
    return AlphaChoice(alpha, profile, evidence, dips=intervals)


def _decades(rule: QuadratureRule, largest: float) -> FloatArray:
    """How many decades each node is below the largest eigenvalue."""
    return np.asarray(-np.log10(np.clip(rule.magnitudes / largest, 10.0**-NUM_DECADES, 1.0)))


def _histogram(decades: FloatArray, weights: FloatArray) -> FloatArray:
    """Weight per bin, from the largest eigenvalue down to the near-zero ones in the last bin."""
    # The shift keeps values on the edge of a bin, such as 0.1 of the largest, on one side whatever the rounding.
    bins = np.floor(decades / BIN_DECADES + 1e-6).astype(np.intp)
    return np.asarray(np.bincount(bins, weights, round(NUM_DECADES / BIN_DECADES) + 1), dtype=np.float64)


def _per_node(sampling: Sampling, decades: FloatArray, largest: float) -> FloatArray:
    """How many eigenvalues one node stands for around each of ``decades``; 1 where nodes are eigenvalues.

    A node that was there after half the steps is an eigenvalue, once or repeated. Others move from step to step.
    """
    last, half = _decades(sampling.last, largest), np.sort(_decades(sampling.half, largest))
    after = np.searchsorted(half, last).clip(1, len(half) - 1)
    moved = np.minimum(np.abs(half[after] - last), np.abs(half[after - 1] - last))
    sizes = np.where(moved < SAME_DECADES, 1.0, np.maximum(sampling.last.weights, 1.0))
    order = np.argsort(last)
    return np.interp(decades, last[order], sizes[order])


def _group_sizes(counts: FloatArray, dips: tuple[Dip, ...]) -> tuple[float, float, float]:
    """Number of eigenvalues in the top, the middle and the bulk, which meet in the centres of the dips."""
    bounds = [0, *((dip.start + dip.end) // 2 for dip in dips), len(counts)]
    sizes = [float(counts[start:end].sum()) for start, end in pairwise(bounds)]
    top, middle = (*sizes[:-1], 0.0, 0.0)[:2]
    return top, middle, sizes[-1]


def _positions(**dips: Dip) -> dict[str, float]:
    return {name: -BIN_DECADES * (dip.start + dip.end) / 2 for name, dip in dips.items() if dip.depth > 0}
