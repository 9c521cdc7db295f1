"""Whether a loss is the mean (or sum) over a batch's samples that the weights of batches take it for.

Where the loss is not one of torch's, its denominator is an assumption. It can be tested: the loss of a batch must be
the mean of the losses of two parts of it, weighted by their masses.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from renyi_lab._utils.batches import Batch, map_tensors, tensors_in
from renyi_lab._utils.masses import LossReduction, shape_mismatch


@dataclass(frozen=True)
class Verdict:
    """Result of `split_loss`.

    Attributes:
        agrees: Whether the parts' losses make up the loss; ``None`` where that cannot be found out.
        reason: Why not, as a clause.
        other: Whether they do under the other reduction, a sum for a mean.
    """

    agrees: bool | None
    reason: str = ""
    other: bool = False


def split_loss(loss_of: Callable[[Any], Tensor], batch: Batch, reduction: LossReduction) -> Verdict:
    """Compare the loss of a batch with those of two parts of it.

    Args:
        loss_of: Loss of the content of a batch.
        batch: The batch.
        reduction: How the loss is taken to reduce a batch.
    """
    parts = cut(batch)
    if parts is None:
        return Verdict(None, "a batch cannot be cut into samples, since its tensors differ in their first dimension")
    before = _random_state(batch)
    whole = _number(loss_of(batch.content))
    if _random_state(batch) != before:
        return Verdict(None, "the loss is random")
    try:
        losses = [_number(loss_of(part.content)) for part in parts]
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a user's model or loss raises for fewer samples
        return Verdict(None, f"the loss of {parts[0].size} of {batch.size} samples fails ({error})")
    masses = [reduction.mass(part) for part in parts]
    mean = sum(m * loss for m, loss in zip(masses, losses, strict=True) if m > 0) / (sum(masses) or 1.0)
    expected, other = (sum(losses), mean) if reduction.kind == "sum" else (mean, sum(losses))
    tolerance = _precision(batch) ** 0.5 * max(map(abs, (whole, *losses)))
    if abs(whole - expected) <= tolerance:  # false for NaN, the mean over no labels
        return Verdict(True)
    return Verdict(
        False,
        f"a batch of {batch.size} samples has the loss {whole:.4g}, its parts of {parts[0].size} and {parts[1].size} "
        f"samples have {losses[0]:.4g} and {losses[1]:.4g}",
        abs(whole - other) <= tolerance,
    )


def check_pair(loss_fn: Callable[..., Tensor], outputs: Any, targets: Any, reduction: LossReduction) -> None:
    """Raise where a label has no output, or where the loss would broadcast outputs and targets against each other.

    A loss of ``(N, 1)`` outputs and ``(N,)`` targets would silently compare all pairs of samples.
    """
    reduction.check_known(outputs, targets)
    if reduction.loss is not None or not _may_broadcast(outputs, targets):
        return
    shapes = (tuple(outputs.shape[1:]), tuple(targets.shape[1:]), len(targets) > 1)
    if shapes in reduction.verified:
        return
    if len(outputs) == len(targets) > 1 and not _by_sample(loss_fn, outputs, targets, reduction):
        raise ValueError(shape_mismatch(outputs, targets))
    reduction.verified.add(shapes)


def _may_broadcast(outputs: Any, targets: Any) -> bool:
    """Whether an elementwise operation of outputs and targets would expand one of them to the shape of the other."""
    if not (isinstance(outputs, Tensor) and isinstance(targets, Tensor)) or outputs.shape == targets.shape:
        return False
    is_labels = not targets.is_floating_point() and outputs.ndim == targets.ndim + 1 and outputs.shape[1:2] != (1,)
    sizes = zip(reversed(outputs.shape), reversed(targets.shape), strict=False)
    return outputs.ndim > 0 < targets.ndim and not is_labels and all(a == b or 1 in (a, b) for a, b in sizes)


def _by_sample(loss_fn: Callable[..., Tensor], outputs: Tensor, targets: Tensor, reduction: LossReduction) -> bool:
    """Whether the slope of the loss in a sample's outputs is a function of that sample alone, up to the denominator."""
    whole = Batch((outputs.detach(), targets), len(targets))
    parts = cut(whole)
    assert parts is not None
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")  # torch warns of some shapes that it broadcasts
        try:
            slopes, *in_parts = (_slopes(loss_fn, *batch.content) for batch in (whole, *parts))
        except torch.OutOfMemoryError:
            raise
        except Exception:  # the loss of all samples comes with its own error, if it has one
            return False
    mass = [reduction.mass(batch) for batch in (whole, *parts)]
    shares = ((mass[1] / (mass[0] or 1.0), mass[2] / (mass[0] or 1.0)), (1.0, 1.0))
    return any(_close(slopes, torch.cat([in_parts[0] * a, in_parts[1] * b])) for a, b in shares)


def _slopes(loss_fn: Callable[..., Tensor], outputs: Tensor, targets: Tensor) -> Tensor:
    free = outputs.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(loss_fn(free, targets), free)
    return slopes


def outputs_depend_on_the_batch(model: nn.Module, inputs: Any) -> bool:
    """Whether outputs for a part of the inputs differ from those for all: the first dimension is not samples.

    That is so for sequences with time first, and for batch norm without running statistics. A model that draws random
    numbers is given the benefit of the doubt.
    """
    tensors = [tensor for tensor in tensors_in(inputs) if tensor.ndim]
    batch = Batch(inputs, len(tensors[0]) if tensors else 0)
    parts = cut(batch)
    if parts is None:
        return False
    before = _random_state(batch)
    whole = tensors_in(model(inputs))
    if _random_state(batch) != before:
        return False
    first, rest = (tensors_in(model(part.content)) for part in parts)
    by_sample = [i for i, tensor in enumerate(whole) if tensor.ndim and len(tensor) == batch.size]
    return any(not _close(whole[i], torch.cat([first[i], rest[i]])) for i in by_sample)


def cut(batch: Batch) -> tuple[Batch, Batch] | None:
    """The first third and the rest of a batch, unlike in size so that their masses differ; ``None`` if it has no rows.

    Tensors without dimensions belong to both parts.
    """
    if batch.size < 2 or any(tensor.ndim and len(tensor) != batch.size for tensor in tensors_in(batch.content)):
        return None
    at = -(-batch.size // 3)
    first = map_tensors(batch.content, lambda tensor: tensor[:at] if tensor.ndim else tensor)
    rest = map_tensors(batch.content, lambda tensor: tensor[at:] if tensor.ndim else tensor)
    return Batch(first, at), Batch(rest, batch.size - at)


def joined(first: Batch, second: Batch) -> Batch | None:
    """Two batches as one; ``None`` where their tensors do not fit."""
    pairs = list(zip(tensors_in(first.content), tensors_in(second.content), strict=False))
    if any(a.ndim == 0 or a.shape[1:] != b.shape[1:] for a, b in pairs):
        return None
    others = iter([tensor for _, tensor in pairs])
    return Batch(map_tensors(first.content, lambda tensor: torch.cat([tensor, next(others)])), first.size + second.size)


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


def _close(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    if not a.is_floating_point() or a.numel() == 0:
        return True
    tolerance = torch.finfo(a.dtype).eps ** 0.5 * float(a.detach().abs().max())
    return bool((a - b).detach().abs().max() <= tolerance)
