"""`TuningExplorer`: how the accuracy of tuned methods depends on ρ and on the learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from renyi_lab._utils.figure import new_figure
from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_real
from renyi_lab.plots import BLUE, GREEN, GREY, ORANGE, PURPLE
from renyi_lab.widgets._base import Explorer

_COLORS = (BLUE, ORANGE, GREEN, PURPLE, GREY)
_MOST_TICKS = 8  # with their values; more would overlap
_SAME_RATE = 0.01  # relative: stored rates are rounded to three digits
_FACTORS = {"¼": 0.25, "½": 0.5, "1": 1.0, "2": 2.0, "4": 4.0}


class TuningExplorer(Explorer):
    """Validation accuracy of several methods against ``ρ`` and against the learning rate, for one base optimizer.

    Left: against ``ρ``, at the learning rate that the second control names relative to the best one of each method;
    methods without ``ρ`` are horizontal lines. Right: against the learning rate, at the best ``ρ`` for each; the large
    dots are at the rates of the left picture. Bars are ± one standard error.

    Args:
        tuning: Records as those of ``rl.course.load_results("base_optimizers")["tuning"]``: for each base optimizer and
            method a dictionary with ``base``, ``method`` and ``settings``, a list of dictionaries with ``lr``, ``rho``
            (``None`` for methods without) and ``accuracy``, a dictionary with ``mean`` and ``error`` in [0, 1].

    Raises:
        TypeError: ``tuning`` is not a sequence of such dictionaries.
        ValueError: There is no record, a base with a method or a setting of them occurs twice, there are more than five
            methods, one has settings with and without ``rho``, or a number is out of range.
    """

    def __init__(self, tuning: Sequence[Mapping[str, Any]]) -> None:
        self._curves = _checked(tuning)
        bases = list(self._curves)
        methods = list(dict.fromkeys(method for curves in self._curves.values() for method in curves))
        if len(methods) > len(_COLORS):
            raise ValueError(f"tuning has {len(methods)} methods; at most {len(_COLORS)} can be told apart.")
        self.base = ipywidgets.ToggleButtons(options=bases, description="base")
        self.rate = ipywidgets.SelectionSlider(options=list(_FACTORS), value="1", description="rate / best")
        figure = new_figure(9.2, 3.6)
        left, right = figure.subplots(1, 2, sharey=True)
        points = np.array([p for curves in self._curves.values() for table in curves.values() for p in table])
        low, high = points[:, 2].min(), points[:, 2].max()
        left.set(ylabel="validation accuracy", ylim=(max(low, high - 0.2) - 0.01, high + 0.02))
        _log_axis(left, points[:, 1], "ρ")
        _log_axis(right, points[:, 0], "learning rate, best ρ for each")
        colors = dict(zip(methods, _COLORS, strict=False))
        self.left = {method: _Curve(left, colors[method], method) for method in methods}
        self.right = {method: _Curve(right, colors[method], method) for method in methods}
        self.dots = {m: right.plot([], [], "o", color=colors[m], markersize=10, alpha=0.5)[0] for m in methods}
        handles = [self.right[method].line for method in methods]
        right.legend(handles, methods, loc="lower left", fontsize="small", frameon=False)
        curves = (*self.left.values(), *self.right.values())
        moving: list[Artist] = [artist for curve in curves for artist in (curve.line, curve.bars)]
        shows = (
            "Validation accuracy of a base optimizer alone and of sharpness-aware methods over it, left against ρ, "
            "right against the learning rate."
        )
        super().__init__([self.base, self.rate], figure, [*moving, *self.dots.values()], shows=shows)

    def _update(self) -> str:
        if self.base.value is None:
            raise ValueError("base: none is selected.")
        factor, curves = _FACTORS[self.rate.value], self._curves[self.base.value]
        parts = []
        for method in self.left:
            table = curves.get(method, np.empty((0, 4)))
            by_rate = _best_for_each_rate(table)
            rate = factor * by_rate[by_rate[:, 2].argmax(), 0] if len(table) else math.nan
            here = table[np.isclose(table[:, 0], rate, rtol=_SAME_RATE)]
            has_rho = not np.isnan(table[:, 1]).all()
            self.left[method].show(here[:, 1:] if has_rho else _across(self.left[method].line.axes, here))
            self.right[method].show(by_rate[:, [0, 2, 3]])
            dot = by_rate[np.isclose(by_rate[:, 0], rate, rtol=_SAME_RATE)]
            self.dots[method].set_data(dot[:, 0], dot[:, 2])
            if len(here):
                best = here[here[:, 2].argmax()]
                at = f", ρ {best[1]:g}" if has_rho else ""
                parts.append(f"{method} <b>{best[2]:.3f}</b> ± {best[3]:.3f} (rate {best[0]:g}{at})")
            elif len(table):
                parts.append(f"{method}: rate {rate:g} was not tried")
        return " · ".join(parts)


class _Curve:
    """A line with bars, which are one more line with gaps."""

    def __init__(self, ax: Axes, color: str, label: str) -> None:
        self.line: Line2D = ax.plot([], [], "o-", color=color, label=label, markersize=4)[0]
        self.bars: Line2D = ax.plot([], [], "-", color=color, lw=1)[0]

    def show(self, points: FloatArray) -> None:
        """``points``: position, mean and error in each row."""
        x, mean, error = points.T
        self.line.set_data(x, mean)
        gaps = np.full_like(x, np.nan)
        self.bars.set_data(
            np.stack([x, x, gaps], axis=1).ravel(), np.stack([mean - error, mean + error, gaps], axis=1).ravel()
        )


def _across(ax: Any, row: FloatArray) -> FloatArray:
    """A horizontal line of one setting: the same mean and error at both ends of the axis."""
    return np.array([[x, *row[0, 2:]] for x in ax.get_xlim()]) if len(row) else np.empty((0, 3))


def _best_for_each_rate(table: FloatArray) -> FloatArray:
    rows = [table[table[:, 0] == rate] for rate in np.unique(table[:, 0])]
    return np.array([row[row[:, 2].argmax()] for row in rows]).reshape(-1, 4)


def _log_axis(ax: Axes, values: FloatArray, label: str) -> None:
    finite = np.unique(values[np.isfinite(values)])
    limits = (finite[0] / 1.3, finite[-1] * 1.3) if len(finite) else (0.1, 10.0)
    ax.set(xscale="log", xlabel=label, xlim=limits)
    ax.xaxis.set_minor_formatter(NullFormatter())
    if len(finite) <= _MOST_TICKS:
        ax.set_xticks(finite, [f"{value:g}" for value in finite])


def _checked(tuning: Any) -> dict[str, dict[str, FloatArray]]:
    """For each base and method a table of rate, ρ (NaN without), mean and error, sorted."""
    if not isinstance(tuning, Sequence) or isinstance(tuning, (str, bytes)):
        raise TypeError(f"tuning must be a sequence of dictionaries, got {type(tuning).__name__}.")
    if not tuning:
        raise ValueError("tuning is empty: there is nothing to show.")
    curves: dict[str, dict[str, FloatArray]] = {}
    for index, record in enumerate(tuning):
        try:
            base, method, settings = str(record["base"]), str(record["method"]), list(record["settings"])
            rows = [(s["lr"], s["rho"], s["accuracy"]["mean"], s["accuracy"]["error"]) for s in settings]
        except (TypeError, KeyError, IndexError, AttributeError) as error:
            raise TypeError(
                f"tuning[{index}] must be a dictionary with base, method and settings, as in "
                f'rl.course.load_results("base_optimizers")["tuning"]: {type(error).__name__} {error}.'
            ) from None
        if not rows:
            raise ValueError(f"tuning[{index}] ({method} over {base}) has no settings.")
        if method in curves.setdefault(base, {}):
            raise ValueError(f"tuning[{index}]: {method} over {base} occurs twice.")
        table = np.array(sorted(_checked_row(index, *row) for row in rows))
        without_rho = np.isnan(table[:, 1])
        if without_rho.any() and not without_rho.all():
            raise ValueError(f"tuning[{index}] ({method} over {base}) has settings with rho and without; split them.")
        if len(np.unique(np.nan_to_num(table[:, :2]), axis=0)) < len(table):
            raise ValueError(f"tuning[{index}] ({method} over {base}) has the same lr and rho twice.")
        curves[base][method] = table
    return curves


def _checked_row(index: int, lr: Any, rho: Any, mean: Any, error: Any) -> tuple[float, float, float, float]:
    name = f"of tuning[{index}]"
    return (
        check_real(f"lr {name}", lr, 0.0, open_minimum=True),
        math.nan if rho is None else check_real(f"rho {name}", rho, 0.0, open_minimum=True),
        check_real(f"mean accuracy {name}", mean, 0.0, 1.0),
        check_real(f"error {name}", error, 0.0),
    )
