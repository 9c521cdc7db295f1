"""The gradients that a step starts from, and what to write where there are none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
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
    found = [(p, p.grad, group) for group in groups for p in group["params"] if p.grad is not None]
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
