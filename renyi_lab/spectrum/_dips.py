r"""Dips of a histogram between two groups, and how deep they are beyond the noise of the counts.

Let ``m`` eigenvalues lie in an interval of ``d`` bins, and ``k`` in an adjacent one, the group, of ``g`` bins. If the
density of the group were ``r`` times that of the interval, each of the ``k + m`` eigenvalues would lie in the group
with probability ``q = r g / (r g + d)``. The depth is the smallest ``r`` that the counts do not contradict at the level
``p``, in closed form

    q = I⁻¹(p; k, m + 1) ,      r = q/(1−q) · d/g

with the inverse ``I⁻¹`` of the regularized incomplete beta function: the ratio of the two densities, less the noise of
the counts. A dip is as deep as on its shallower side.

In an estimate a node of weight ``w`` stands for ``w`` eigenvalues, but is one observation. There ``k`` and ``m`` are
divided by the ratio of variance to count in the group, as for counts that are overdispersed.

Source: Clopper & Pearson, Biometrika 26 (1934), the confidence limit ``q`` of a binomial probability.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from renyi_lab._utils.typing import FloatArray

# With the least depth of `renyi_lab.spectrum._alpha_rule`, calibrated on the families of its test.
LEVEL = 0.02
# Sizes in bins. Heuristic: a density smoothed by 0.1 decades shows no smaller group or dip.
SMALLEST_GROUP_BINS, LARGEST_GROUP_BINS, SMALLEST_DIP_BINS = 2, 20, 4
# Two eigenvalues are not a group. Half of one is allowed for, since nodes of an estimate have fractional weights.
SMALLEST_GROUP = 2.5


@dataclass(frozen=True)
class Dip:
    """The bins ``start`` to ``end - 1`` of a histogram, and the factor by which the density is lower there."""

    depth: float
    start: int
    end: int


def find_dips(counts: FloatArray, variances: FloatArray) -> tuple[Dip, tuple[Dip, Dip]]:
    """The deepest dip, and the two dips that are deepest together; of depth 0 where there are none.

    The last group, below the last dip, holds at least half of the counts.

    Args:
        counts: Number of eigenvalues per bin, ``(num_bins,)``.
        variances: Variances of these numbers, ``(num_bins,)``: ``counts`` themselves if the spectrum is exact.

    Returns:
        The dip, and a pair of which the first has the smaller bins. Between the two dips of the pair lies a group.
    """
    # [start of the group, start of the dip, end of the dip], and [start of the dip, end of the dip, end of the group]
    before = _depths(counts, variances)
    after = _depths(counts[::-1], variances[::-1])[::-1, ::-1, ::-1].transpose(2, 1, 0)
    above = _cumulative(counts)
    starts_last = above <= above[-1] / 2 + 1e-9
    highest, lowest = before.max(axis=0), after.max(axis=2)
    single = np.where(starts_last, np.minimum(highest, lowest), 0.0)
    start, end = np.unravel_index(single.argmax(), single.shape)
    # With a middle group inside [b, c]: the first dip ends at b and starts anywhere; the second one starts at c.
    first = np.minimum(highest[:, :, None], np.maximum.accumulate(after, axis=2))
    second = np.minimum(np.maximum.accumulate(before[::-1], axis=0)[::-1], single)
    upper, lower = first.max(axis=0), second.max(axis=2)
    both = np.minimum(upper, lower)
    # Among the pairs whose shallower dip is the deepest, that with the deeper other one.
    b, c = np.unravel_index(np.where(both >= both.max(), upper + lower, -1.0).argmax(), both.shape)
    return Dip(float(single.max()), int(start), int(end)), (
        Dip(float(upper[b, c]), int(first[:, b, c].argmax()), int(b)),
        Dip(float(lower[b, c]), int(c), int(second[b, c].argmax())),
    )


def _depths(counts: FloatArray, variances: FloatArray) -> FloatArray:
    """Depth below the group before it, for each [start of the group, start of the dip, end of the dip]."""
    from scipy.special import betaincinv  # slow to import

    group, start, end = _windows(len(counts))
    above, total = _cumulative(counts), _cumulative(variances)
    inside, between = above[start] - above[group], np.maximum(above[end] - above[start], 0.0)
    depths = np.zeros((len(counts) + 1,) * 3)
    denser = (inside >= SMALLEST_GROUP) & (inside * (end - start) > between * (start - group))
    group, start, end, inside, between = (part[denser] for part in (group, start, end, inside, between))
    ratio = np.maximum((total[start] - total[group]) / inside, 1.0)
    share = betaincinv(inside / ratio, between / ratio + 1, LEVEL)
    depths[group, start, end] = share / (1 - share) * (end - start) / (start - group)
    return depths


def _cumulative(values: FloatArray) -> FloatArray:
    return np.concatenate([[0.0], np.cumsum(values)])


@functools.cache
def _windows(num_bins: int) -> tuple[NDArray[np.intp], ...]:
    """Every group of allowed size with every dip after it: start of the group, start of the dip, end of the dip."""
    group, start, end = np.ogrid[: num_bins + 1, : num_bins + 1, : num_bins + 1]
    size = start - group
    allowed = (size >= SMALLEST_GROUP_BINS) & (size <= LARGEST_GROUP_BINS) & (end - start >= SMALLEST_DIP_BINS)
    return np.nonzero(allowed)
