"""Measures from derivatives with respect to the network's outputs: the Fisher–Rao norm and relative flatness."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from renyi_lab._utils.estimate import Estimate
from renyi_lab.operators import ModelOperator, check_operator


def fisher_rao_norm(operator: ModelOperator) -> Estimate:
    """Fisher–Rao norm ``√(θᵀFθ)`` with the empirical Fisher matrix ``F = (1/N) Σ_i ∇ℓ_i ∇ℓ_iᵀ``.

        θᵀFθ = (1/N) Σ_i (θᵀ∇ℓ_i)² = (1/N) Σ_i ⟨∂ℓ_i/∂f, J_i θ⟩²

    ``N ∇L = Σ_i ∇ℓ_i``: where a mean weighs samples differently, as with class weights or sequences of unequal length,
    ``ℓ_i`` is N times the part of sample i in the loss, and N counts the samples that have one.

    For a network without biases of ``D`` linear layers with ReLU between them, ``J θ = D f``: the norm is then
    ``D · √(E⟨∂ℓ/∂f, f⟩²)``, a function of the outputs alone.

    Invariance: every rescaling of layers or neurons that leaves a positively homogeneous network's function unchanged.

    Args:
        operator: A `HessianOperator` over batches ``(x, y)`` with a loss that is a sum or mean over samples.

    Raises:
        ValueError: The loss is not a function ``loss_fn(outputs, y)``, or the model returns something else than one
            tensor.

    Source: Liang et al. 2019, arXiv:1711.01530, definition 2 and theorem 3.1.
    """
    _need_outputs(operator)
    parameters = list(operator.parameters.values())
    total = 0.0
    with operator.evaluation_point(), torch.enable_grad():
        for index in range(len(operator.batches)):
            outputs, slopes = _output_slopes(operator, index)
            moved = _derivative_along(outputs, parameters)
            total += float((slopes * moved).flatten(1).sum(1).double().square().sum())
    # A mean over all data has divided the part of every sample by their number, if all weigh the same.
    count = operator.num_counted
    return Estimate(math.sqrt(total * count if operator.reduction == "mean" else total / count))


def relative_flatness(operator: ModelOperator) -> Estimate:
    """Relative flatness of the last layer, ``κ = Σ_{s,s'} ⟨w_s, w_{s'}⟩ · tr H_{s,s'}``, in loss units.

    ``w_s`` is the weight row of output ``s``, ``H_{s,s'}`` the Hessian's block of rows ``s`` and ``s'``. For a last
    linear layer with inputs ``h_i``, ``κ = (1/N) Σ_i ‖h_i‖² · tr(Wᵀ ∇²_f ℓ_i W)``, which is computed exactly here.

    Invariance: layer rescaling ``W → cW``, since ``H → c⁻²H``; none under the rescaling of single neurons.

    Args:
        operator: A `HessianOperator` over batches ``(x, y)`` of a model whose output is that of its last `nn.Linear`,
            with a loss that is a sum or mean over samples.

    Raises:
        ValueError: The loss is not a function ``loss_fn(outputs, y)``, or the output is not that of a linear layer with
            trainable weight, or is not of shape ``(batch, outputs)``.

    Source: Petzka et al. 2021, arXiv:2001.00939, definition 3.
    """
    _need_outputs(operator)
    layer = _last_linear(operator)
    weight = layer.weight.detach()
    gram = weight @ weight.T
    total = 0.0
    with operator.evaluation_point(), torch.enable_grad(), _recorded(layer) as calls:
        for index in range(len(operator.batches)):
            calls.clear()
            outputs = operator.outputs(index)
            features = _features_of(outputs, calls)
            free = outputs.detach().requires_grad_()
            loss = operator.output_loss(free, index)
            curvature = torch.zeros(len(free), dtype=free.dtype, device=free.device)
            for s, row in enumerate(_second_derivatives(loss, free)):
                curvature += row @ gram[s]
            total += float((features.square().sum(1) * curvature).double().sum())
    return Estimate(total)


def _need_outputs(operator: ModelOperator) -> None:
    if check_operator(operator).loss_style != "output_target":
        raise ValueError(
            "this measure needs the loss as a function of the outputs: batches (x, y) and loss_fn(outputs, y), "
            f'got loss_style="{operator.loss_style}".'
        )


def _output_slopes(operator: ModelOperator, index: int) -> tuple[Tensor, Tensor]:
    """Outputs of one batch with their graph, and every sample's part of ``∂L/∂f``."""
    outputs = operator.outputs(index)
    if not isinstance(outputs, Tensor):
        raise ValueError(f"the model must return one tensor, got {type(outputs).__name__}.")
    if len(outputs) != operator.batches[index].size:
        raise ValueError(
            f"the model must return one row per sample, got {len(outputs)} rows for {operator.batches[index].size}."
        )
    free = outputs.detach().requires_grad_()
    (slopes,) = torch.autograd.grad(operator.output_loss(free, index), free, materialize_grads=True)
    return outputs, slopes


def _derivative_along(outputs: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    """``J θ``: the derivative of the outputs in the direction of the weights, by two passes of reverse mode."""
    direction = torch.zeros_like(outputs, requires_grad=True)
    pulled = torch.autograd.grad(outputs, parameters, direction, create_graph=True, materialize_grads=True)
    along = torch.stack([(part * p.detach()).sum() for part, p in zip(pulled, parameters, strict=True)]).sum()
    (moved,) = torch.autograd.grad(along, direction, materialize_grads=True)
    return moved


def _second_derivatives(loss: Tensor, outputs: Tensor) -> Iterator[Tensor]:
    """``∂²loss/∂f_{is}∂f_{is'}`` as ``(batch, outputs)`` for each ``s``; the loss is a sum over samples."""
    (slopes,) = torch.autograd.grad(loss, outputs, create_graph=True)
    for s in range(outputs.shape[1]):
        if not slopes.requires_grad:  # the loss is (piecewise) linear in the outputs
            yield torch.zeros_like(outputs)
            continue
        (row,) = torch.autograd.grad(slopes[:, s].sum(), outputs, retain_graph=True, materialize_grads=True)
        yield row


def _last_linear(operator: ModelOperator) -> nn.Linear:
    layers = [(name, module) for name, module in operator.model.named_modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise ValueError("relative flatness needs a last linear layer; the model has no torch.nn.Linear.")
    name, layer = layers[-1]
    if not any(layer.weight is parameter for parameter in operator.parameters.values()):
        raise ValueError(f"relative flatness needs the weight of the last linear layer ({name!r}), which is frozen.")
    return layer


def _features_of(outputs: Tensor, calls: list[tuple[Tensor, Tensor]]) -> Tensor:
    if len(calls) != 1 or calls[0][1] is not outputs:
        raise ValueError("relative flatness needs a model whose output is that of its last torch.nn.Linear.")
    if outputs.ndim != 2:
        raise ValueError(f"relative flatness needs outputs of shape (batch, outputs), got {tuple(outputs.shape)}.")
    return calls[0][0].detach()


@contextmanager
def _recorded(layer: nn.Linear) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Inputs and outputs of every call of the layer inside the block."""
    calls: list[tuple[Tensor, Tensor]] = []
    handle = layer.register_forward_hook(lambda _, inputs, output: calls.append((inputs[0], output)))
    try:
        yield calls
    finally:
        handle.remove()
