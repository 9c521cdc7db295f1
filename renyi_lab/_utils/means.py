"""Loss and accuracy over batches."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from renyi_lab._utils.losses import TorchLoss
from renyi_lab._utils.masses import LossReduction


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
