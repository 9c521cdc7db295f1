"""`LanczosExplorer`: Ritz values over the true spectrum, one product at a time."""

from __future__ import annotations

import math
from typing import Any

import ipywidgets
import numpy as np
from numpy.typing import ArrayLike

from renyi_lab._utils.figure import new_figure
from renyi_lab._utils.progress import progress_bar
from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_int
from renyi_lab.krylov import CONVERGED, Tridiagonal, lanczos_steps
from renyi_lab.operators import as_operator
from renyi_lab.plots import BLUE, GREEN, ORANGE
from renyi_lab.spectrum import Spectrum
from renyi_lab.widgets._base import Explorer
from renyi_lab.widgets._controls import count_slider
from renyi_lab.widgets._sources import exact_or_none, is_results, tridiagonals

# Ritz values this close, relative to the largest, are copies of one eigenvalue.
_SAME = 1e-6
# Residuals below this share of the largest eigenvalue are rounding; drawn at this height.
_FLOOR = 1e-16
# Share of the axis that a tick needs.
_TICK = 0.09
_MILLISECONDS_PER_STEP = 250
_LIGHT = "0.82"  # many lines must stay in the background


class LanczosExplorer(Explorer):
    """The convergence of Lanczos step by step: which eigenvalues are found, and how accurately.

    Left: the Ritz values after 1, 2, … products, one row per step, over the true eigenvalues (vertical lines). Right:
    the residual ``‖A x − θ x‖`` of each Ritz pair of the current step. Green: converged, that is, the residual is below
    ``|θ| / 1000``, the dashed line. On the horizontal axes equal lengths are equal steps of the
    cube root, so that bulk and outliers can both be seen.

    Args:
        source: An operator: a `HessianOperator`, a matrix, anything with ``.shape`` and ``@``. Or results: what
            `lanczos_steps` yields (from any start, with or without re-orthogonalization), or one `Tridiagonal`.
        num_steps: Largest number of steps for an operator. Default 40 (heuristic: the largest eigenvalues of a trained
            network have converged).
        step: Initial step.
        exact: The true spectrum, as a `Spectrum` or as all eigenvalues. Default: computed for an operator of at most
            1,000 rows, otherwise replaced by the Ritz values of the last step.

    Raises:
        TypeError: ``source`` is neither an operator nor Lanczos steps.
        ValueError: There are no steps, ``step`` exceeds their number, or ``exact`` has another dimension.

    Example:
        >>> import torch
        >>> explorer = LanczosExplorer(torch.diag(torch.arange(1.0, 6.0)), step=2)
        >>> explorer.step.value = 5
        >>> explorer.ritz_values.round(4).tolist()
        [1.0, 2.0, 3.0, 4.0, 5.0]
    """

    def __init__(
        self, source: Any, *, num_steps: int = 40, step: int = 1, exact: Spectrum | ArrayLike | None = None
    ) -> None:
        self.steps = _steps_of(source, check_int("num_steps", num_steps))
        count = len(self.steps)
        self.step = count_slider("step", check_int("step", step, 1, count), count)
        self.play = ipywidgets.Play(
            value=step, min=1, max=count, interval=_MILLISECONDS_PER_STEP, tooltip="Take the steps in order"
        )
        # Linked in the browser, so that the animation does not wait for the kernel.
        ipywidgets.jslink((self.play, "value"), (self.step, "value"))
        self.exact = exact_or_none(source, self.steps[-1].basis.shape[1], exact)
        self._largest = float(max(np.abs(s.ritz_values).max() for s in self.steps)) or 1.0
        self._converged = [s.residuals <= CONVERGED * np.abs(s.ritz_values) for s in self.steps]
        # All rows of the left picture; an update shows those up to the current step.
        self._ends = np.cumsum([len(s.ritz_values) for s in self.steps])
        self._values = np.concatenate([s.ritz_values for s in self.steps])
        self._rows = np.repeat(np.arange(1, count + 1), np.diff(self._ends, prepend=0))
        self._green = np.concatenate(self._converged)
        figure = new_figure(9.2, 3.8)
        left, right = figure.subplots(1, 2, sharex=True, width_ratios=(3, 2))
        self._draw_static(left, right)
        (self.found,) = left.plot([], [], ".", color=GREEN, markersize=4, label="converged")
        (self.searching,) = left.plot([], [], ".", color=ORANGE, markersize=4, label="not converged")
        (self.current,) = left.plot([], [], "o", color="black", markerfacecolor="none", markersize=6, label="this step")
        (self.small,) = right.plot([], [], "o", color=GREEN, markersize=4, clip_on=False)
        (self.large,) = right.plot([], [], "o", color=ORANGE, markersize=4, clip_on=False)
        left.legend(loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=3, frameon=False, fontsize="small")
        moving = [self.found, self.searching, self.current, self.small, self.large]
        shows = (
            "Left: the Ritz values after 1, 2, … products, one row of dots per step, over vertical lines at the "
            f"{'true eigenvalues' if self.exact is not None else 'last Ritz values'}. Right: the residual of each Ritz "
            "value of the current step on a logarithmic axis, with a dashed line below which it counts as converged."
        )
        super().__init__([self.step], figure, moving, beside=[self.play], shows=shows)

    @property
    def ritz_values(self) -> FloatArray:
        """Ritz values at the current step, ascending."""
        values: FloatArray = self.steps[self.step.value - 1].ritz_values
        return values

    def reset(self) -> None:
        """Stop playing and restore the initial step."""
        self.play.playing = False
        super().reset()

    def _draw_static(self, left: Any, right: Any) -> None:
        reference = self._values[-len(self.steps[-1].ritz_values) :] if self.exact is None else self.exact.nodes
        known = "true eigenvalues" if self.exact is not None else "last Ritz values"
        low, high = _padded(np.cbrt(np.concatenate([reference, self._values])))
        grid = np.linspace(low, high, 401) ** 3
        for axes, width in ((left, _TICK), (right, 1.5 * _TICK)):
            axes.set_xscale("function", functions=(np.cbrt, _cube))
            axes.vlines(reference, 0, 1, transform=axes.get_xaxis_transform(), color=_LIGHT, lw=0.8)
            ticks = _ticks(low, high, width)
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize="small")
        left.set(xlabel=f"Ritz value (grey: {known}; cube-root axis)", ylabel="products")
        left.set_ylim(0, 1.04 * len(self.steps) + 1)
        limit = np.maximum(CONVERGED * np.abs(grid), _FLOOR * self._largest)
        right.plot(grid, limit, color=BLUE, lw=0.8, ls="--", label="|θ| / 1000: converged below")
        right.legend(loc="upper center", bbox_to_anchor=(0.5, 1.14), frameon=False, fontsize="small")
        right.set(
            xlabel="Ritz value θ", ylabel="residual", yscale="log", xlim=(grid[0], grid[-1]),
            ylim=(_FLOOR * self._largest, 3 * self._largest),
        )  # fmt: skip

    def _update(self) -> str:
        k = self.step.value - 1
        now, converged, shown = self.steps[k], self._converged[k], slice(0, self._ends[k])
        values, rows, green = self._values[shown], self._rows[shown], self._green[shown]
        self.found.set_data(values[green], rows[green])
        self.searching.set_data(values[~green], rows[~green])
        self.current.set_data(now.ritz_values, np.full(len(now.ritz_values), k + 1))
        heights = np.maximum(now.residuals, _FLOOR * self._largest)
        self.small.set_data(now.ritz_values[converged], heights[converged])
        self.large.set_data(now.ritz_values[~converged], heights[~converged])
        copies = int((np.diff(now.ritz_values[converged]) < _SAME * self._largest).sum())
        parts = [
            f"<b>{now.num_steps}</b> products",
            f"<b>{int(converged.sum())}</b> of {len(converged)} Ritz values have converged",
            f"largest <b>{now.ritz_values[-1]:.5g}</b>",
        ]
        if self.exact is not None:
            parts[-1] += f" (largest eigenvalue {self.exact.nodes[-1]:.5g})"
        if copies:
            parts.append(f"<b>{copies}</b> of them are copies of others (ghosts)")
        return " · ".join(parts)


