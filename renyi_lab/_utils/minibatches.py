"""Shared by training and evaluation: mini-batches of a data set, a checked forward pass, running means."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, RandomSampler, Sampler, SequentialSampler, TensorDataset

from renyi_lab._utils.batches import is_pair
from renyi_lab._utils.broadcasting import check_pair
from renyi_lab._utils.losses import PLAIN_CROSS_ENTROPY, TorchLoss
from renyi_lab._utils.masses import BatchMass, LossReduction
from renyi_lab._utils.structures import take_rows
from renyi_lab._utils.validation import check_finite

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
        if tensor.layout != torch.strided:
            tensor = tensor.to_sparse_coo().coalesce().values()
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
    data: Dataset[Any],
    batch_size: int,
    model: nn.Module,
    order: torch.Generator | None = None,
    *,
    join_last: bool = False,
) -> Iterator[Pair]:
    """Pairs of tensors on the model's device and in its dtype; shuffled by ``order`` if given.

    With ``join_last``, a single sample that is left over belongs to the batch before it.
    """
    if isinstance(data, TensorDataset):
        inputs, targets = placed(data.tensors[0], data.tensors[1], model)
        size = len(inputs)
        indices = (
            torch.arange(size, device="cpu") if order is None else torch.randperm(size, generator=order, device="cpu")
        )
        for chosen in torch.split(indices.to(inputs.device), batch_sizes(size, batch_size, join_last)):
            yield take_rows(inputs, chosen), take_rows(targets, chosen)
        return
    for batch in _loader(data, batch_size, order, join_last):
        if not is_pair(batch):
            raise TypeError("each sample of a data set must be a pair (input, target) of tensors or numbers.")
        yield placed(batch[0], batch[1], model)


def batch_sizes(num_samples: int, batch_size: int, join_last: bool) -> list[int]:
    """Sizes of the batches of one pass over the data; see `batches`."""
    sizes = [min(batch_size, num_samples - start) for start in range(0, num_samples, batch_size)]
    if join_last and batch_size > 1 and len(sizes) > 1 and sizes[-1] == 1:
        sizes[-2:] = [batch_size + 1]
    return sizes


def _loader(data: Dataset[Any], batch_size: int, order: torch.Generator | None, join_last: bool) -> Iterable[Any]:
    sizes = batch_sizes(len(data), batch_size, join_last)  # type: ignore[arg-type]  # check_data() made sure of a length
    if sizes[-1] <= batch_size:
        return DataLoader(data, batch_size, shuffle=order is not None, generator=order)
    sampler: Sampler[int]
    sampler = SequentialSampler(data) if order is None else RandomSampler(data, generator=order)  # type: ignore[arg-type]
    return DataLoader(data, batch_sampler=_Batches(sampler, sizes), generator=order)


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


def placed(inputs: Tensor, targets: Tensor, model: nn.Module) -> Pair:
    """The pair on the model's device, with floating-point data in the model's dtype and labels as int64."""
    first = next((p for p in model.parameters() if p.is_floating_point()), None)
    device, dtype = (inputs.device, torch.get_default_dtype()) if first is None else (first.device, first.dtype)
    inputs, targets = inputs.detach(), targets.detach()  # their own .grad is left alone
    # Cast before the move: MPS has no float64.
    inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
    targets = targets.to(dtype if targets.is_floating_point() else torch.int64)
    return inputs.to(device), targets.to(device)


def reduction_of(
    loss_fn: LossFunction | None, reduction: str | None = None, batch_mass: BatchMass | None = None
) -> LossReduction:
    """How the loss reduces a batch; without ``loss_fn``, cross-entropy that counts every label."""
    return LossReduction(loss_fn, reduction, batch_mass, loss=PLAIN_CROSS_ENTROPY if loss_fn is None else None)


def forward(
    model: nn.Module,
    loss_fn: LossFunction | None,
    inputs: Tensor,
    targets: Tensor,
    reduction: LossReduction,
    *,
    check: bool,
) -> tuple[Any, Tensor]:
    """Outputs and loss of one batch; ``check`` validates data, outputs and loss (a few more passes over them)."""
    if check:
        _check_values("a batch's inputs", inputs)
        _check_values("a batch's targets", targets)
        if loss_fn is None and targets.is_floating_point():
            raise ValueError("targets are floating-point numbers; pass loss_fn=torch.nn.MSELoss(), or integer labels.")
    single = len(inputs) == 1 and model.training and has_batch_norm(model)
    hint = " (batch norm needs batches of at least two samples in training)" if single else ""
    with explained(f"model does not take inputs of shape {tuple(inputs.shape)} and {inputs.dtype}{hint}"):
        outputs = model(inputs)
    if check:
        if loss_fn is None and not isinstance(outputs, Tensor):
            raise TypeError(f"model must return a tensor of class scores, got {type(outputs).__name__}; pass loss_fn.")
        check_pair(loss_fn or F.cross_entropy, outputs, targets, reduction)
    with explained(f"loss_fn does not take targets of shape {tuple(targets.shape)} and {targets.dtype}"):
        loss = (loss_fn or F.cross_entropy)(outputs, targets)
    if not isinstance(loss, Tensor) or loss.ndim:
        found = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(f"loss_fn must return one number as a tensor, the mean over the batch, got {found}.")
    return outputs, loss


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
    """Loss and accuracy over batches, each batch's mean loss weighted by its mass.

    Args:
        reduction: How the loss reduces a batch; losses that are sums are added up.
    """

    def __init__(self, reduction: LossReduction) -> None:
        self._reduction, self._always_labels = reduction, True
        self._loss_sum, self._mass, self.num_samples, self._num_correct, self._num_labels = 0.0, 0.0, 0, 0, 0

    def add(self, outputs: Any, loss: float, targets: Tensor, mass: float) -> None:
        """Add one batch with its ``loss``, which does not count where the batch has no mass."""
        self.num_samples += len(targets)
        if self._reduction.kind == "sum":
            self._loss_sum += loss
        elif mass > 0:
            self._loss_sum += loss * mass
            self._mass += mass
        predicted = predicted_labels(outputs, targets, self._reduction.nearest)
        if predicted is None:
            self._always_labels = False
            return
        correct = predicted == targets  # never so for an ignored label of -100
        counted = None if self._reduction.ignored is None else targets != self._reduction.ignored
        self._num_correct += int((correct if counted is None else correct & counted).sum())
        self._num_labels += targets.numel() if counted is None else int(counted.sum())

    @property
    def loss(self) -> float:
        """The loss of all data: its mean, or its sum."""
        if self._reduction.kind == "sum":
            return self._loss_sum
        return self._loss_sum / self._reduction.check_total(self._mass)

    @property
    def accuracy(self) -> float | None:
        """Share of labels that are predicted; ``None`` where there are no class scores or labels in some batch."""
        return self._num_correct / self._num_labels if self._num_labels and self._always_labels else None


def predicted_labels(outputs: Any, targets: Tensor, loss: TorchLoss | None) -> Tensor | None:
    """The labels that class scores or the outputs of a binary classifier predict, or ``None`` where they are neither.

    Args:
        outputs: Scores ``(N, C, …)``; or logits ``(N,)`` or ``(N, 1)`` of a binary cross-entropy, or its probabilities.
        targets: Class labels, or zeros and ones of the shape of a binary classifier's outputs.
        loss: The loss of torch that is used, or that the loss is derived from.
    """
    if not isinstance(outputs, Tensor) or outputs.is_complex():
        return None
    if not targets.is_floating_point():
        is_scores = outputs.ndim >= 2 and outputs.shape[1] > 1
        fits = is_scores and outputs.shape[:1] + outputs.shape[2:] == targets.shape
        return outputs.argmax(1) if fits else None
    threshold = _binary_threshold(loss)
    is_single = outputs.ndim == 1 or (outputs.ndim == 2 and outputs.shape[1] == 1)
    if threshold is None or not is_single or outputs.shape != targets.shape:
        return None
    is_label = (targets == 0) | (targets == 1)
    return (outputs > threshold).to(targets.dtype) if bool(is_label.all()) else None


def _binary_threshold(loss: TorchLoss | None) -> float | None:
    """The output above which a binary cross-entropy predicts label 1; ``None`` for other losses."""
    if loss is None:
        return None
    return {F.binary_cross_entropy_with_logits: 0.0, F.binary_cross_entropy: 0.5}.get(loss.function)
