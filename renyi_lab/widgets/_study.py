"""`StudyExplorer`: any measure of a study beside a generalization gap, by family of networks."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Hashable
from typing import Any

import ipywidgets
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from scipy.stats import rankdata

from renyi_lab._utils.figure import new_figure
from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_choice, check_real, printed
from renyi_lab.plots import BLUE, GREEN, GREY, ORANGE, PURPLE
from renyi_lab.study import Study, Tau, kendall_tau
from renyi_lab.widgets._base import Explorer

_ALL = "all"
_REPEAT = "seed"  # trainings that differ in nothing else have one setting
_COLORS = (GREEN, PURPLE, GREY, BLUE, ORANGE)  # blue and orange last: elsewhere they stand for the two gaps
_USUAL_ORDER = 1.5  # the larger of the two orders of the rule of Zhang et al. 2025


class StudyExplorer(Explorer):
    """How a measure orders the networks of a study, beside how a generalization gap orders them.

    Left: the rank of every network by the gap against its rank by the measure, coloured by family; ranks are all that
    Kendall's τ depends on. Right: τ over all networks and within each family, with 95 % intervals over settings.

    Args:
        study: A `Study`; its models at a minimum are shown.
        measure: Initial measure. Default: the first one.
        gap: Initial gap, ``"loss"`` or ``"error"``. Default: the first one that was recorded.
        alpha: Initial order of the measures that have one. Default: the recorded order nearest to 1.5, the larger one
            of the rule of Zhang et al. 2025.
        family: Axis of the grid whose values are the families.

    Raises:
        TypeError: ``study`` is not a `Study`.
        ValueError: No model is at a minimum, nothing was measured, a measure, gap, order or axis does not exist, or a
            family is named ``"all"``.

    Example:
        >>> explorer = StudyExplorer(Study.standard(), "trace")
        >>> explorer.shown.value = "mlp"
        >>> explorer.tau.value < 0
        True
    """

    def __init__(
        self,
        study: Study,
        measure: str | None = None,
        *,
        gap: str | None = None,
        alpha: float | None = None,
        family: str = "architecture",
    ) -> None:
        self._families, self._settings = _families(study, family)
        kept = study.kept
        gaps = {"loss": np.array([r.loss_gap for r in kept]), "error": np.array([r.error_gap for r in kept])}
        self._gap = {name: values for name, values in gaps.items() if np.isfinite(values).any()}
        self._values = _values(study)
        self._taus: dict[Hashable, Tau] = {}
        measures, orders = (
            list(self._values),
            sorted({order for by_order in self._values.values() for order in by_order if order is not None}),
        )
        names = list(dict.fromkeys(self._families))
        if _ALL in names:
            raise ValueError(
                f"family={printed(family)} has the value {_ALL!r}, which stands for all networks; rename it."
            )
        start = check_choice("measure", measures[0] if measure is None else measure, measures)
        self.measure = ipywidgets.Dropdown(options=measures, value=start, description="measure")
        first = check_choice("gap", next(iter(self._gap)) if gap is None else gap, self._gap)
        self.gap = ipywidgets.ToggleButtons(options=list(self._gap), value=first, description="gap")
        self.gap.style.button_width = "4em"
        self.shown = ipywidgets.Dropdown(options=[_ALL, *names] if len(names) > 1 else names, description="shown")
        self.alpha = _order_slider(orders, alpha)
        figure = new_figure(8.6, 3.4)
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
        moving = [*self._draw_ranks(left, names), *self._draw_taus(right)]
        shows = (
            "Left: the rank of every network by its generalization gap against its rank by the measure, coloured by "
            "family. Right: Kendall's τ with its 95 % interval, one row for all networks and one per family."
        )
        controls = [self.measure, self.gap, self.shown, *([self.alpha] if orders else [])]
        super().__init__(controls, figure, moving, shows=shows)

    @property
    def tau(self) -> Tau:
        """Kendall's τ of the shown networks, for the current measure and gap."""
        return self.tau_of(self.shown.value)

    def tau_of(self, family: str) -> Tau:
        """Kendall's τ of one family, or of ``"all"``, for the current measure and gap."""
        key = (self.measure.value, self._order, self.gap.value, check_choice("family", family, self.shown.options))
        if key not in self._taus:
            chosen = np.flatnonzero(self._mask(family))
            x, y = self._measured[chosen], self._gap[self.gap.value][chosen]
            self._taus[key] = kendall_tau(x, y, settings=[self._settings[i] for i in chosen])
        return self._taus[key]

    @property
    def _order(self) -> float | None:
        """The order at which the current measure is shown; ``None`` for a measure without one."""
        if self.alpha is None or None in self._values[self.measure.value]:
            return None
        return float(self.alpha.value)

    @property
    def _measured(self) -> FloatArray:
        by_order = self._values[self.measure.value]
        return by_order.get(self._order, np.full(len(self._families), math.nan))

    def _mask(self, family: str) -> Any:
        return np.array([family in (_ALL, name) for name in self._families])

    def _draw_ranks(self, ax: Axes, names: list[str]) -> list[Any]:
        self.dots: dict[str, Line2D] = {}
        for name, color in zip(names, itertools.cycle(_COLORS), strict=False):
            (self.dots[name],) = ax.plot([], [], "o", ms=5, alpha=0.75, color=color)
        ax.plot([0, 1], [0, 1], color=GREY, lw=0.6, ls=":")
        ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), title=" ")
        ax.set(xlabel="rank by the measure (1: largest)", ylabel="rank by the gap (1: largest)")
        self.title = ax.text(0.5, 1.03, "", transform=ax.transAxes, ha="center", fontsize="medium", parse_math=False)
        return [*self.dots.values(), self.title]

    def _draw_taus(self, ax: Axes) -> list[Any]:
        rows = list(self.shown.options)
        self.intervals: dict[str, Line2D] = {}
        self.points: dict[str, Line2D] = {}
        for name in rows:
            color = self.dots[name].get_color() if name in self.dots else "black"
            (self.intervals[name],) = ax.plot([], [], color=color, lw=2)
            (self.points[name],) = ax.plot([], [], "o", color=color, ms=8)
        ax.axvline(0, color=GREY, lw=0.8)
        labels = [f"{name} ({self._mask(name).sum()})" for name in rows]
        ax.set_yticks(range(len(rows)), labels, parse_math=False)
        ax.set_xticks(np.linspace(-1, 1, 5))
        ax.set(xlim=(-1.05, 1.05), ylim=(len(rows) - 0.5, -0.5), title=" ")
        ax.set(xlabel="Kendall's τ, 95 % interval over settings")
        return [*self.intervals.values(), *self.points.values()]

    def _update(self) -> str:
        if self.alpha is not None:
            self.alpha.disabled = self._order is None
        y, x, mask = self._gap[self.gap.value], self._measured, self._mask(self.shown.value)
        mask = mask & np.isfinite(x) & np.isfinite(y)
        for name, line in self.dots.items():
            part = self._mask(name)[mask]
            line.set_data(_ranks(x[mask])[part], _ranks(y[mask])[part])
        parts = []
        for row, name in enumerate(self.shown.options):
            tau, opacity = self.tau_of(name), 1.0 if self.shown.value in (name, _ALL) else 0.25
            self.intervals[name].set_data([tau.low, tau.high], [row, row])
            self.points[name].set_data([tau.value], [row])
            for line in (self.intervals[name], self.points[name]):
                line.set_alpha(opacity)
            parts.append(f"{html.escape(name)}: {_in_words(tau)}")
        self.title.set_text(self._label)
        return f"{html.escape(self._label)}: Kendall's τ<br>" + "<br>".join(parts)

    @property
    def _label(self) -> str:
        order = "" if self._order is None else f" (α = {self._order:g})"
        return f"{self.measure.value}{order}, {self.gap.value} gap"


