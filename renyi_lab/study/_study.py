"""`Study`: the records of a grid of trainings, and what they say about measures and generalization gaps."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, replace
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from renyi_lab._utils.validation import check_choice, check_real
from renyi_lab.study._correlation import Tau, granulated_tau, kendall_tau
from renyi_lab.study._grid import AXES, check_axis
from renyi_lab.study._plots import plot_alpha, plot_measure, plot_taus
from renyi_lab.study._records import Record, read_records
from renyi_lab.study._standard import shipped_path

# That of the pilots before this package: below, models are on their way to a minimum rather than at one.
MIN_ACCURACY = 0.97
# Those of the paper (0.5 and 1.5, its rule's), Shannon's and the collision entropy's; none chosen by its result.
ALPHAS = (0.5, 1.0, 1.5, 2.0)
GAPS = ("loss", "error")


@dataclass(frozen=True, repr=False)
class Study:
    """Trainings of a grid with their gaps and measures; those at a minimum are what every correlation is over.

    Attributes:
        records: One for each training, diverged and under-trained ones included.
        min_accuracy: The training accuracy from which on a model counts as at a minimum, in [0, 1].
    """

    records: tuple[Record, ...]
    min_accuracy: float = MIN_ACCURACY

    def __post_init__(self) -> None:
        check_real("min_accuracy", self.min_accuracy, 0, 1)

    @classmethod
    def read(cls, path: str | os.PathLike[str], *, min_accuracy: float = MIN_ACCURACY) -> Study:
        """The study in a file that `run_study` wrote, finished or not.

        Raises:
            ValueError: The file is none of a study, or of another version.
        """
        return cls(tuple(read_records(path)[1]), min_accuracy)

    @classmethod
    def standard(cls) -> Study:
        """The study that comes with the package: MLPs and CNNs on MNIST-1D, trained and measured beforehand.

        ``python -m renyi_lab.study --out FILE`` makes it again.

        Example:
            >>> study = Study.standard()
            >>> len(study.kept) >= 60
            True
        """
        with shipped_path() as path:
            return cls.read(path)

    @property
    def kept(self) -> tuple[Record, ...]:
        """The records at a minimum, by setting: bootstrap intervals do not depend on which training ended first."""
        found = (r for r in self.records if not r.diverged and r.train_accuracy >= self.min_accuracy)
        return tuple(sorted(found, key=lambda record: astuple(record.setting)))

    @property
    def num_diverged(self) -> int:
        """How many trainings diverged."""
        return sum(record.diverged for record in self.records)

    @property
    def num_dropped(self) -> int:
        """How many trainings ended short of a minimum, diverged ones not counted."""
        return len(self.records) - len(self.kept) - self.num_diverged

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all trainings and measurements."""
        return math.fsum(record.cpu_seconds for record in self.records)

    def with_minimum(self, min_accuracy: float) -> Study:
        """The same records under another definition of a minimum; 0 keeps all that did not diverge."""
        return replace(self, min_accuracy=min_accuracy)

    def select(self, **axes: Any) -> Study:
        """The trainings with the given values, such as ``select(architecture="mlp", seed=0)``.

        Raises:
            ValueError: An unknown axis, or no training has these values.
        """
        for name, value in axes.items():
            check_axis(name)
            present = sorted({getattr(record.setting, name) for record in self.records})
            if value not in present:
                raise ValueError(f"no training has {name}={value!r}; there are {', '.join(map(repr, present))}.")
        records = tuple(r for r in self.records if all(getattr(r.setting, k) == v for k, v in axes.items()))
        return replace(self, records=records)

    def to_frame(self, *, alphas: Sequence[float] = ALPHAS) -> pd.DataFrame:
        """One row a training: setting, status, losses, accuracies, gaps (test − train), measures, and orders chosen.

        Args:
            alphas: Orders at which curves become columns, such as ``renyi_sharpness_0.5``.

        Raises:
            ValueError: A curve was not recorded at one of ``alphas``.
        """
        rows = []
        for record in self.records:
            row: dict[str, Any] = asdict(record.setting)
            row["status"] = self._status(record)
            for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "loss_gap", "error_gap"):
                row[name] = getattr(record, name)
            row |= record.measurement.at(alphas)
            row |= {f"alpha of {name}": alpha for name, alpha in record.measurement.chosen_alphas.items()}
            rows.append(row | {"cpu_seconds": record.cpu_seconds})
        return pd.DataFrame(rows)

    def kendall(self, gap: str = "loss", *, alphas: Sequence[float] = ALPHAS, seed: int = 0) -> pd.DataFrame:
        r"""Kendall's τ of every measure with a generalization gap, over the models at a minimum.

        Columns: ``tau`` (τ_b), ``low`` and ``high`` (95 % bootstrap interval), ``within`` (Ψ, the granulated
        coefficient of Jiang et al. 2019: the mean over hyperparameters of τ_b among models that differ in this one
        alone; see `kendall_within`), ``num_models``, ``remark`` (why a τ is undefined, what was left out).

        Args:
            gap: ``"loss"`` (test − training loss) or ``"error"`` (test − training error). Report both: the first grows
                with confidence, too.
            alphas: Orders of Rényi sharpness, fixed before any gap is seen. Beside them stands each model's sharpness
                at the order that `choose_alpha` picks from its spectrum (``renyi_sharpness_by_rule``).
            seed: Of the bootstrap.

        Raises:
            ValueError: No model is at a minimum, or an argument is out of range.
        """
        y = self._gaps(gap)
        table = self._table(alphas)
        within = self.kendall_within(gap, alphas=alphas)["mean"]
        rows = {}
        for name in table:
            tau = kendall_tau(table[name], y, seed=seed)
            rows[name] = {**_tau_row(tau), "within": within[name], "num_models": tau.num_models, "remark": tau.remark}
        return _frame(rows, "measure")

    def kendall_within(self, gap: str = "loss", *, alphas: Sequence[float] = ALPHAS) -> pd.DataFrame:
        """The granulated Kendall coefficient ψ of every measure, one column a hyperparameter, and their ``mean`` Ψ.

        Groups share everything, the seed included, but one hyperparameter; see `granulated_tau` for the formula.
        The seed is no hyperparameter and has no ψ; where a hyperparameter never varies alone, its ψ is NaN.

        Raises:
            ValueError: As for `kendall`.
        """
        y = self._gaps(gap)
        settings = [asdict(record.setting) for record in self.kept]
        axes = [a for a in AXES if a != "seed" and len({s[a] for s in settings}) > 1]
        table = self._table(alphas)
        rows: dict[str, dict[str, float]] = {}
        for name in table:
            psi = {axis: value for axis, (value, _) in granulated_tau(table[name], y, settings, axes).items()}
            defined = [value for value in psi.values() if not math.isnan(value)]
            rows[name] = psi | {"mean": math.fsum(defined) / len(defined) if defined else math.nan}
        return _frame(rows, "measure")

    def tau_against_alpha(self, gap: str = "loss", *, measure: str = "renyi_sharpness", seed: int = 0) -> pd.DataFrame:
        """The whole curve τ(α) of a measure that has an order, with 95 % intervals: never only its maximum.

        Args:
            gap: ``"loss"`` or ``"error"``.
            measure: A curve's name, such as ``"renyi_sharpness"`` or ``"renyi_sharpness [first]"``.
            seed: Of the bootstrap.

        Raises:
            ValueError: No model is at a minimum, or there is no such curve.
        """
        y, kept = self._gaps(gap), self.kept
        names = sorted({name for record in kept for name in record.measurement.curves})
        if measure not in names:
            raise ValueError(f"no curve {measure!r} was recorded; there are {', '.join(map(repr, names)) or 'none'}.")
        curves = [record.measurement.curves.get(measure, {}) for record in kept]
        alphas = sorted({alpha for curve in curves for alpha in curve})
        taus = {alpha: kendall_tau([curve.get(alpha, math.nan) for curve in curves], y, seed=seed) for alpha in alphas}
        return _frame({a: {**_tau_row(t), "num_models": t.num_models} for a, t in taus.items()}, "alpha")

    def plot(self) -> Figure:
        """τ of every measure with its interval, on both gaps."""
        return plot_taus({gap: self.kendall(gap) for gap in GAPS}, len(self.kept))

    def plot_measure(self, measure: str) -> Figure:
        """Both gaps against one measure, a dot a model at a minimum; ``measure`` is a row of `kendall`."""
        frame = self.to_frame()
        return plot_measure(frame[frame["status"] == "minimum"], {gap: self.kendall(gap) for gap in GAPS}, measure)

    def plot_alpha(self, measure: str = "renyi_sharpness") -> Figure:
        """`tau_against_alpha` on both gaps."""
        return plot_alpha({gap: self.tau_against_alpha(gap, measure=measure) for gap in GAPS}, measure)

    def _gaps(self, gap: str) -> list[float]:
        """The gap of each model at a minimum; raises when there is none."""
        check_choice("gap", gap, GAPS)
        kept = self.kept
        if not kept:
            best = max((r.train_accuracy for r in self.records if not r.diverged), default=math.nan)
            raise ValueError(
                f"none of {len(self.records)} trainings is at a minimum (training accuracy ≥ {self.min_accuracy:g}): "
                f"{self.num_diverged} diverged, the best of the others reached {best:.3f}. Train for more epochs, with "
                "other learning rates, or lower the demand with study.with_minimum(...)."
            )
        return [record.loss_gap if gap == "loss" else record.error_gap for record in kept]

    def _table(self, alphas: Sequence[float]) -> pd.DataFrame:
        """One row a model at a minimum, one column a measure."""
        return pd.DataFrame([record.measurement.at(alphas) for record in self.kept])

    def _status(self, record: Record) -> str:
        if record.diverged:
            return "diverged"
        return "minimum" if record.train_accuracy >= self.min_accuracy else "under-trained"

    def __repr__(self) -> str:
        return (
            f"Study({len(self.records)} trainings: {len(self.kept)} at a minimum (training accuracy ≥ "
            f"{self.min_accuracy:g}), {self.num_dropped} dropped, {self.num_diverged} diverged)"
        )


def _tau_row(tau: Tau) -> dict[str, float]:
    return {"tau": tau.value, "low": tau.low, "high": tau.high}


def _frame(rows: dict[Any, dict[str, Any]], index: str) -> pd.DataFrame:
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(index)
