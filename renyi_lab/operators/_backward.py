"""A gradient by ``loss.backward()``, for models that `torch.autograd.grad` does not go through."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from renyi_lab._utils.model_state import without_gradients
from renyi_lab.operators._graph_nodes import nodes


def gradient_by_backward(loss: Tensor, parameters: Sequence[Tensor], others: Iterable[Tensor]) -> list[Tensor]:
    """The gradient in ``parameters``; every ``.grad`` is what it was before, after an error too.

    Args:
        loss: Scalar with a graph.
        parameters: Tensors to differentiate in.
        others: Further leaves that the graph may hide, as that of activation checkpointing does.
    """
    shown = [node.variable for node in nodes([loss]) if hasattr(node, "variable")]
    with without_gradients({id(leaf): leaf for leaf in (*shown, *others, *parameters)}.values()):
        loss.backward()
        return [torch.zeros_like(p) if p.grad is None else p.grad.detach() for p in parameters]
