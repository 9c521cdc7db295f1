"""The correlations of measures with generalization gaps, and what choosing the best of many is worth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from renyi_lab._utils.validation import printed
from renyi_lab.study._frame import FrameRecord
from renyi_lab.study._plots import plot_alpha, plot_measure, plot_taus
from renyi_lab.study._records import Record
from renyi_lab.study._selection import NullDistribution, SplitHalf, null_distribution, split_half
from renyi_lab.study._tables import Models, alpha_table, kendall_table, within_table

# The two orders of the rule of Zhang et al. 2025 (0.5, 1.5), Shannon and collision entropy; fixed before any result.
ALPHAS = (0.5, 1.0, 1.5, 2.0)


class Correlations(ABC):
    """What `Study` computes from its models at a minimum."""

    @property
    @abstractmethod
    def kept(self) -> tuple[Record | FrameRecord, ...]:
        """The records at a minimum."""

    @property
    @abstractmethod
    def num_settings(self) -> int:
        """Number of settings with a model at a minimum."""

    @abstractmethod
    def to_frame(self, *, alphas: Sequence[float] = ALPHAS) -> pd.DataFrame:
        """One row per training."""

    @property
    @abstractmethod
    def _gaps(self) -> list[str]:
        """The gaps that were recorded."""

    @abstractmethod
    def _models(self, gap: str, alphas: Sequence[float]) -> Models:
        """The models at a minimum with one gap; raises if there is no such model."""

    def kendall(self, gap: str = "loss", *, alphas: Sequence[float] = ALPHAS, seed: int = 0) -> pd.DataFrame:
        r"""Kendall's τ of every measure with a generalization gap, over the models at a minimum.

        Args:
            gap: ``"loss"`` (test − training loss) or ``"error"`` (test − training error). Report both: the loss gap
                also grows with the confidence of the predictions.
            alphas: Orders of Rényi sharpness, fixed before any gap is seen. The table also has the sharpness at the
                order that `choose_alpha` picks from the spectrum of each model (``renyi_sharpness_by_rule``).
            seed: Random seed for the bootstrap.

        Returns:
            Table with one row per measure and the columns ``tau`` (τ_b over models), ``low``, ``high`` (its 95 %
            cluster-bootstrap interval, which resamples settings: all axes but the seed; see `kendall_tau`), ``within``
            (Ψ, the granulated coefficient of Jiang et al. 2019; see `kendall_within`), ``num_models``,
            ``num_settings`` and ``remark`` (why there is no τ or no interval, and how many models were left out).

        Raises:
            ValueError: No model is at a minimum, or an argument is out of range.
        """
        return kendall_table(self._models(gap, alphas), seed)

    def kendall_within(self, gap: str = "loss", *, alphas: Sequence[float] = ALPHAS) -> pd.DataFrame:
        """The granulated Kendall coefficient ψ of every measure per hyperparameter, and its ``mean`` Ψ.

        Models of a group differ in exactly one hyperparameter and share everything else, the seed included; see
        `granulated_tau` for the formula. The seed itself is not a hyperparameter and has no ψ. ψ is NaN for a
        hyperparameter that never varies alone.

        Args:
            gap: As for `kendall`.
            alphas: As for `kendall`.

        Raises:
            ValueError: No model is at a minimum, or an argument is out of range.
        """
        return within_table(self._models(gap, alphas))

    def tau_against_alpha(self, gap: str = "loss", *, measure: str = "renyi_sharpness", seed: int = 0) -> pd.DataFrame:
        """The curve τ(α) of a measure that has an order, with 95 % intervals, so that no maximum is reported alone.

        The columns are those of `kendall` without ``within``.

        Args:
            gap: ``"loss"`` or ``"error"``.
            measure: Name of a curve, such as ``"renyi_sharpness"`` or ``"renyi_sharpness [first]"``.
            seed: Random seed for the bootstrap.

        Raises:
            ValueError: No model is at a minimum, or the curve does not exist.
        """
        models, kept = self._models(gap, ()), self.kept
        names = sorted({name for record in kept for name in record.measurement.curves})
        if not isinstance(measure, str) or measure not in names:
            available = ", ".join(map(repr, names)) or "none"
            raise ValueError(f"measure must be a recorded curve, got {printed(measure)}; available: {available}.")
        return alpha_table(models, [record.measurement.curves.get(measure, {}) for record in kept], seed)

    def null_distribution(
        self,
        gap: str = "loss",
        *,
        measures: Sequence[str] | None = None,
        alphas: Sequence[float] = ALPHAS,
        num_permutations: int = 1000,
        seed: int = 0,
    ) -> NullDistribution:
        """The largest |τ| among measures when none is related to the gap: what the best of many reaches by chance.

        The mean gaps of the settings are permuted between settings; deviations from the mean stay with their models,
        since settings differ in their number of models. The models then receive the gaps of the study in the order of
        these sums, so that the distribution has the clusters and the ties of the study.

        Args:
            gap: As for `kendall`.
            measures: Names of the measures to choose from, rows of ``kendall(gap, alphas=alphas)``. Default: all.
            alphas: As for `kendall`.
            num_permutations: Number of shuffles. Default 1000 (heuristic: a p-value of 0.05 is then exact to ±0.014).
            seed: Random seed for the shuffles.

        Raises:
            ValueError: There are fewer than 5 settings at a minimum, a measure does not exist, none has a defined τ, or
                an argument is out of range.

        Source: Westfall & Young 1993 (the maximum over tests under permutation).

        Example:
            >>> from renyi_lab.study import Study
            >>> null = Study.standard().null_distribution("error", measures=["trace"], num_permutations=100)
            >>> null.num_measures, null.p_value(0.9) < 0.05
            (1, True)
        """
        models = self._models(gap, alphas)
        return null_distribution(models, models.chosen(measures), num_permutations, seed)

    def split_half(
        self,
        gap: str = "loss",
        *,
        measures: Sequence[str] | None = None,
        alphas: Sequence[float] = ALPHAS,
        num_splits: int = 200,
        seed: int = 0,
    ) -> SplitHalf:
        """The best measure of one half of the settings, on the other half: how much of its τ is choice.

        Args:
            gap: As for `kendall`.
            measures: As for `null_distribution`.
            alphas: As for `kendall`.
            num_splits: Number of random halves. Default 200 (heuristic: the means are then exact to about ±0.02).
            seed: Random seed for the halves.

        Raises:
            ValueError: As for `null_distribution`, with at least 8 settings.
        """
        models = self._models(gap, alphas)
        return split_half(models, models.chosen(measures), num_splits, seed)

    def plot(self) -> Figure:
        """Plot τ of every measure with its interval, for both gaps."""
        return plot_taus({gap: self.kendall(gap) for gap in self._gaps}, len(self.kept), self.num_settings)

    def plot_measure(self, measure: str) -> Figure:
        """Plot both gaps against one measure (a row of `kendall`), one dot per model at a minimum."""
        tables, frame = {gap: self.kendall(gap) for gap in self._gaps}, self.to_frame()
        if not isinstance(self.kept[0], FrameRecord):
            frame = frame[frame["status"] == "minimum"]
        return plot_measure(frame, tables, measure)

    def plot_alpha(self, measure: str = "renyi_sharpness") -> Figure:
        """Plot `tau_against_alpha` for both gaps."""
        return plot_alpha({gap: self.tau_against_alpha(gap, measure=measure) for gap in self._gaps}, measure)
