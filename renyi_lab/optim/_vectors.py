"""Arithmetic on a list of tensors as one long vector, without waiting for the device."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# The norm of an order over all tensors together: `total`, or that of `Shards`, which covers the parts of all processes.
Norm = Callable[[list[Tensor], float], Tensor]
# Entries of a piece in `total` (heuristic).
_PIECE = 2**14


def as_real(tensors: list[Tensor]) -> list[Tensor]:
    """The tensors, the complex ones among them as views with two real numbers per entry."""
    return [torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor for tensor in tensors]


def joined(tensors: list[Tensor]) -> list[Tensor]:
    """One flat vector, where all tensors are on a CPU and of one dtype; otherwise the tensors as they are.

    On a CPU each operation on each tensor has its overhead (together a third of what a step costs beyond its
    gradients); a GPU's foreach kernels take all tensors at once and need no copy.
    """
    if any(tensor.device.type != "cpu" or tensor.dtype != tensors[0].dtype for tensor in tensors):
        return tensors
    return [torch.cat([tensor.reshape(-1) for tensor in tensors])]


def split_like(vectors: list[Tensor], like: list[Tensor]) -> list[Tensor]:
    """The inverse of `joined`: views of the vector in the shapes of ``like``."""
    if len(vectors) == len(like):
        return [vector.view_as(tensor) for vector, tensor in zip(vectors, like, strict=True)]
    parts = vectors[0].split([tensor.numel() for tensor in like])
    return [part.view_as(tensor) for part, tensor in zip(parts, like, strict=True)]


def total(tensors: list[Tensor], order: float) -> Tensor:
    """The vector norm of this order over all tensors together, a scalar on the first tensor's device."""
    filled = [tensor for tensor in tensors if tensor.numel()]  # a maximum over no entries is an error in torch
    if not filled:
        return torch.zeros((), dtype=tensors[0].dtype, device=tensors[0].device).abs()
    norms = torch._foreach_norm(_pieces(filled), order)
    norm: Tensor = torch.linalg.vector_norm(torch.stack([part.to(norms[0].device) for part in norms]), order)
    return norm


def _pieces(tensors: list[Tensor]) -> list[Tensor]:
    """Long tensors on a CPU cut into pieces, whose norms torch adds up one entry after the other in their precision."""
    long = [tensor.device.type == "cpu" and tensor.numel() > _PIECE for tensor in tensors]
    if not any(long):
        return tensors
    cut = [t.reshape(-1).split(_PIECE) if is_long else (t,) for t, is_long in zip(tensors, long, strict=True)]
    return [piece for pieces in cut for piece in pieces]


def multiply_(tensors: list[Tensor], factor: Tensor) -> None:
    """Multiply all tensors in place by a scalar, on whatever devices they are."""
    torch._foreach_mul_(tensors, _for_each_device(factor, tensors))


def scaled(tensors: list[Tensor], factor: Tensor) -> list[Tensor]:
    """The tensors times a scalar, as new tensors."""
    return list(torch._foreach_mul(tensors, _for_each_device(factor, tensors)))


def unit_vector(tensors: list[Tensor], norm: Norm = total) -> tuple[list[Tensor], Tensor]:
    """Q = g/‖g‖ as new tensors (at least float32) and ‖g‖, over all tensors together; q = 0 where g = 0.

    Divides by max|g| before squaring: in float32 the squares overflow from |g| ≈ 1e19 and vanish below 1e-23.
    """
    wide = widened(tensors)
    largest = norm(wide, math.inf)
    unit = list(torch._foreach_div(wide, _for_each_device(_or_one(largest), wide)))
    length = norm(unit, 2)
    multiply_(unit, 1 / _or_one(length))
    return unit, largest * length


def shorten_(tensors: list[Tensor], max_norm: float | None, norm: Norm = total) -> Tensor:
    """Shorten the vector in place to ``max_norm`` if it is longer, and return its length."""
    length = norm(widened(tensors), 2)
    if max_norm is not None:
        multiply_(tensors, torch.where(length > max_norm, max_norm / length, 1.0))
        length = torch.clamp(length, max=max_norm)
    return length


def clip_(tensors: list[Tensor], max_norm: float, norm: Norm = total) -> None:
    """Shorten the vector in place to about ``max_norm`` if it is longer, as ``torch.nn.utils.clip_grad_norm_`` does."""
    multiply_(tensors, torch.clamp(max_norm / (norm(tensors, 2) + 1e-6), max=1.0))


def widened(tensors: list[Tensor]) -> list[Tensor]:
    """The tensors in at least float32, without a copy where they already are."""
    return [tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in tensors]


def zero_safe_ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The ratio, 0 where the denominator is 0, without reading from the device."""
    return torch.where(denominator > 0, numerator / _or_one(denominator), 0.0)


def _or_one(number: Tensor) -> Tensor:
    return torch.where(number == 0, 1.0, number)


def _for_each_device(number: Tensor, tensors: list[Tensor]) -> Any:
    """The scalar as torch's foreach kernels need it: itself where all share its device, otherwise a copy for each."""
    if all(tensor.device == number.device for tensor in tensors):
        return number
    return [number.to(tensor.device) for tensor in tensors]
