"""The checkers of notebook 02 accept its solutions and explain typical mistakes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import renyi_lab as rl
from renyi_lab.exercises import check_batched_product, check_central_difference

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


@pytest.mark.parametrize("solution", [batched, all_at_once, lambda m, f, b, v: rl.HessianOperator(m, f, b) @ v])
def test_every_correct_batched_product_is_accepted(solution: Callable[..., Any]) -> None:
    feedback = check_batched_product(solution)
    assert feedback.solved, feedback


@pytest.mark.parametrize(
    ("check", "attempt", "message"),
    [
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
