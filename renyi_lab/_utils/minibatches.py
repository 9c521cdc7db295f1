"""Mini-batches of data sets, on a model's device and in its dtype."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    default_collate,
)

from renyi_lab._utils.batches import check_content, has_targets, is_tensor_data_set
from renyi_lab._utils.data_sets import Pair, StructuredPairs
from renyi_lab._utils.device import check_device
from renyi_lab._utils.interrupts import restoring
from renyi_lab._utils.structures import map_tensors, rows
from renyi_lab._utils.validation import check_int, printed


@restoring
def moved(model: nn.Module, device: torch.device | str | None) -> Iterator[None]:
    """Move ``model`` to ``device`` permanently, unless the block raises: then back to where it was."""
    first = next(model.parameters(), None)
    origin = None if first is None else first.device
    if device is not None:
        try:
            if check_device(device).type == "meta":
                raise ValueError("device='meta' holds no values, so that the model would lose its weights; use 'cpu'.")
            model.to(device)
        # torch asserts where it is built without CUDA, and imports a module for devices of other makers.
        except (RuntimeError, AssertionError, ImportError) as error:
            if origin is not None:
                model.to(origin)  # a part may have been moved before the memory was full
            raise ValueError(
                f"device={printed(device)} cannot be used here ({error}); see default_device()."
            ) from error
    try:
        yield
    except Exception:
        if device is not None and origin is not None:
            model.to(origin)
        raise


def batches(data: Dataset[Any], batch_size: int, model: nn.Module) -> Iterator[Pair]:
    """As `pairs`, in the order of the data, for data sets whose inputs are one tensor."""
    for inputs, targets in pairs(data, batch_size, model):
        if not isinstance(inputs, Tensor):
            raise TypeError(
                "each sample of a data set must be a pair (input, target) of tensors or numbers here, got a "
                f"{type(inputs).__name__} as input; join its parts to one tensor, and let the network take it apart."
            )
        yield inputs, targets


def pairs(
    data: Dataset[Any] | DataLoader[Any],
    batch_size: int,
    model: nn.Module,
    order: torch.Generator | None = None,
    *,
    join_last: bool = False,
) -> Iterator[tuple[Any, Tensor]]:
    """Batches ``(inputs, targets)`` on the model's device and in its dtype.

    Args:
        data: As `check_pairs` returns it.
        batch_size: Number of samples; a DataLoader makes its own batches.
        model: The model.
        order: Generator that shuffles samples, unless all are in one batch: that may be a graph, whose nodes have an
            order. A DataLoader has its own order.
        join_last: Whether a single sample that is left over belongs to the batch before it.
    """
    if isinstance(data, StructuredPairs) or is_tensor_data_set(data):
        contents = data.contents if isinstance(data, StructuredPairs) else data.tensors
        whole, size = placed(contents, model), len(data)
        sizes = batch_sizes(size, batch_size, join_last)
        if len(sizes) == 1:
            yield _copied(whole)
            return
        indices = (
            torch.arange(size, device="cpu") if order is None else torch.randperm(size, generator=order, device="cpu")
        )
        for chosen in torch.split(indices.to(whole[1].device), sizes):
            inputs, targets = rows(whole, chosen)
            yield inputs, targets
        return
    is_empty = True
    for batch in data if isinstance(data, DataLoader) else _loader(data, batch_size, order, join_last):
        if not has_targets(batch) or batch[1].ndim == 0:
            raise TypeError(_no_pair(batch, data))
        is_empty = False
        check_content(batch)
        yield placed(_copied(batch) if isinstance(data, DataLoader) else batch, model)
    if is_empty:
        raise ValueError("the DataLoader gives no batch; an iterator can be used only once.")


def _no_pair(batch: Any, data: Any) -> str:
    if isinstance(data, DataLoader):
        return (
            f"each batch of a DataLoader must be a pair (inputs, targets), the targets a tensor with a row per sample; "
            f"got a {type(batch).__name__}. Return pairs from collate_fn, such as (batch, batch.y)."
        )
    return (
        "each sample of a data set must be a pair (input, target) of tensors or numbers, or with a list, tuple or "
        "dictionary of these as the input."
    )


def _copied(batch: Any) -> Any:
    """A copy, since a model may change its inputs in place."""
    return map_tensors(batch, Tensor.clone)


def choose_batch_size(name: str, data: Any, batch_size: int | None, default: int) -> int:
    """The number of samples in a batch, which is not the caller's choice where the data cannot be cut.

    Raises:
        ValueError: A given ``batch_size`` would have no effect.
    """
    if batch_size is None and isinstance(data, StructuredPairs) and not data.by_sample:
        return len(data)
    size = check_int("batch_size", default if batch_size is None else batch_size)
    if batch_size is not None and isinstance(data, DataLoader):
        raise ValueError(f"batch_size={size} has no effect on {name}, a DataLoader, which makes its own; leave it out.")
    if isinstance(data, StructuredPairs) and not data.by_sample and size < len(data):
        raise ValueError(
            f"batch_size={size} cannot cut {name}, whose inputs hold tensors of other lengths than its {len(data)} "
            "targets; leave batch_size out for one batch, or pass a DataLoader of batches (inputs, targets)."
        )
    return size


def num_batches(data: Any, batch_size: int, join_last: bool = False) -> int | None:
    """Number of batches of one pass over the data; ``None`` for a DataLoader without a length."""
    if not isinstance(data, DataLoader):
        return len(batch_sizes(len(data), batch_size, join_last))
    try:
        return len(data)
    except TypeError:
        return None


def batch_sizes(num_samples: int, batch_size: int, join_last: bool) -> list[int]:
    """Sizes of the batches of one pass over the data; see `batches`."""
    sizes = [min(batch_size, num_samples - start) for start in range(0, num_samples, batch_size)]
    if join_last and batch_size > 1 and len(sizes) > 1 and sizes[-1] == 1:
        sizes[-2:] = [batch_size + 1]
    return sizes


def _loader(data: Dataset[Any], batch_size: int, order: torch.Generator | None, join_last: bool) -> Iterable[Any]:
    sizes = batch_sizes(len(data), batch_size, join_last)  # type: ignore[arg-type]  # check_pairs() made sure of a length
    shuffled = order is not None and len(sizes) > 1
    if sizes[-1] <= batch_size:
        return DataLoader(data, batch_size, shuffle=shuffled, generator=order, collate_fn=_collated)
    sampler: Sampler[int]
    sampler = RandomSampler(data, generator=order) if shuffled else SequentialSampler(data)  # type: ignore[arg-type]
    return DataLoader(data, batch_sampler=_Batches(sampler, sizes), generator=order, collate_fn=_collated)


def _collated(samples: list[Any]) -> Any:
    try:
        return default_collate(samples)
    except (TypeError, RuntimeError) as error:
        raise TypeError(
            f"the samples of a data set cannot be put into batches: {error}; pass a DataLoader whose collate_fn "
            "returns pairs (inputs, targets)."
        ) from error


class _Batches:
    """Batches of given sizes of a sampler's indices; what it draws is drawn at iteration, as by torch's own."""

    def __init__(self, sampler: Sampler[int], sizes: list[int]) -> None:
        self._sampler, self._sizes = sampler, sizes

    def __iter__(self) -> Iterator[list[int]]:
        indices = iter(self._sampler)
        return (list(itertools.islice(indices, size)) for size in self._sizes)

    def __len__(self) -> int:
        return len(self._sizes)


def has_batch_norm(model: nn.Module) -> bool:
    """Whether the model has batch norm, which refuses to train on a single sample."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def placed(batch: Any, model: nn.Module) -> tuple[Any, Tensor]:
    """A pair on the model's device, with floating-point data in the model's dtype and labels as int64."""
    inputs, targets = batch
    first = next((p for p in model.parameters() if p.is_floating_point()), None)
    device, dtype = (targets.device, torch.get_default_dtype()) if first is None else (first.device, first.dtype)

    def place(tensor: Tensor) -> Tensor:
        tensor = tensor.detach()  # its own .grad is left alone
        # Cast before the move: MPS has no float64.
        return (tensor.to(dtype) if tensor.is_floating_point() else tensor).to(device)

    if targets.is_complex():
        raise TypeError(f"targets must be real, such as labels as integers, got {targets.dtype}; use targets.real.")
    labels = targets if targets.is_floating_point() else targets.to(torch.int64)
    return map_tensors(inputs, place), place(labels)
