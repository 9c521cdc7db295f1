r"""Outputs of a two-layer network and their derivatives, for all samples at once.

    U = ∂f/∂w₂   (n, m) ,     A = ∂f/∂Z   (n, m) ,     Z = W₁x + b₁

The gradient of one sample's output is ``A_i ⊗ x̃_i`` in the first layer, a matrix of rank one (``x̃ = (x, 1)`` with
biases), and ``U_i`` in the second. So its squared length is ``‖A_i‖²‖x̃_i‖² + ‖U_i‖²``, and inner products of two
gradients are ``(A_i·A_j)(x̃_i·x̃_j) + U_i·U_j``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from renyi_lab._utils.data_sets import check_data
from renyi_lab._utils.validation import check_finite
from renyi_lab.models import TwoLayer


class Pieces(NamedTuple):
    """``outputs`` (n,), and ``of_second`` U and ``of_preactivations`` A, both (n, m)."""

    outputs: Tensor
    of_second: Tensor
    of_preactivations: Tensor


def pieces(preactivations: Tensor, second: Tensor, norm: str | None) -> Pieces:
    """Outputs and derivatives.

    Args:
        preactivations: ``Z``, of shape ``(n, m)``.
        second: ``w₂`` of shape ``(m,)``, or one for each sample, ``(n, m)``.
        norm: As for `two_layer`.
    """
    hidden = preactivations.clamp_min(0.0)
    active = preactivations > 0
    if norm is None:
        return Pieces((hidden * second).sum(-1), hidden, second * active)
    length = hidden.square().sum(-1, keepdim=True).sqrt()
    is_constant = length < TwoLayer.EPS  # there the length does not depend on the weights
    length = length.clamp_min(TwoLayer.EPS)
    unit = hidden / length
    outputs = (unit * second).sum(-1)
    radial = torch.where(is_constant, 0.0, outputs[:, None]) * unit
    return Pieces(outputs, unit, (second - radial) / length * active)


def gram(of: Pieces, products: Tensor) -> Tensor:
    """Inner products of the gradients of all outputs, ``(n, n)``; ``products`` are those of the inputs, ``x̃_i·x̃_j``."""
    first = (of.of_preactivations @ of.of_preactivations.T) * products
    return of.of_second @ of.of_second.T + first


def check_network(model: Any) -> TwoLayer:
    """The model, or an error if it is not one of `two_layer`."""
    if not isinstance(model, TwoLayer):
        raise TypeError(f"model must be a network of renyi_lab.models.two_layer, got {type(model).__name__}.")
    return model


def check_all_trainable(model: TwoLayer) -> None:
    """An error for frozen parameters, which the functions here would move all the same."""
    if frozen := [name for name, parameter in model.named_parameters() if not parameter.requires_grad]:
        raise ValueError(
            f"model has frozen parameters ({', '.join(frozen)}), but all weights are trained here; call "
            "model.requires_grad_()."
        )


def check_forward(model: TwoLayer, x: Tensor, outputs: Tensor) -> None:
    """An error unless the model computes ``outputs``, which it does not after its layers have been changed."""
    check_finite("model's output", outputs, "training diverged.")
    error = float((model(x) - outputs).abs().max() / outputs.abs().max().clamp_min(1.0))
    if not error < 100 * torch.finfo(outputs.dtype).eps ** 0.5:
        raise TypeError(
            "model does not compute w₂ · relu(W₁x + b₁) or its layer norm: it has hooks, or a layer was replaced. Make "
            "it with renyi_lab.models.two_layer."
        )


def inputs_and_signs(name: str, data: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs ``(n, d)`` and targets ±1 ``(n,)`` in the dtype and on the device of ``like``."""
    samples = check_data(name, data)
    rows = [samples[index] for index in range(len(samples))]  # type: ignore[arg-type]
    x, y = (torch.stack([torch.as_tensor(row[part]) for row in rows]).to(like) for part in (0, 1))
    if x.ndim != 2 or y.ndim != 1:
        raise ValueError(f"{name} must have inputs (N, d) and targets (N,), got {tuple(x.shape)} and {tuple(y.shape)}.")
    if bool((y.abs() != 1).any()):
        raise ValueError(
            f'{name} must have targets −1 and +1, as datasets.xor(targets="signs"); got {y[y.abs() != 1][0].item():g}.'
        )
    return x, y


def samples_for(model: TwoLayer, name: str, data: Any) -> tuple[Tensor, Tensor]:
    """Inputs and targets ±1 as `inputs_and_signs`, with as many features as the model has."""
    x, y = inputs_and_signs(name, data, model.layer1.weight)
    if x.shape[1] != model.layer1.in_features:
        raise ValueError(f"{name} has {x.shape[1]} features, but model has {model.layer1.in_features}.")
    return x, y


def with_ones(x: Tensor, bias: bool) -> Tensor:
    """``x̃``: the inputs, with a feature 1 for the biases."""
    return torch.cat([x, torch.ones_like(x[:, :1])], dim=1) if bias else x
