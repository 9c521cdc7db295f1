"""The checkers of notebook 02 accept its solutions and explain typical mistakes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import renyi_lab as rl
from renyi_lab.exercises import (
    check_batched_product,
    check_central_difference,
    check_finite_difference,
    check_hessian_product,
)

Gradient = Callable[[Tensor], Tensor]
Batches = Sequence[tuple[Tensor, Tensor]]


def central(gradient: Gradient, theta: Tensor, v: Tensor, step: float) -> Tensor:
    return (gradient(theta + step * v) - gradient(theta - step * v)) / (2 * step)


def divided_by_step(gradient: Gradient, theta: Tensor, v: Tensor, step: float) -> Tensor:
    return (gradient(theta + step * v) - gradient(theta - step * v)) / step


def one_sided(gradient: Gradient, theta: Tensor, v: Tensor, step: float) -> Tensor:
    return (gradient(theta + step * v) - gradient(theta)) / step


def one_sided_halved(gradient: Gradient, theta: Tensor, v: Tensor, step: float) -> Tensor:
    return (gradient(theta + step * v) - gradient(theta)) / (2 * step)


def not_divided(gradient: Gradient, theta: Tensor, v: Tensor, step: float) -> Tensor:
    return gradient(theta + step * v) - gradient(theta - step * v)


def behind_minus_ahead(gradient: Gradient, theta: Tensor, v: Tensor, step: float) -> Tensor:
    return -central(gradient, theta, v, step)


def average(gradient: Gradient, theta: Tensor, v: Tensor, step: float) -> Tensor:
    return (gradient(theta + step * v) + gradient(theta - step * v)) / 2


def second_difference(gradient: Gradient, theta: Tensor, v: Tensor, step: float) -> Tensor:
    return central(gradient, theta, v, step) / step


def test_the_central_difference_is_accepted() -> None:
    assert check_central_difference(central).solved


def products(model: nn.Module, loss_fn: Any, batches: Batches, v: Tensor) -> list[Tensor]:
    return [rl.hvp(loss_fn(model(x), y), model.parameters(), v) for x, y in batches]


def batched(model: nn.Module, loss_fn: Any, batches: Batches, v: Tensor) -> Tensor:
    num_samples = sum(len(y) for _, y in batches)
    shares = [len(y) / num_samples for _, y in batches]
    return sum(share * product for share, product in zip(shares, products(model, loss_fn, batches, v), strict=True))


def all_at_once(model: nn.Module, loss_fn: Any, batches: Batches, v: Tensor) -> Tensor:
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return rl.hvp(loss_fn(model(x), y), model.parameters(), v)


def average_over_batches(model: nn.Module, loss_fn: Any, batches: Batches, v: Tensor) -> Tensor:
    return torch.stack(products(model, loss_fn, batches, v)).mean(0)


def sum_over_batches(model: nn.Module, loss_fn: Any, batches: Batches, v: Tensor) -> Tensor:
    return torch.stack(products(model, loss_fn, batches, v)).sum(0)


def sum_over_samples(model: nn.Module, loss_fn: Any, batches: Batches, v: Tensor) -> Tensor:
    return sum(len(y) for _, y in batches) * batched(model, loss_fn, batches, v)


def last_batch(model: nn.Module, loss_fn: Any, batches: Batches, v: Tensor) -> Tensor:
    return products(model, loss_fn, batches, v)[-1]


def first_batch(model: nn.Module, loss_fn: Any, batches: Batches, v: Tensor) -> Tensor:
    return products(model, loss_fn, batches, v)[0]


def writes_grad(model: nn.Module, loss_fn: Any, batches: Batches, v: Tensor) -> Tensor:
    loss_fn(model(batches[0][0]), batches[0][1]).backward()
    return batched(model, loss_fn, batches, v)


def without_create_graph(model: nn.Module, loss_fn: Any, batches: Batches, v: Tensor) -> Tensor:
    params = list(model.parameters())
    gradient = torch.cat(
        [g.reshape(-1) for g in torch.autograd.grad(loss_fn(model(batches[0][0]), batches[0][1]), params)]
    )
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(gradient @ v, params)])


Loss = Callable[[Tensor], Tensor]


def one_sided_of_h(gradient: Gradient, theta: Tensor, v: Tensor, h: float) -> Tensor:
    return one_sided(gradient, theta, v, h)


def double_backward(loss_at: Loss, theta: Tensor, v: Tensor) -> Tensor:
    theta = theta.detach().requires_grad_()
    (g,) = torch.autograd.grad(loss_at(theta), theta, create_graph=True)
    (product,) = torch.autograd.grad(g @ v, theta)
    return product


def forward_over_reverse(loss_at: Loss, theta: Tensor, v: Tensor) -> Tensor:
    return torch.func.jvp(torch.func.grad(loss_at), (theta,), (v,))[1]


def through_functional(loss_at: Loss, theta: Tensor, v: Tensor) -> Tensor:
    return torch.autograd.functional.hvp(loss_at, theta, v)[1]


def gradient_of(loss_at: Loss, theta: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    theta = theta.detach().requires_grad_()
    return torch.autograd.grad(loss_at(theta), theta, **options)[0], theta


def not_recorded(loss_at: Loss, theta: Tensor, v: Tensor) -> Tensor:
    g, theta = gradient_of(loss_at, theta)
    return torch.autograd.grad(g @ v, theta)[0]


def tuple_returned(loss_at: Loss, theta: Tensor, v: Tensor) -> Any:
    g, theta = gradient_of(loss_at, theta, create_graph=True)
    return torch.autograd.grad(g @ v, theta)


def graph_kept(loss_at: Loss, theta: Tensor, v: Tensor) -> Tensor:
    g, theta = gradient_of(loss_at, theta, create_graph=True)
    return torch.autograd.grad(g @ v, theta, create_graph=True)[0]


def row_sums(loss_at: Loss, theta: Tensor, v: Tensor) -> Tensor:
    g, theta = gradient_of(loss_at, theta, create_graph=True)
    return torch.autograd.grad(g.sum(), theta)[0]


def marks_theta(loss_at: Loss, theta: Tensor, v: Tensor) -> Tensor:
    (g,) = torch.autograd.grad(loss_at(theta.requires_grad_()), theta, create_graph=True)
    return torch.autograd.grad(g @ v, theta)[0]


def by_difference(loss_at: Loss, theta: Tensor, v: Tensor) -> Tensor:
    return central(torch.func.grad(loss_at), theta, v, 1e-4)


def by_best_difference(loss_at: Loss, theta: Tensor, v: Tensor) -> Tensor:
    return central(torch.func.grad(loss_at), theta, v, 1e-5)


def added_to_grad(loss_at: Loss, theta: Tensor, v: Tensor) -> Any:
    theta = theta.detach().requires_grad_()
    g = torch.autograd.grad(loss_at(theta), theta, create_graph=True)[0]
    return g.detach() + torch.autograd.grad(g @ v, theta)[0]


def changes_mode(model: nn.Module, loss_fn: Any, batches: Batches, v: Tensor) -> Tensor:
    return batched(model.eval(), loss_fn, batches, v)


def freezes(model: nn.Module, loss_fn: Any, batches: Batches, v: Tensor) -> Tensor:
    product = batched(model, loss_fn, batches, v)
    model.requires_grad_(False)
    return product


def in_single(loss_at: Loss, theta: Tensor, v: Tensor) -> Tensor:
    return double_backward(loss_at, theta.float(), v.float())


def moves_theta(gradient: Gradient, theta: Tensor, v: Tensor, h: float) -> Tensor:
    here = gradient(theta)
    theta += h * v
    return (gradient(theta) - here) / h


@pytest.mark.parametrize(
    ("check", "function"),
    [
        (check_finite_difference, one_sided),
        (check_finite_difference, one_sided_of_h),
        (check_hessian_product, double_backward),
        (check_hessian_product, forward_over_reverse),
        (check_hessian_product, through_functional),
    ],
)
def test_core_functions_are_accepted_and_handed_back(check: Callable[..., Any], function: Callable[..., Any]) -> None:
    feedback = check(function)
    assert feedback.solved, feedback
    assert feedback.function is function
    assert check(function) == feedback


@pytest.mark.parametrize("check", [check_finite_difference, check_hessian_product])
@pytest.mark.parametrize("attempt", [None, ..., lambda *arguments: None, lambda *arguments: arguments[1], 3, Tensor])
def test_until_then_the_library_is_handed_back_and_passes_its_own_check(
    check: Callable[..., Any], attempt: Any
) -> None:
    library = check(attempt).function
    assert not check(attempt).solved
    assert library is not attempt
    assert check(library).solved


@pytest.mark.parametrize("solution", [batched, all_at_once, lambda m, f, b, v: rl.HessianOperator(m, f, b) @ v])
def test_every_correct_batched_product_is_accepted(solution: Callable[..., Any]) -> None:
    feedback = check_batched_product(solution)
    assert feedback.solved, feedback


@pytest.mark.parametrize(
    ("check", "attempt", "message"),
    [
        (check_finite_difference, central, "this is the central difference"),
        (check_finite_difference, not_divided, "not the difference yet"),
        (check_finite_difference, lambda g, t, v, h: g(t + h * v) - g(t), "is not divided yet"),
        (check_finite_difference, lambda g, t, v, h: (g(t + h * v) - g(t)) / h**2, "divided by the square of h"),
        (check_finite_difference, one_sided_halved, "divided by 2h"),
        (check_finite_difference, lambda g, t, v, h: (g(t) - g(t + h * v)) / h, "the sign is wrong"),
        (check_finite_difference, lambda g, t, v, h: (g(t - h * v) - g(t)) / h, "the step goes backward"),
        (check_finite_difference, lambda g, t, v, h: (g(t + h) - g(t)) / h, "does not follow v"),
        (check_finite_difference, lambda g, t, v, h: g(t + h * v), "this is the gradient at the second point"),
        (check_finite_difference, lambda g, t, v, h: t * torch.nan, "NaN or infinite"),
        (
            check_finite_difference,
            lambda g, t, v, h: one_sided(g, t, v, h).float(),
            "the answer has dtype torch.float32",
        ),
        (
            check_finite_difference,
            lambda g, t, v, h: one_sided(g, t, v, h).double(),
            "the arguments have torch.float32",
        ),
        (check_finite_difference, lambda g, t, v, h: one_sided(g, t, v, h).int(), "got dtype torch.int32"),
        (check_finite_difference, lambda g, t, v, h: one_sided(g, t, v, h).numpy(), "got ndarray of shape (3,)"),
        (check_finite_difference, lambda g, t, v, h: (one_sided(g, t, v, h),), "is expected, got tuple"),
        (check_finite_difference, moves_theta, "theta itself was changed"),
        (check_finite_difference, lambda g, t, v: t, "is called with (gradient, theta, v, h), in this order"),
        (check_finite_difference, lambda g, t, v, h: None, "not attempted yet"),
        (check_hessian_product, not_recorded, "Is everything recorded?"),
        (check_hessian_product, tuple_returned, "torch.autograd.grad returns one; take its first entry"),
        (check_hessian_product, graph_kept, "still holds its graph"),
        (check_hessian_product, row_sums, "where does v enter?"),
        (check_hessian_product, marks_theta, "theta itself was changed"),
        (check_hessian_product, by_difference, "right to some digits only"),
        (check_hessian_product, by_best_difference, "right to some digits only"),
        (check_hessian_product, added_to_grad, "this is the product plus the gradient"),
        (check_batched_product, changes_mode, "model itself was changed"),
        (check_batched_product, freezes, "model itself was changed"),
        (check_hessian_product, in_single, "the answer has dtype torch.float32"),
        (check_hessian_product, lambda f, t, v: double_backward(f, t, v).float(), "dtype torch.float32"),
        (check_hessian_product, lambda f, t, v: gradient_of(f, t)[0], "this is the gradient; differentiate"),
        (check_hessian_product, lambda f, t, v: gradient_of(f, t)[0] * v, "entry by entry"),
        (check_hessian_product, lambda f, t, v: gradient_of(f, t)[0] @ v, "this is the number gᵀv"),
        (check_hessian_product, lambda f, t, v: torch.func.hessian(f)(t).diagonal() * v, "only the diagonal"),
        (check_hessian_product, lambda f, t, v: torch.func.hessian(f)(t), "got a matrix"),
        (check_hessian_product, lambda f, t, v: 2 * double_backward(f, t, v), "twice the product"),
        (check_hessian_product, lambda f, t, v: t, "not the product yet"),
        (check_hessian_product, lambda f, t, v: 1.0, "got float"),
        (check_hessian_product, lambda f, t: t, "is called with (loss_at, theta, v), in this order"),
        (check_hessian_product, lambda f, t, v: ..., "not attempted yet"),
        (check_central_difference, divided_by_step, "2·step apart, but you divided by step"),
        (check_central_difference, one_sided, "this is the one-sided difference"),
        (check_central_difference, one_sided_halved, "one-sided, and halved"),
        (check_central_difference, not_divided, "not divided yet"),
        (check_central_difference, behind_minus_ahead, "the sign is wrong"),
        (check_central_difference, average, "this is the average of the two gradients"),
        (check_central_difference, second_difference, "divided by the square of the step"),
        (check_central_difference, lambda gradient, theta, v, step: gradient(theta), "not the product yet"),
        (check_central_difference, lambda gradient, theta, v, step: theta * torch.nan, "not the product yet"),
        (
            check_central_difference,
            lambda gradient, theta, v, step: 1.0,
            "a tensor of shape (3,) is expected, got float",
        ),
        (check_central_difference, lambda gradient, theta, v, step: theta @ v, "got Tensor of shape ()"),
        (check_central_difference, lambda gradient, theta, v, step: 1 / 0, "your code raised ZeroDivisionError"),
        (check_central_difference, lambda gradient, theta, v, step: ..., "not attempted yet"),
        (check_batched_product, average_over_batches, "this is the plain average over batches"),
        (check_batched_product, sum_over_batches, "this is the sum over batches"),
        (check_batched_product, sum_over_samples, "this is a sum over samples"),
        (check_batched_product, last_batch, "only the last batch is in it"),
        (check_batched_product, first_batch, "only the first batch is in it"),
        (check_batched_product, writes_grad, ".grad of the parameters was written"),
        (check_batched_product, without_create_graph, "your code raised RuntimeError"),
        (check_batched_product, lambda model, loss_fn, batches, v: v, "not the product yet"),
        (check_batched_product, lambda model, loss_fn, batches, v: list(v), "got list"),
        (check_batched_product, lambda model, loss_fn, batches, v: v[:3], "got Tensor of shape (3,)"),
        (check_batched_product, lambda model, loss_fn, batches, v: None, "not attempted yet"),
    ],
)
def test_messages(check: Callable[[Any], Any], attempt: Callable[..., Any], message: str) -> None:
    feedback = check(attempt)
    assert not feedback.solved
    assert message in repr(feedback)


def test_checkers_do_not_change_the_random_state() -> None:
    before = torch.get_rng_state()
    check_batched_product(batched)
    check_central_difference(central)
    assert torch.equal(torch.get_rng_state(), before)
