"""Checkers of the functions that the reader writes in `02_hessian_vector_products.ipynb`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from renyi_lab.exercises._feedback import Feedback, Hint, answer_of, explain, first_hint, tensor_of
from renyi_lab.operators import hvp

Gradient = Callable[[Tensor], Tensor]
Loss = Callable[[Tensor], Tensor]

_STEP = 0.1
_EXACT = 1e-13  # relative: an exact method is right to 1e-15 here, the best difference of gradients to 1e-11


def check_finite_difference(function: Callable[[Gradient, Tensor, Tensor, float], Any]) -> Feedback:
    """Check ``function(gradient, theta, v, h)``: the one-sided difference ``(∇L(θ + h v) − ∇L(θ)) / h``.

    Args:
        function: Your solution; ``gradient`` maps a flat tensor to the gradient there.

    Returns:
        Feedback whose ``function`` is yours once it passes and a working one until then.
    """
    feedback = first_hint(
        function,
        [_difference, _dtype_of_difference],
        "the gradient's change along v, per unit of step.",
        signature="(gradient, theta, v, h)",
    )
    return feedback.otherwise(function, _finite_difference)


def _finite_difference(gradient: Gradient, theta: Tensor, v: Tensor, h: float) -> Tensor:
    return (gradient(theta + h * v) - gradient(theta)) / h


def _cube(point: Tensor) -> Tensor:
    """The gradient of ``Σ θ⁴/4``."""
    return point**3


def _difference(function: Callable[..., Any]) -> str | None:
    theta, v = torch.tensor([[1.0, -0.5, 2.0], [0.5, 2.0, -1.0]], dtype=torch.float64)
    answer = answer_of(function, _cube, theta.clone(), v.clone(), _STEP)
    here, ahead, behind = theta**3, (theta + _STEP * v) ** 3, (theta - _STEP * v) ** 3
    right = (ahead - here) / _STEP
    mistakes = {
        "the difference is not divided yet: how much does the gradient change per unit of step?": ahead - here,
        "divided by the square of h: a gradient is already a derivative.": right / _STEP,
        "divided by 2h: the two points are only h apart.": right / 2,
        "the sign is wrong: ahead minus here.": -right,
        "this is the central difference, with a second gradient at theta − h·v; the one-sided one uses theta itself.": (
            (ahead - behind) / (2 * _STEP)
        ),
        "the step goes backward: theta + h·v, not theta − h·v.": (behind - here) / _STEP,
        "the step does not follow v: the second point is theta + h·v.": ((theta + _STEP) ** 3 - here) / _STEP,
        "this is the gradient at the second point; subtract the one at theta, and divide by h.": ahead,
    }
    return explain(
        tensor_of(answer, theta.shape), right, mistakes, "not the difference yet; evaluate gradient at two points."
    )


def _dtype_of_difference(function: Callable[..., Any]) -> str | None:
    for dtype in (torch.float32, torch.float64):
        theta = torch.ones(2, dtype=dtype)
        tensor_of(answer_of(function, _cube, theta, theta.clone(), _STEP), theta.shape, dtype)
    return None


def check_hessian_product(function: Callable[[Loss, Tensor, Tensor], Any]) -> Feedback:
    """Check ``function(loss_at, theta, v)``: the product ``H v``, exact to rounding.

    Args:
        function: Your solution; ``loss_at`` maps a flat tensor to the loss there.

    Returns:
        Feedback whose ``function`` is yours once it passes, and until then one that uses `renyi_lab.hvp`.
    """
    feedback = first_hint(
        function,
        [_product, _dtype_of_product],
        "the gradient of the number gᵀv is H v, exact to rounding.",
        signature="(loss_at, theta, v)",
    )
    return feedback.otherwise(function, _hessian_product)


def _hessian_product(loss_at: Loss, theta: Tensor, v: Tensor) -> Tensor:
    point = theta.detach().requires_grad_()
    return hvp(loss_at(point), [point], v)


def _quartic(theta: Tensor) -> Tensor:
    return (theta**4).sum() / 4 + theta.prod()


def _product(function: Callable[..., Any]) -> str | None:
    theta, v = torch.tensor([[1.0, -0.5, 2.0], [0.5, 2.0, -1.0]], dtype=torch.float64)
    gradient, hessian = theta**3 + theta.prod() / theta, torch.func.hessian(_quartic)(theta)
    right = hessian @ v
    answer = _called(function, theta, v)
    if isinstance(answer, Tensor) and answer.ndim == 0 and abs(float(answer) - float(gradient @ v)) < 1e-6:
        return "this is the number gᵀv: it has a gradient of its own, which is the product."
    if isinstance(answer, Tensor) and answer.shape == hessian.shape:
        return f"a vector of shape {tuple(v.shape)} is expected, got a matrix: the Hessian is not needed."
    product = tensor_of(answer, theta.shape)
    mistakes = {
        "this is the gradient; differentiate once more.": gradient,
        "this is the gradient times v, entry by entry: sum it to one number, and differentiate that.": gradient * v,
        "this is the sum of the rows of H: where does v enter?": hessian.sum(0),
        "only the diagonal of H is in it: differentiate one number, gᵀv.": hessian.diagonal() * v,
        "this is the product plus the gradient: backward() adds to .grad; use torch.autograd.grad.": (right + gradient),
        "twice the product: is the gradient added up over two calls?": 2 * right,
    }
    hint = explain(product, right, mistakes, "not the product yet; it is torch.func.hessian(loss_at)(theta) @ v.")
    if hint is None and float((product - right).norm() / right.norm()) > _EXACT:
        return "right to some digits only: a difference of gradients? Differentiate gᵀv instead."
    if hint is None and answer.requires_grad:
        return "right, but the product still holds its graph: create_graph=True belongs into the first call only."
    return hint


def _called(function: Callable[..., Any], theta: Tensor, v: Tensor) -> Any:
    """The answer, with hints for the usual mistakes with `torch.autograd.grad`."""
    try:
        answer = answer_of(function, _quartic, theta.clone(), v.clone())
    except Hint as hint:
        if "does not require grad" in str(hint):
            advice = "a detached copy of theta needs requires_grad_(), and the first call create_graph=True."
            raise Hint(f"{hint}. Is everything recorded? {advice}") from None
        raise
    if isinstance(answer, tuple):
        raise Hint("a tensor is expected, got a tuple: torch.autograd.grad returns one; take its first entry.")
    return answer


def _dtype_of_product(function: Callable[..., Any]) -> str | None:
    for dtype in (torch.float32, torch.float64):
        theta = torch.ones(2, dtype=dtype)
        tensor_of(answer_of(function, _quartic, theta, theta.clone()), theta.shape, dtype)
    return None
