"""Data frozen into a list of batches, so that every Hessian product is one with the same matrix."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from renyi_lab._utils.random import preserved_rng

_EMPTY = "data is empty; pass (inputs, targets), a data set, a DataLoader or batches with at least one sample."


@dataclass(frozen=True)
class Batch:
    """One frozen batch and the number of samples in it."""

    content: Any
    size: int

    @property
    def is_pair(self) -> bool:
        """Whether the batch is ``(inputs, targets)``."""
        return is_pair(self.content)


def is_pair(content: Any) -> bool:
    """Whether ``content`` is a pair of tensors ``(inputs, targets)``."""
    return (
        isinstance(content, (tuple, list)) and len(content) == 2 and all(isinstance(part, Tensor) for part in content)
    )


def freeze_batches(data: Any, device: torch.device) -> list[Batch]:
    """Copy ``data`` to ``device`` as batches in a fixed order."""
    with preserved_rng():  # even a loader that does not shuffle draws from the global state
        batches = [_freeze(content, device) for content in _iterate(data)]
    batches = [batch for batch in batches if batch.size > 0]
    if not batches:
        raise ValueError(_EMPTY)
    return batches


def _iterate(data: Any) -> Iterable[Any]:
    if isinstance(data, TensorDataset):
        return [data.tensors]
    if isinstance(data, (Tensor, Mapping)) or is_pair(data):
        return [data]
    if isinstance(data, Dataset) and not isinstance(data, DataLoader):
        return DataLoader(data, batch_size=1024)
    if isinstance(data, Iterable):
        return data
    raise TypeError(
        f"data must be (inputs, targets), a data set, a DataLoader or an iterable of batches, got "
        f"{type(data).__name__}."
    )


def _freeze(content: Any, device: torch.device) -> Batch:
    if isinstance(content, Batch):
        return content
    # A copy, since a loader may fill the same memory again and a user may change the data afterwards.
    frozen = map_tensors(content, lambda tensor: tensor.detach().to(device, copy=True))
    tensors = tensors_in(frozen)
    if not tensors:
        raise TypeError(
            f"each batch must hold at least one tensor, got {type(content).__name__}; use torch.from_numpy for arrays."
        )
    sizes = [tensor.shape[0] for tensor in tensors if tensor.ndim] or [1]
    if is_pair(frozen) and len(set(sizes)) > 1:
        raise ValueError(f"inputs and targets must have equally many samples, got {sizes[0]} and {sizes[1]}.")
    return Batch(frozen, sizes[0])


def split_batches(batches: list[Batch], size: int | None) -> list[Batch]:
    """The batches with those of more than ``size`` samples cut along their first dimension; ``None`` cuts none."""
    return batches if size is None else [part for batch in batches for part in _split(batch, size)]


def _split(batch: Batch, size: int) -> list[Batch]:
    if batch.size <= size:
        return [batch]
    if any(tensor.ndim == 0 or tensor.shape[0] != batch.size for tensor in tensors_in(batch.content)):
        raise ValueError(
            f"micro_batch_size={size} cannot cut a batch whose tensors differ in their first dimension; "
            "pass smaller batches instead."
        )
    starts = range(0, batch.size, size)
    return [
        Batch(map_tensors(batch.content, lambda tensor, a=start: tensor[a : a + size]), min(size, batch.size - start))
        for start in starts
    ]


def map_tensors(content: Any, function: Any) -> Any:
    """Apply ``function`` to every tensor in nested tuples, lists and mappings."""
    if isinstance(content, Tensor):
        return function(content)
    if isinstance(content, Mapping):
        return {key: map_tensors(value, function) for key, value in content.items()}
    if isinstance(content, Sequence) and not isinstance(content, str):
        mapped = [map_tensors(value, function) for value in content]
        return type(content)(*mapped) if hasattr(content, "_fields") else type(content)(mapped)  # type: ignore[call-arg]
    return content


def tensors_in(content: Any) -> list[Tensor]:
    """All tensors in nested tuples, lists and mappings."""
    found: list[Tensor] = []
    map_tensors(content, found.append)
    return found