def _families(study: Study, family: str) -> tuple[list[str], list[Hashable]]:
    """Family and setting of every model at a minimum; raises if there is none."""
    if not isinstance(study, Study):
        raise TypeError(f"study must be a Study, got {type(study).__name__}; Study.standard() comes with the package.")
    if not study.kept:
        study.kendall()  # raises and says why
    rows = [dict(record.axes) for record in study.kept]
    check_choice("family", family, rows[0])
    settings: list[Hashable] = [tuple(value for axis, value in row.items() if axis != _REPEAT) for row in rows]
    return [str(row[family]) for row in rows], settings


def _values(study: Study) -> dict[str, dict[float | None, FloatArray]]:
    """Measure → order → value of every model at a minimum; the order of a measure without one is ``None``."""
    recorded = [record.measurement for record in study.kept]
    found: dict[str, dict[float | None, FloatArray]] = {}
    for name in dict.fromkeys(name for m in recorded for name in m.curves):
        orders = sorted({order for m in recorded for order in m.curves.get(name, {})})
        curves = [m.curves.get(name, {}) for m in recorded]
        found[name] = {order: np.array([curve.get(order, math.nan) for curve in curves]) for order in orders}
    for name in dict.fromkeys(name for m in recorded for name in m.values):
        found[name] = {None: np.array([m.values.get(name, math.nan) for m in recorded])}
    if not found:
        raise ValueError("study holds no measures; run_study(..., measure=...) records them.")
    return found


def _order_slider(orders: list[float], alpha: float | None) -> ipywidgets.SelectionSlider | None:
    """A slider over the recorded orders; ``None`` if no measure has an order."""
    if not orders:
        if alpha is not None:
            raise ValueError(f"alpha={printed(alpha)}, but no measure of this study has an order; leave it out.")
        return None
    wanted = _USUAL_ORDER if alpha is None else check_real("alpha", alpha)
    value = min(orders, key=lambda order: abs(order - wanted))
    if alpha is not None and value != wanted:
        recorded = ", ".join(f"{order:g}" for order in orders)
        raise ValueError(f"alpha must be a recorded order, got {printed(alpha)}; available: {recorded}.")
    return ipywidgets.SelectionSlider(
        options=[(f"{order:g}", order) for order in orders], value=value, description="α", continuous_update=True
    )


def _ranks(values: FloatArray) -> FloatArray:
    """Ranks from 0 to 1; ties share theirs."""
    return np.asarray((rankdata(values) - 1) / max(len(values) - 1, 1))


def _in_words(tau: Tau) -> str:
    if math.isnan(tau.value):
        return f"undefined: {tau.remark}"
    counted = f"{tau.num_models} networks in {tau.num_settings} settings"
    if math.isnan(tau.low):
        return f"<b>{tau.value:+.2f}</b> ({tau.remark}; {counted})"
    note = f"; {tau.remark}" if tau.remark else ""
    return f"<b>{tau.value:+.2f}</b> [{tau.low:+.2f}, {tau.high:+.2f}] ({counted}{note})"
