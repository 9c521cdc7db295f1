r"""What choosing the best of many measures is worth: a null distribution, and a check on settings that did not choose.

The largest |τ| of many measures is large even when none is related to the gap. Two ways to see how large:

- shuffle the gaps between settings, so that no measure is related to them, and choose again, many times;
- let one half of the settings choose the measure, and compute its τ on the other half.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd

from renyi_lab._utils.fields import check_fields, check_vectors
from renyi_lab._utils.figure import NotebookFigure, new_figure
from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_int, check_real
from renyi_lab.plots import BLUE, GREY, ORANGE
from renyi_lab.study._correlation import FEWEST_MODELS, FEWEST_SETTINGS
from renyi_lab.study._pairs import pair_sums, setting_codes
from renyi_lab.study._tables import Models

# Heuristic: a half of four settings still orders six pairs of them.
FEWEST_TO_SPLIT = 8
# Pairs of models times shuffles that are held in memory at once.
_CHUNK = 2_000_000


@dataclass(frozen=True, repr=False, eq=False)
class NullDistribution:
    """The largest |τ| of several measures when none of them is related to the gap.

    Attributes:
        values: Largest |τ| over the measures, for each shuffle of the gaps.
        num_measures: Number of measures with a defined τ.
        num_settings: Number of settings between which the gaps were shuffled.
        gap: ``"loss"`` or ``"error"``.
    """

    values: FloatArray
    num_measures: int
    num_settings: int
    gap: str

    def __post_init__(self) -> None:
        check_fields(self)
        check_vectors(self, "values")

    @property
    def median(self) -> float:
        """The median of the largest |τ|."""
        return float(np.median(self.values))

    @property
    def quantile_95(self) -> float:
        """The 95 % quantile of the largest |τ|: without any relation, the best measure exceeds it in 5 % of studies."""
        return float(np.quantile(self.values, 0.95))

    def p_value(self, tau: float) -> float:
        """The share of shuffles whose largest |τ| is at least ``|tau|``, counting the observed study as one more.

        Args:
            tau: τ in [−1, 1] of the best measure, of either sign.

        Raises:
            ValueError: ``tau`` is outside [−1, 1] or NaN.

        Source: Phipson & Smyth 2010 (why the observed study counts).
        """
        observed = abs(check_real("tau", tau, -1, 1))
        return float((1 + (self.values >= observed - 1e-12).sum()) / (1 + len(self.values)))

    def plot(self, tau: float | None = None) -> NotebookFigure:
        """Plot the distribution, its 95 % quantile, and an observed τ.

        Args:
            tau: τ of the best measure, of either sign. Default: none is drawn.
        """
        tau = None if tau is None else check_real("tau", tau, -1, 1)
        observed = "" if tau is None else f"; the observed |τ| of {abs(tau):.2f} has p = {self.p_value(tau):.3f}"
        many = f"{self.num_measures} measures" if self.num_measures > 1 else "1 measure"
        figure = new_figure(
            6,
            3.2,
            alt=f"Histogram of the largest |τ| of {many} with the {self.gap} gap when gaps are shuffled between "
            f"settings: median {self.median:.2f}, 95 % quantile {self.quantile_95:.2f}{observed}.",
        )
        ax = figure.subplots()
        ax.hist(self.values, bins=30, color=GREY, alpha=0.5)
        ax.axvline(self.quantile_95, color=BLUE, ls="--", label="95 % quantile")
        if tau is not None:
            ax.axvline(abs(tau), color=ORANGE, label="observed")
        ax.set(xlim=(0, 1), xlabel=f"largest |τ| of {many}, gaps shuffled between settings", ylabel="shuffles")
        ax.legend(fontsize="small")
        return figure

    def __repr__(self) -> str:
        return (
            f"NullDistribution({self.gap} gap, best of {self.num_measures}: median |τ| {self.median:.2f}, "
            f"95 % quantile {self.quantile_95:.2f}; {len(self.values)} shuffles between {self.num_settings} settings)"
        )


@dataclass(frozen=True, repr=False, eq=False)
class SplitHalf:
    """The measure that wins on one half of the settings, on the other half.

    Attributes:
        chosen_taus: τ of each split's winner on the half that chose it, the one with the largest |τ|.
        held_out_taus: τ of the same measure on the other half, times the sign of its τ on the first: negative values
            mean that the sign changed. NaN where it is undefined.
        winners: Measure → number of splits it won, most frequent first; a split without a defined τ has no winner.
        num_measures: Number of measures to choose from.
        num_settings: Number of settings in both halves together.
        gap: ``"loss"`` or ``"error"``.
    """

    chosen_taus: FloatArray
    held_out_taus: FloatArray
    winners: dict[str, int]
    num_measures: int
    num_settings: int
    gap: str

    def __post_init__(self) -> None:
        check_fields(self)
        check_vectors(self, "chosen_taus", "held_out_taus")

    @property
    def chosen(self) -> float:
        """Mean |τ| of the winner on its own half; NaN where no half has a defined τ."""
        return _mean(np.abs(self.chosen_taus))

    @property
    def held_out(self) -> float:
        """Mean τ of the winner on the other half, in the direction of its own half; NaN where none is defined."""
        return _mean(self.held_out_taus)

    def plot(self) -> NotebookFigure:
        """Plot the winner's τ on the other half against its |τ| on the half that chose it, one dot per split."""
        figure = new_figure(
            4.4,
            4,
            alt=f"τ with the {self.gap} gap of the best of {self.num_measures} measures on the other half of the "
            f"settings (mean {self.held_out:.2f}) against |τ| on the half that chose it (mean {self.chosen:.2f}), "
            f"{len(self.chosen_taus)} splits.",
        )
        ax = figure.subplots()
        ax.plot(np.abs(self.chosen_taus), self.held_out_taus, "o", ms=4, alpha=0.5, color=BLUE)
        ax.plot([0, 1], [0, 1], color=GREY, lw=0.8)
        ax.plot(self.chosen, self.held_out, "D", color=ORANGE, label="mean")
        ax.axhline(0, color=GREY, lw=0.8)
        ax.set(xlim=(0, 1), ylim=(-1, 1), xlabel="|τ| on the half that chose", ylabel="τ on the other half")
        ax.legend(fontsize="small")
        return figure

    def __repr__(self) -> str:
        best, count = next(iter(self.winners.items()), ("no measure", 0))
        return (
            f"SplitHalf({self.gap} gap, best of {self.num_measures}: mean |τ| {self.chosen:.2f} on its own half, "
            f"{self.held_out:.2f} on the other; {best} won {count} of {len(self.chosen_taus)} splits of "
            f"{self.num_settings} settings)"
        )


