"""Checkers of `02_hessian_vector_products.ipynb`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from renyi_lab.exercises._feedback import Feedback, answer_of, explain, first_hint, tensor_of
from renyi_lab.models import mlp
from renyi_lab.operators import HessianOperator

_STEP = 0.1


def check_central_difference(function: Callable[[Callable[[Tensor], Tensor], Tensor, Tensor, float], Any]) -> Feedback:
    """Check ``function(gradient, theta, v, step)``: the Hessian product from gradients on both sides of ``theta``.

    The test problem is ``L(θ) = Σ θ_i⁴/4``, for which ``(∇L(θ + h v) − ∇L(θ − h v)) / 2h = 3θ²v + h²v³`` exactly.

    Args:
        function: Your solution; ``gradient`` maps a flat tensor to the gradient there.
    """
    return first_hint(
        function,
        [_central],
        "the error now falls with the square of the step, for one gradient more.",
        signature="(gradient, theta, v, step)",
    )


def _central(function: Callable[..., Any]) -> str | None:
    theta, v = torch.tensor([[1.0, -0.5, 2.0], [0.5, 2.0, -1.0]], dtype=torch.float64)
    answer = answer_of(function, lambda point: point**3, theta.clone(), v.clone(), _STEP)
    right = 3 * theta**2 * v + _STEP**2 * v**3
    ahead, here, behind = (theta + _STEP * v) ** 3, theta**3, (theta - _STEP * v) ** 3
    mistakes = {
        "the two points are 2·step apart, but you divided by step: this is twice the product.": 2 * right,
        "divided by the square of the step: a gradient is already a derivative.": right / _STEP,
        "the difference is not divided yet: how much does the gradient change per unit of step?": 2 * _STEP * right,
        "the sign is wrong: ahead minus behind.": -right,
        "this is the one-sided difference: take the second gradient at theta − step·v.": (ahead - here) / _STEP,
        "one-sided, and halved: the second gradient belongs at theta − step·v.": (ahead - here) / (2 * _STEP),
        "this is the average of the two gradients; the product is in their difference.": (ahead + behind) / 2,
    }
    return explain(
        tensor_of(answer, theta.shape),
        right,
        mistakes,
        "not the product yet; compare with (gradient(theta + step·v) − gradient(theta − step·v)) / (2·step).",
    )


def check_batched_product(
    function: Callable[[nn.Module, Callable[..., Tensor], Sequence[tuple[Tensor, Tensor]], Tensor], Any],
) -> Feedback:
    """Check ``function(model, loss_fn, batches, v)``: the product with the Hessian of the mean over *all* samples.

    The test problem is a small network, batches of different size, and a ``loss_fn`` that averages over a batch.

    Args:
        function: Your solution; ``batches`` is a list of pairs ``(x, y)``, ``v`` a flat tensor.
    """
    return first_hint(
        function,
        [_batched, _gradients_unchanged],
        "equal to the product over all samples at once, for any batches, and .grad is unchanged.",
        signature="(model, loss_fn, batches, v)",
    )


def _batched(function: Callable[..., Any]) -> str | None:
    model, batches, v = _small_problem()
    sizes = [len(y) for _, y in batches]
    products = [HessianOperator(model, F.cross_entropy, batch) @ v for batch in batches]
    right = torch.stack([size * product for size, product in zip(sizes, products, strict=True)]).sum(0) / sum(sizes)
    total = torch.stack(products).sum(0)
    mistakes = {
        "this is the plain average over batches; weight each batch by its share of the samples.": total / len(batches),
        "this is the sum over batches; weight each batch by its share of the samples.": total,
        "this is a sum over samples: divide by their number.": sum(sizes) * right,
        "only the last batch is in it; does the loop overwrite instead of adding?": products[-1],
        "only the first batch is in it; is the return inside the loop?": products[0],
    }
    answer = tensor_of(answer_of(function, model, F.cross_entropy, batches, v.clone()), v.shape)
    return explain(
        answer, right, mistakes, "not the product yet; compare with HessianOperator(model, loss_fn, batches) @ v."
    )


def _gradients_unchanged(function: Callable[..., Any]) -> str | None:
    model, batches, v = _small_problem()
    answer_of(function, model, F.cross_entropy, batches, v)
    if all(parameter.grad is None for parameter in model.parameters()):
        return None
    return "right, but .grad of the parameters was written: torch.autograd.grad returns gradients without writing it."


def _small_problem() -> tuple[nn.Module, list[tuple[Tensor, Tensor]], Tensor]:
    generator = torch.Generator().manual_seed(0)
    model = mlp(4, 5, 3, activation="tanh").double()
    x = torch.randn(20, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 3, (20,), generator=generator)
    v = torch.randn(sum(p.numel() for p in model.parameters()), generator=generator, dtype=torch.float64)
    return model, list(zip(x.split(8), y.split(8), strict=True)), v
