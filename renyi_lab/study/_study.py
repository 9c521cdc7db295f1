"""`Study`: the records of a grid of trainings, and the correlations of measures with generalization gaps."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from renyi_lab._utils.validation import check_choice, check_real
from renyi_lab.study._grid import check_axis
from renyi_lab.study._plots import plot_alpha, plot_measure, plot_taus
from renyi_lab.study._records import Record, read_records
from renyi_lab.study._selection import NullDistribution, SplitHalf, null_distribution, split_half
from renyi_lab.study._standard import shipped_path
from renyi_lab.study._tables import Models, alpha_table, kendall_table, within_table

# Heuristic: in pilot studies, models below this accuracy were still far from a minimum.
MIN_ACCURACY = 0.97
# The two orders of the rule of Zhang et al. 2025 (0.5, 1.5), Shannon and collision entropy; fixed before any result.
ALPHAS = (0.5, 1.0, 1.5, 2.0)
GAPS = ("loss", "error")


@dataclass(frozen=True, repr=False)
class Study:
    """Trainings of a grid with their gaps and measures; correlations use only the models at a minimum.

    Attributes:
        records: One record per training, including diverged and under-trained ones.
        min_accuracy: Training accuracy, in [0, 1], from which a model counts as at a minimum.
    """

    records: tuple[Record, ...]
    min_accuracy: float = MIN_ACCURACY

    def __post_init__(self) -> None:
        check_real("min_accuracy", self.min_accuracy, 0, 1)

    @classmethod
    def read(cls, path: str | os.PathLike[str], *, min_accuracy: float = MIN_ACCURACY) -> Study:
        """Read a file that `run_study` wrote, finished or not.

        Args:
            path: File with the records.
            min_accuracy: Training accuracy, in [0, 1], from which a model counts as at a minimum.

        Raises:
            ValueError: The file is not a study file, or has another version.
        """
        return cls(tuple(read_records(path)[1]), min_accuracy)

    @classmethod
    def standard(cls) -> Study:
        """The study that ships with the package: records of MLPs and CNNs trained on MNIST-1D.

        ``python -m renyi_lab.study --out FILE`` repeats it.

        Example:
            >>> len(Study.standard().kept) >= 60
            True
        """
        with shipped_path() as path:
            return cls.read(path)

    @property
    def kept(self) -> tuple[Record, ...]:
        """The records at a minimum, sorted by setting, so that intervals do not depend on the order of records."""
        found = (r for r in self.records if not r.diverged and r.train_accuracy >= self.min_accuracy)
        return tuple(sorted(found, key=lambda record: astuple(record.setting)))

    @property
    def num_diverged(self) -> int:
        """Number of trainings that diverged."""
        return sum(record.diverged for record in self.records)

    @property
    def num_dropped(self) -> int:
        """Number of trainings that did not reach a minimum, not counting those that diverged."""
        return len(self.records) - len(self.kept) - self.num_diverged

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all trainings and measurements, in seconds."""
        return math.fsum(record.cpu_seconds for record in self.records)

    def with_minimum(self, min_accuracy: float) -> Study:
        """The same records with another ``min_accuracy``; 0 keeps every model that did not diverge."""
        return replace(self, min_accuracy=min_accuracy)

    def select(self, **axes: Any) -> Study:
        """The trainings with the given values, as in ``select(architecture="mlp", seed=0)``.

        Args:
            **axes: Required value per axis.

        Raises:
            ValueError: An axis is unknown, or no training has the value.
        """
        for name, value in axes.items():
            check_axis(name)
            present = sorted({getattr(record.setting, name) for record in self.records})
            if value not in present:
                raise ValueError(f"no training has {name}={value!r}; available: {', '.join(map(repr, present))}.")
        chosen = (r for r in self.records if all(getattr(r.setting, name) == value for name, value in axes.items()))
        return replace(self, records=tuple(chosen))

    def to_frame(self, *, alphas: Sequence[float] = ALPHAS) -> pd.DataFrame:
        """One row per training: setting, status, losses, accuracies, gaps (test − train), measures and chosen orders.

        Args:
            alphas: Orders at which a curve becomes a column, such as ``renyi_sharpness_0.5``.

        Raises:
            ValueError: A curve was not recorded at one of ``alphas``.
        """
        rows = []
        for record in self.records:
            row: dict[str, Any] = asdict(record.setting)
            row["status"] = self._status(record)
            for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "loss_gap", "error_gap"):
                row[name] = getattr(record, name)
            chosen = {f"alpha of {name}": alpha for name, alpha in record.measurement.chosen_alphas.items()}
            rows.append(row | record.measurement.at(alphas) | chosen | {"cpu_seconds": record.cpu_seconds})
        return pd.DataFrame(rows)

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
        if measure not in names:
            raise ValueError(f"no curve {measure!r} was recorded; available: {', '.join(map(repr, names)) or 'none'}.")
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
        since settings differ in their number of models. So the distribution has the clusters of the study.

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
        return plot_taus({gap: self.kendall(gap) for gap in GAPS}, len(self.kept))

    def plot_measure(self, measure: str) -> Figure:
        """Plot both gaps against one measure (a row of `kendall`), one dot per model at a minimum."""
        frame = self.to_frame()
        return plot_measure(frame[frame["status"] == "minimum"], {gap: self.kendall(gap) for gap in GAPS}, measure)

    def plot_alpha(self, measure: str = "renyi_sharpness") -> Figure:
        """Plot `tau_against_alpha` for both gaps."""
        return plot_alpha({gap: self.tau_against_alpha(gap, measure=measure) for gap in GAPS}, measure)

    def _models(self, gap: str, alphas: Sequence[float]) -> Models:
        """The models at a minimum with one gap; raises if there is no such model."""
        check_choice("gap", gap, GAPS)
        kept = self.kept
        if not kept:
            best = max((r.train_accuracy for r in self.records if not r.diverged), default=math.nan)
            raise ValueError(
                f"none of {len(self.records)} trainings is at a minimum (training accuracy ≥ {self.min_accuracy:g}): "
                f"{self.num_diverged} diverged, the best of the others reached {best:.3f}. Train for more epochs, "
                "with other learning rates, or lower the threshold with study.with_minimum(...)."
            )
        return Models(
            [asdict(record.setting) for record in kept],
            gap,
            np.array([record.loss_gap if gap == "loss" else record.error_gap for record in kept]),
            pd.DataFrame([record.measurement.at(alphas) for record in kept]),
        )

    def _status(self, record: Record) -> str:
        if record.diverged:
            return "diverged"
        return "minimum" if record.train_accuracy >= self.min_accuracy else "under-trained"

    def __repr__(self) -> str:
        return (
            f"Study({len(self.records)} trainings: {len(self.kept)} at a minimum (training accuracy ≥ "
            f"{self.min_accuracy:g}), {self.num_dropped} dropped, {self.num_diverged} diverged)"
        )
