"""Checks of the products: symmetry, agreement with differences of gradients, repeatability."""

from __future__ import annotations

import contextlib
import copy
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from renyi_lab._utils.batches import Batch, map_tensors
from renyi_lab._utils.exclusive import exclusive
from renyi_lab.checks._finding import Finding, ok, problem, warning
from renyi_lab.operators import HessianOperator, LossSurface, random_subset

# All limits are heuristics: networks of the course agree to 1e-12 (double) and 1e-6 (single precision).
_SYMMETRIC = 1e-3
_DIFFERENCES, _NUM_SAMPLES = 1e-2, 256
# Relative to the weights. Small, so that few ReLUs switch in between; the best of several, against rounding.
_STEPS = (1e-5, 1e-6, 1e-7, 1e-8)
REPEATABILITY = "repeatability"
Build = Callable[..., HessianOperator]


def products(H: HessianOperator, build: Build, seed: int) -> Iterator[Finding]:
    """Findings on the operator's products.

    Args:
        H: The operator.
        build: Makes an operator like it: ``build(model, loss_fn, batches, seed)``.
        seed: Random seed of the vectors.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    u, v = (
        torch.randn(2, H.dim, generator=generator, dtype=torch.float64, device="cpu").to(H.dtype).to(H.device).unbind()
    )
    yield _symmetry(H, u, v)
    yield _differences(H, build, v)
    yield _random(H, build)


def _symmetry(H: HessianOperator, u: Tensor, v: Tensor) -> Finding:
    product_u, product_v = H @ u, H @ v
    size = float(u.norm() * product_v.norm() + v.norm() * product_u.norm()) / 2
    # What is not more than rounding, of a loss of the size of 1, says nothing.
    size = max(size, 1e4 * torch.finfo(H.dtype).eps * max(1.0, abs(H.loss)) * len(u) ** 0.5)
    gap = abs(float(u @ product_v) - float(v @ product_u)) / size
    measured = f"⟨u, Hv⟩ and ⟨v, Hu⟩ differ by {gap:.1g} of ‖u‖‖Hv‖"
    if gap > _SYMMETRIC:
        return problem(
            "symmetry",
            f"{measured}: some operation has a gradient that is not its derivative (a straight-through or reversed "
            "gradient). The products are not those of a Hessian; replace that operation.",
        )
    return ok("symmetry", measured)


def _differences(H: HessianOperator, build: Build, direction: Tensor) -> Finding:
    name = "finite differences"
    part = _in_double(_subset(H), build)
    if part is None:
        return ok(name, "not compared: the model cannot be copied in double precision")
    v = direction.to(part.dtype)
    v = v / v.norm()
    product, surface = part @ v, LossSurface(part)
    gaps = []
    for relative in _STEPS:
        step = relative * (float(surface.start.norm()) or 1.0)
        ahead, behind = (surface.loss_and_gradient(surface.start + sign * step * v)[1] for sign in (1, -1))
        size = max(float(product.norm()), 1e3 * torch.finfo(part.dtype).eps * float(ahead.norm()) / step)
        gaps.append(float(((ahead - behind) / (2 * step) - product).norm()) / size if size else 0.0)
    gap = min(gaps)
    measured = f"of the gradient agree with a product to {gap:.1g}"
    if not gap <= _DIFFERENCES:
        return problem(
            name,
            f"of the gradient differ from a product by {gap:.1g} of its length: the Hessian is not the derivative of "
            "the gradient. Some operation of the model or the loss hides a dependence (detach(), no_grad(), a rounded "
            "or straight-through value); or the weights are exactly at a kink, such as weights of zero before a ReLU.",
        )
    return ok(name, measured)


def _subset(H: HessianOperator) -> HessianOperator:
    with contextlib.suppress(ValueError):  # the data cannot be taken apart: then all of them
        H.check_samples("the comparison")
        return H.restricted(batches=random_subset(H.batches, "samples", _NUM_SAMPLES, 0, H.ranks))
    return H


def _in_double(H: HessianOperator, build: Build) -> HessianOperator | None:
    """The operator of a copy of the model in double precision, if it has the same loss."""
    if H.dtype == torch.float64:
        return H
    if H.device.type == "mps":
        return None
    try:
        model = copy.deepcopy(H.model).double()
        loss_fn: Any = copy.deepcopy(H.loss_fn).double() if isinstance(H.loss_fn, nn.Module) else H.loss_fn
        batches = [Batch(map_tensors(batch.content, _double), batch.size) for batch in H.batches]
        with exclusive(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            part = build(model, loss_fn, batches, H.seed)
    except Exception:  # whatever a user's model raises in another precision
        return None
    if not math.isclose(part.loss, H.loss, rel_tol=1e-2, abs_tol=1e-5) or part.dim != H.dim:
        return None
    return part


def _double(tensor: Tensor) -> Tensor:
    return tensor.detach().double() if tensor.is_floating_point() else tensor.detach()


def _random(H: HessianOperator, build: Build) -> Finding:
    name = REPEATABILITY
    again = H.total_loss()
    with exclusive(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = build(H.model, H.loss_fn, H.batches, H.seed + 1).loss
    scale = max(abs(H.loss), 1e-30)
    if abs(again - H.loss) > 1e-3 * scale:
        return problem(
            name,
            f"the loss is {H.loss:.6g} at first and {again:.6g} when it is computed again: the model or the loss "
            "keeps a "
            "state of its own. No product can be trusted.",
        )
    if abs(other - H.loss) > 100 * torch.finfo(H.dtype).eps * scale:
        return warning(
            name,
            f"the loss is random: {H.loss:.6g} with one seed, {other:.6g} with another. Dropout or noise is left "
            "on; the "
            "Hessian is that of one draw. In evaluation mode, functional dropout needs training=self.training; and a "
            "loss must not call model.train().",
        )
    return ok(name, "the loss is the same when it is computed again, and for another seed")


def training_flag(H: HessianOperator) -> Finding | None:
    """Whether a model that is left in training mode computes another function there, whatever its layers are."""
    if H.mode == "train" or not H.model.training:
        return None
    other = H.restricted()
    other.mode = "train"
    try:
        loss = other.total_loss()
    except ValueError:  # batch norm of a single sample
        return None
    if not abs(loss - H.loss) > 1e-3 * abs(H.loss):
        return None
    return warning(
        "training mode",
        f"the model was left in training mode, where its loss is {loss:.4g} instead of {H.loss:.4g} (dropout, "
        "batch norm "
        "or a branch on self.training). Everything here is measured in evaluation mode; call model.eval().",
    )


def same_data(H: HessianOperator, again: Sequence[Batch], build: Build) -> Finding:
    """Whether a second pass over the caller's loader gives the same data."""
    other = build(H.model, H.loss_fn, again, H.seed)
    if other.num_samples != H.num_samples or abs(other.loss - H.loss) > 1e-4 * max(abs(H.loss), 1e-12):
        return warning(
            "data set",
            f"a second pass gives other data ({other.num_samples:,} samples with the loss {other.loss:.5g}, instead of "
            f"{H.num_samples:,} with {H.loss:.5g}): it draws a subset or augments at random. The spectrum is that of "
            "the first pass; turn augmentation, drop_last and subsets off.",
        )
    return ok("data set", "a second pass gives the same loss")
