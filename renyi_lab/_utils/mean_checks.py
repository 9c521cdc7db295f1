"""Whether a loss is the mean (or sum) over a batch's samples that the weights of batches take it for.

Where the loss is not one of torch's, its denominator is an assumption. It can be tested: the loss of a batch must be
the mean of the losses of two parts of it, weighted by their masses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from renyi_lab._utils.batch_parts import a_few_of, cut, joined
from renyi_lab._utils.batches import Batch, map_tensors, tensors_in
from renyi_lab._utils.label_masses import label_masses, mass_fix
from renyi_lab._utils.masses import LossReduction

# Batches that are cut twice. Heuristic: the two parts of a small batch may well have equal shares of ignored labels.
_SMALL = 16


class MeanCheck:
    """Checks batch after batch that its loss is the mean, or sum, over its samples that its weight takes it for.

    For a loss whose denominator is assumed, over several batches, with the model in evaluation mode.

    Args:
        model: The model.
        loss_fn: The loss.
        reduction: How it is taken to reduce a batch.
    """

    def __init__(self, model: Callable[..., Any], loss_fn: Callable[..., Tensor], reduction: LossReduction) -> None:
        self._model, self._loss_fn, self._reduction = model, loss_fn, reduction
        self._first: Batch | None = None
        self._single: Batch | None = None

    def see(self, batch: Batch) -> None:
        """Check one more batch; a single sample together with the single sample before it.

        Raises:
            ValueError: Not that mean or sum, or that cannot be found out.
        """
        first = self._first = self._first or batch
        self._reduction.check_lengths((first, batch), lambda: self._verdict(batch, None).fitting)
        before, self._single = self._single, batch if batch.size == 1 else None
        if batch.size == 1 and before is None:
            return
        verdict = self._verdict(batch, before)
        if verdict.agrees and first is not batch:
            verdict = self._across(first, batch) or verdict
        if not verdict.agrees:
            raise ValueError(_message(verdict, self._reduction, batch))

    def _across(self, first: Batch, batch: Batch) -> Verdict | None:
        """The verdict on a few samples of two batches together where it is against the mean.

        Samples may be alike within batches and differ between them, as where they are sorted by their length.
        """
        probe = a_few_of(first, batch)
        verdict = None if probe is None else self._verdict(probe, None)
        return verdict if verdict is not None and verdict.agrees is False else None

    def _verdict(self, batch: Batch, before: Batch | None) -> Verdict:
        with torch.enable_grad():  # for losses that differentiate inside
            return self._verdict_on(batch, before)

    def _verdict_on(self, batch: Batch, before: Batch | None) -> Verdict:
        if not self._reduction.of_outputs:
            return self._split(lambda content: self._loss_fn(self._model, content), batch, before)
        with_outputs = (None if each is None else self._with_outputs(each) for each in (batch, before))
        verdict = self._split(lambda content: self._loss_fn(*content), *with_outputs)
        if verdict.agrees is not None:
            return verdict
        # Outputs need not be by sample where the loss puts them into another shape.
        return self._split(lambda content: self._loss_fn(self._model(content[0]), content[1]), batch, before)

    def _split(self, loss_of: Callable[[Any], Tensor], batch: Batch | None, before: Batch | None) -> Verdict:
        assert batch is not None
        whole = batch if batch.size > 1 or before is None else joined(before, batch)
        if whole is None:
            return Verdict(None, "single samples of different shape cannot be compared")
        verdict = split_loss(loss_of, whole, self._reduction)
        if verdict.agrees and 2 < whole.size <= _SMALL:
            alone = split_loss(loss_of, whole, self._reduction, 1)
            return alone if alone.agrees is False else verdict
        return verdict

    def _with_outputs(self, batch: Batch) -> Batch:
        return Batch((self._model(batch.content[0]), batch.content[1]), batch.size)


def _message(verdict: Verdict, reduction: LossReduction, batch: Batch) -> str:
    if reduction.kind == "sum":
        fix = 'It is a mean: pass reduction="mean".' if verdict.other else 'Pass reduction="mean", or one batch.'
        return f'loss_fn is not a sum over the samples of a batch (reduction="sum"): {verdict.reason}. {fix}'
    fix = 'It is a sum: pass reduction="sum".' if verdict.other else f"{mass_fix(batch.content, verdict.fitting)}."
    known = "is not a mean over the samples of a batch" if verdict.agrees is False else "has an unknown denominator"
    return f"loss_fn {known}: {verdict.reason}. {fix}"


@dataclass(frozen=True)
class Verdict:
    """Result of `split_loss`.

    Attributes:
        agrees: Whether the parts' losses make up the loss; ``None`` where that cannot be found out.
        reason: Why not, as a clause.
        other: Whether they do under the other reduction, a sum for a mean.
        fitting: The number of labels, as an expression, that is the denominator, unlike others; or empty.
    """

    agrees: bool | None
    reason: str = ""
    other: bool = False
    fitting: str = ""


def split_loss(
    loss_of: Callable[[Any], Tensor], batch: Batch, reduction: LossReduction, first: int | None = None
) -> Verdict:
    """Compare the loss of a batch with those of two parts of it.

    Args:
        loss_of: Loss of the content of a batch.
        batch: The batch.
        reduction: How the loss is taken to reduce a batch.
        first: Number of samples in the first part; ``None``: a third.
    """
    parts = cut(batch, first)
    if parts is None:
        return Verdict(None, "a batch cannot be cut into samples, since its tensors differ in their first dimension")
    before = _random_state(batch)
    whole = _number(loss_of(_fresh(batch.content)))
    if _random_state(batch) != before:
        return Verdict(None, "the loss is random")
    try:
        losses = [_number(loss_of(_fresh(part.content))) for part in parts]
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a user's model or loss raises for fewer samples
        return Verdict(None, f"the loss of {parts[0].size} of {batch.size} samples fails ({error})")
    mean = _mean(losses, [reduction.mass(part) for part in parts])
    expected, other = (sum(losses), mean) if reduction.kind == "sum" else (mean, sum(losses))
    precision, scale = _precision(batch), max(map(abs, (whole, *losses)))
    # The second is for the tiny losses of a model that fits its data: its outputs are rounded, at the scale of 1.
    tolerance = max(precision**0.5 * scale, min(20 * precision, 0.1 * scale))
    deviations = {
        expression: abs(whole - _mean(losses, [mass(part.content) for part in parts]))
        for expression, mass in label_masses(batch.content).items()
    }
    fitting = _best(deviations, abs(whole - mean), tolerance, 100 * precision * scale)
    if abs(whole - expected) <= tolerance:  # false for NaN, the mean over no labels
        return Verdict(True, fitting=fitting)
    return Verdict(
        False,
        f"a batch of {batch.size} samples has the loss {whole:.4g}, its parts of {parts[0].size} and {parts[1].size} "
        f"samples have {losses[0]:.4g} and {losses[1]:.4g}",
        abs(whole - other) <= tolerance,
        fitting,
    )


def _best(deviations: Mapping[str, float], assumed: float, tolerance: float, rounding: float) -> str:
    """The expression whose deviation is small, while all others, and that of the assumed mass, are far larger."""
    if not deviations:
        return ""
    best = min(deviations, key=lambda expression: deviations[expression])
    others = [assumed, *(deviation for expression, deviation in deviations.items() if expression != best)]
    # Not `<=`, which is false for an assumed mass with the mean over no labels, NaN.
    clear = not any(other <= max(100 * deviations[best], rounding) for other in others)
    return best if deviations[best] <= tolerance and clear else ""


def _mean(losses: Sequence[float], masses: Sequence[float]) -> float:
    return sum(m * loss for m, loss in zip(masses, losses, strict=True) if m > 0) / (sum(masses) or 1.0)


def outputs_depend_on_the_batch(model: Callable[..., Any], inputs: Any) -> bool:
    """Whether outputs for a part of the inputs differ from those for all: the first dimension is not samples.

    That is so for sequences with time first, for batch norm without running statistics, and where a part of the inputs
    is not accepted. A model that draws random numbers is given the benefit of the doubt.
    """
    tensors = [tensor for tensor in tensors_in(inputs) if tensor.ndim]
    batch = Batch(inputs, len(tensors[0]) if tensors else 0)
    parts = cut(batch)
    if parts is None:
        return False
    before = _random_state(batch)
    whole = tensors_in(model(_fresh(inputs)))
    if _random_state(batch) != before:
        return False
    try:
        first, rest = (tensors_in(model(_fresh(part.content))) for part in parts)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # whatever a user's model raises for fewer samples, such as a graph network for fewer nodes
        return True
    by_sample = [i for i, tensor in enumerate(whole) if tensor.ndim and len(tensor) == batch.size]
    return any(not close(whole[i], torch.cat([first[i], rest[i]])) for i in by_sample)


def _fresh(content: Any) -> Any:
    """A copy, which a model or loss may change in place."""
    return map_tensors(content, Tensor.clone)


def _random_state(batch: Batch) -> list[bytes]:
    states = [torch.get_rng_state()]
    states += [torch.cuda.get_rng_state(tensor.device) for tensor in tensors_in(batch.content)[:1] if tensor.is_cuda]
    return [state.numpy().tobytes() for state in states]


def _number(loss: Any) -> float:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise TypeError(f"loss_fn must return one number per batch, got {type(loss).__name__}.")
    return float(loss.detach())


def _precision(batch: Batch) -> float:
    """The coarsest machine precision among the batch's floating-point tensors; that of single without any."""
    found = [torch.finfo(t.dtype).eps for t in tensors_in(batch.content) if t.is_floating_point()]
    return max(found, default=torch.finfo(torch.float32).eps)


def close(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors agree up to the square root of the machine precision, relative to the largest entry."""
    if a.shape != b.shape:
        return False
    if not a.is_floating_point() or a.numel() == 0:
        return True
    tolerance = torch.finfo(a.dtype).eps ** 0.5 * float(a.detach().abs().max())
    return bool((a - b).detach().abs().max() <= tolerance)
