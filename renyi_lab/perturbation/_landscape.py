"""The loss along one direction in weight space, or over the plane spanned by two."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import FigureBase
from numpy.typing import ArrayLike
from torch import Tensor

from renyi_lab._utils.arrays import real_array
from renyi_lab._utils.fields import check_fields, check_vectors
from renyi_lab._utils.figure import check_axes, new_figure
from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_finite, check_int, check_tensor, printed
from renyi_lab.operators import LossSurface, ModelOperator, check_operator

_NUM_LEVELS = 21  # Heuristic: enough contours to see the slope everywhere.
_SMALLEST_SHARE = 1e-6  # Of the largest loss. Heuristic: smaller losses would take up most of the logarithmic scale.
_ROUND_UP = 1 + 1e-12  # The last level must not be below the largest loss by rounding.


@dataclass(frozen=True, eq=False)
class LossCurve:
    """``L(θ + t d)`` at the steps ``t``.

    Attributes:
        steps: ``t``, ``(k,)``, in units of the direction.
        losses: ``(k,)``; infinite or NaN where the loss leaves the dtype's range.
    """

    steps: FloatArray = field(repr=False)
    losses: FloatArray = field(repr=False)

    def __post_init__(self) -> None:
        check_fields(self)
        check_vectors(self, "steps", "losses")

    def __repr__(self) -> str:
        return f"LossCurve({len(self.steps)} steps, {_span(self.losses)})"

    def plot(self, ax: Axes | None = None) -> FigureBase:
        """Plot the curve, in a new figure or in ``ax``."""
        alt = f"The loss along a line through the weights, steps {self.steps[0]:g} to {self.steps[-1]:g}: "
        ax = new_figure(5.0, 3.0, alt=alt + _span(self.losses) + ".").subplots() if ax is None else check_axes(ax)
        ax.plot(self.steps, self.losses)
        ax.set(xlabel="step t", ylabel="loss")
        return ax.figure


@dataclass(frozen=True, eq=False)
class LossPlane:
    """``L(θ + s d₁ + t d₂)`` on a grid.

    Attributes:
        first_steps: ``s``, ``(j,)``.
        second_steps: ``t``, ``(k,)``.
        losses: ``(j, k)``; infinite or NaN where the loss leaves the dtype's range.
    """

    first_steps: FloatArray = field(repr=False)
    second_steps: FloatArray = field(repr=False)
    losses: FloatArray = field(repr=False)

    def __post_init__(self) -> None:
        check_fields(self)
        shape = (self.first_steps.size, self.second_steps.size)
        if (self.first_steps.ndim, self.second_steps.ndim) != (1, 1) or self.losses.shape != shape or 0 in shape:
            raise ValueError(
                f"losses must have a row for each of first_steps and a column for each of second_steps, "
                f"got {self.losses.shape} for {self.first_steps.shape} and {self.second_steps.shape}."
            )

    def __repr__(self) -> str:
        return f"LossPlane({self.losses.shape[0]} × {self.losses.shape[1]} points, {_span(self.losses)})"

    def plot(self, ax: Axes | None = None) -> FigureBase:
        """Plot the loss on a logarithmic colour scale, in a new figure or in ``ax``; the model's weights are marked."""
        alt = f"Contours of the loss on a plane through the weights, logarithmic colour scale: {_span(self.losses)}."
        ax = new_figure(5.0, 3.8, alt=alt).subplots() if ax is None else check_axes(ax)
        finite = self.losses[np.isfinite(self.losses) & (self.losses > 0)]
        if finite.size == 0:
            raise ValueError("no loss on this plane is finite and positive, so there is nothing to draw.")
        low = max(float(finite.min()), float(finite.max()) * _SMALLEST_SHARE)
        levels = np.geomspace(low, max(float(finite.max()), 2 * low) * _ROUND_UP, _NUM_LEVELS)
        grid = (self.first_steps, self.second_steps, np.maximum(self.losses.T, low))
        colours = ax.contourf(*grid, levels=levels, norm=LogNorm(), cmap="viridis")
        ax.contour(*grid, levels=levels, colors="white", linewidths=0.5, alpha=0.6)
        ax.figure.colorbar(colours, ax=ax, format="%.2g", ticks=levels[::4], label="loss")
        ax.plot(0, 0, "w+", markersize=9)
        ax.set(xlabel="step along d₁", ylabel="step along d₂")
        return ax.figure


def random_direction(operator: ModelOperator, seed: int = 0) -> Tensor:
    """A direction ``(n,)`` of length 1 over the operator's parameters, uniform on the sphere.

    Args:
        operator: A `HessianOperator`; its parameters set the dimension, dtype and device.
        seed: Random seed for the direction.

    Example:
        >>> from renyi_lab.operators import HessianOperator
        >>> model = torch.nn.Linear(2, 1)
        >>> H = HessianOperator(model, torch.nn.MSELoss(), (torch.ones(4, 2), torch.zeros(4, 1)))
        >>> round(float(random_direction(H).norm()), 6)
        1.0
    """
    dim, dtype, device = check_operator(operator).dim, operator.dtype, operator.device
    generator = torch.Generator().manual_seed(check_int("seed", seed, 0))
    direction = torch.randn(dim, generator=generator, dtype=torch.float64, device="cpu")
    unit: Tensor = direction / direction.norm()
    return unit.to(dtype).to(device)


