"""`LandscapeExplorer`: the loss on a plane through two solutions, and sharpness on the path between them."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from torch import Tensor, nn

from renyi_lab._utils.figure import new_figure
from renyi_lab._utils.threads import one_thread
from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_int, check_real, printed
from renyi_lab.perturbation import LossPlane
from renyi_lab.plots import BLUE, GREY, ORANGE
from renyi_lab.widgets._base import Explorer
from renyi_lab.widgets._controls import float_slider, grid_slider, nearest
from renyi_lab.widgets._solutions import SolutionPlane, positions

_TICKS = (0.0, 0.1, 0.5, 0.9, 1.0)
_LOG_FROM = 20.0  # Heuristic: values that exceed the median by a larger factor need a logarithmic axis.
_SMALLEST_SHARE = 1e-4  # Of the median. Heuristic: smaller values would take up most of a logarithmic axis.


class LandscapeExplorer(Explorer):
    """The loss on a plane through two solutions; loss, test error, trace and ``H_α`` on the path between them.

    Left: the training loss at ``θ(t, s) = a + t (b − a) + s d``, where ``d`` is orthogonal to ``b − a``; it
    leads to a third solution at ``s = 1`` or is random.
    Right: curves along the straight path (``s = 0``), with dots at the current ``t`` and ``s``.

    Trace and ``H_α`` are those of the Hessian of the training loss, also where the residuals are not zero. For
    ``layer2(relu(layer1(x)))`` with one output and squared loss they are exact. For other networks they are estimated
    on the path only, with bands of ± 2 standard errors. The dotted line is ``log n``, the largest entropy possible with
    one output and squared loss where all ``n`` samples are fitted.

    The path depends on the order of the neurons: permuting those of ``b`` does not change its function, but the path.

    Args:
        a: First solution, at ``t = 0``. No model is changed.
        b: Second solution, at ``t = 1``, of the same architecture and width.
        loss_fn: Loss, as for `HessianOperator`.
        data: Training data, as for `HessianOperator`.
        test_data: Pairs ``(x, y)`` for the test error: of the sign of a single output with ``y = ±1``, or of the
            largest output with labels. Default: no test error.
        third: A third solution, which the plane then contains. Default: ``d`` is random.
        labels: Names of the solutions in the picture, two or three.
        alpha: Initial order, in ``[0.5, 4]``.
        t: Initial position, rounded to the nearest value of the slider.
        seed: Random seed for ``d``.

    Raises:
        TypeError: A solution is not a module.
        ValueError: The solutions have different architectures or frozen parameters, are the same, or lie on one line;
            a loss is not finite; a number is out of range.

    Example:
        >>> import torch
        >>> a, b = torch.nn.Linear(2, 1, bias=False), torch.nn.Linear(2, 1, bias=False)
        >>> data = torch.eye(2), a(torch.eye(2)).detach()
        >>> explorer = LandscapeExplorer(a, b, torch.nn.functional.mse_loss, data, t=1.0)
        >>> round(explorer.trace.value, 4)                                            # H = I everywhere
        2.0
    """

    def __init__(
        self,
        a: nn.Module,
        b: nn.Module,
        loss_fn: Callable[..., Tensor],
        data: Any,
        *,
        test_data: Any = None,
        third: nn.Module | None = None,
        labels: Sequence[str] = ("a", "b", "third"),
        alpha: float = 1.5,
        t: float = 0.5,
        seed: int = 0,
    ) -> None:
        order, position = check_real("alpha", alpha, 0.5, 4.0), check_real("t", t)
        models = [a, b] if third is None else [a, b, third]
        if not isinstance(labels, (list, tuple)) or len(labels) < len(models):
            raise ValueError(f"labels must name the {len(models)} solutions, got {printed(labels)}.")
        self._labels = [str(label) for label in labels]
        self._alpha_of_curve = math.nan
        self.plane = SolutionPlane(models, loss_fn, data, test_data, check_int("seed", seed, 0))
        plane = self.plane
        options = [(f"{t:.3g}", t) for t in plane.ts.tolist()]
        start = options[nearest(plane.ts, position)][1]
        self.t = ipywidgets.SelectionSlider(options=options, value=start, description="t")
        self.s = grid_slider("s", plane.rows, 0.0)
        self.alpha = float_slider("α", order, 0.5, 4.0)
        figure = new_figure(10.6, 4.2)
        parts: Any = figure.subfigures(1, 2, width_ratios=(5, 6))
        left, right = parts
        self._draw_plane(left.subplots())
        (self._loss_axes, self._error_axes), (self._trace_axes, self._entropy_axes) = right.subplots(2, 2, sharex=True)
        self._draw_curves()
        every = (self._loss_axes, self._error_axes, self._trace_axes, self._entropy_axes)
        self.markers = [axes.plot([], [], "o", color=ORANGE, markersize=8, clip_on=False)[0] for axes in every]
        moving = [self.point, self.entropy_curve, *self.entropy_band, *self.markers]
        shows = (
            f"Left: contours of the training loss on a plane through {self._labels[0]} and {self._labels[1]}, with a "
            "dot at the current point. Right: training loss, test error, trace of the Hessian and Rényi entropy H_α "
            "along the straight path between the two solutions, with dots at the current point."
        )
        super().__init__([self.t, self.s, self.alpha], figure, moving, shows=shows)

    @property
    def loss(self) -> float:
        """The training loss at the current point."""
        return self.plane.loss(*self._index)

    @property
    def error(self) -> float:
        """The test error at the current point; NaN without test data."""
        return math.nan if self.plane.errors is None else float(self.plane.errors[self._index])

    @property
    def trace(self) -> Any:
        """The trace at the current point, an `Estimate`."""
        return self.plane.trace(*self._index)

    @property
    def entropy(self) -> Any:
        """``H_α`` at the current point, an `Estimate`."""
        return self.plane.entropy(*self._index, self.alpha.value)

    @property
    def _index(self) -> tuple[int, int]:
        return nearest(self.plane.ts, self.t.value), nearest(self.plane.rows, self.s.value)

    def _draw_plane(self, ax: Axes) -> None:
        plane = self.plane
        LossPlane(positions(plane.ts), plane.fine_rows, plane.losses).plot(ax)
        for line in list(ax.lines):
            line.remove()  # the mark of the origin
        ax.plot([0, 1], [0, 0], "--", color="white", lw=1.5)
        ends = [(0.0, 0.0), (1.0, 0.0), *([] if plane.third is None else [(plane.third, 1.0)])]
        for (t, s), label in zip(ends, self._labels, strict=False):
            u = float(positions(t))
            ax.plot([u], [s], "o", color="white", markeredgecolor="black", markersize=7)
            ax.annotate(
                label, (u, s), (0, 9), textcoords="offset points", ha=_alignment(u), fontsize="small",
                bbox={"boxstyle": "round,pad=0.2", "facecolor": "white", "alpha": 0.8, "linewidth": 0},
            )  # fmt: skip
        (self.point,) = ax.plot([], [], "o", color=ORANGE, markeredgecolor="white", markersize=11)
        ax.set(xticks=positions(_TICKS), xticklabels=[f"{t:g}" for t in _TICKS])
        ax.set(xlabel="t (smaller steps near the solutions)", ylabel="s", title="training loss")

    def _draw_curves(self) -> None:
        plane, origin, note = self.plane, self.plane.origin, _note(self.plane)
        indices = range(len(plane.ts))
        loss = np.array([plane.loss(i, origin) for i in indices])
        self._draw_curve(self._loss_axes, "training loss", loss, plane.losses.ravel())
        if plane.errors is None:
            self._error_axes.set_axis_off()
        else:
            self._draw_curve(self._error_axes, "test error", plane.errors[:, origin], plane.errors.ravel())
        traces = [plane.trace(i, origin) for i in indices]
        middle, spread = np.array([e.value for e in traces]), np.array([2 * e.standard_error for e in traces])
        seen = np.append([plane.trace(*key).value for key in plane.spectra], [middle - spread, middle + spread])
        self._draw_curve(self._trace_axes, f"trace of the Hessian{note}", middle, seen)
        if not plane.is_exact:
            band = {"color": BLUE, "alpha": 0.25, "lw": 0}
            self._trace_axes.fill_between(positions(plane.ts), middle - spread, middle + spread, **band)
        self._draw_entropies()
        for axes in (self._trace_axes, self._entropy_axes):
            axes.set(xticks=[0, 1], xticklabels=self._labels[:2])

    def _draw_entropies(self) -> None:
        plane, ax, note = self.plane, self._entropy_axes, _note(self.plane)
        empty = np.full(len(plane.ts), np.nan)
        extremes = [plane.entropy(*key, order) for key in plane.spectra for order in (0.5, 4.0)]
        seen = np.array([e.value + k * e.standard_error for e in extremes for k in (-2, 2)])
        (self.entropy_curve,) = self._draw_curve(ax, f"$H_\\alpha$ (nats){note}", empty, seen)
        self.entropy_band = [ax.plot(positions(plane.ts), empty, color=BLUE, lw=0.8, ls=":")[0] for _ in range(2)]
        if plane.is_exact:
            bound, right = math.log(plane.operator.num_samples), float(positions(plane.ts[-1]))
            ax.axhline(bound, color=GREY, lw=0.8, ls=":")
            ax.annotate("log n", (right, bound), (0, 2), textcoords="offset points", ha="right", fontsize="x-small")

    def _draw_curve(self, ax: Axes, title: str, curve: FloatArray, seen: FloatArray) -> list[Line2D]:
        """Draw a curve in limits that contain ``seen``; logarithmic where values differ much."""
        finite = seen[np.isfinite(seen)] if np.isfinite(seen).any() else np.zeros(1)
        low, high = float(finite.min()), float(finite.max())
        if low >= 0 and high > _LOG_FROM * float(np.median(finite)) > 0:
            low = max(low, _SMALLEST_SHARE * float(np.median(finite)))
            ax.set(yscale="log", ylim=(low / 1.5, 1.5 * high))
        else:
            margin = 0.06 * (high - low) or 0.5
            ax.set_ylim(low - margin, high + margin)
        ax.set(xlim=positions(self.plane.ts[[0, -1]]))
        ax.vlines([0.0, 1.0], *ax.get_ylim(), color="0.9", lw=1, zorder=0)
        ax.set_title(title, fontsize="medium")
        ax.spines[["top", "right"]].set_visible(False)
        return ax.plot(positions(self.plane.ts), np.maximum(curve, ax.get_ylim()[0]), color=BLUE)

    @one_thread()  # two would wait for each other on a busy machine
    def _update(self) -> str:
        plane, (i, j), alpha = self.plane, self._index, self.alpha.value
        t, s = float(plane.ts[i]), float(plane.rows[j])
        u = float(positions(t))
        self.point.set_data([u], [s])
        if alpha != self._alpha_of_curve:
            self._move_entropy_curve(alpha)
        trace, entropy = self.trace, self.entropy
        for marker, value in zip(self.markers, (self.loss, self.error, trace.value, entropy.value), strict=True):
            marker.set_data([u], [max(value, marker.axes.get_ylim()[0])])
        error = "" if plane.errors is None else f" · test error <b>{self.error:.3f}</b>"
        place = f"t = {t:.3g}" + (f", s = {s:.2f}" if s else " on the path")
        if s == 0 and t in (0.0, 1.0):
            place = f"at {html.escape(self._labels[int(t)])}"
        return f"{place}: training loss <b>{self.loss:.4g}</b>{error} · {self._curvature(trace, entropy)}"

    def _move_entropy_curve(self, alpha: float) -> None:
        path = [self.plane.entropy(i, self.plane.origin, alpha) for i in range(len(self.plane.ts))]
        self.entropy_curve.set_ydata([e.value for e in path])
        for line, sign in zip(self.entropy_band, (-2, 2), strict=True):
            exact = self.plane.is_exact
            line.set_ydata([math.nan if exact else e.value + sign * e.standard_error for e in path])
        self._alpha_of_curve = alpha

    def _curvature(self, trace: Any, entropy: Any) -> str:
        if self.plane.is_exact:
            return (
                f"trace <b>{trace.value:.4g}</b> · H<sub>α</sub> <b>{entropy.value:.3f}</b> nats, both exact, of the "
                f"whole Hessian (log n = {math.log(self.plane.operator.num_samples):.3f})"
            )
        if math.isnan(trace.value):
            return "trace and H<sub>α</sub> are estimated on the path only (s = 0)"
        return (
            f"trace <b>{trace.value:.4g} ± {trace.standard_error:.2g}</b> · H<sub>α</sub> <b>{entropy.value:.2f} ± "
            f"{entropy.standard_error:.2f}</b> nats, estimated (± one standard error; bands: two)"
        )


def _alignment(u: float) -> str:
    """Of a label, so that it does not leave the picture."""
    return "left" if u < 0.2 else "right" if u > 0.8 else "center"


def _note(plane: SolutionPlane) -> str:
    return "" if plane.is_exact else ", estimated"
