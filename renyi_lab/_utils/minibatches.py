"""Shared by training and evaluation: mini-batches of a data set, a checked forward pass, running means."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

from renyi_lab._utils.batches import is_pair
from renyi_lab._utils.validation import check_finite, check_labels

LossFunction = Callable[[Tensor, Tensor], Tensor]
Pair = tuple[Tensor, Tensor]


def check_data(name: str, data: Any) -> Dataset[Any]:
    """Return ``data`` as a non-empty data set of pairs, with finite values where it is tensors, or raise."""
    if is_pair(data):
        if data[0].shape[:1] != data[1].shape[:1]:
            raise ValueError(f"{name} has {len(data[0])} inputs and {len(data[1])} targets; they must be equally many.")
        data = TensorDataset(*data)
    if isinstance(data, DataLoader):
        raise TypeError(f"{name} must be a data set, got a DataLoader; pass loader.dataset, batches are made here.")
    if not isinstance(data, Dataset) or not hasattr(data, "__len__"):
        raise TypeError(
            f"{name} must be a map-style torch Dataset or a pair of tensors (x, y), got {type(data).__name__}; "
            "use torch.from_numpy for arrays."
        )
    if len(data) == 0:
        raise ValueError(f"{name} is empty; it needs at least one sample.")
    if isinstance(data, TensorDataset):
        if len(data.tensors) != 2:
            raise ValueError(f"{name} must hold inputs and targets, got {len(data.tensors)} tensors.")
        for part, tensor in zip(("inputs", "targets"), data.tensors, strict=True):
            _check_values(f"{name}'s {part}", tensor)
    return data


def _check_values(name: str, tensor: Tensor) -> None:
    if tensor.is_floating_point():
        check_finite(name, tensor, "missing values, a division by zero in preprocessing; remove or replace them.")


@contextlib.contextmanager
def moved(model: nn.Module, device: torch.device | str | None) -> Iterator[None]:
    """Move ``model`` to ``device`` permanently, unless the block raises: then back to where it was."""
    first = next(model.parameters(), None)
    if device is not None:
        try:
            model.to(device)
        except (RuntimeError, AssertionError) as error:  # torch asserts where it is built without CUDA
            raise ValueError(f"device={device!r} cannot be used here ({error}); see default_device().") from error
    origin = None if first is None else first.device
    try:
        yield
    except Exception:
        if device is not None and origin is not None:
            model.to(origin)
        raise


def batches(
    data: Dataset[Any], batch_size: int, model: nn.Module, order: torch.Generator | None = None
) -> Iterator[Pair]:
    """Pairs of tensors on the model's device and in its dtype; shuffled by ``order`` if given."""
    if isinstance(data, TensorDataset):
        inputs, targets = placed(data.tensors[0], data.tensors[1], model)
        indices = torch.arange(len(inputs)) if order is None else torch.randperm(len(inputs), generator=order)
        for chosen in torch.split(indices.to(inputs.device), batch_size):
            yield inputs[chosen], targets[chosen]
        return
    for batch in DataLoader(data, batch_size, shuffle=order is not None, generator=order):
        if not is_pair(batch):
            raise TypeError("each sample of a data set must be a pair (input, target) of tensors or numbers.")
        yield placed(batch[0], batch[1], model)


def placed(inputs: Tensor, targets: Tensor, model: nn.Module) -> Pair:
    """The pair on the model's device, with floating-point data in the model's dtype and labels as int64."""
    first = next((p for p in model.parameters() if p.is_floating_point()), None)
    device, dtype = (inputs.device, torch.get_default_dtype()) if first is None else (first.device, first.dtype)
    # Cast before the move: MPS has no float64.
    inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
    targets = targets.to(dtype if targets.is_floating_point() else torch.int64)
    return inputs.to(device), targets.to(device)


def forward(
    model: nn.Module, loss_fn: LossFunction | None, inputs: Tensor, targets: Tensor, *, check: bool
) -> tuple[Any, Tensor]:
    """Outputs and mean loss of one batch; ``check`` validates data, outputs and loss (a few more passes over them)."""
    if check:
        _check_values("a batch's inputs", inputs)
        _check_values("a batch's targets", targets)
        if loss_fn is None and targets.is_floating_point():
            raise ValueError("targets are floating-point numbers; pass loss_fn=torch.nn.MSELoss(), or integer labels.")
    with explained(f"model does not take inputs of shape {tuple(inputs.shape)} and {inputs.dtype}"):
        outputs = model(inputs)
    if check and (loss_fn is None or loss_fn is F.cross_entropy or isinstance(loss_fn, nn.CrossEntropyLoss)):
        if not isinstance(outputs, Tensor):
            raise TypeError(f"model must return a tensor of class scores, got {type(outputs).__name__}; pass loss_fn.")
        check_labels(outputs, targets, ignored=0)  # no label is exempt: means are taken over all samples
    if check and targets.is_floating_point() and isinstance(outputs, Tensor):
        _check_no_broadcast(outputs, targets)
    with explained(f"loss_fn does not take targets of shape {tuple(targets.shape)} and {targets.dtype}"):
        loss = (loss_fn or F.cross_entropy)(outputs, targets)
    if not isinstance(loss, Tensor) or loss.ndim:
        found = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(f"loss_fn must return one number as a tensor, the mean over the batch, got {found}.")
    return outputs, loss


def _check_no_broadcast(outputs: Tensor, targets: Tensor) -> None:
    """A loss of ``(N, 1)`` outputs and ``(N,)`` targets would silently compare all pairs."""
    if outputs.shape != targets.shape and outputs.numel() == targets.numel():
        raise ValueError(
            f"outputs have shape {tuple(outputs.shape)} but targets {tuple(targets.shape)}; "
            "reshape the targets, as in y.unsqueeze(1)."
        )


@contextlib.contextmanager
def explained(failure: str) -> Iterator[None]:
    """Turn an error of torch into a ``ValueError`` that starts with ``failure``; out-of-memory errors pass through."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, IndexError) as error:
        raise ValueError(f"{failure}: {error}") from error


class Means:
    """Running means over batches of unequal size."""

    def __init__(self) -> None:
        self._loss_sum, self.num_samples, self._num_correct, self._num_labels = 0.0, 0, 0, 0

    def add(self, outputs: Any, loss: float, targets: Tensor) -> None:
        """Add one batch with its mean ``loss``."""
        self.num_samples += len(targets)
        self._loss_sum += loss * len(targets)
        is_scores = isinstance(outputs, Tensor) and outputs.ndim >= 2 and outputs.shape[1] > 1
        if is_scores and not targets.is_floating_point() and outputs.shape[:1] + outputs.shape[2:] == targets.shape:
            self._num_correct += int((outputs.argmax(1) == targets).sum())
            self._num_labels += targets.numel()

    @property
    def loss(self) -> float:
        """Mean over samples."""
        return self._loss_sum / self.num_samples

    @property
    def accuracy(self) -> float | None:
        """Share of labels with the highest score; ``None`` where there are no class scores or labels."""
        return self._num_correct / self._num_labels if self._num_labels else None
