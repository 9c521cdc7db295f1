"""Errors of a user's model or loss, with what they were called with, and what to do about them."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from renyi_lab._utils.batches import Batch, described
from renyi_lab._utils.exclusive import exclusive
from renyi_lab._utils.interrupts import restoring

REENTRANT = "activation checkpointing with use_reentrant=True"
NOT_REENTRANT = (
    "pass use_reentrant=False to torch.utils.checkpoint.checkpoint, or gradient_checkpointing_kwargs="
    '{"use_reentrant": False} to gradient_checkpointing_enable() of a Hugging Face model'
)
_LOST = "None of the inputs have requires_grad=True"  # torch's warning


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
    except (RuntimeError, LookupError, AttributeError, ValueError) as error:
        if _is_own(error):
            raise
        said = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
        called = ""
        if loss_style == "output_target" and not isinstance(batch.content[0], Tensor):
            called = f" {_model_call(batch.content[0])}"
        raise ValueError(
            f"the loss of {described(batch.content)} cannot be computed: {said}. The model's parameters are "
            f"{weights}.{called}"
        ) from error


def _is_own(error: Exception) -> bool:
    """Whether an error was raised by this package, whose messages need no explanation."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame is not None and str(frame.tb_frame.f_globals.get("__name__", "")).startswith("renyi_lab.")


@restoring
def no_lost_gradients() -> Iterator[None]:
    """Refuse reentrant checkpoints of inputs without a gradient, inside which parameters would count as constants."""
    with exclusive(), warnings.catch_warnings():
        warnings.filterwarnings("error", message=_LOST)
        try:
            yield
        except UserWarning as warning:
            if not str(warning).startswith(_LOST):
                raise
            raise ValueError(
                f"{REENTRANT} takes the parameters inside for constants where its inputs have no gradient, as behind "
                f"frozen layers; {NOT_REENTRANT}."
            ) from warning


def coarse_parts(weights: torch.dtype, coarsest: torch.dtype) -> str:
    """The warning for a model or loss that computes in single precision where the weights are in double precision."""
    return (
        f"the weights are {weights}, but the model or the loss computes partly in {coarsest} (.float(), "
        f"dtype={coarsest}, as many language models do in normalisation layers and in their own loss), so that "
        f"products have the precision of {coarsest}. Compute the loss from the model's outputs, or remove the casts."
    )


def reduced_precision(dtype: torch.dtype, model: nn.Module) -> str:
    """The message for a model or loss that computes in ``dtype``, which is coarser than single precision."""
    coarse = [name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if tensor.dtype == dtype]
    fix = "remove the casts and torch.autocast blocks from the forward pass"
    if coarse:
        more = f" and {len(coarse) - 1} more" if coarse[1:] else ""
        fix = f"{coarse[0]!r}{more} are {dtype}: call model.float(), which keeps their values, or {fix}"
    return (
        f"the model or the loss computes in {dtype}, so that second derivatives would have two or three digits at "
        f"best; {fix}."
    )


def _model_call(inputs: Any) -> str:
    if isinstance(inputs, Tensor):
        return "The loss is called as loss_fn(model(x), y)."
    stars = "**" if isinstance(inputs, Mapping) else "*"
    return (
        f"The model is called as model(x) with x a {type(inputs).__name__}. If it takes several arguments, pass "
        f'loss_style="model_batch" and loss_fn=lambda model, batch: loss(model({stars}batch[0]), batch[1]).'
    )
