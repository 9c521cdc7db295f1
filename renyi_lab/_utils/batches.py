"""Data frozen into a list of batches, so that every Hessian product is one with the same matrix."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from renyi_lab._utils.random import preserved_rng
from renyi_lab._utils.structures import leaves, rebuilt, rows
from renyi_lab._utils.structures import map_tensors as map_tensors
from renyi_lab._utils.structures import tensors_in as tensors_in
from renyi_lab._utils.validation import is_iterable

_EMPTY = "data is empty; pass (inputs, targets), a data set, a DataLoader or batches with at least one sample."

_SHORT_INTEGERS = (torch.int8, torch.int16, torch.int32, torch.uint16, torch.uint32)


@dataclass(frozen=True)
class Batch:
    """One frozen batch and the number of samples in it."""

    content: Any
    size: int

    @property
    def is_pair(self) -> bool:
        """Whether the batch is ``(inputs, targets)``: inputs of any structure, and one tensor of targets."""
        return has_targets(self.content)


def is_pair(content: Any) -> bool:
    """Whether ``content`` is a pair of tensors ``(inputs, targets)``."""
    return (
        isinstance(content, (tuple, list)) and len(content) == 2 and all(isinstance(part, Tensor) for part in content)
    )


def has_targets(content: Any) -> bool:
    """Whether ``content`` is ``(inputs, targets)``, the inputs being a tensor or a structure of tensors."""
    return (
        isinstance(content, (tuple, list))
        and len(content) == 2
        and isinstance(content[1], Tensor)
        and bool(tensors_in(content[0]))
    )


def is_tensor_data_set(data: Any) -> TypeGuard[TensorDataset]:
    """Whether a data set's samples are the rows of its tensors; a subclass may change them, by augmentation say."""
    own = ("__getitem__", "__getitems__", "__len__")
    return isinstance(data, TensorDataset) and all(
        getattr(type(data), name, None) is getattr(TensorDataset, name, None) for name in own
    )


def freeze_batches(data: Any, device: torch.device, *, may_be_empty: bool = False) -> list[Batch]:
    """Copy ``data`` to ``device`` as batches in a fixed order; no samples are an error unless ``may_be_empty``."""
    with preserved_rng():  # even a loader that does not shuffle draws from the global state
        batches = [_freeze(content, device) for content in _iterate(data)]
    batches = [batch for batch in batches if batch.size > 0]
    if not batches and not may_be_empty:
        raise ValueError(_EMPTY)
    return batches


def _iterate(data: Any) -> Iterable[Any]:
    if is_tensor_data_set(data):
        return [data.tensors]
    if isinstance(data, (Tensor, Mapping)) or has_targets(data) or _is_one_batch(data):
        return [data]
    if isinstance(data, Dataset) and not isinstance(data, DataLoader):
        return DataLoader(data, batch_size=1024)
    if is_iterable(data):
        batches: Iterable[Any] = data
        return batches
    raise TypeError(
        f"data must be (inputs, targets), a data set, a DataLoader or an iterable of batches, got "
        f"{type(data).__name__}."
    )


def _is_one_batch(data: Any) -> bool:
    """Whether an object holds a batch's tensors itself; graphs of torch_geometric iterate over their attributes."""
    if isinstance(data, (tuple, list, Batch)) or (is_iterable(data) and not hasattr(data, "to")):
        return False
    return bool(tensors_in(data))


def _freeze(content: Any, device: torch.device) -> Batch:
    if isinstance(content, Batch):
        return content
    check_content(content)
    # A copy, since a loader may fill the same memory again and a user may change the data afterwards.
    frozen = map_tensors(content, lambda tensor: tensor.detach().to(device, copy=True))
    if has_targets(frozen) and frozen[1].dtype in _SHORT_INTEGERS:  # torch's losses take labels in int64
        frozen = rebuilt(frozen, {0: frozen[0], 1: frozen[1].long()})
    tensors = tensors_in(frozen)
    if not tensors:
        raise TypeError(
            f"each batch must hold at least one tensor, got {type(content).__name__}; use torch.from_numpy for arrays."
        )
    sizes = [tensor.shape[0] for tensor in tensors if tensor.ndim] or [1]
    if is_pair(frozen) and len(set(sizes)) > 1:
        raise ValueError(f"inputs and targets must have equally many samples, got {sizes[0]} and {sizes[1]}.")
    # Inputs of another structure may hold tensors without an axis of samples.
    return Batch(frozen, sizes[-1] if has_targets(frozen) else sizes[0])


def described(content: Any) -> str:
    """A batch in words, by its keys or its type, with the shapes and types of its tensors."""
    if isinstance(content, Mapping):
        parts = ", ".join(f"{key!r}: {_shape(part)}" for key, part in content.items())
        return f"a batch with the keys {parts}"
    if isinstance(content, (Tensor, tuple, list)):
        return f"a batch of {', '.join(map(_shape, tensors_in(content)))}"
    return f"a batch, a {type(content).__name__} of {', '.join(map(_shape, tensors_in(content)))}"


def _shape(part: Any) -> str:
    return f"{tuple(part.shape)} {part.dtype}" if isinstance(part, Tensor) else type(part).__name__


def check_content(content: Any) -> None:
    """Raise where a batch holds tensors that nothing can be computed from, or arrays beside tensors."""
    found = leaves(content)
    holds_tensors = False
    for leaf in found:
        if isinstance(leaf, Tensor):
            holds_tensors = True
            _check_tensor(leaf)
    for leaf in found if holds_tensors else ():
        _refuse_array(leaf)


def _check_tensor(tensor: Tensor) -> None:
    if tensor.is_nested:
        raise TypeError(
            "a batch holds a nested tensor, whose operations lack second derivatives; use "
            "torch.nested.to_padded_tensor(tensor, 0.0) and a mask."
        )
    if tensor.device.type == "meta":
        raise ValueError("a batch holds a tensor on the meta device, which has no values; load the data.")


def _refuse_array(leaf: Any) -> None:
    """NumPy arrays and pandas columns beside tensors: they would not follow these to a device or into a subset."""
    if hasattr(leaf, "to_numpy") or (isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biufc"):
        array = "data.to_numpy()" if hasattr(leaf, "to_numpy") else "array"
        raise TypeError(
            f"a batch holds a {type(leaf).__name__} beside tensors, which would not be moved or split with them; use "
            f"torch.from_numpy({array})."
        )


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
    return [Batch(rows(batch.content, slice(start, start + size)), min(size, batch.size - start)) for start in starts]
