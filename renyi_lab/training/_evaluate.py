"""Evaluation of a model on a data set, without side effects."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn

from renyi_lab._utils.batches import Batch
from renyi_lab._utils.data_sets import Data, check_pairs
from renyi_lab._utils.exclusive import exclusive
from renyi_lab._utils.forward import LossFunction, forward, reduction_of
from renyi_lab._utils.masses import BatchMass, LossReduction
from renyi_lab._utils.mean_checks import MeanCheck
from renyi_lab._utils.means import Means
from renyi_lab._utils.minibatches import choose_batch_size, moved, num_batches, pairs
from renyi_lab._utils.model_checks import check_module
from renyi_lab._utils.model_state import training_flags, without_fast_path
from renyi_lab._utils.random import preserved_rng
from renyi_lab._utils.threads import one_thread_if_small
from renyi_lab.training._history import Evaluation


def evaluate(
    model: nn.Module,
    data_set: Data,
    *,
    loss_fn: LossFunction | None = None,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    reduction: str | None = None,
    batch_mass: BatchMass | None = None,
) -> Evaluation:
    """Loss and accuracy of ``model`` on ``data_set``, in evaluation mode and without gradients.

    Training flags and every global random state are restored. Small models run on one thread, as in `train`.

    Args:
        model: Any module.
        data_set: A data set of ``(input, target)``, or a pair ``(x, y)``, where ``y`` is one tensor and ``x`` a tensor
            or a list, tuple, dictionary or object of tensors, which the model gets as it is: ``model(x)``. Or a
            DataLoader of such pairs, whose batches may be graphs; of a TensorDataset pass the data set itself.
        loss_fn: Function from ``(outputs, targets)`` to the loss of the batch. Default cross-entropy, with no label
            ignored.
        batch_size: Number of samples in one pass; the result does not depend on it. Default 1024 (heuristic: a small
            network's activations still fit into cache), or all where ``x`` cannot be cut into samples, such as a graph;
            a DataLoader has its own.
        device: Device to evaluate on; the model stays there. Default: the model's.
        reduction: ``"mean"`` or ``"sum"``, as for `HessianOperator`. Default: that of ``loss_fn``.
        batch_mass: The denominator of a batch's mean loss as a function of the batch ``(inputs, targets)``, as for
            `HessianOperator`; for instance ``lambda batch: (batch[1] != -100).sum()``. Default: known for the losses of
            torch; other losses are taken to average over samples, which is checked where there are several batches.

    Returns:
        `Evaluation` with the loss of all data (its mean, or its sum for such a loss), the accuracy in [0, 1] of the
        labels that are not ignored, and the number of samples. There is an accuracy for class labels, and for zeros and
        ones under a binary cross-entropy of one output (logit above 0, or probability above 0.5 with ``nn.BCELoss``).

    Raises:
        TypeError: If the model or the data set is of the wrong kind.
        ValueError: If data is empty, not finite or does not fit the model; if a label has no output, or all are
            ignored; if a loss over several batches does not average over samples, without ``batch_mass``.

    Example:
        >>> model = nn.Linear(1, 1, bias=False).requires_grad_(False)
        >>> _ = model.weight.fill_(2.0)
        >>> evaluate(model, (torch.ones(3, 1), torch.zeros(3, 1)), loss_fn=nn.MSELoss())
        Evaluation(loss=4.0, accuracy=None, num_samples=3)
    """
    data = check_pairs("data_set", data_set)
    size = choose_batch_size("data_set", data, batch_size, 1024)
    how, with_gradients = reduction_of(loss_fn, reduction, batch_mass), False
    means = Means(how)
    several = num_batches(data, size) != 1
    with (
        exclusive(),
        moved(check_model(model), device),
        preserved_rng(),
        training_flags(model, False),
        without_fast_path(),
        contextlib.ExitStack() as threads,
    ):
        check = MeanCheck(model, loss_fn, how) if loss_fn is not None and how.assumed and several else None
        for inputs, targets in pairs(data, size, model):
            if not means.num_samples:
                threads.enter_context(one_thread_if_small(model, inputs))
            outputs, loss, with_gradients = _checked_forward(model, loss_fn, inputs, targets, how, with_gradients)
            batch = Batch((inputs, targets), len(targets))
            if check is not None:
                check.see(batch)
            means.add(outputs, float(loss), targets, how.mass(batch))
    return Evaluation(means.loss, means.accuracy, means.num_samples)


def _checked_forward(
    model: nn.Module,
    loss_fn: LossFunction | None,
    inputs: Any,
    targets: Tensor,
    how: LossReduction,
    with_gradients: bool,
) -> tuple[Any, Tensor, bool]:
    """Outputs, loss, and whether gradients were enabled: only where the model or the loss differentiates inside."""
    if not with_gradients:
        try:
            with torch.no_grad():
                return *forward(model, loss_fn, inputs, targets, how, check=True), False
        except ValueError:  # for this reason, or for another one that will be met again
            pass
    with torch.enable_grad():
        outputs, loss = forward(model, loss_fn, inputs, targets, how, check=True)
    return outputs, loss.detach(), True


def check_model(model: Any) -> nn.Module:
    """Return ``model`` if it is a module with all its weights, or raise."""
    return check_module(model)
