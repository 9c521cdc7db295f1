"""`RSAMExplorer`: the perturbations of SAM and of RSAM's three forms on a loss of two parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from torch import Tensor

from renyi_lab._utils.figure import new_figure
from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_real, printed
from renyi_lab.optim import RSAM, SAM, SharpnessAware
from renyi_lab.plots import BLUE, GREEN, GREY, ORANGE, PURPLE
from renyi_lab.widgets._base import Explorer
from renyi_lab.widgets._controls import float_slider

_REACH = 2.0  # of the landscape, in each coordinate
_ALPHAS = np.linspace(0.5, 3.0, 26).round(2).tolist()  # below ½ the exact form has no perturbation
_RHOS = (0.01, 1.0)
_CURVATURES = (1e-3, 1e3)
_LEARNING_RATE = 0.2  # of the steps drawn. Heuristic: visible, and below the limit of stability
_NUM_LINES = 18  # of equal loss
_COLORS = {"SAM": ORANGE, "paper": BLUE, "divergence": GREEN, "exact": PURPLE}


class RSAMExplorer(Explorer):
    """Where SAM and RSAM take their second gradient on ``L = ½ (λ₁ x² + λ₂ y²)``, and how far away for every order.

    Left: lines of equal loss, the weights, the perturbed weights of every method, and dashed the step that follows,
    with the gradient there. Right: the length of each perturbation against ``α``.

    Args:
        eigenvalues: The curvatures ``(λ₁, λ₂)``, each in [0.001, 1000].
        point: Initial weights ``(x, y)``, each in [−2, 2].
        alpha: Initial order, in [0.5, 3].
        rho: Initial ``ρ`` of all methods, in [0.01, 1].

    Raises:
        TypeError: ``eigenvalues`` or ``point`` is not a pair of numbers.
        ValueError: A number is out of range.

    Example:
        >>> explorer = RSAMExplorer((1.0, 1.0), point=(0.6, 0.8), alpha=2.0, rho=0.5)
        >>> {name: round(length, 4) for name, length in explorer.lengths.items()}
        {'SAM': 0.5, 'paper': 0.2696, 'divergence': 0.0377, 'exact': 0.2688}
    """

    def __init__(
        self,
        eigenvalues: tuple[float, float] = (4.0, 1.0),
        *,
        point: tuple[float, float] = (0.5, 1.3),
        alpha: float = 1.6,
        rho: float = 0.7,
    ) -> None:
        first, second = _pair("eigenvalues", eigenvalues)
        for value in (first, second):
            check_real("eigenvalues", value, *_CURVATURES)
        x, y = (check_real("point", value, -_REACH, _REACH) for value in _pair("point", point))
        order = check_real("alpha", alpha, _ALPHAS[0], _ALPHAS[-1])
        self._curvatures = torch.tensor([first, second], dtype=torch.float64)
        self._weights = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        self._optimizers: dict[str, SharpnessAware] = {
            "SAM": SAM([self._weights], lr=1.0),
            **{form: RSAM([self._weights], lr=1.0, alpha=2.0, form=form) for form in ("paper", "divergence", "exact")},
        }
        self.alpha = float_slider("α", order, _ALPHAS[0], _ALPHAS[-1])
        self.rho = float_slider("ρ", check_real("rho", rho, *_RHOS), *_RHOS, 0.01)
        self.x = float_slider("x", x, -_REACH, _REACH)
        self.y = float_slider("y", y, -_REACH, _REACH)
        figure = new_figure(9.2, 4.0)
        left, right = figure.subplots(1, 2, width_ratios=(1.1, 1.0))
        moving = [*self._draw_landscape(left), *self._draw_lengths(right)]
        shows = (
            "Left: lines of equal loss over two weights, with the perturbed weights of SAM and of three forms of RSAM, "
            "and the steps that follow. Right: the length of each perturbation against the order α, with dots at the "
            "current α."
        )
        super().__init__([self.alpha, self.rho, self.x, self.y], figure, moving, shows=shows)

    @property
    def gradient(self) -> FloatArray:
        """The gradient at the current weights."""
        return (self._curvatures * self._theta).numpy()

    @property
    def perturbations(self) -> dict[str, FloatArray]:
        """The current perturbation ``ε`` of each method."""
        return {name: self._perturbation(name, self.alpha.value) for name in self._optimizers}

    @property
    def lengths(self) -> dict[str, float]:
        """The current ``‖ε‖`` of each method."""
        return {name: float(np.linalg.norm(epsilon)) for name, epsilon in self.perturbations.items()}

    @property
    def _theta(self) -> Tensor:
        return torch.tensor([self.x.value, self.y.value], dtype=torch.float64)

    def _perturbation(self, name: str, alpha: float) -> FloatArray:
        group = {"rho": self.rho.value, "alpha": alpha}
        gradient = self._curvatures * self._theta
        return self._optimizers[name].perturbation([gradient], [self._weights.detach()], [group])[0].numpy()

    def _draw_landscape(self, ax: Axes) -> list[Line2D]:
        grid = np.linspace(-_REACH, _REACH, 101)
        first, second = self._curvatures.tolist()
        loss = (first * grid[None, :] ** 2 + second * grid[:, None] ** 2) / 2
        ax.contour(grid, grid, loss, _NUM_LINES, colors=GREY, linewidths=0.6, alpha=0.7)
        ax.set(xlabel="x", ylabel="y", aspect="equal", xlim=(-_REACH, _REACH), ylim=(-_REACH, _REACH))
        ax.set_title("perturbations (solid) and steps (dashed)")
        self.arrows = {n: ax.plot([], [], "-o", color=c, lw=2, markersize=6, label=n)[0] for n, c in _COLORS.items()}
        self.steps = {name: ax.plot([], [], "--", color=c, lw=1.5)[0] for name, c in _COLORS.items()}
        (self.plain,) = ax.plot([], [], "--", color="black", lw=1.5, label="step of SGD")
        (self.point,) = ax.plot([], [], "o", color="black", markersize=7)
        ax.legend(loc="lower left", fontsize="x-small", framealpha=0.9)
        return [*self.arrows.values(), *self.steps.values(), self.plain, self.point]

    def _draw_lengths(self, ax: Axes) -> list[Line2D]:
        self.curves = {name: ax.semilogy([], [], color=color, lw=1.8)[0] for name, color in _COLORS.items()}
        self.markers = {name: ax.semilogy([], [], "o", color=color)[0] for name, color in _COLORS.items()}
        ax.set(xlabel="order α", ylabel="‖ε‖", xlim=(_ALPHAS[0], _ALPHAS[-1]), ylim=(1e-3, 30), title="lengths")
        ax.axvline(1.0, color=GREY, lw=0.8, ls=":")
        return [*self.curves.values(), *self.markers.values()]

    def _update(self) -> str:
        theta, curvatures, alpha = self._theta.numpy(), self._curvatures.numpy(), self.alpha.value
        self.point.set_data(theta[:1], theta[1:])
        _line(self.plain, theta, theta - _LEARNING_RATE * self.gradient)
        parts = []
        for name, epsilon in self.perturbations.items():
            _line(self.arrows[name], theta, theta + epsilon)
            _line(self.steps[name], theta, theta - _LEARNING_RATE * curvatures * (theta + epsilon))
            length = float(np.linalg.norm(epsilon))
            curve = [np.linalg.norm(self._perturbation(name, order)) for order in _ALPHAS]
            self.curves[name].set_data(_ALPHAS, _positive(curve))
            self.markers[name].set_data([alpha], _positive([length]))
            rise = float(epsilon @ self.gradient)
            way = "" if length == 0 else "up" if rise > 1e-9 * length else "down" if rise < -1e-9 * length else "across"
            parts.append(f"{name} ‖ε‖ = <b>{length:.3g}</b> {way}".strip())
        return f"gradient ({self.gradient[0]:.2f}, {self.gradient[1]:.2f}) · " + " · ".join(parts)


def _pair(name: str, values: Any) -> tuple[float, float]:
    try:
        first, second = values
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a pair of numbers, got {printed(values)}.") from None
    return check_real(name, first), check_real(name, second)


def _line(line: Line2D, start: FloatArray, end: FloatArray) -> None:
    line.set_data([start[0], end[0]], [start[1], end[1]])


def _positive(lengths: Any) -> FloatArray:
    """Lengths for a logarithmic axis: zero is not drawn."""
    values = np.asarray(lengths, dtype=np.float64)
    return np.where(values > 0, values, np.nan)