def null_distribution(models: Models, measures: pd.DataFrame, num_permutations: int, seed: int) -> NullDistribution:
    """Shuffle the mean gaps of the settings; the deviations from the mean stay with their models."""
    check_int("num_permutations", num_permutations)
    names, values, gap, codes = _usable(models, measures, FEWEST_SETTINGS, "a null distribution")
    rng = np.random.default_rng(check_int("seed", seed, 0))
    shuffled = _with_values_of(gap, _shuffled_gaps(gap, codes, num_permutations, rng))
    first, second = np.triu_indices(len(gap), 1)
    x = np.sign(values[:, first] - values[:, second])  # NaN where a value is missing
    present = np.isfinite(x).astype(np.float32)
    x = np.nan_to_num(x).astype(np.float32)  # sums of signs up to 2²⁴ are exact in single precision
    x_pairs = np.abs(x).sum(1, dtype=np.float64)[:, None]
    largest = []
    for part in np.array_split(shuffled, math.ceil(num_permutations * len(first) / _CHUNK)):
        y = np.sign(part[:, first] - part[:, second]).astype(np.float32).T
        with np.errstate(invalid="ignore", divide="ignore"):
            taus = (x @ y).astype(np.float64) / np.sqrt(x_pairs * (present @ np.abs(y)))
        largest.append(np.nan_to_num(np.abs(taus)).max(axis=0))  # a gap that shuffling made constant orders nothing
    return NullDistribution(np.concatenate(largest), len(names), int(codes.max()) + 1, models.gap_name)


