"""Checks of the point at which the Hessian is taken: loss, outputs, gradient."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from renyi_lab._utils.losses import torch_loss
from renyi_lab._utils.random import seeded_rng
from renyi_lab.checks._batches import targets_of, with_shuffled_targets
from renyi_lab.checks._finding import Finding, ok, problem, warning
from renyi_lab.operators import HessianOperator

# All limits are heuristics, set by networks of the course at and away from the end of their training.
_NOT_BELOW = 0.95  # of the baseline's loss
_FAR_ABOVE = 2.0
_FEWEST = 10  # samples
_SATURATED = 100.0  # machine precisions, of the baseline's loss
_STEP = 0.1  # of the weights' norm: the largest step for which a quadratic model is asked
_DESCENT = 0.1  # of the baseline's loss
# Losses that have a best constant output: convex, and defined for every output.
_CONVEX = (
    F.cross_entropy,
    F.mse_loss,
    F.l1_loss,
    F.smooth_l1_loss,
    F.huber_loss,
    F.binary_cross_entropy_with_logits,
    F.soft_margin_loss,
)


@dataclass(frozen=True)
class Point:
    """Loss and gradient at the model's weights, and what the loss is compared with.

    Attributes:
        loss: The loss.
        gradient: The flat gradient, ``(n,)``.
        outputs: The outputs of all samples, ``(N, …)``; ``None`` where the model is called by the loss.
        baseline: The loss without knowledge of the inputs; ``None`` where it is unknown.
        meaning: What the baseline is, in words.
    """

    loss: float
    gradient: Tensor
    outputs: Tensor | None
    baseline: float | None
    meaning: str


def point_of(H: HessianOperator, build: Callable[..., HessianOperator], seed: int) -> Point:
    """Measure loss, gradient, outputs and baseline.

    Args:
        H: The operator.
        build: Makes an operator like it: ``build(model, loss_fn, batches, seed)``.
        seed: Random seed of what the loss is compared with.
    """
    loss, gradient = H.loss_and_gradient()
    outputs = _outputs(H)
    if not _comparable(H):
        return Point(loss, gradient, outputs, None, "")
    baseline, meaning = _constant_loss(H, outputs) if outputs is not None else _shuffled_loss(H, seed)
    if baseline is None:
        baseline, meaning = _initial_loss(H, build, seed)
    return Point(loss, gradient, outputs, baseline, meaning)


def _comparable(H: HessianOperator) -> bool:
    """Whether one output for all samples does not fit them trivially."""
    targets = targets_of(H.batches)
    return H.num_samples >= _FEWEST and (targets is None or bool((targets != targets[0]).any()))


def _outputs(H: HessianOperator) -> Tensor | None:
    if H.loss_style != "output_target":
        return None
    with H.evaluation_point(), torch.enable_grad():
        found = [H.outputs(index) for index in range(len(H.batches))]
    by_sample = all(
        isinstance(part, Tensor) and part.ndim and len(part) == batch.size
        for part, batch in zip(found, H.batches, strict=True)
    )
    if not by_sample or len({part.shape[1:] for part in found}) > 1:
        return None
    return torch.cat([part.detach() for part in found])


def _constant_loss(H: HessianOperator, outputs: Tensor) -> tuple[float | None, str]:
    """The loss of one output for all samples: the mean output, and the best one where the loss allows any."""
    mean = outputs.mean(0)
    candidates = [_loss_of(H, mean)]
    known = torch_loss(H.loss_fn)
    if known is not None and known.function in _CONVEX:
        constant = torch.zeros_like(mean).requires_grad_()
        optimizer = torch.optim.LBFGS([constant], max_iter=100, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            loss = _total(H, constant)
            (constant.grad,) = torch.autograd.grad(loss, constant)
            return loss

        with H.evaluation_point(), torch.enable_grad():
            optimizer.step(closure)
        candidates.append(_loss_of(H, constant.detach()))
    finite = [loss for loss in candidates if math.isfinite(loss)]
    return (min(finite), "one and the same output for all samples") if finite else (None, "")


def _loss_of(H: HessianOperator, output: Tensor) -> float:
    with H.evaluation_point(), torch.enable_grad():
        return float(_total(H, output).detach())


def _total(H: HessianOperator, output: Tensor) -> Tensor:
    parts = [
        H.output_loss(output.expand(batch.size, *output.shape).clone(), index) for index, batch in enumerate(H.batches)
    ]
    return torch.stack(parts).sum()


def _shuffled_loss(H: HessianOperator, seed: int) -> tuple[float | None, str]:
    shuffled = [with_shuffled_targets(batch, seed + index) for index, batch in enumerate(H.batches)]
    known = [batch for batch in shuffled if batch is not None]
    if len(known) < len(shuffled):
        return None, ""
    try:
        return H.restricted(batches=known).loss, "the targets of other samples"
    except ValueError:  # not finite, or the batch is not what it seems
        return None, ""


def _initial_loss(H: HessianOperator, build: Callable[..., HessianOperator], seed: int) -> tuple[float | None, str]:
    """The smaller loss of two copies of the model with fresh initial weights, for layers that can be reset."""
    found = []
    for offset in (1, 2):
        try:
            model = copy.deepcopy(H.model)
            with seeded_rng(seed + offset):
                for module in model.modules():
                    if callable(reset := getattr(module, "reset_parameters", None)):
                        reset()
            found.append(build(model, H.loss_fn, H.batches, seed).loss)
        except Exception:  # whatever a user's model raises when it is copied or reset
            return None, ""
    return min(found), "fresh initial weights"


def at_point(H: HessianOperator, point: Point) -> Iterator[Finding]:
    """Findings on the point."""
    yield _loss(H, point)
    if (outputs := _constant_outputs(point)) is not None:
        yield outputs
    if (saturated := _saturated(H, point)) is not None:
        yield saturated
    yield _gradient(H, point)


def _loss(H: HessianOperator, point: Point) -> Finding:
    if point.baseline is None:
        return ok(
            "loss", f"{point.loss:.4g}; not compared with a baseline, since targets are unknown, all the same, or few"
        )
    compared = f"the loss is {point.loss:.4g}; with {point.meaning} it is {point.baseline:.4g}"
    if point.loss > point.baseline + (_FAR_ABOVE - 1) * abs(point.baseline) + 1e-12:
        return problem(
            "loss",
            f"{compared}: the model is far worse than no model. It has diverged or is untrained; or these are not its "
            "training data, or inputs or labels that are prepared in another way.",
        )
    if point.loss > point.baseline - (1 - _NOT_BELOW) * abs(point.baseline):
        return warning(
            "loss",
            f"{compared}: the model is untrained, has learned nothing from the inputs, or is overfitted and these are "
            "other data than those of its training; so that the curvature is not that of a trained network. Train it; "
            "check that data and labels are those of the training.",
        )
    return ok("loss", compared)


def _constant_outputs(point: Point) -> Finding | None:
    if point.outputs is None or len(point.outputs) < 2:
        return None
    outputs = point.outputs.double().reshape(len(point.outputs), -1)
    spread = float((outputs - outputs.mean(0)).abs().max())
    if spread > 100 * torch.finfo(point.outputs.dtype).eps * float(outputs.abs().max()):
        return ok("outputs", f"differ between samples, by up to {spread:.3g} from their mean")
    return problem(
        "outputs",
        "are the same for all samples: the model does not depend on its inputs (all units of a layer dead or "
        "saturated, "
        "weights of zero, inputs of zero). Its Hessian is that of a few biases.",
    )


def _saturated(H: HessianOperator, point: Point) -> Finding | None:
    targets = targets_of(H.batches)
    if not bool(point.gradient.any()) and not bool((H @ torch.ones_like(point.gradient)).any()):
        return problem(
            "saturation",
            "gradient and curvature are exactly zero in every parameter: the loss is flat here (a saturated softmax, "
            "dead units, or no dependence on the parameters). There is nothing to measure.",
        )
    if targets is None or targets.is_floating_point() or not point.baseline:
        return None
    if point.loss < _SATURATED * torch.finfo(H.dtype).eps * point.baseline:
        return problem(
            "saturation",
            f"the loss is {point.loss:.2g}, which is rounding in {str(H.dtype).removeprefix('torch.')}: the softmax is "
            "saturated, the Hessian vanishes, and what is left of it is rounding. Use an earlier checkpoint, label "
            "smoothing, or model.double() with data in double precision.",
        )
    return ok("saturation", f"the loss is {point.loss / point.baseline:.2g} of the baseline's, far from rounding")


def _gradient(H: HessianOperator, point: Point) -> Finding:
    norm, weights = float(point.gradient.norm()), float(H.flatten(H.parameters.values()).norm())
    if norm == 0:
        return ok("gradient", "zero")
    direction = point.gradient / norm
    curvature = float(direction @ (H @ direction))
    # The decrease that the quadratic model promises along the gradient, with a step of at most a tenth of the weights.
    limit = _STEP * weights
    step = min(limit, norm / curvature) if curvature > 0 else limit
    decrease = step * norm - step**2 / 2 * curvature
    scale = abs(point.baseline if point.baseline is not None else point.loss) or 1.0
    measured = (
        f"the norm is {norm:.3g}; one step along it would lower the loss by about {decrease:.2g}, "
        f"{100 * decrease / scale:.2g} % of {'the loss of the baseline' if point.baseline is not None else 'the loss'}"
    )
    if decrease > _DESCENT * scale:
        return warning(
            "gradient",
            f"{measured}: the weights are not near a stationary point, and sharpness, bounds and Laplace "
            "approximations "
            "that suppose a minimum do not apply. Train longer, with a decaying learning rate.",
        )
    return ok("gradient", measured)
