"""The checkers of notebook 02 accept its solutions and name typical mistakes."""

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


@pytest.mark.parametrize(
    ("mistake", "hint"),
    [
        (divided_by_step, "moved 2·step from one side to the other, but divided by step"),
        (one_sided, "this is the one-sided difference"),
        (one_sided_halved, "one-sided, and halved"),
        (not_divided, "not divided yet"),
        (behind_minus_ahead, "the sign is turned round"),
        (average, "this is the average of the two gradients"),
        (second_difference, "divided by the square of the step"),
        (lambda gradient, theta, v, step: gradient(theta), "not the product yet"),
        (lambda gradient, theta, v, step: theta * torch.nan, "not the product yet"),
        (lambda gradient, theta, v, step: 1.0, "a flat tensor of shape (3,) is asked for, this is of type float"),
        (lambda gradient, theta, v, step: theta @ v, "this has shape ()"),
        (lambda gradient, theta, v, step: 1 / 0, "your code raised ZeroDivisionError"),
    ],
)
def test_a_wrong_difference_is_answered_with_its_mistake(mistake: Callable[..., Any], hint: str) -> None:
    feedback = check_central_difference(mistake)
    assert feedback.status == "not yet"
    assert hint in feedback.message, feedback


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


def graph_forgotten(model: nn.Module, loss_fn: Any, batches: Batches, v: Tensor) -> Tensor:
    params = list(model.parameters())
    gradient = torch.cat(
        [g.reshape(-1) for g in torch.autograd.grad(loss_fn(model(batches[0][0]), batches[0][1]), params)]
    )
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(gradient @ v, params)])


@pytest.mark.parametrize("solution", [batched, all_at_once, lambda m, f, b, v: rl.HessianOperator(m, f, b) @ v])
def test_every_right_way_to_the_batched_product_is_accepted(solution: Callable[..., Any]) -> None:
    feedback = check_batched_product(solution)
    assert feedback.solved, feedback


@pytest.mark.parametrize(
    ("mistake", "hint"),
    [
        (average_over_batches, "this is the plain average over batches: the last one is smaller"),
        (sum_over_batches, "this is the sum over batches"),
        (sum_over_samples, "this is a sum over samples"),
        (last_batch, "only the last batch is in it"),
        (first_batch, "only the first batch is in it"),
        (writes_grad, ".grad of the parameters was written"),
        (graph_forgotten, "your code raised RuntimeError"),
        (lambda model, loss_fn, batches, v: v, "not the product yet"),
        (lambda model, loss_fn, batches, v: list(v), "this is of type list"),
        (lambda model, loss_fn, batches, v: v[:3], "this has shape (3,)"),
    ],
)
def test_a_wrong_batched_product_is_answered_with_its_mistake(mistake: Callable[..., Any], hint: str) -> None:
    feedback = check_batched_product(mistake)
    assert feedback.status == "not yet"
    assert hint in feedback.message, feedback


def test_stubs_are_not_judged() -> None:
    assert check_central_difference(lambda gradient, theta, v, step: ...).status == "not attempted yet"
    assert check_batched_product(lambda model, loss_fn, batches, v: None).status == "not attempted yet"


def test_checking_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    check_batched_product(batched)
    check_central_difference(central)
    assert torch.equal(torch.get_rng_state(), before)