def split_half(models: Models, measures: pd.DataFrame, num_splits: int, seed: int) -> SplitHalf:
    """Choose on random halves of the settings."""
    check_int("num_splits", num_splits)
    names, values, gap, codes = _usable(models, measures, FEWEST_TO_SPLIT, "a split into halves")
    rng = np.random.default_rng(check_int("seed", seed, 0))
    num_settings = int(codes.max()) + 1
    order = rng.permuted(np.tile(np.arange(num_settings), (num_splits, 1)), axis=1)
    half = (order < num_settings // 2).astype(np.float64)
    sums = [pair_sums(x, gap, codes) for x in values]
    own, other = (np.stack([s.tau(weights) for s in sums]) for weights in (half, 1 - half))
    size = np.nan_to_num(np.abs(own), nan=-1.0)
    best, splits = size.argmax(axis=0), np.arange(num_splits)
    chosen, held_out = own[best, splits], other[best, splits]
    winners = dict(Counter(names[index] for index in best[np.isfinite(chosen)]).most_common())
    return SplitHalf(chosen, held_out * np.sign(chosen), winners, len(names), num_settings, models.gap_name)


def _mean(taus: FloatArray) -> float:
    """The mean of the defined ones; NaN if there is none."""
    return float(np.nanmean(taus)) if np.isfinite(taus).any() else math.nan


def _usable(
    models: Models, measures: pd.DataFrame, fewest: int, what: str
) -> tuple[list[str], FloatArray, FloatArray, np.ndarray]:
    """Names and rows of the measures with a defined τ, gaps and setting codes, of the models with a finite gap."""
    finite = np.isfinite(models.gap)
    codes = setting_codes([setting for setting, keep in zip(models.settings, finite, strict=True) if keep])
    num_settings = len(set(codes.tolist()))
    if num_settings < fewest:
        raise ValueError(
            f"{what} needs at least {fewest} settings with a finite gap, got {num_settings}; models that differ only "
            "in the seed are one setting. Train with more settings, or choose a larger part of the study."
        )
    names = _defined(measures, models.gap)
    if not names:
        raise ValueError(
            f"no measure has a defined τ: each is constant, or finite in fewer than {FEWEST_MODELS} models, or the gap "
            "is constant."
        )
    values = measures[names].to_numpy(dtype=np.float64).T[:, finite]
    return names, np.where(np.isfinite(values), values, np.nan), models.gap[finite], codes


def _defined(measures: pd.DataFrame, gap: FloatArray) -> list[str]:
    """The measures with a τ in `kendall_tau`: enough models where both are finite, over which neither is constant."""
    both = {str(name): np.isfinite(measures[name]) & np.isfinite(gap) for name in measures}
    return [
        name
        for name, keep in both.items()
        if keep.sum() >= FEWEST_MODELS and min(np.ptp(measures[name][keep]), np.ptp(gap[keep])) > 0
    ]


def _shuffled_gaps(gap: FloatArray, codes: np.ndarray, count: int, rng: np.random.Generator) -> FloatArray:
    """Gaps whose setting means are permuted, shape ``(count, k)``.

    Settings have different numbers of models, so their blocks cannot be exchanged whole. Every setting keeps its models
    with their deviations from its mean and receives the mean of another setting.
    """
    means = np.bincount(codes, gap) / np.bincount(codes)
    order = rng.permuted(np.tile(np.arange(len(means)), (count, 1)), axis=1)
    return np.asarray(means[order][:, codes] + (gap - means[codes]))


def _with_values_of(gap: FloatArray, shuffled: FloatArray) -> FloatArray:
    """The gaps themselves in the order of each shuffle, so that as many pairs are tied as in the study.

    Sums of a mean and a deviation are hardly ever equal where gaps are rounded; fewer ties would make τ_b too small.
    """
    return np.asarray(np.sort(gap)[shuffled.argsort(axis=1, kind="stable").argsort(axis=1)])
