"""What the nodes of an autograd graph reveal: derivatives that are wrong, imprecise, or computed anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from renyi_lab._utils.convolutions import Convolution, ConvolutionGradient

Top = Tensor | GradientEdge

_REAL = {torch.complex32: torch.float16, torch.complex64: torch.float32, torch.complex128: torch.float64}


def edge(tensor: Tensor) -> Top:
    """The place of ``tensor`` in its graph, which keeps the graph alive but not the tensor's values."""
    if tensor.grad_fn is None:
        return tensor
    # Up to torch 2.7 the edge of a `torch.autograd.Function` does not keep its node, that of a view does.
    return get_gradient_edge(tensor.view_as(tensor))


def nodes(tops: Iterable[Top]) -> Iterator[Any]:
    """Every node of the graph under ``tops``, once."""
    roots = [top.grad_fn if isinstance(top, Tensor) else top.node for top in tops]
    waiting = [node for node in roots if node is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        yield node
        new = {following for following, _ in node.next_functions if following is not None} - seen
        seen |= new
        waiting.extend(new)


def reason_to_refuse(reasons: Mapping[str, str], tops: Iterable[Top]) -> str | None:
    """The entry of ``reasons`` for the first node whose name is among its keys."""
    return next((reasons[node.name()] for node in nodes(tops) if node.name() in reasons), None)


def coarsest_dtype(tops: Iterable[Top]) -> torch.dtype | None:
    """The least precise floating-point type that some part of the graph was computed in; ``None`` without a graph."""
    found = {_REAL.get(output.dtype, output.dtype) for node in nodes(tops) for output in _outputs(node)}
    by_eps = sorted((dtype for dtype in found if dtype.is_floating_point), key=lambda dtype: torch.finfo(dtype).eps)
    return by_eps[-1] if by_eps else None


def _outputs(node: Any) -> Iterable[Any]:
    outputs: Iterable[Any] = getattr(node, "_input_metadata", ())
    return outputs


def runs_python(tops: Iterable[Top]) -> bool:
    """Whether differentiating runs a `torch.autograd.Function` of a model, which may compute anything.

    That may be a forward pass; the package's own functions are known.
    """
    functions = (node for node in nodes(tops) if isinstance(node, torch.autograd.function.BackwardCFunction))
    return any(getattr(node, "_forward_cls", None) not in (Convolution, ConvolutionGradient) for node in functions)
