"""Data of trainings and evaluations: what is accepted, and why the rest is not."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset, default_collate

from renyi_lab._utils.batches import check_content, has_targets, is_pair, is_tensor_data_set
from renyi_lab._utils.structures import tensors_in
from renyi_lab._utils.validation import check_finite

Pair: TypeAlias = tuple[Tensor, Tensor]
Data: TypeAlias = "Dataset[Any] | DataLoader[Any] | tuple[Any, Tensor]"

_FROM_ARRAYS = "use torch.from_numpy for arrays"
_IN_LOADER = "for a list of batches (inputs, targets) pass DataLoader(batches, batch_size=None)"
_AS_PAIR = "pass a pair (inputs, targets) with one tensor of targets, such as (batch, batch.y)"


class StructuredPairs(Dataset[Any]):
    """Inputs that are a list, tuple, dictionary or object of tensors, with one tensor of targets.

    Attributes:
        contents: ``(inputs, targets)``.
        by_sample: Whether every tensor has one row per target, so that some of the samples can be taken.
    """

    def __init__(self, inputs: Any, targets: Tensor) -> None:
        self.contents = (inputs, targets)
        rows = [tensor for tensor in tensors_in(inputs) if tensor.ndim]
        self.by_sample = bool(rows) and all(len(tensor) == len(targets) for tensor in rows)

    def __len__(self) -> int:
        return len(self.contents[1])


def check_pairs(name: str, data: Any, *, loaders: bool = True) -> Dataset[Any] | DataLoader[Any]:
    """Return ``data`` as a data set or DataLoader of pairs, with finite values where it is tensors, or raise.

    Inputs may be structures of tensors. With ``loaders``, a DataLoader is accepted where batches could not be made of
    its data set alone.
    """
    if is_pair(data) and data[0].ndim and data[1].ndim:
        if len(data[0]) != len(data[1]):
            raise ValueError(f"{name} has {len(data[0])} inputs and {len(data[1])} targets; they must be equally many.")
        data = TensorDataset(*data)
    elif has_targets(data):
        if data[1].ndim == 0:
            raise ValueError(f"{name}'s targets must be a tensor with one row per sample, got a single number.")
        data = StructuredPairs(*data)
    if isinstance(data, DataLoader):
        if not loaders or (is_tensor_data_set(data.dataset) and data.collate_fn is default_collate):
            raise TypeError(f"{name} must be a data set, got a DataLoader; pass loader.dataset, batches are made here.")
        return data
    if not isinstance(data, Dataset) or not hasattr(data, "__len__"):
        raise TypeError(
            f"{name} must be a map-style torch Dataset or a pair of tensors (x, y), got {type(data).__name__}; "
            f"{_fix(data, loaders)}."
        )
    if len(data) == 0:
        raise ValueError(f"{name} is empty; it needs at least one sample.")
    if is_tensor_data_set(data):
        if len(data.tensors) != 2:
            raise ValueError(
                f"{name} must hold inputs and targets, got {len(data.tensors)} tensors; for several inputs pass "
                "([x1, x2], y), with which model([x1, x2]) is called."
            )
        check_values(name, *data.tensors)
    if isinstance(data, StructuredPairs):
        check_values(name, *data.contents)
    checked: Dataset[Any] = data
    return checked


def check_data(name: str, data: Any) -> Dataset[Any]:
    """As `check_pairs`, for data sets whose inputs are one tensor."""
    checked = check_pairs(name, data, loaders=False)
    if isinstance(checked, StructuredPairs):
        raise TypeError(
            f"{name}'s inputs must be one tensor here, got a {type(checked.contents[0]).__name__}; join them to one "
            "tensor, and let the network take it apart."
        )
    assert isinstance(checked, Dataset)  # a DataLoader was refused
    return checked


def check_values(name: str, inputs: Any, targets: Tensor) -> None:
    """Raise where inputs or targets are not finite, or are no tensors with values."""
    check_content((inputs, targets))
    for part, content in (("inputs", inputs), ("targets", targets)):
        for tensor in tensors_in(content):
            if tensor.is_floating_point():
                values = tensor if tensor.layout == torch.strided else tensor.to_sparse_coo().coalesce().values()
                causes = "missing values, a division by zero in preprocessing; remove or replace them."
                check_finite(f"{name}'s {part}", values, causes)


def _fix(data: Any, loaders: bool) -> str:
    in_batches = _IN_LOADER if loaders else "join the batches to one pair (x, y)"
    if hasattr(data, "__next__"):
        return in_batches
    if isinstance(data, (list, tuple)):
        of_arrays = any(hasattr(part, "__array__") and not isinstance(part, Tensor) for part in data)
        return in_batches if tensors_in(data) and not of_arrays else _FROM_ARRAYS
    return _AS_PAIR if tensors_in(data) else _FROM_ARRAYS
