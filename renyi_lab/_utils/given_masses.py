"""Whether masses that a user gives are those that the loss divides by, where labels show that they are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from renyi_lab._utils.batch_parts import a_few_of, cut
from renyi_lab._utils.batches import Batch
from renyi_lab._utils.label_masses import mass_fix
from renyi_lab._utils.masses import LossReduction
from renyi_lab._utils.mean_checks import split_loss

_NUM_CHECKED = 4  # heuristic: a wrong mass shows in any batch of unequal samples, or in two batches of them


def check_given_masses(
    model: Callable[..., Any],
    loss_fn: Callable[..., Tensor],
    batch_of: Callable[[int], Batch],
    num_batches: int,
    reduction: LossReduction,
) -> None:
    """Raise where ``batch_mass`` is not the denominator of the first batches' losses, but a number of labels is.

    Other masses are left to the user, since they may be right where a loss is no mean over samples.

    Args:
        model: The model.
        loss_fn: The loss.
        batch_of: A copy of a batch by its index.
        num_batches: Number of batches.
        reduction: How the loss is taken to reduce a batch, with masses that are given.

    Raises:
        ValueError: As described.
    """
    for index in range(min(_NUM_CHECKED, num_batches)):
        _check_mass(model, loss_fn, batch_of(index), reduction)
        probe = a_few_of(batch_of(0), batch_of(index)) if index else None
        if probe is not None:
            _check_mass(model, loss_fn, probe, reduction)


def _check_mass(
    model: Callable[..., Any], loss_fn: Callable[..., Tensor], batch: Batch, reduction: LossReduction
) -> None:
    parts = cut(batch)
    if parts is None or sum(map(reduction.mass, parts)) != reduction.mass(batch):
        return  # not the mass of samples

    def loss_of(content: Any) -> Tensor:
        return loss_fn(model(content[0]), content[1]) if reduction.of_outputs else loss_fn(model, content)

    with torch.enable_grad():  # for losses that differentiate inside
        verdict = split_loss(loss_of, batch, reduction)
    if verdict.fitting:
        raise ValueError(
            f"batch_mass is not the denominator of the mean that loss_fn is: {verdict.reason}. "
            f"{mass_fix(batch.content, verdict.fitting)}."
        )
