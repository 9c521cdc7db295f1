r"""Kendall's rank correlation: plain, with bootstrap intervals, and within groups that differ in one hyperparameter.

Over pairs of models i < j, with s the sign of a difference (Kendall's τ_b, which allows ties):

    τ = Σ s(x_i − x_j) s(y_i − y_j) / √( Σ s(x_i − x_j)² · Σ s(y_i − y_j)² )

A bootstrap resample only changes how often each pair counts, so its τ_b is the same three sums with weights: all
resamples together take three matrix products.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import kendalltau

from renyi_lab._utils.typing import FloatArray

# Efron & Tibshirani 1993 recommend at least 1000 resamples for percentile intervals.
NUM_RESAMPLES = 2000
COVERAGE = 0.95
# Heuristic: with fewer models the interval covers most of [−1, 1].
FEWEST_MODELS = 5


@dataclass(frozen=True)
class Tau:
    """Kendall's τ_b with its interval.

    Attributes:
        value: τ_b in [−1, 1]; NaN where it is undefined.
        low: Lower end of the 95 % interval.
        high: Upper end of the 95 % interval.
        num_models: Number of models that count.
        remark: Why τ_b is undefined, or how many models were left out.
    """

    value: float
    low: float
    high: float
    num_models: int
    remark: str = ""


def kendall_tau(x: ArrayLike, y: ArrayLike, *, seed: int = 0) -> Tau:
    """Kendall's τ_b between two measurements of the same models, with a 95 % bootstrap interval.

    Models with a value that is not finite are left out, and the remark says how many. The bootstrap resamples models as
    if they were independent; trainings that differ only in the seed are similar, so the interval is rather too narrow.

    Args:
        x: First measurement, shape ``(k,)``: one number per model.
        y: Second measurement, shape ``(k,)``.
        seed: Random seed for the resampling. Equal seeds compare measures on the same resamples.

    Raises:
        ValueError: ``x`` and ``y`` are not vectors of equal length.

    Source: Kendall 1945 (τ_b); Efron & Tibshirani 1993 (percentile interval).

    Example:
        >>> round(kendall_tau([1, 2, 3, 4, 5], [1, 3, 2, 4, 5]).value, 3)
        0.8
    """
    first, second = _pair(x, y)
    finite = np.isfinite(first) & np.isfinite(second)
    left_out, first, second = int((~finite).sum()), first[finite], second[finite]
    remark = f"{left_out} models without a finite value left out" if left_out else ""
    count = len(first)
    if count < FEWEST_MODELS:
        return Tau(np.nan, np.nan, np.nan, count, f"{count} models are too few" + (f"; {remark}" if remark else ""))
    for values, name in ((first, "measure"), (second, "gap")):
        if np.ptp(values) == 0:
            return Tau(np.nan, np.nan, np.nan, count, f"the {name} is constant, so τ is undefined")
    resampled = _resampled_taus(first, second, seed)
    defined = resampled[np.isfinite(resampled)]
    low, high = np.quantile(defined, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Tau(float(kendalltau(first, second).statistic), float(low), float(high), count, remark)


def _pair(x: ArrayLike, y: ArrayLike) -> tuple[FloatArray, FloatArray]:
    first, second = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(
            f"x and y must be vectors of equal length, one number per model, got {first.shape} and {second.shape}."
        )
    return first, second


def _resampled_taus(x: FloatArray, y: FloatArray, seed: int) -> FloatArray:
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(x), np.full(len(x), 1 / len(x)), size=NUM_RESAMPLES).astype(np.float64)
    sign_x, sign_y = np.sign(x[:, None] - x), np.sign(y[:, None] - y)

    def total(pairs: FloatArray) -> FloatArray:
        return np.asarray(np.einsum("bi,bi->b", counts @ pairs, counts))

    product = total(sign_x**2) * total(sign_y**2)
    with np.errstate(invalid="ignore", divide="ignore"):  # a resample may be constant; the caller leaves it out
        return np.asarray(total(sign_x * sign_y) / np.sqrt(product))


def _tau_b(x: FloatArray, y: FloatArray) -> float:
    """τ_b of a few models. SciPy takes most of a millisecond, and a table has thousands of groups."""
    sign_x, sign_y = np.sign(x[:, None] - x), np.sign(y[:, None] - y)
    return float((sign_x * sign_y).sum() / math.sqrt((sign_x**2).sum() * (sign_y**2).sum()))


def granulated_tau(
    x: ArrayLike, y: ArrayLike, settings: Sequence[dict[str, Hashable]], axes: Sequence[str]
) -> dict[str, tuple[float, int]]:
    r"""The granulated Kendall coefficient per axis: does a measure track the effect of *one* hyperparameter?

        ψ_i = (1/m_i) Σ τ_b(models that share every hyperparameter and the seed, except axis i)

    The sum runs over the ``m_i`` groups of two or more models in which τ_b is defined (neither measure nor gap is
    constant). Ψ of Jiang et al. is the mean of ψ_i over the axes. Their grid is complete; here models that are not at a
    minimum are missing from their groups, and ψ_i is NaN where no group is left.

    Args:
        x: The measure, shape ``(k,)``; models where it is not finite are left out.
        y: The generalization gap, shape ``(k,)``.
        settings: ``k`` mappings from axis to value.
        axes: The axes i to vary.

    Returns:
        Mapping from axis to ``(ψ_i, m_i)``.

    Raises:
        ValueError: ``x``, ``y`` and ``settings`` differ in length.

    Source: Jiang, Neyshabur, Mobahi, Krishnan & Bengio 2019, arXiv:1912.02178, section 3.2.

    Example:
        >>> settings = [{"lr": lr, "seed": seed} for seed in (0, 1) for lr in (0.1, 0.2)]
        >>> granulated_tau([1, 2, 11, 12], [3, 4, 2, 1], settings, ["lr"])
        {'lr': (0.0, 2)}
    """
    first, second = _pair(x, y)
    if len(settings) != len(first):
        raise ValueError(f"settings must hold one mapping for each of {len(first)} models, got {len(settings)}.")
    usable = np.flatnonzero(np.isfinite(first) & np.isfinite(second))
    result: dict[str, tuple[float, int]] = {}
    for axis in axes:
        groups: dict[tuple[Hashable, ...], list[int]] = {}
        for index in usable.tolist():
            others = tuple(value for name, value in settings[index].items() if name != axis)
            groups.setdefault(others, []).append(index)
        taus = [
            _tau_b(first[group], second[group])
            for group in groups.values()
            if np.ptp(first[group]) > 0 and np.ptp(second[group]) > 0
        ]
        result[axis] = (float(np.mean(taus)) if taus else float("nan"), len(taus))
    return result
