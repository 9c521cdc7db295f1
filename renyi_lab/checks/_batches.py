"""Targets and duplicates in frozen batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from renyi_lab._utils.batches import Batch, map_tensors, tensors_in
from renyi_lab._utils.structures import rebuilt, rows

_NAMES = ("labels", "label", "targets", "target", "y")


def target_of(batch: Batch) -> Tensor | None:
    """The targets of a batch: of a pair, of a dictionary with a usual name, or the last part of a longer tuple."""
    content = batch.content
    found: Any = None
    if isinstance(content, Mapping):
        found = next((content[name] for name in _NAMES if name in content), None)
    elif isinstance(content, (tuple, list)) and len(content) > 1:
        found = content[-1]
    return found if isinstance(found, Tensor) and found.ndim and len(found) == batch.size else None


def targets_of(batches: Sequence[Batch]) -> Tensor | None:
    """All targets as one vector; ``None`` where they are not known."""
    found = [target_of(batch) for batch in batches]
    known = [target.detach().flatten() for target in found if target is not None]
    return torch.cat(known) if len(known) == len(batches) else None


def with_shuffled_targets(batch: Batch, seed: int) -> Batch | None:
    """The batch with its targets given to other samples; ``None`` where they are not known."""
    target = target_of(batch)
    if target is None or batch.size < 2:
        return None
    order = torch.randperm(batch.size, generator=torch.Generator().manual_seed(seed), device="cpu").to(target.device)
    shuffled, content = target[order], batch.content
    if isinstance(content, Mapping):
        return Batch(map_tensors(content, lambda tensor: shuffled if tensor is target else tensor.detach()), batch.size)
    return Batch(rebuilt(content, {**dict(enumerate(content)), len(content) - 1: shuffled}), batch.size)


def num_distinct(batches: Sequence[Batch]) -> int | None:
    """Number of different samples, told apart by a random projection.

    ``None`` without an axis of samples, and where all is integers: tokens and categories may well repeat.
    """
    if not any(tensor.is_floating_point() for batch in batches for tensor in tensors_in(batch.content)):
        return None
    generator = torch.Generator("cpu").manual_seed(0)
    directions: list[Tensor] = []
    values = []
    for batch in batches:
        tensors = tensors_in(batch.content)
        if any(not _has_rows(tensor, batch.size) for tensor in tensors):
            return None
        flat = [tensor.detach().reshape(batch.size, -1).cpu().double() for tensor in tensors]
        for index, part in enumerate(flat):
            if len(directions) == index:
                directions.append(torch.randn(part.shape[1], dtype=torch.float64, generator=generator, device="cpu"))
            if len(directions[index]) != part.shape[1]:
                return None  # sequences of different lengths
        values.append(torch.stack([part @ d for part, d in zip(flat, directions, strict=False)]).sum(0))
    return len(torch.unique(torch.cat(values)))


def _has_rows(tensor: Tensor, size: int) -> bool:
    return tensor.layout == torch.strided and tensor.ndim > 0 and len(tensor) == size


def halves(batches: Sequence[Batch], seed: int) -> tuple[list[Batch], list[Batch]] | None:
    """Two random halves of the samples, in as many batches each; ``None`` where they cannot be taken apart."""
    total = sum(batch.size for batch in batches)
    if total < 2 or any(not _has_rows(tensor, batch.size) for batch in batches for tensor in tensors_in(batch.content)):
        return None
    generator = torch.Generator("cpu").manual_seed(seed)
    in_first = torch.zeros(total, dtype=torch.bool, device="cpu")
    in_first[torch.randperm(total, generator=generator, device="cpu")[: total // 2]] = True
    parts: tuple[list[Batch], list[Batch]] = ([], [])
    for batch, chosen in zip(batches, in_first.split([batch.size for batch in batches]), strict=True):
        for part, mask in zip(parts, (chosen, ~chosen), strict=True):
            indices = mask.nonzero().flatten().to(tensors_in(batch.content)[0].device)
            if len(indices):
                part.append(Batch(rows(batch.content, indices), len(indices)))
    return parts
