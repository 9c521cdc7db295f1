"""The Fisher–Rao norm, from derivatives with respect to the network's outputs."""

from __future__ import annotations

import math

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
    need_outputs(operator)
    parameters = list(operator.parameters.values())
    total = 0.0
    with operator.agreed(), operator.evaluation_point(), torch.enable_grad():
        for index in range(len(operator.batches)):
            outputs, slopes = _output_slopes(operator, index)
            moved = _derivative_along(outputs, parameters)
            total += float((slopes * moved).reshape(len(moved), -1).sum(1).double().square().sum())
    total = operator.sum_over_ranks(total)
    # A mean over all data has divided the part of every sample by their number, if all weigh the same.
    count = operator.num_counted
    return Estimate(math.sqrt(total * count if operator.reduction == "mean" else total / count))


def need_outputs(operator: ModelOperator) -> None:
    """Raise ``ValueError`` unless the loss is a function of outputs and targets."""
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
    loss = operator.output_loss(free, index)
    if not loss.requires_grad:  # the loss does not depend on the outputs
        return outputs, torch.zeros_like(free)
    (slopes,) = torch.autograd.grad(loss, free, materialize_grads=True)
    return outputs, slopes


def _derivative_along(outputs: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    """``J θ``: the derivative of the outputs in the direction of the weights, by two passes of reverse mode."""
    direction = torch.zeros_like(outputs, requires_grad=True)
    pulled = torch.autograd.grad(outputs, parameters, direction, create_graph=True, materialize_grads=True)
    along = torch.stack([(part * p.detach()).sum() for part, p in zip(pulled, parameters, strict=True)]).sum()
    (moved,) = torch.autograd.grad(along, direction, materialize_grads=True)
    return moved
