"""The models at a minimum with one gap, and the tables of their correlations."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import is_iterable, printed, shown
from renyi_lab.study._correlation import granulated_tau, kendall_tau

# The axis that tells the trainings of one setting apart.
REPEAT = "seed"


@dataclass(frozen=True)
class Models:
    """Models with one generalization gap each.

    Attributes:
        axes: Axis → value of each model, the seed included.
        gap_name: ``"loss"`` or ``"error"``.
        gap: Generalization gap of each model, shape ``(k,)``.
        measures: One row per model, one column per measure.
    """

    axes: Sequence[Mapping[str, Hashable]]
    gap_name: str
    gap: FloatArray
    measures: pd.DataFrame

    @property
    def settings(self) -> list[Hashable]:
        """The setting of each model."""
        return [setting_of(axes) for axes in self.axes]

    def chosen(self, measures: Sequence[str] | None) -> pd.DataFrame:
        """The named columns of the measures, or all; raises if one does not exist."""
        if measures is None:
            return self.measures
        if isinstance(measures, str) or not is_iterable(measures):
            raise TypeError(
                f"measures must be a sequence of names, got {printed(measures)}; write [{printed(measures)}]."
            )
        names = list(measures)
        if not names:
            raise ValueError("measures is empty; name at least one, or leave it out for all.")
        for name in names:
            check_measure(name, self.measures)
        return self.measures[list(dict.fromkeys(names))]


def setting_of(axes: Mapping[str, Hashable]) -> Hashable:
    """What trainings that differ only in the seed have in common."""
    return tuple(value for name, value in axes.items() if name != REPEAT)


def sorting_key(value: Hashable) -> tuple[str, Any]:
    """A key by which values of an axis can be sorted, of whatever types they are."""
    number = isinstance(value, int | float)
    return ("number", value) if number else (type(value).__name__, value if isinstance(value, str) else repr(value))


def check_measure(name: str, measures: Sequence[str] | pd.DataFrame) -> None:
    """Raise unless ``name`` is one of the measures."""
    if not isinstance(name, str):
        raise TypeError(f"measure must be the name of one, got {shown(name)}.")
    if name not in list(measures):
        raise ValueError(f"there is no measure {name!r}; available: {', '.join(map(repr, measures))}.")


def kendall_table(models: Models, seed: int) -> pd.DataFrame:
    """One row per measure: τ, interval, Ψ, and what was counted."""
    within = within_table(models)["mean"]
    settings, rows = models.settings, {}
    for name in models.measures:
        tau = kendall_tau(models.measures[name], models.gap, settings=settings, seed=seed)
        row = {"tau": tau.value, "low": tau.low, "high": tau.high, "within": within[name]}
        rows[name] = row | {"num_models": tau.num_models, "num_settings": tau.num_settings, "remark": tau.remark}
    return _frame(rows, "measure")


def within_table(models: Models) -> pd.DataFrame:
    """One row per measure: ψ of every axis that varies, and their mean."""
    axes = dict.fromkeys(name for axes in models.axes for name in axes if name != REPEAT)
    varying = [name for name in axes if len({row[name] for row in models.axes}) > 1]
    rows: dict[str, dict[str, float]] = {}
    settings = [dict(row) for row in models.axes]
    for name in models.measures:
        found = granulated_tau(models.measures[name], models.gap, settings, varying)
        psi = {axis: value for axis, (value, _) in found.items()}
        defined = [value for value in psi.values() if not math.isnan(value)]
        rows[name] = psi | {"mean": math.fsum(defined) / len(defined) if defined else math.nan}
    return _frame(rows, "measure")


def alpha_table(models: Models, curves: Sequence[Mapping[float, float]], seed: int) -> pd.DataFrame:
    """One row per order: τ of the curve's value at that order, with its interval."""
    rows = {}
    for alpha in sorted({alpha for curve in curves for alpha in curve}):
        values = np.array([curve.get(alpha, math.nan) for curve in curves])
        tau = kendall_tau(values, models.gap, settings=models.settings, seed=seed)
        row = {"tau": tau.value, "low": tau.low, "high": tau.high}
        rows[alpha] = row | {"num_models": tau.num_models, "num_settings": tau.num_settings, "remark": tau.remark}
    return _frame(rows, "alpha")


def _frame(rows: dict[Any, dict[str, Any]], index: str) -> pd.DataFrame:
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(index)
