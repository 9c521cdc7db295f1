"""Whether batches make up the loss of all data, and whether they may be cut along their first dimension."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from renyi_lab._utils.batch_parts import joined
from renyi_lab._utils.batches import Batch
from renyi_lab._utils.given_masses import check_given_masses
from renyi_lab._utils.label_masses import mass_fix
from renyi_lab._utils.masses import LossReduction
from renyi_lab._utils.mean_checks import (
    MeanCheck,
    outputs_depend_on_the_batch,
    split_loss,
)


def check_batches(
    model: Callable[..., Any],
    loss_fn: Callable[..., Tensor],
    batch_of: Callable[[int], Batch],
    num_batches: int,
    reduction: LossReduction,
    micro_batch_size: int | None,
    *,
    several: bool,
) -> None:
    """Raise where the batches' losses, weighted by their masses, do not make up the loss of all data.

    To be called with the model in evaluation mode.

    Args:
        model: The model.
        loss_fn: The loss.
        batch_of: A copy of a batch by its index.
        num_batches: Number of batches.
        reduction: How the loss is taken to reduce a batch.
        micro_batch_size: That to which some batches were cut, if any.
        several: Whether all data are more than one batch, those of other processes included.
    """
    if reduction.assumed and several:
        check = MeanCheck(model, loss_fn, reduction)
        for index in range(num_batches):
            check.see(batch_of(index))
    if reduction.batch_mass is not None and reduction.loss is None and several:
        check_given_masses(model, loss_fn, batch_of, num_batches, reduction)
    if micro_batch_size is not None and num_batches:
        probes = [batch_of(index) for index in range(min(2, num_batches))]
        _check_micro_batches(model, loss_fn, probes, reduction, micro_batch_size)


def _check_micro_batches(
    model: Callable[..., Any],
    loss_fn: Callable[..., Tensor],
    parts: Sequence[Batch],
    reduction: LossReduction,
    micro_batch_size: int,
) -> None:
    """Raise where cutting batches along their first dimension changes what the model or the loss computes.

    Tried on the samples of one micro-batch (two for a size of 1).
    """
    probe = parts[0] if parts[0].size > 1 or len(parts) == 1 else joined(parts[0], parts[1])
    if probe is None:
        return
    refusal = f"micro_batch_size={micro_batch_size} cuts batches along their first dimension"
    if reduction.of_outputs:
        with torch.enable_grad():  # a model may differentiate inside
            refuse_mixed_samples(model, probe.content[0], refusal)
        return
    with torch.enable_grad():
        verdict = split_loss(lambda content: loss_fn(model, content), probe, reduction)
    if verdict.agrees is False:
        raise ValueError(
            f"{refusal}, but the loss is not that of its parts: {verdict.reason}. "
            f"{mass_fix(probe.content, verdict.fitting)}; leave micro_batch_size out if the first dimension is not "
            "that of samples."
        )


def refuse_mixed_samples(model: Callable[..., Any], inputs: Any, action: str) -> None:
    """Raise where outputs depend on what else is in the batch, so that ``action`` would change them."""
    if outputs_depend_on_the_batch(model, inputs):
        raise ValueError(
            f"{action}, but the model's outputs for a part of a batch differ from those for the whole: the first "
            "dimension is not that of samples (as for sequences with time first), or the model mixes samples (batch "
            "norm without running statistics). Leave that argument out, or bring the samples first."
        )