def filter_normalized(operator: ModelOperator, direction: Tensor) -> Tensor:
    r"""A direction with each filter's part rescaled to the filter's norm, ``d_ij ← d_ij ‖θ_ij‖ / ‖d_ij‖``.

    A filter is the weights of one output unit: a row of a linear weight, the kernel of an output channel.
    One-dimensional parameters (biases, normalisation layers) get 0. The loss along a direction normalised in this way
    is invariant to a reparametrization of the model: the direction is rescaled as the weights are.

    Args:
        operator: A `HessianOperator`; its parameters set the norms.
        direction: Direction ``d``, ``(n,)``, such as a `random_direction` or an eigenvector.

    Raises:
        ValueError: ``direction`` has another shape or is not finite, or none of the parameters has filters.

    Source: Li, Xu, Taylor, Studer & Goldstein 2018, *Visualizing the loss landscape of neural nets*, arXiv:1712.09913,
    section 4; the zeros for one-dimensional parameters are the authors' ``--xignore biasbn``.
    """
    check_operator(operator)
    parts = operator.unflatten(checked_vector("direction", direction, operator))
    parameters = [parameter.detach() for parameter in operator.parameters.values()]
    if all(parameter.ndim < 2 for parameter in parameters):
        raise ValueError("filter_normalized needs weights of two or more dimensions; the operator has none.")
    return operator.flatten([_rescaled(d, p) for d, p in zip(parts, parameters, strict=True)])


def loss_along(operator: ModelOperator, direction: Tensor, steps: ArrayLike) -> LossCurve:
    """The loss on a line through the model's weights, ``L(θ + t d)``.

    Args:
        operator: A `HessianOperator`; its loss, frozen batches and parameters are used. The model is left unchanged.
        direction: Direction ``d``, ``(n,)``.
        steps: Steps ``t``, ``(k,)``, in units of ``d``.

    Raises:
        ValueError: The direction has another shape or is not finite, or the steps are not finite numbers.

    Source: Goodfellow, Vinyals & Saxe 2015, arXiv:1412.6544.

    Example:
        >>> from renyi_lab.operators import HessianOperator
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> H = HessianOperator(model, torch.nn.MSELoss(), (torch.ones(1, 1), model.weight.detach().clone()))
        >>> loss_along(H, torch.ones(1), [-1.0, 0.0, 2.0]).losses.round(5).tolist()
        [1.0, 0.0, 4.0]
    """
    surface = LossSurface(operator)
    d, ts = checked_vector("direction", direction, operator), _checked_steps("steps", steps)
    return LossCurve(ts, np.array([surface.loss(surface.start + t * d) for t in ts.tolist()]))


def loss_plane(
    operator: ModelOperator,
    first: Tensor,
    second: Tensor,
    first_steps: ArrayLike,
    second_steps: ArrayLike | None = None,
) -> LossPlane:
    """The loss on a plane through the model's weights, ``L(θ + s d₁ + t d₂)``.

    Args:
        operator: A `HessianOperator`; its loss, frozen batches and parameters are used. The model is left unchanged.
        first: First direction ``d₁``, ``(n,)``.
        second: Second direction ``d₂``, ``(n,)``.
        first_steps: Steps ``s``, ``(j,)``. The cost is ``j·k`` evaluations of the loss.
        second_steps: Steps ``t``, ``(k,)``. ``None``: the same as ``first_steps``.

    Raises:
        ValueError: A direction has another shape or is not finite, or the steps are not finite numbers.

    Source: Li et al. 2018, arXiv:1712.09913, section 3.
    """
    surface = LossSurface(operator)
    d1, d2 = checked_vector("first", first, operator), checked_vector("second", second, operator)
    rows = _checked_steps("first_steps", first_steps)
    columns = rows if second_steps is None else _checked_steps("second_steps", second_steps)
    losses = [[surface.loss(surface.start + s * d1 + t * d2) for t in columns.tolist()] for s in rows.tolist()]
    return LossPlane(rows, columns, np.array(losses))


def _span(losses: FloatArray) -> str:
    finite = losses[np.isfinite(losses)]
    return f"loss {finite.min():.4g} to {finite.max():.4g}" if finite.size else "no finite loss"


def _rescaled(direction: Tensor, parameter: Tensor) -> Tensor:
    if parameter.ndim < 2:
        return torch.zeros_like(parameter)
    shape = (-1, *[1] * (parameter.ndim - 1))
    lengths = torch.linalg.vector_norm(direction.flatten(1), dim=1)
    wanted = torch.linalg.vector_norm(parameter.flatten(1), dim=1)
    factors = torch.where(lengths > 0, wanted / torch.where(lengths > 0, lengths, 1.0), 0.0)
    return direction * factors.reshape(shape)


def checked_vector(name: str, vector: Any, operator: ModelOperator) -> Tensor:
    """Return a vector over the operator's parameters in their dtype and on their device, or raise."""
    if not isinstance(vector, Tensor):
        raise TypeError(f"{name} must be a torch tensor, got {type(vector).__name__}.")
    check_tensor(name, vector, vector.device)
    if vector.device.type == "meta":
        raise TypeError(f"{name} must be a tensor with values, got one on the device meta.")
    if vector.shape != (operator.dim,):
        raise ValueError(f"{name} must have shape {(operator.dim,)}, one entry per weight, got {tuple(vector.shape)}.")
    check_finite(name, vector, "a division by zero in its computation.")
    return vector.detach().to(operator.dtype).to(operator.device)


def _checked_steps(name: str, steps: Any) -> FloatArray:
    values = real_array(name, steps)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"{name} must be a vector of finite numbers, got {printed(steps)}.")
    return values
