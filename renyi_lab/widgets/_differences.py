"""`DifferenceExplorer`: how well finite differences of the gradient approximate a Hessian-vector product."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import ipywidgets
import numpy as np
import torch
from torch import Tensor, nn

from renyi_lab._utils.batches import Batch, freeze_batches, map_tensors
from renyi_lab._utils.figure import new_figure
from renyi_lab._utils.model_state import unwrap_model
from renyi_lab._utils.parameters import unflatten
from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_choice, check_int, check_real
from renyi_lab.operators import HessianOperator
from renyi_lab.plots import BLUE, GREEN, GREY, ORANGE
from renyi_lab.widgets._base import Explorer
from renyi_lab.widgets._controls import nearest

PRECISIONS = {"single": torch.float32, "double": torch.float64}
SCHEMES = ("one-sided", "central")
# Heuristic: from steps at which even double precision is all rounding error to steps as long as the direction; four per
# decade make the slider smooth.
_STEPS = np.logspace(-11, 0, 45)
_MAX_POINTS = 2000  # entries drawn


class DifferenceExplorer(Explorer):
    """Error of the one-sided difference ``(∇L(θ+hv) − ∇L(θ))/h`` and the central one as functions of the step ``h``.

    Left: relative error ``‖d − Hv‖ / ‖Hv‖`` against the step, for both schemes and both precisions, with the current
    one marked; dotted: the error of double backward. Right: each entry of the difference against that of ``H v``. The
    reference ``H v`` is double backward in double precision, along a random direction of norm 1. All gradients are
    computed at construction, two per step and precision: for networks whose gradient takes milliseconds.

    Args:
        model: Any module; it is copied and not changed.
        loss_fn: Loss function, as for `HessianOperator`.
        data: Data, as for `HessianOperator`.
        step: Initial step, in ``[1e-11, 1]``, rounded to a quarter of a decade.
        precision: Initial precision, ``"single"`` or ``"double"``.
        scheme: Initial scheme, ``"one-sided"`` or ``"central"``.
        seed: Random seed for the direction.
        reduction: As for `HessianOperator`.
        batch_mass: As for `HessianOperator`.

    Raises:
        ValueError: ``H v`` is zero, so that the relative error is undefined, or `HessianOperator` refuses an argument.

    Example:
        >>> x, _ = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(2, 1), nn.Tanh())
        >>> explorer = DifferenceExplorer(model, nn.MSELoss(), (x, torch.zeros(2, 1)), step=1e-4)
        >>> explorer.precision.value = "double"
        >>> explorer.error < 1e-3
        True
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: Callable[..., Tensor],
        data: Any,
        *,
        step: float = 1e-2,
        precision: str = "single",
        scheme: str = "one-sided",
        seed: int = 0,
        reduction: str | None = None,
        batch_mass: Callable[[Any], Any] | None = None,
    ) -> None:
        check_choice("precision", precision, PRECISIONS)
        check_choice("scheme", scheme, SCHEMES)
        step = check_real("step", step, _STEPS[0], _STEPS[-1])
        self._differences, self.product, self.double_backward = _differences(
            model, loss_fn, data, seed, reduction=reduction, batch_mass=batch_mass
        )
        self.errors = {key: _relative_errors(values, self.product) for key, values in self._differences.items()}
        self.step = ipywidgets.SelectionSlider(
            options=[(f"{value:.1e}", float(value)) for value in _STEPS],
            index=nearest(np.log(_STEPS), np.log(step)),
            description="step h",
        )
        self.scheme = ipywidgets.ToggleButtons(options=SCHEMES, value=scheme, style={"button_width": "6em"})
        self.precision = ipywidgets.ToggleButtons(
            options=list(PRECISIONS), value=precision, style={"button_width": "5em"}
        )
        figure = new_figure(8.6, 3.3)
        left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
        for (name, kind), errors in self.errors.items():
            color, line = (BLUE, ORANGE)[SCHEMES.index(kind)], ("--", "-")[name == "double"]
            left.plot(_STEPS, errors, color=color, ls=line, lw=1.3, label=f"{kind}, {name}")
        for name, error in self.double_backward.items():
            if error > 0:  # double precision is the reference
                left.axhline(error, color=GREY, ls=":", lw=1.3, label=f"double backward, {name}")
        top = max(30.0, 2 * max(float(errors.max()) for errors in self.errors.values()))
        left.set(xscale="log", yscale="log", xlabel="step h", ylabel="relative error", ylim=(1e-12, top))
        left.legend(fontsize="x-small", frameon=False, loc="lower left")
        (self.marker,) = left.plot([], [], "o", color=GREEN, markersize=9, clip_on=False)
        limit = 1.15 * float(np.abs(self.product).max())
        right.plot([-limit, limit], [-limit, limit], color=GREY, lw=0.8)
        (self.entries,) = right.plot([], [], ".", color=GREEN, markersize=3)
        right.set(xlim=(-limit, limit), ylim=(-limit, limit), xlabel="entry of H v", ylabel="entry of the difference")
        right.locator_params(nbins=5)
        shows = (
            "Left: relative error of finite differences of the gradient against the step h, on logarithmic axes, "
            "for two schemes and two precisions, with a dot at the current step. Right: entries of the difference "
            "against entries of H v, with a diagonal on which both agree."
        )
        controls = [self.step, self.scheme, self.precision]
        super().__init__(controls, figure, [self.marker, self.entries], shows=shows)

    @property
    def difference(self) -> FloatArray:
        """The current finite difference, shape ``(n,)``."""
        differences = self._differences[self.precision.value, self.scheme.value]
        return np.asarray(differences[self.step.index])

    @property
    def error(self) -> float:
        """Relative error of the current finite difference."""
        return float(self.errors[self.precision.value, self.scheme.value][self.step.index])

    def _update(self) -> str:
        every = -(-len(self.product) // _MAX_POINTS)
        self.marker.set_data([self.step.value], [max(self.error, 1e-12)])
        self.entries.set_data(self.product[::every], self.difference[::every])
        digits = max(0.0, -np.log10(max(self.error, 1e-16)))  # this order makes -0.0 a zero
        return (
            f"relative error <b>{self.error:.1e}</b>: {digits:.1f} correct digits · double backward in "
            f"single precision: {self.double_backward['single']:.1e}"
        )


def _relative_errors(values: FloatArray, truth: FloatArray) -> FloatArray:
    return np.asarray(np.linalg.norm(values - truth, axis=1) / np.linalg.norm(truth))


def _differences(
    model: nn.Module, loss_fn: Callable[..., Tensor], data: Any, seed: int, **options: Any
) -> tuple[dict[tuple[str, str], FloatArray], FloatArray, dict[str, float]]:
    """Differences ``(steps, n)`` by precision and scheme, ``H v``, and the errors of double backward by precision."""
    generator = torch.Generator().manual_seed(check_int("seed", seed, 0))
    batches = freeze_batches(data, torch.device("cpu"))
    copies = {name: _Copy(model, loss_fn, batches, dtype, options) for name, dtype in PRECISIONS.items()}
    direction = torch.randn(copies["double"].operator.dim, generator=generator, dtype=torch.float64)
    direction /= direction.norm()
    products = {name: (copy.operator @ direction).double().numpy() for name, copy in copies.items()}
    product = products["double"]
    if not product.any():
        raise ValueError(
            "the Hessian product is zero, so the relative error is undefined; is the loss linear in the weights?"
        )
    differences = {}
    for name, copy in copies.items():
        here = copy.gradient(torch.zeros_like(direction))
        ahead = np.stack([copy.gradient(step * direction) for step in _STEPS])
        behind = np.stack([copy.gradient(-step * direction) for step in _STEPS])
        differences[name, "one-sided"] = (ahead - here) / _STEPS[:, None]
        differences[name, "central"] = (ahead - behind) / (2 * _STEPS[:, None])
    errors = {name: float(_relative_errors(value[None], product)[0]) for name, value in products.items()}
    return differences, product, errors


class _Copy:
    """A copy of the model in one precision, whose weights can be shifted."""

    def __init__(
        self,
        model: nn.Module,
        loss_fn: Callable[..., Tensor],
        batches: list[Batch],
        dtype: torch.dtype,
        options: dict[str, Any],
    ) -> None:
        def cast(tensor: Tensor) -> Tensor:
            return tensor.to(dtype) if tensor.is_floating_point() else tensor

        moved = deepcopy(unwrap_model(model)).to("cpu", dtype)
        data = [Batch(map_tensors(batch.content, cast), batch.size) for batch in batches]
        self.operator = HessianOperator(moved, loss_fn, data, **options)
        chosen = dict(moved.named_parameters())
        self.weights = [chosen[name] for name in self.operator.parameter_names]
        self.start = [weight.detach().clone() for weight in self.weights]

    def gradient(self, shift: Tensor) -> FloatArray:
        """The gradient at the start plus ``shift``, computed in this precision."""
        with torch.no_grad():
            for weight, start, change in zip(self.weights, self.start, unflatten(shift, self.start), strict=True):
                weight.copy_(start + change.to(start.dtype))
        return np.asarray(self.operator.gradient().double().numpy())
