"""The gradients that a step starts from, their mean over processes, and what to write where there are none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

STEP_SNIPPET = """

    def closure():
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        return loss

    loss = optimizer.step(closure)
"""


def gradients(groups: Iterable[dict[str, Any]]) -> tuple[list[Tensor], list[Tensor], list[dict[str, Any]]]:
    """The parameters that have a gradient, the gradients, and the group of each.

    Args:
        groups: Parameter groups of an optimizer.

    Raises:
        RuntimeError: If no parameter has a gradient, or one is sparse.
    """
    found = [(p, p.grad, group) for group in groups for p in group["params"] if p.grad is not None and p.numel()]
    if not found:
        raise RuntimeError(
            "No parameter of this optimizer has a gradient: backward() was not called, was called before the "
            f"gradients were cleared, or was called on another model. What a step expects:{STEP_SNIPPET}"
        )
    for param, grad, _ in found:
        if grad.layout != torch.strided:
            raise RuntimeError(
                f"The parameter of shape {tuple(param.shape)} has a sparse gradient, which is not supported: "
                "build the embedding with sparse=False."
            )
    return [p for p, _, _ in found], [grad for _, grad, _ in found], [group for _, _, group in found]


def gradients_of_each(
    groups: Iterable[dict[str, Any]], process_group: Any
) -> tuple[list[Tensor], list[Tensor], list[dict[str, Any]]]:
    """As `gradients`; where processes have their own, an error in one of them is raised in all, and none waits for it.

    Args:
        groups: Parameter groups of an optimizer.
        process_group: The processes, each of which must call this; ``None``: gradients are not each process's own.
    """
    groups = list(groups)
    if process_group is None:
        return gradients(groups)
    found, error = None, None
    try:
        found = gradients(groups)
    except RuntimeError as own:
        error = own
    failed = torch.tensor(float(found is None), device=next(p.device for group in groups for p in group["params"]))
    dist.all_reduce(failed, dist.ReduceOp.MAX, group=process_group)
    if found is not None and not bool(failed):
        return found
    raise error or RuntimeError(
        "Another process has no gradient, or a sparse one, to perturb by: its message says which. Give each process "
        "data that the loss depends on, or leave local_perturbation out."
    )


def averaged_gradients(groups: Iterable[dict[str, Any]], process_group: Any) -> tuple[list[Tensor], list[Tensor]]:
    """The parameters that have a gradient in any process, and the means of their gradients, as new tensors.

    Where only some processes have a gradient, it counts as zero in the others, as in ``DistributedDataParallel``.

    Args:
        groups: Parameter groups of an optimizer; the same parameters in the same order in every process.
        process_group: The processes to average over; each must call this.
    """
    params = [p for group in groups for p in group["params"] if p.requires_grad and p.numel()]
    counts = torch.tensor([p.grad is not None for p in params], dtype=torch.float32, device=params[0].device)
    dist.all_reduce(counts, group=process_group)
    chosen = [p for p, count in zip(params, counts.tolist(), strict=True) if count]
    means = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in chosen]
    for dtype in dict.fromkeys(mean.dtype for mean in means):
        alike = [mean for mean in means if mean.dtype == dtype]
        vector = torch.cat([mean.reshape(-1).to(alike[0].device) for mean in alike])
        dist.all_reduce(vector, group=process_group)
        vector /= dist.get_world_size(process_group)
        for mean, part in zip(alike, vector.split([mean.numel() for mean in alike]), strict=True):
            mean.copy_(part.view_as(mean))
    return chosen, means
