"""Checks that the matrix of all data is what the batches' weights make of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from renyi_lab._utils.batches import Batch
from renyi_lab._utils.masses import FIX, LossReduction
from renyi_lab._utils.mean_checks import Verdict, joined, outputs_depend_on_the_batch, split_loss


def check_reduction(
    model: nn.Module, loss_fn: Callable[..., Tensor], batches: Sequence[Batch], reduction: LossReduction, style: str
) -> None:
    """Raise unless every batch's loss is the mean, or sum, over its samples that its weight takes it for.

    Only for several batches and a loss whose denominator is assumed; costs a forward pass over the data. To be called
    with the model in evaluation mode.
    """
    if len(batches) == 1 or not reduction.assumed:
        return
    reduction.check_lengths(batches)
    with torch.enable_grad():  # for losses that differentiate inside
        for batch, other in zip(batches, (batches[1], *batches), strict=False):
            verdict = _verdict(model, loss_fn, batch, other, reduction, style)
            if not verdict.agrees:
                raise ValueError(_message(verdict, reduction))


def _verdict(
    model: nn.Module,
    loss_fn: Callable[..., Tensor],
    batch: Batch,
    other: Batch,
    reduction: LossReduction,
    style: str,
) -> Verdict:
    """Of a batch, or of it with another where it is a single sample."""
    if style == "output_target":
        outputs = _with_outputs(model, batch)
        whole = outputs if outputs.size > 1 else joined(outputs, _with_outputs(model, other))
        verdict = Verdict(None) if whole is None else split_loss(lambda content: loss_fn(*content), whole, reduction)
        if verdict.agrees is not None:
            return verdict
        # Outputs need not be by sample where the loss puts them into another shape.
        return _through_model(lambda content: loss_fn(model(content[0]), content[1]), batch, other, reduction)
    return _through_model(lambda content: loss_fn(model, content), batch, other, reduction)


def _through_model(loss_of: Callable[[Any], Tensor], batch: Batch, other: Batch, reduction: LossReduction) -> Verdict:
    whole = batch if batch.size > 1 else joined(batch, other)
    if whole is None:
        return Verdict(None, "single samples of different shape cannot be compared")
    return split_loss(loss_of, whole, reduction)


def _with_outputs(model: nn.Module, batch: Batch) -> Batch:
    return Batch((model(batch.content[0]), batch.content[1]), batch.size)


def _message(verdict: Verdict, reduction: LossReduction) -> str:
    if reduction.kind == "sum":
        fix = 'It is a mean: pass reduction="mean".' if verdict.other else 'Pass reduction="mean", or one batch.'
        return f'loss_fn is not a sum over the samples of a batch (reduction="sum"): {verdict.reason}. {fix}'
    fix = 'It is a sum: pass reduction="sum".' if verdict.other else f"{FIX}."
    known = (
        "is not a mean over the samples of a batch" if verdict.agrees is False else "averages over what is not known"
    )
    return f"loss_fn {known}: {verdict.reason}. {fix}"


def check_micro_batches(
    model: nn.Module,
    loss_fn: Callable[..., Tensor],
    parts: Sequence[Batch],
    reduction: LossReduction,
    style: str,
    micro_batch_size: int,
) -> None:
    """Raise where cutting batches along their first dimension changes what the model or the loss computes.

    Tried on the samples of one micro-batch (two for a size of 1). To be called with the model in evaluation mode.
    """
    probe = parts[0] if parts[0].size > 1 else joined(parts[0], parts[1])
    if probe is None:
        return
    refusal = f"micro_batch_size={micro_batch_size} cuts batches along their first dimension"
    if style == "output_target":
        if outputs_depend_on_the_batch(model, probe.content[0]):
            raise ValueError(
                f"{refusal}, but the model's outputs for a part of a batch differ from those for the whole: the first "
                "dimension is not that of samples (as for sequences with time first), or the model mixes samples (batch "
                "norm without running statistics). Leave micro_batch_size out and pass smaller batches."
            )
        return
    with torch.enable_grad():
        verdict = split_loss(lambda content: loss_fn(model, content), probe, reduction)
    if verdict.agrees is False:
        raise ValueError(
            f"{refusal}, but the loss is not that of its parts: {verdict.reason}. {FIX}; leave micro_batch_size out if "
            "the first dimension is not that of samples."
        )
