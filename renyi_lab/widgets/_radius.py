"""`RadiusExplorer`: the worst and the average loss in a ball as functions of its radius."""

from __future__ import annotations

import dataclasses

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from renyi_lab._utils.figure import new_figure
from renyi_lab._utils.progress import progress_bar
from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_int, check_real
from renyi_lab.operators import ModelOperator, check_operator
from renyi_lab.perturbation import (
    AverageCase,
    LossPlane,
    WorstCase,
    average_case_loss,
    loss_plane,
    random_direction,
    worst_case_loss,
)
from renyi_lab.plots import BLUE, GREY, ORANGE
from renyi_lab.widgets._base import Explorer
from renyi_lab.widgets._controls import grid_slider, nearest

_NUM_RADII = 20  # of the slider, each computed in advance. Heuristic: smooth, at a moderate cost.
_PLANE_POINTS = 25  # per axis of the left picture. Heuristic: a second or two for a small network.
_PLANE_POWER = 1.7  # Heuristic: points are denser near the centre, where the valley is narrow.
_PLANE_REACH = 1.15  # of the largest radius, so that its full circle is visible


class RadiusExplorer(Explorer):
    """The worst and the average loss in the ball ``‖ε‖ ≤ ρ``, and a plane through it, as functions of ``ρ``.

    Left: the loss on the plane of the worst direction of the largest ball and of a random one; the circle is the
    boundary of the ball, the point the projection of the worst perturbation found. Right: worst and average loss
    (± 2 standard errors) against ``ρ``.

    Args:
        operator: A `HessianOperator`; its loss, data and parameters are used. The model is not changed.
        max_rho: Largest radius, positive, in units of the weights. Default 1 (heuristic: the loss of a small network
            rises visibly).
        rho: Initial radius, rounded to the nearest of 20 values. Default: half of ``max_rho``.
        seed: Random seed for the ascents, the draws and the random direction.

    Raises:
        TypeError: ``operator`` is not a `HessianOperator`.
        ValueError: A number is out of range, or losses are not finite in the largest ball.

    Example:
        >>> import torch
        >>> from renyi_lab import HessianOperator
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> target = model(torch.eye(2)).detach()
        >>> H = HessianOperator(model, torch.nn.MSELoss(), (torch.eye(2), target))         # L = ½ ‖ε‖²
        >>> explorer = RadiusExplorer(H, max_rho=2.0)
        >>> explorer.rho.value = 1.0
        >>> round(explorer.worst.loss, 4)
        0.5
    """

    def __init__(
        self, operator: ModelOperator, *, max_rho: float = 1.0, rho: float | None = None, seed: int = 0
    ) -> None:
        limit = check_real("max_rho", max_rho, 0.0, open_minimum=True)
        radii = np.linspace(0.0, limit, _NUM_RADII + 1)[1:]
        wanted = limit / 2 if rho is None else check_real("rho", rho, 0.0, limit)
        self._radii, seed = radii, check_int("seed", seed, 0)
        if check_operator(operator).dim < 2:
            raise ValueError("operator has one parameter, which spans no plane; select more parameters of the model.")
        self.worst_cases, self.averages = _balls(operator, radii, seed)
        self.rho = grid_slider("ρ", radii, wanted, ".3g")
        figure = new_figure(9.2, 3.7)
        left, right = figure.subplots(1, 2)
        self.plane = self._draw_plane(left, operator, seed)
        (self.circle,) = left.plot([], [], color=ORANGE, lw=2)
        (self.point,) = left.plot([], [], "o", color=ORANGE, markersize=8)
        self._draw_curves(right)
        (self.worst_marker,) = right.plot([], [], "o", color=ORANGE, markersize=8, clip_on=False)
        (self.average_marker,) = right.plot([], [], "o", color=BLUE, markersize=8, clip_on=False)
        moving: list[Line2D] = [self.circle, self.point, self.worst_marker, self.average_marker]
        shows = (
            "Left: the loss on a plane through the weights, with a circle of radius ρ and a dot at the worst "
            "perturbation. Right: the worst and the average loss in the ball of radius ρ against ρ, with dots at the "
            "current ρ."
        )
        super().__init__([self.rho], figure, moving, shows=shows)

    @property
    def worst(self) -> WorstCase:
        """The worst case at the current radius."""
        return self.worst_cases[self._index]

    @property
    def average(self) -> AverageCase:
        """The average case at the current radius."""
        return self.averages[self._index]

    @property
    def _index(self) -> int:
        return nearest(self._radii, self.rho.value)

    def _draw_plane(self, ax: Axes, operator: ModelOperator, seed: int) -> LossPlane:
        first = self.worst_cases[-1].perturbation
        first = first / first.norm() if first.any() else random_direction(operator, seed)
        second = random_direction(operator, seed + 1)  # the ascent started along the direction of the seed itself
        second = second - (second @ first) * first
        second = second / second.norm()
        self._projections = np.array([[float(w.perturbation @ d) for d in (first, second)] for w in self.worst_cases])
        even = np.linspace(-1, 1, _PLANE_POINTS)
        steps = np.sign(even) * np.abs(even) ** _PLANE_POWER * _PLANE_REACH * self._radii[-1]
        plane = loss_plane(operator, first, second, steps)
        plane.plot(ax)
        ax.set(xlabel="along the worst direction", ylabel="along a random direction", aspect="equal")
        return plane

    def _draw_curves(self, ax: Axes) -> None:
        base = self.worst.base_loss
        worst = np.array([w.loss for w in self.worst_cases])
        mean = np.array([a.loss for a in self.averages])
        error = np.array([a.standard_error for a in self.averages])
        ax.plot(self._radii, worst, color=ORANGE, label="worst")
        ax.plot(self._radii, mean, color=BLUE, label="average")
        ax.fill_between(self._radii, mean - 2 * error, mean + 2 * error, color=BLUE, alpha=0.2, lw=0)
        ax.axhline(base, color=GREY, lw=0.8, ls=":", label="at the centre")
        if min(base, mean.min()) > 0:
            ax.set_yscale("log")
        ax.set(xlabel="radius ρ", ylabel="loss", xlim=(0, self._radii[-1]))
        ax.legend(loc="upper left", fontsize="small", frameon=False)

    def _update(self) -> str:
        rho, index = self._radii[self._index], self._index
        angle = np.linspace(0, 2 * np.pi, 121)
        self.circle.set_data(rho * np.cos(angle), rho * np.sin(angle))
        self.point.set_data(*self._projections[index][:, None])
        self.worst_marker.set_data([rho], [self.worst.loss])
        self.average_marker.set_data([rho], [self.average.loss])
        parts = [
            f"worst <b>{self.worst.loss:.4g}</b>",
            f"average <b>{self.average.loss:.4g}</b> ± {self.average.standard_error:.1g}",
            f"at the centre {self.worst.base_loss:.4g}",
        ]
        if self.average.rise > 2 * self.average.standard_error:
            parts.append(f"the worst rise is <b>{self.worst.rise / self.average.rise:.3g}</b> times the average")
        return " · ".join(parts)


def _balls(operator: ModelOperator, radii: FloatArray, seed: int) -> tuple[list[WorstCase], list[AverageCase]]:
    worst_cases: list[WorstCase] = []
    averages: list[AverageCase] = []
    with progress_bar(len(radii), "worst and average cases") as bar:
        for rho in radii.tolist():
            found = worst_case_loss(operator, rho, seed=seed)
            if worst_cases and worst_cases[-1].loss > found.loss:  # a ball contains the smaller ones
                found = dataclasses.replace(worst_cases[-1], rho=rho)
            worst_cases.append(found)
            averages.append(average_case_loss(operator, rho, seed=seed))
            bar.update()
    return worst_cases, averages
