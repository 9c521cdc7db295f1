"""Errors of a user's model or loss, with what they were called with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from renyi_lab._utils.batches import Batch, tensors_in


@contextlib.contextmanager
def explained_loss(batch: Batch, loss_style: str, weights: str) -> Iterator[None]:
    """Turn an error of the model or the loss into one that says what they were given; not for lack of memory.

    Args:
        batch: The batch whose loss is computed inside the block.
        loss_style: How model and loss are called, ``"output_target"`` or ``"model_batch"``.
        weights: What the model's parameters are, for the message.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except TypeError as error:
        called = "loss_fn is called as loss_fn(model, batch)."
        if loss_style == "output_target":
            called = _model_call(batch.content[0])
        raise TypeError(f"the loss of a batch cannot be computed: {error}. {called}") from error
    except (RuntimeError, IndexError, AttributeError) as error:
        found = ", ".join(f"{tuple(t.shape)} {t.dtype}" for t in tensors_in(batch.content))
        raise ValueError(
            f"the loss of a batch of {found} cannot be computed: {error}. The model's parameters are {weights}."
        ) from error


def _model_call(inputs: Any) -> str:
    if isinstance(inputs, Tensor):
        return "The loss is called as loss_fn(model(x), y)."
    stars = "**" if isinstance(inputs, Mapping) else "*"
    return (
        f"The model is called as model(x) with x a {type(inputs).__name__}. If it takes several arguments, pass "
        f'loss_style="model_batch" and loss_fn=lambda model, batch: loss(model({stars}batch[0]), batch[1]).'
    )
