"""A checked forward pass of one batch, for training and evaluation."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from renyi_lab._utils.broadcasting import check_pair
from renyi_lab._utils.data_sets import check_values
from renyi_lab._utils.losses import PLAIN_CROSS_ENTROPY
from renyi_lab._utils.masses import BatchMass, LossReduction
from renyi_lab._utils.minibatches import has_batch_norm
from renyi_lab._utils.structures import tensors_in
from renyi_lab._utils.validation import check_loss_fn

LossFunction: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def reduction_of(
    loss_fn: LossFunction | None, reduction: str | None = None, batch_mass: BatchMass | None = None
) -> LossReduction:
    """How the loss reduces a batch; without ``loss_fn``, cross-entropy that counts every label."""
    if loss_fn is not None:
        check_loss_fn(loss_fn)
    return LossReduction(loss_fn, reduction, batch_mass, loss=PLAIN_CROSS_ENTROPY if loss_fn is None else None)


def forward(
    model: nn.Module,
    loss_fn: LossFunction | None,
    inputs: Any,
    targets: Tensor,
    reduction: LossReduction,
    *,
    check: bool,
) -> tuple[Any, Tensor]:
    """Outputs and loss of one batch; ``check`` validates data, outputs and loss (a few more passes over them)."""
    if check:
        check_values("a batch", inputs, targets)
        if loss_fn is None and targets.is_floating_point():
            raise ValueError("targets are floating-point numbers; pass loss_fn=torch.nn.MSELoss(), or integer labels.")
    single = len(targets) == 1 and model.training and has_batch_norm(model)
    hint = " (batch norm needs batches of at least two samples in training)" if single else ""
    outputs = _outputs(model, inputs, hint)
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


def _outputs(model: nn.Module, inputs: Any, hint: str) -> Any:
    if isinstance(inputs, Tensor):
        with explained(f"model does not take inputs of shape {tuple(inputs.shape)} and {inputs.dtype}{hint}"):
            return model(inputs)
    kind, stars = type(inputs).__name__, "**" if isinstance(inputs, Mapping) else "*"
    held = ", ".join(f"{tuple(tensor.shape)} {tensor.dtype}" for tensor in tensors_in(inputs))
    failure = f"model does not take a {kind} with tensors of {held}{hint}"
    try:
        with explained(failure):
            return model(inputs)
    except (TypeError, AttributeError, KeyError) as error:
        raise TypeError(
            f"{failure}: {error}. The model is called as model(x) with x a {kind}; if it takes several arguments, wrap "
            f"it in a module whose forward(self, x) returns self.model({stars}x)."
        ) from error


@contextlib.contextmanager
def explained(failure: str) -> Iterator[None]:
    """Turn an error of torch into a ``ValueError`` that starts with ``failure``; out-of-memory errors pass through."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, IndexError) as error:
        raise ValueError(f"{failure}: {error}") from error
