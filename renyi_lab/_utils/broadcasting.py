"""Losses that would silently broadcast outputs and targets of different shape against each other."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from renyi_lab._utils.exclusive import exclusive
from renyi_lab._utils.masses import LossReduction, is_broadcast, shape_mismatch
from renyi_lab._utils.mean_checks import close

LossFunction = Callable[[Tensor, Tensor], Tensor]


def check_pair(loss_fn: LossFunction, outputs: Any, targets: Any, reduction: LossReduction) -> None:
    """Raise where a label has no output, or where the loss would broadcast outputs and targets against each other.

    A loss of ``(N, 1)`` outputs and ``(N,)`` targets would silently compare all pairs of samples. Losses of torch that
    do so are refused by their shapes; other losses, which may well reshape them, if they are found to mix samples.
    """
    reduction.check_known(outputs, targets)
    if reduction.loss is not None or not _may_broadcast(outputs, targets):
        return
    shapes = (tuple(outputs.shape[1:]), tuple(targets.shape[1:]), len(targets) > 1)
    if shapes in reduction.verified:
        return
    with exclusive(), warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")  # torch warns of some of the shapes that it broadcasts
        try:
            mixes = len(outputs) == len(targets) > 1 and _mixes_samples(loss_fn, outputs.detach(), targets)
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError):
            return  # the loss itself raises the same error, and is better at explaining it
    if mixes:
        raise ValueError(shape_mismatch(outputs, targets))
    reduction.verified.add(shapes)


def _may_broadcast(outputs: Any, targets: Any) -> bool:
    if not (isinstance(outputs, Tensor) and isinstance(targets, Tensor)):
        return False
    is_labels = not targets.is_floating_point() and outputs.ndim == targets.ndim + 1 and outputs.shape[1] > 1
    return not is_labels and is_broadcast(outputs, targets)


def _mixes_samples(loss_fn: LossFunction, outputs: Tensor, targets: Tensor) -> bool:
    """Whether the slopes of the loss in a sample's outputs depend on other samples' targets, beyond a common factor."""
    if outputs.numel() == targets.numel() and _takes_pairs(loss_fn, outputs, targets):
        # Slopes of an absolute error do not depend on the order of targets that are all on one side of the outputs.
        between = targets.roll(1, 0).reshape(outputs.shape).to(outputs.dtype)
        slopes = _slopes(loss_fn, between, targets)
        return not bool(torch.isfinite(slopes).all()) or _takes_pairs(loss_fn, between, targets)
    half = len(targets) // 2
    others = torch.cat([targets[:half], targets[half:].roll(1, 0)])
    before, after = (_slopes(loss_fn, outputs, each)[:half] for each in (targets, others))
    return not close(before * after.norm(), after * before.norm())


def _takes_pairs(loss_fn: LossFunction, outputs: Tensor, targets: Tensor) -> bool:
    """Whether the order of the targets makes no difference, though their values do."""
    moved, alike = targets.roll(1, 0), targets[:1].expand_as(targets)
    slopes = _slopes(loss_fn, outputs, targets)
    if torch.equal(moved, targets) or not close(slopes, _slopes(loss_fn, outputs, moved)):
        return False
    same_loss = close(loss_fn(outputs, targets).detach(), loss_fn(outputs, alike).detach())
    return not (same_loss and close(slopes, _slopes(loss_fn, outputs, alike)))


def _slopes(loss_fn: LossFunction, outputs: Tensor, targets: Tensor) -> Tensor:
    free = outputs.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(loss_fn(free, targets), free)
    return slopes
