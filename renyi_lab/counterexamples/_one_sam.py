r"""SAM with batch size 1, for all samples at once: a perturbation of rank one needs no copy of the weights.

One sample's gradient is ``2e_i (A_i ⊗ x̃_i, U_i)`` with the error ``e_i = f(x_i) − y_i``, so its perturbation of length
ρ is ``ρ sign(e_i) (A_i ⊗ x̃_i, U_i) / N_i`` with ``N_i² = ‖A_i‖²‖x̃_i‖² + ‖U_i‖²``. What the sample sees of the
perturbed first layer is its own pre-activation,

    Z_i + ρ sign(e_i) ‖x̃_i‖² A_i / N_i ,     and     w₂ + ρ sign(e_i) U_i / N_i

so the mean of the ``n`` gradients at the ``n`` perturbed points costs two passes over the data instead of ``2n``.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from renyi_lab._utils.threads import one_thread
from renyi_lab._utils.validation import check_int, check_real, is_iterable
from renyi_lab.counterexamples._pieces import (
    Pieces,
    check_all_trainable,
    check_forward,
    check_network,
    pieces,
    samples_for,
    with_ones,
)
from renyi_lab.models import TwoLayer
from renyi_lab.training import DivergenceError

_CHECK_EVERY = 100  # steps; a network that has diverged stays so


class Weights:
    """The weights of a two-layer network as ``(W₁, b₁)``, one matrix, and ``w₂``; its data; and gradients at them.

    Args:
        model: The network, which is changed by `write` alone.
        data: Samples with targets ±1.
        name: What to call the data in messages.
    """

    def __init__(self, model: TwoLayer, data: Any, name: str) -> None:
        check_all_trainable(model)
        self.bias = model.layer1.bias is not None
        x, self.y = samples_for(model, name, data)
        self.x, self.norm, self.model = with_ones(x, self.bias), model.norm, model
        self.lengths = self.x.square().sum(1)
        parts = [model.layer1.weight, *([model.layer1.bias[:, None]] if self.bias else [])]
        self.first, self.second = torch.cat(parts, dim=1).detach(), model.layer2.weight[0].detach().clone()
        check_forward(model, x, self.pieces().outputs)

    def pieces(self) -> Pieces:
        return pieces(self.x @ self.first.T, self.second, self.norm)

    def gradients(self, rho: float) -> tuple[Tensor, Tensor, Tensor]:
        """Of ``(W₁, b₁)`` and ``w₂``, means over the samples' perturbed points; and the errors without perturbation."""
        preactivations = self.x @ self.first.T
        at = pieces(preactivations, self.second, self.norm)
        errors = perturbed = at.outputs - self.y
        if rho:
            length = (at.of_preactivations.square().sum(1) * self.lengths + at.of_second.square().sum(1)).sqrt()
            step = torch.where(length > 0, rho * errors.sign() / length, 0.0)[:, None]
            moved = preactivations + step * self.lengths[:, None] * at.of_preactivations
            at = pieces(moved, self.second + step * at.of_second, self.norm)
            perturbed = at.outputs - self.y
        slopes = (2 / len(self.y)) * perturbed[:, None]
        return (slopes * at.of_preactivations).T @ self.x, (slopes * at.of_second).sum(0), errors

    def write(self, model: TwoLayer) -> TwoLayer:
        """Copy the weights into ``model``, and return it."""
        d = model.layer1.in_features
        with torch.no_grad():
            model.layer1.weight.copy_(self.first[:, :d])
            model.layer2.weight[0] = self.second
            if self.bias:
                model.layer1.bias.copy_(self.first[:, d])
        return model


@torch.no_grad()
def one_sam_gradients(model: TwoLayer, data: Any, rho: float) -> dict[str, Tensor]:
    r"""Mean over all samples of the gradients of SAM with batch size 1, for squared loss.

        (1/n) Σ_i ∇ℓ_i(θ + ρ ∇ℓ_i(θ)/‖∇ℓ_i(θ)‖) ,     ℓ_i = (f(x_i) − y_i)²

    Two passes over the data. A sample without a gradient, such as one that is interpolated, is not perturbed.

    Args:
        model: A network of `two_layer`.
        data: Samples with targets ±1.
        rho: Radius ρ ≥ 0; 0 gives the gradient of the loss.

    Returns:
        Gradients by parameter name.

    Raises:
        TypeError: Another kind of model or data.
        ValueError: Data that do not fit, frozen parameters, weights that are not finite, or a negative radius.
    """
    weights = Weights(check_network(model), data, "data")
    first, second, _ = weights.gradients(check_real("rho", rho, 0.0))
    d = model.layer1.in_features
    found = {"layer1.weight": first[:, :d], "layer1.bias": first[:, -1], "layer2.weight": second[None]}
    return {name: found[name].clone() for name, _ in model.named_parameters()}


