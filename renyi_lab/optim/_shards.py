"""Norms over tensors of which each process holds only a part (DTensors, as `torch.distributed.fsdp.fully_shard` makes).

    ‖x‖_p = (Σ_ranks ‖x_rank‖_p^p)^{1/p},   ‖x‖_∞ = max_ranks ‖x_rank‖_∞

Everything else in a perturbation is entrywise, so each process works on its own parts and only scalars are reduced.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from renyi_lab._utils.parameters import is_distributed
from renyi_lab.optim._vectors import joined, total


def local_parts(tensors: Sequence[Any]) -> list[Tensor]:
    """What this process holds of each tensor, on the same memory; call it without autograd."""
    return [tensor.to_local() if is_distributed(tensor) else tensor for tensor in tensors]


def laid_out_like(tensors: Sequence[Any], params: Sequence[Any]) -> list[Tensor]:
    """The tensors, each DTensor among them distributed as its parameter is; some gradients are left as partial sums.

    Raises:
        ValueError: If there are more or fewer tensors than parameters, or a plain one does not have the shape of what
            this process holds of a sharded parameter.
    """
    if len(tensors) != len(params):
        raise ValueError(f"perturbation() returned {len(tensors)} tensors for {len(params)} parameters.")
    return [_laid_out_like(*pair) if is_distributed(pair[1]) else pair[0] for pair in zip(tensors, params, strict=True)]


def _laid_out_like(tensor: Any, param: Any) -> Any:
    if is_distributed(tensor):
        same = tuple(tensor.placements) == tuple(param.placements)
        return tensor if same else tensor.redistribute(param.device_mesh, param.placements)
    shape = param.to_local().shape
    if tensor.shape != shape:
        raise ValueError(
            f"perturbation() returned a tensor of shape {tuple(tensor.shape)} for a sharded parameter of which this "
            f"process holds shape {tuple(shape)}: return a DTensor as the parameter is, or one of that shape."
        )
    return tensor


class Shards:
    """The parts that this process holds of some tensors, and norms over all parts of all processes.

    Args:
        tensors: Plain tensors, which every process holds whole, and DTensors.

    Attributes:
        parts: This process's part of each tensor; of a plain one, the tensor itself.
        numel: Number of entries of all tensors, over all processes.
    """

    def __init__(self, tensors: Sequence[Any]) -> None:
        self.parts = local_parts(tensors)
        self.numel = sum(tensor.numel() for tensor in tensors)
        self._axes = [_sharded_axes(tensor) for tensor in tensors]

    def joined(self) -> list[Tensor]:
        """The parts as one flat vector where that is faster and all are sharded alike, or as they are."""
        return joined(self.parts) if len(set(self._axes)) == 1 else self.parts

    def total(self, tensors: list[Tensor], order: float) -> Tensor:
        """The vector norm over all processes of tensors shaped like `parts`, or of one made by `joined`.

        Every process must call it, and gets the same number.
        """
        kinds = list(dict.fromkeys(self._axes))
        if len(kinds) == 1:
            return _reduced(total(tensors, order), order, kinds[0])
        norms = []
        for kind in kinds:
            chosen = [tensor for tensor, axes in zip(tensors, self._axes, strict=True) if axes == kind]
            norms.append(_reduced(total(chosen, order), order, kind))
        return total(norms, order)


def _sharded_axes(tensor: Any) -> tuple[tuple[Any, int], ...]:
    """The axes of device meshes over which a tensor is cut; replicated axes need no sum."""
    if not is_distributed(tensor):
        return ()
    return tuple((tensor.device_mesh, axis) for axis, kind in enumerate(tensor.placements) if not kind.is_replicate())


def _reduced(norm: Tensor, order: float, axes: tuple[tuple[Any, int], ...]) -> Tensor:
    """The norm over all processes along these axes of meshes, from the norm of this process's part."""
    for mesh, axis in axes:
        # Parameters offloaded to the CPU still need the backend of the mesh. float64, in which squares do not overflow.
        part = norm.detach().to(device=mesh.device_type, dtype=torch.float64)
        if math.isinf(order):
            part = part.nan_to_num(nan=math.inf, posinf=math.inf)  # a maximum over processes may lose NaN
            dist.all_reduce(part, dist.ReduceOp.MAX, group=mesh.get_group(axis))
        else:
            part = part**order
            dist.all_reduce(part, dist.ReduceOp.SUM, group=mesh.get_group(axis))
            part = part ** (1 / order)
        norm = part.to(norm)
    return norm
