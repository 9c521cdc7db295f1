"""Relative flatness of the last layer, from second derivatives with respect to the network's outputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from renyi_lab._utils.estimate import Estimate
from renyi_lab._utils.interrupts import restoring
from renyi_lab._utils.losses import torch_loss
from renyi_lab.operators import ModelOperator
from renyi_lab.sharpness._outputs import need_outputs

# Entries of softmax outputs in double precision that are held at once (128 MB).
_ENTRIES_AT_ONCE = 2**24


def relative_flatness(operator: ModelOperator) -> Estimate:
    """Relative flatness of the last layer, ``κ = Σ_{s,s'} ⟨w_s, w_{s'}⟩ · tr H_{s,s'}``, in loss units.

    ``w_s`` is the weight row of output ``s``, ``H_{s,s'}`` the Hessian's block of rows ``s`` and ``s'``. For a last
    linear layer with inputs ``h_i``, ``κ = (1/N) Σ_i ‖h_i‖² · tr(Wᵀ ∇²_f ℓ_i W)``, which is computed exactly here: for
    cross-entropy from ``∇²_f ℓ_i = diag(p_i) − p_i p_iᵀ``, for other losses with as many derivatives of the loss as the
    last layer has inputs or outputs, whichever is fewer.

    Invariance: layer rescaling ``W → cW``, since ``H → c⁻²H``; none under the rescaling of single neurons.

    Args:
        operator: A `HessianOperator` over batches ``(x, y)`` of a model whose output is that of its last `nn.Linear`,
            with a loss that is a sum or mean over samples.

    Raises:
        ValueError: The loss is not a function ``loss_fn(outputs, y)``, or the output is not that of a linear layer with
            trainable weight, or is not of shape ``(batch, outputs)`` or, for a single output, ``(batch,)``.

    Source: Petzka et al. 2021, arXiv:2001.00939, definition 3.
    """
    need_outputs(operator)
    layer = _last_linear(operator)
    curvature_of = _cross_entropy_curvature if _is_cross_entropy(operator.loss_fn) else _curvature
    total = 0.0
    with operator.agreed(), operator.evaluation_point(), torch.enable_grad(), _recorded(layer) as calls:
        for index in range(len(operator.batches)):
            calls.clear()
            outputs = operator.outputs(index)
            squared_norms = _features_of(outputs, calls).square().sum(1)
            curvature = curvature_of(operator, index, outputs.detach(), layer.weight.detach())
            total += float((squared_norms * curvature).double().sum())
    return Estimate(operator.sum_over_ranks(total))


def _is_cross_entropy(loss_fn: Any) -> bool:
    loss = torch_loss(loss_fn)
    return loss is not None and loss.exact and loss.function is F.cross_entropy


def _cross_entropy_curvature(operator: ModelOperator, index: int, outputs: Tensor, weight: Tensor) -> Tensor:
    """``tr(Wᵀ ∇²_f ℓ_i W) = c_i · (Σ_s p_s ‖w_s‖² − ‖Σ_s p_s w_s‖²)`` of every sample of a batch.

    ``c_i`` holds class weights, label smoothing, ignored labels and the denominator of the mean. It does not depend on
    the outputs and is read off at equal outputs, where ``p_s = 1/C``.
    """
    num_classes = outputs.shape[1]
    if num_classes == 1:
        return torch.zeros(len(outputs), dtype=outputs.dtype, device=outputs.device)
    equal = torch.zeros_like(outputs, requires_grad=True)
    (slopes,) = torch.autograd.grad(operator.output_loss(equal, index), equal, create_graph=True)
    (rows,) = torch.autograd.grad(slopes[:, 0].sum(), equal)
    coefficients = rows[:, 0] * (num_classes**2 / (num_classes - 1))
    # In double precision where the device has it: for p_s near 1 the two terms nearly cancel.
    wide = torch.float32 if outputs.device.type == "mps" else torch.float64
    weight = weight.to(wide)
    lengths = weight.square().sum(1)
    spreads = []
    for part in outputs.split(max(1, _ENTRIES_AT_ONCE // num_classes)):
        p = part.to(wide).softmax(1)
        spreads.append(p @ lengths - (p @ weight).square().sum(1))
    return coefficients * torch.cat(spreads)


def _curvature(operator: ModelOperator, index: int, outputs: Tensor, weight: Tensor) -> Tensor:
    """``tr(Wᵀ ∇²_f ℓ_i W)`` of every sample of a batch for any loss that is a sum over samples.

    One derivative for each column of ``W``, or for each row and the products of all rows with it.
    """
    free = outputs.requires_grad_()
    curvature = torch.zeros(len(free), dtype=free.dtype, device=free.device)
    loss = operator.output_loss(free, index)
    if not loss.requires_grad:  # it does not depend on the outputs
        return curvature
    (slopes,) = torch.autograd.grad(loss, free, create_graph=True, materialize_grads=True)
    if not slopes.requires_grad:  # the loss is (piecewise) linear in the outputs
        return curvature
    slopes = slopes.reshape(len(free), -1)
    by_columns = weight.shape[1] < weight.shape[0]
    for j in range(min(weight.shape)):
        direction = slopes @ weight[:, j] if by_columns else slopes[:, j]
        (row,) = torch.autograd.grad(direction.sum(), free, retain_graph=True, materialize_grads=True)
        curvature += row.reshape(len(free), -1) @ (weight[:, j] if by_columns else weight @ weight[j])
    return curvature


def _last_linear(operator: ModelOperator) -> nn.Linear:
    layers = [(name, module) for name, module in operator.model.named_modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise ValueError("relative flatness needs a last linear layer; the model has no torch.nn.Linear.")
    name, layer = layers[-1]
    if not any(layer.weight is parameter for parameter in operator.parameters.values()):
        raise ValueError(f"relative flatness needs the weight of the last linear layer ({name!r}), which is frozen.")
    return layer


def _features_of(outputs: Tensor, calls: list[tuple[Tensor, Tensor]]) -> Tensor:
    if len(calls) != 1 or not _same_numbers(calls[0][1], outputs):
        raise ValueError("relative flatness needs a model whose output is that of its last torch.nn.Linear.")
    features, scores = calls[0]
    if scores.ndim != 2 or (outputs.ndim != 2 and scores.shape[1] != 1) or len(outputs) != len(scores):
        raise ValueError(f"relative flatness needs outputs of shape (batch, outputs), got {tuple(outputs.shape)}.")
    return features.detach()


def _same_numbers(scores: Tensor, outputs: Any) -> bool:
    """Whether the model returned the layer's output, or a view of it without its axes of length 1."""
    if outputs is scores:
        return True
    return (
        isinstance(outputs, Tensor)
        and outputs.data_ptr() == scores.data_ptr()
        and outputs.numel() == scores.numel()
        and outputs.is_contiguous()
        and scores.is_contiguous()
    )


@restoring
def _recorded(layer: nn.Linear) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Inputs and outputs of every call of the layer inside the block."""
    calls: list[tuple[Tensor, Tensor]] = []
    handle = layer.register_forward_hook(lambda _, inputs, output: calls.append((inputs[0], output)))
    try:
        yield calls
    finally:
        handle.remove()
