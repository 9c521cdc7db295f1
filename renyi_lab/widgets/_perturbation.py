"""`PerturbationExplorer`: perturbed data or perturbed weights, with the same loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ipywidgets
import numpy as np
import torch
from torch import Tensor

from renyi_lab._utils.figure import new_figure
from renyi_lab._utils.progress import progress_bar
from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_int, check_real
from renyi_lab.operators import ModelOperator, check_operator
from renyi_lab.perturbation import (
    DiscrepancyCurve,
    discrepancy_curve,
    find_layer,
    haar_orthogonal,
    layer_input,
    mixed,
    scalable_layers,
    weight_perturbation,
)
from renyi_lab.plots import BLUE, GREY, ORANGE
from renyi_lab.widgets._base import Explorer
from renyi_lab.widgets._controls import grid_slider, nearest

_NUM_STEPS = 20  # of the slider, each computed in advance. Heuristic: smooth, at a moderate cost.
_NUM_MATRICES = 3  # Heuristic: enough to see how similar they are.
_LOG_FROM = 20.0  # Heuristic: losses that differ by a larger factor need a logarithmic axis.


class PerturbationExplorer(Explorer):
    """Changing the input of a layer by ``ρ A h`` or its weight by ``ρ W A`` gives the same loss.

    Left, the data form: the input of the layer for one sample, before and after. Middle, the weight form: the weight of
    the layer before and after, in the same colours. Right: the loss of both forms against ``ρ``, computed at
    construction.

    Args:
        operator: A `HessianOperator`; its model, loss and data are used. The model is not changed.
        layer: Name of a linear or convolutional layer. Default: the layer that is applied first.
        directions: Matrices ``A`` by name. Default: three random orthogonal matrices, and ``A = I``, which only scales
            ``h``.
        rho: Initial size ``ρ``, rounded to the nearest of 21 values.
        max_rho: Right end of the slider, positive. Default 1: the change is then as long as ``h`` and ``W``.
        sample: Index of the sample in the first batch that the left picture shows.

    Raises:
        TypeError: ``operator`` is not a `HessianOperator`, or ``directions`` is not a mapping.
        ValueError: There are no directions, a layer or matrix does not fit, a number is out of range, or the loss is
            nowhere finite.

    Example:
        >>> from renyi_lab import HessianOperator
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 1, bias=False))
        >>> H = HessianOperator(model, torch.nn.MSELoss(), (torch.ones(4, 2), torch.zeros(4, 1)))
        >>> explorer = PerturbationExplorer(H, directions={"A = I": torch.eye(2)})
        >>> explorer.rho.value = 1.0
        >>> round(explorer.losses[0] / H.loss, 4), round(explorer.losses[1] / H.loss, 4)
        (4.0, 4.0)
    """

    def __init__(
        self,
        operator: ModelOperator,
        layer: str | None = None,
        *,
        directions: Mapping[str, Tensor] | None = None,
        rho: float = 0.0,
        max_rho: float = 1.0,
        sample: int = 0,
    ) -> None:
        limit = check_real("max_rho", max_rho, 0.0, open_minimum=True)
        rhos = np.linspace(0.0, limit, _NUM_STEPS + 1)
        check_operator(operator)
        self.rho = grid_slider("ρ", rhos, check_real("rho", rho, 0.0, limit))
        self.layer = scalable_layers(operator.model)[0] if layer is None else layer
        module = find_layer(operator.model, self.layer)
        inputs, weight = layer_input(operator, self.layer), module.weight.detach()
        h = inputs[check_int("sample", sample, 0, len(inputs) - 1)]
        if not isinstance(directions, Mapping | None):
            raise TypeError(f"directions must map names to matrices, got {type(directions).__name__}.")
        matrices = _orthogonal_matrices(weight.shape[1]) if directions is None else dict(directions)
        if not matrices:
            raise ValueError("directions is empty; give at least one matrix by name, or None for random ones.")
        self.curves = _curves(operator, self.layer, matrices, rhos)
        self._input, self._weight = _vector(h), _table(weight)
        self._input_change = {name: _vector(mixed(module, h, A)) for name, A in matrices.items()}
        self._weight_change = {name: _table(weight_perturbation(weight, A)) for name, A in matrices.items()}
        self.direction = ipywidgets.Dropdown(options=list(matrices), description="A")
        figure = new_figure(11.0, 3.1)
        left, old, new, right = figure.subplots(1, 4, width_ratios=(1.15, 0.8, 0.8, 1.15))
        moving = [self._draw_input(left, limit), self._draw_weights(old, new, limit), *self._draw_losses(right, rhos)]
        shows = (
            f"Left: the input of {self.layer} for one sample, before and after the perturbation of size ρ. Middle: "
            "the weight and the perturbed weight as two colour maps. Right: the loss against ρ with perturbed data and "
            "with perturbed weights, two curves that coincide, with dots at the current ρ."
        )
        super().__init__([self.rho, self.direction], figure, moving, shows=shows)

    @property
    def losses(self) -> tuple[float, float]:
        """The current loss in the data form and in the weight form."""
        curve = self.curves[self.direction.value]
        index = nearest(curve.rhos, self.rho.value)
        return float(curve.data_form[index]), float(curve.weight_form[index])

    def _draw_input(self, ax: Any, limit: float) -> Any:
        ax.plot(self._input, color=GREY, lw=1, label="h")
        (self.input,) = ax.plot(self._input, color=BLUE, lw=1.5, label="h + ρAh")
        reach = 1.25 * max(_reach(self._input, change, limit) for change in self._input_change.values()) or 1.0
        ax.set(title="data form: h + ρAh", xlabel=f"entry of the input of {self.layer}", ylim=(-reach, reach))
        ax.legend(loc="upper right", fontsize="small", frameon=False, ncols=2)
        return self.input

    def _draw_weights(self, old: Any, new: Any, limit: float) -> Any:
        reach = max(_reach(self._weight, change, limit) for change in self._weight_change.values()) or 1.0
        style = {"cmap": "RdBu_r", "vmin": -reach, "vmax": reach, "aspect": "auto", "interpolation": "nearest"}
        self.old_weight, self.weight = old.imshow(self._weight, **style), new.imshow(self._weight, **style)
        new.figure.colorbar(self.weight, ax=[old, new], pad=0.02)
        old.set(title="old weight: W", xlabel="input", ylabel="output")
        new.set(title="weight form: W + ρWA", xlabel="input", yticks=[])
        return self.weight

    def _draw_losses(self, ax: Any, rhos: FloatArray) -> list[Any]:
        every = np.concatenate([form for c in self.curves.values() for form in (c.data_form, c.weight_form)])
        finite = every[np.isfinite(every)]
        if finite.size == 0:
            raise ValueError("the loss is not finite for any direction and size; reduce max_rho.")
        low, high = float(finite.min()), float(finite.max())
        if low > 0 and high > _LOG_FROM * low:
            ax.set(yscale="log", ylim=(low / 1.3, high * 1.3))
        else:
            margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
            ax.set(ylim=(low - margin, high + margin))
        (self.data_line,) = ax.plot([], [], color=BLUE, lw=3, alpha=0.6, label="data form")
        (self.weight_line,) = ax.plot([], [], "--", color=ORANGE, lw=1.5, label="weight form")
        (self.data_marker,) = ax.plot([], [], "o", color=BLUE, markersize=10, clip_on=False)
        (self.weight_marker,) = ax.plot([], [], "o", color=ORANGE, markersize=5, clip_on=False)
        ax.set(title="loss", xlabel="ρ", xlim=(0, rhos[-1]))
        ax.legend(loc="upper left", fontsize="small", frameon=False)
        return [self.data_line, self.weight_line, self.data_marker, self.weight_marker]

    def _update(self) -> str:
        rho, name = self.rho.value, self.direction.value
        curve, (data_loss, weight_loss) = self.curves[name], self.losses
        self.input.set_ydata(self._input + rho * self._input_change[name])
        self.weight.set_data(self._weight + rho * self._weight_change[name])
        self.data_line.set_data(curve.rhos, curve.data_form)
        self.weight_line.set_data(curve.rhos, curve.weight_form)
        self.data_marker.set_data([rho], [data_loss])
        self.weight_marker.set_data([rho], [weight_loss])
        return (
            f"loss <b>{data_loss:.4g}</b> with perturbed data, <b>{weight_loss:.4g}</b> with perturbed weights · "
            f"the forms differ by at most {curve.largest_difference:.0e} · ‖ρAh‖ = "
            f"{_share(rho * self._input_change[name], self._input)} ‖h‖, ‖ρWA‖ = "
            f"{_share(rho * self._weight_change[name], self._weight)} ‖W‖"
        )


def _orthogonal_matrices(n: int) -> dict[str, Tensor]:
    matrices = {f"random orthogonal {seed + 1}": haar_orthogonal(n, seed) for seed in range(_NUM_MATRICES)}
    return {**matrices, "A = I": torch.eye(n, dtype=torch.float64)}


def _curves(operator: ModelOperator, layer: str, matrices: Mapping[str, Tensor], rhos: FloatArray) -> dict[str, Any]:
    curves: dict[str, DiscrepancyCurve] = {}
    with progress_bar(len(matrices), "losses of both forms") as bar:
        for name, matrix in matrices.items():
            curves[name] = discrepancy_curve(operator, layer, matrix, rhos)
            bar.update()
    return curves


def _vector(tensor: Tensor) -> FloatArray:
    return tensor.double().cpu().numpy().reshape(-1)


def _table(weight: Tensor) -> FloatArray:
    return weight.double().cpu().numpy().reshape(len(weight), -1)


def _reach(start: FloatArray, change: FloatArray, limit: float) -> float:
    return float(max(np.abs(start).max(), np.abs(start + limit * change).max()))


def _share(change: FloatArray, whole: FloatArray) -> str:
    length = float(np.linalg.norm(whole))
    return f"{float(np.linalg.norm(change)) / length:.2f}" if length else "–"