@torch.no_grad()
@one_thread()  # for a hundred samples, a second thread costs more than it saves
def train_one_sam(
    model: TwoLayer,
    train_set: Any,
    *,
    rho: float,
    lr: float,
    steps: int,
    weight_decay: float = 0.0,
    first_layer_norm: float | None = None,
    keep: Iterable[int] = (),
) -> dict[int, TwoLayer]:
    r"""Train a two-layer network in place by `one_sam_gradients`, a deterministic mean of SAM with batch size 1.

        θ ← θ − lr · (mean 1-SAM gradient + weight_decay · θ)

    About 0.5 ms a step for 100 samples of 30 features and 100 hidden units. Nothing is random.

    Args:
        model: A network of `two_layer`; its weights are those of the last step afterwards.
        train_set: Samples with targets ±1.
        rho: Radius of the perturbations; 0 is gradient descent.
        lr: Learning rate, positive.
        steps: Number of steps.
        weight_decay: Coefficient of the weights in a step, at least 0.
        first_layer_norm: Length that ``(W₁, b₁)`` is scaled to before each step and at the end. With layer norm a
            scale of the first layer does not change the function but the steps: its weights would grow and the steps in
            the function become smaller and smaller. Default: no scaling.
        keep: Numbers of steps after which a copy of the network is kept, in ``0 … steps``.

    Returns:
        The copies by their number of steps.

    Raises:
        TypeError: Another kind of model or data.
        ValueError: An argument out of range, data that do not fit, frozen parameters, or weights that are not finite.
        DivergenceError: An output is not finite; the weights are then those from before training.

    Source: Wen, Li & Ma 2023, arXiv:2307.11007 (1-SAM); the mean by rank-one perturbations is ours.

    Example:
        >>> from renyi_lab import datasets, models
        >>> from renyi_lab.counterexamples import sign_accuracy
        >>> train_set, test_set = datasets.xor(num_samples=100, targets="signs")
        >>> model = models.two_layer(30, 100, bias=False).double()
        >>> kept = train_one_sam(model, train_set, rho=0.1, lr=0.04, steps=2000, keep=(0,))
        >>> sign_accuracy(model, train_set), sign_accuracy(model, test_set) > sign_accuracy(kept[0], test_set)
        (1.0, True)
    """
    weights = Weights(check_network(model), train_set, "train_set")
    rho, lr = check_real("rho", rho, 0.0), check_real("lr", lr, 0.0, open_minimum=True)
    decay, steps = check_real("weight_decay", weight_decay, 0.0), check_int("steps", steps, minimum=0)
    if first_layer_norm is not None:
        check_real("first_layer_norm", first_layer_norm, 0.0, open_minimum=True)
        if not weights.first.any():
            raise ValueError("first_layer_norm needs a first layer that is not zero, which no factor makes longer.")
    if not is_iterable(keep):
        raise TypeError(f"keep must be numbers of steps, such as keep=({keep},), got {type(keep).__name__}.")
    wanted = {check_int("each entry of keep", step, minimum=0) for step in keep}
    if late := [step for step in sorted(wanted) if step > steps]:
        raise ValueError(f"keep has {late[0]}, but training has {steps} steps.")
    kept: dict[int, TwoLayer] = {}
    for step in range(steps + 1):
        if first_layer_norm is not None:
            weights.first *= first_layer_norm / weights.first.norm()
        if step in wanted:
            kept[step] = weights.write(copy.deepcopy(model))
        if step < steps:
            first, second, errors = weights.gradients(rho)
            weights.first -= lr * (first + decay * weights.first)
            weights.second -= lr * (second + decay * weights.second)
            if step % _CHECK_EVERY == 0:
                _check_finite(errors, step, lr, rho)
    _check_finite(weights.pieces().outputs, steps, lr, rho)
    weights.write(model)
    return kept


def _check_finite(errors: Tensor, step: int, lr: float, rho: float) -> None:
    if not math.isfinite(float(errors.abs().sum())):
        raise DivergenceError(
            f"training diverged by step {step}: an output is not finite. Likely causes: lr={lr:g} or "
            f"rho={rho:g} is too large. The weights from before training are unchanged."
        )
