"""The mass of a batch: what its mean loss is a sum divided by, and so the batch's weight in the loss of all data.

    L = Σ_b m_b L_b / Σ_b m_b

For most losses that is the number of samples. It is another number where labels are ignored or weighted by class, where
a mean runs over tokens or graphs, and where the batches' targets are of different length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from renyi_lab._utils.batches import Batch, described, tensors_in
from renyi_lab._utils.label_masses import mass_fix, named_targets
from renyi_lab._utils.losses import TorchLoss, torch_loss
from renyi_lab._utils.validation import check_choice, check_labels, printed

BatchMass = Callable[[Any], Any]

FIX = mass_fix(None)


class LossReduction:
    """How a loss reduces a batch to one number: by a mean, with the batch's mass as the denominator, or by a sum.

    Args:
        loss_fn: The loss.
        reduction: ``"mean"``, ``"sum"`` or ``None``: that of ``loss_fn``, else ``"mean"``.
        batch_mass: Function from a batch to its mass; ``None``: that of a known loss of torch, else the batch's size.
        of_outputs: Whether the loss is called with outputs and targets, rather than with the model and a batch.
        loss: What ``loss_fn`` is, where that is known already.

    Attributes:
        kind: ``"mean"`` or ``"sum"``; ``"none"`` for a loss that does not reduce, which is to be refused.
        loss: The loss of torch that ``loss_fn`` is, or ``None``.
        nearest: The loss of torch that ``loss_fn`` is or is derived from, as a subclass or with hooks, or ``None``.
        of_outputs: As the argument.
        assumed: Whether the masses of a mean are an assumption, which is to be checked.
        verified: Shapes of outputs and targets for which an unknown loss was found not to broadcast.
    """

    def __init__(
        self,
        loss_fn: Any,
        reduction: str | None = None,
        batch_mass: BatchMass | None = None,
        *,
        of_outputs: bool = True,
        loss: TorchLoss | None = None,
    ) -> None:
        found = loss or (torch_loss(loss_fn) if of_outputs else None)
        self.nearest, self.of_outputs = found, of_outputs
        self.loss = found if found is not None and found.exact else None
        if reduction is not None:
            check_choice("reduction", reduction, ("mean", "sum"))
        own = found.reduction if found is not None else getattr(loss_fn, "reduction", None)
        self.kind = reduction or (own if own in ("sum", "none") else "mean")
        if self.loss is not None and reduction not in (None, "mean" if own == "batchmean" else own):
            raise ValueError(f"reduction={printed(reduction)} contradicts loss_fn, whose own is {own!r}; leave it out.")
        if batch_mass is not None and not callable(batch_mass):
            raise TypeError(f"batch_mass must be a function from a batch to a number, got {type(batch_mass).__name__}.")
        if batch_mass is not None and self.kind == "sum":
            raise ValueError("batch_mass is the denominator of a mean, but loss_fn's reduction is 'sum'; leave it out.")
        self.batch_mass = batch_mass
        self.assumed = self.loss is None and batch_mass is None
        self.verified: set[Any] = set()
        self._ratio = 0.0  # of given masses to known ones

    def mass(self, batch: Batch) -> float:
        """The denominator of the batch's mean loss, ≥ 0; where it is 0, the batch has no mean."""
        assumed = self._assumed_mass(batch)
        if self.batch_mass is None:
            return assumed
        given = self._given(batch)
        if self.loss is not None:
            self._ratio = self._ratio or given / (assumed or 1.0)
            if abs(given - self._ratio * assumed) > 1e-5 * max(given, self._ratio * assumed):
                raise ValueError(
                    f"batch_mass gives {given:g} for a batch over which loss_fn is a mean with the denominator "
                    f"{assumed:g}, in other proportion than for the batches before it; leave batch_mass out."
                )
        return given

    def _assumed_mass(self, batch: Batch) -> float:
        targets = batch.content[1] if self.nearest is not None else None
        if self.nearest is None or not isinstance(targets, Tensor) or targets.ndim == 0:
            return float(batch.size)
        return self.nearest.denominator(targets)

    def num_counted(self, batch: Batch) -> int:
        """Number of samples, without those whose labels are all ignored."""
        labels = batch.content[1] if self.nearest is not None and self.nearest.of_labels else None
        if self.ignored is None or not isinstance(labels, Tensor) or labels.ndim == 0 or labels.is_floating_point():
            return batch.size
        return int((labels != self.ignored).reshape(len(labels), -1).any(1).sum())

    def _given(self, batch: Batch) -> float:
        assert self.batch_mass is not None
        try:
            found = self.batch_mass(batch.content)
        except (LookupError, AttributeError, TypeError) as error:
            raise ValueError(
                f"batch_mass fails for {described(batch.content)}: {type(error).__name__}: {error}."
            ) from error
        try:
            mass = float(found)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"batch_mass must return one number, got {type(found).__name__}.") from error
        if not (math.isfinite(mass) and mass >= 0):
            raise ValueError(f"batch_mass must return a finite number ≥ 0, got {mass:g}.")
        return mass

    @property
    def ignored(self) -> int | None:
        """The label that does not count, ``None`` where all do; torch's -100 for losses that are not known."""
        return -100 if self.nearest is None else self.nearest.ignore_index

    def check_total(self, total: float) -> float:
        """Return the mass of all data, or raise where it is 0."""
        if total > 0:
            return total
        if self.batch_mass is not None:
            cause = "batch_mass is 0 for every batch; it must be the denominator of a batch's mean loss"
        elif self.nearest is not None and self.nearest.class_weight is not None:
            cause = "every label is ignored or has class weight 0; check the labels, ignore_index= and weight="
        else:
            ignored = None if self.nearest is None else self.nearest.ignore_index
            cause = f"every label is ignored (ignore_index={ignored}); check the labels, or set another ignore_index="
        raise ValueError(f"the mean loss has nothing to average over: {cause}.")

    def check_known(self, outputs: Any, targets: Any) -> None:
        """Raise where a known loss has labels without an output, or would broadcast outputs and targets."""
        if self.nearest is None or not isinstance(targets, Tensor):
            return
        if self.nearest.of_labels:
            ignored = self.nearest.ignore_index
            check_labels(outputs, targets, 0 if ignored is None else ignored)
        elif (
            self.loss is not None
            and self.loss.same_shape
            and isinstance(outputs, Tensor)
            and is_broadcast(outputs, targets)
        ):
            raise ValueError(shape_mismatch(outputs, targets))

    def check_lengths(self, batches: Sequence[Batch], fitting: Callable[[], str] = str) -> None:
        """Raise where batches differ in the length of their targets, if masses are assumed: a mean may be over tokens.

        Targets of a mapping or an object are what it calls labels or targets; of other batches for
        ``loss_fn(model, batch)``, every tensor counts.

        Args:
            batches: The batches.
            fitting: Gives the expression for a mass that agrees with the loss, or an empty text, for the message.
        """
        shapes = [self.target_shapes(batch.content) for batch in batches]
        self.check_shapes(shapes, lambda: batches[-1].content, fitting)

    def check_shapes(
        self,
        shapes: Sequence[tuple[tuple[int, ...], ...]],
        content: Callable[[], Any],
        fitting: Callable[[], str] = str,
    ) -> None:
        """As `check_lengths`, given the `target_shapes` of batches and the content of one, for the message."""
        different = dict.fromkeys(shapes)
        if self.assumed and self.kind == "mean" and len(different) > 1:
            first, other = map(_shown, list(different)[:2])
            raise ValueError(
                f"the batches' targets differ in shape beyond the first dimension, {first} and {other}, so what "
                f"loss_fn averages over cannot be known. {mass_fix(content(), fitting())}."
            )

    def target_shapes(self, content: Any) -> tuple[tuple[int, ...], ...]:
        """Shapes of a batch's targets without the first dimension, which is that of samples."""
        if self.of_outputs:
            content = content[1]
        elif not isinstance(content, Tensor):
            content = list(named_targets(content).values()) or content
        return tuple(tuple(tensor.shape[1:]) for tensor in tensors_in(content))

    def describe(self, total: float, num_samples: int) -> str:
        """What a mean is taken over, such as ``"mean over 1,234 labels"``; or ``"sum"``."""
        if self.kind == "sum":
            return "sum"
        if self.batch_mass is not None:
            return "mean weighted by batch_mass"
        if self.loss is None:
            return f"mean over {num_samples:,} samples (assumed)"
        if self.loss.class_weight is not None:
            return f"mean over labels of total class weight {total:,.6g}"
        if total == num_samples:
            return f"mean over {num_samples:,} samples"
        return f"mean over {total:,.0f} {'labels' if self.loss.of_labels else 'elements'}"


def is_broadcast(outputs: Tensor, targets: Tensor) -> bool:
    """Whether an elementwise operation would expand one of the two to the shape of the other, or both."""
    if outputs.shape == targets.shape or not outputs.ndim or not targets.ndim:
        return False
    return all(a == b or 1 in (a, b) for a, b in zip(reversed(outputs.shape), reversed(targets.shape), strict=False))


def shape_mismatch(outputs: Tensor, targets: Tensor) -> str:
    """The message for outputs and targets that a loss would broadcast against each other."""
    fix = "make them equal"
    if outputs.numel() == targets.numel():
        fix = (
            "reshape the targets, as in y.unsqueeze(1)"
            if outputs.ndim > targets.ndim
            else ("reshape the targets, as in y.squeeze(1), or the outputs")
        )
    return (
        f"outputs have shape {tuple(outputs.shape)} but targets {tuple(targets.shape)}; {fix}. The loss would compare "
        "every output with the targets of other samples."
    )


def _shown(shapes: tuple[tuple[int, ...], ...]) -> str:
    return ", ".join(f"(…, {', '.join(map(str, shape))})" if shape else "(…)" for shape in shapes)