def _steps_of(source: Any, num_steps: int) -> list[Tridiagonal]:
    if isinstance(source, Tridiagonal):
        return [source.leading(k) for k in range(1, source.num_steps + 1)]
    if is_results(source):
        return tridiagonals(source)
    operator = as_operator(source)
    limit = min(num_steps, operator.dim)
    steps = []
    with progress_bar(limit, "Lanczos steps") as bar:
        for step in lanczos_steps(operator, num_steps=limit):
            steps.append(step)
            bar.update()
    return steps


def _padded(values: FloatArray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    margin = 0.04 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin


def _cube(values: FloatArray) -> FloatArray:
    return values**3


def _ticks(low: float, high: float, width: float) -> list[float]:
    """Round numbers between the cubes of ``low`` and ``high``, at least ``width`` of the axis apart, zero first."""
    largest = math.floor(3 * math.log10(max(abs(low), abs(high))))
    sizes = [digit * 10.0**power for power in range(largest, largest - 5, -1) for digit in (5, 2, 1)]
    chosen: list[float] = []
    for tick in [0.0, *(sign * size for size in sizes for sign in (1, -1))]:
        inside = low <= np.cbrt(tick) <= high
        if inside and all(abs(np.cbrt(tick) - np.cbrt(other)) >= width * (high - low) for other in chosen):
            chosen.append(tick)
    return sorted(chosen)
