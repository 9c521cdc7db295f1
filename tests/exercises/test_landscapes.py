"""The checkers of notebook 05b accept its solutions and explain typical mistakes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from renyi_lab import HessianOperator
from renyi_lab.exercises import check_ball_factors, check_climb, check_filter_normalized, check_kink
from renyi_lab.perturbation import average_case_loss, filter_normalized, worst_case_loss

NOT_ATTEMPTED = "not attempted yet"


def climb(
    loss_and_gradient: Any, theta: Tensor, start: Tensor, rho: float, num_steps: int, sign: float = 1.0
) -> list[float]:
    losses, direction = [], start
    for _ in range(num_steps + 1):
        loss, gradient = loss_and_gradient(theta + rho * direction / direction.norm())
        losses.append(loss)
        direction = sign * gradient
    return losses


def descending(f: Any, theta: Tensor, start: Tensor, rho: float, num_steps: int) -> list[float]:
    return climb(f, theta, start, rho, num_steps, sign=-1.0)


def from_the_centre(f: Any, theta: Tensor, start: Tensor, rho: float, num_steps: int) -> list[float]:
    losses, point = [], theta
    for _ in range(num_steps + 1):
        loss, gradient = f(point)
        losses.append(loss)
        point = theta + rho * gradient / gradient.norm()
    return losses


def leaves_the_ball(f: Any, theta: Tensor, start: Tensor, rho: float, num_steps: int) -> list[float]:
    losses, point = [], theta + rho * start / start.norm()
    for _ in range(num_steps + 1):
        loss, gradient = f(point)
        losses.append(loss)
        point = point + rho * gradient / gradient.norm()
    return losses


def changes_the_start(f: Any, theta: Tensor, start: Tensor, rho: float, num_steps: int) -> list[float]:
    start /= start.norm()
    return climb(f, theta, start, rho, num_steps)


def ignores_the_start(f: Any, theta: Tensor, start: Tensor, rho: float, num_steps: int) -> list[float]:
    return climb(f, theta, torch.ones_like(start), rho, num_steps)


def test_climbing_is_accepted_and_equals_the_library() -> None:
    assert check_climb(climb).solved
    assert check_climb(lambda *arguments: np.array(climb(*arguments))).solved
    model = torch.nn.Linear(3, 1, bias=False).double()
    H = HessianOperator(model, torch.nn.MSELoss(), (torch.eye(3).double(), torch.ones(3, 1).double()))
    theta, start = model.weight.detach().reshape(-1), torch.randn(3, generator=torch.Generator().manual_seed(0))

    def loss_and_gradient(weights: Tensor) -> tuple[float, Tensor]:
        return float((weights - 1).square().mean()), 2 * (weights - 1) / 3

    path = climb(loss_and_gradient, theta, start.double(), 0.5, 20)
    assert max(path) == pytest.approx(worst_case_loss(H, 0.5, num_steps=20).loss, rel=1e-6)


def test_the_library_stands_in_for_functions_that_are_not_solved() -> None:
    for check, solution in ((check_climb, climb), (check_filter_normalized, normalized)):
        feedback = check(solution)
        assert feedback.function is solution
        stand_in = check(lambda *arguments: None).function
        assert check(stand_in).solved
        assert check(stand_in).function is stand_in, "called twice, and with its own function"


def test_the_curvature_of_a_kink_matches_averages_over_a_line() -> None:
    t = torch.linspace(-0.2, 0.2, 100_001, dtype=torch.float64)
    assert float(t.abs().mean() / (t.square() / 2).mean()) == pytest.approx(3 / 0.2, rel=1e-3)
    assert check_kink(lambda rho: 3 / rho).solved


def normalized(direction: Tensor, weight: Tensor) -> Tensor:
    rows = [d * w.norm() / d.norm() if d.any() else d for d, w in zip(direction, weight, strict=True)]
    return torch.stack(rows)


def through_the_library(direction: Tensor, weight: Tensor) -> Tensor:
    class Weight(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(weight.clone())

    H = HessianOperator(Weight(), lambda model, batch: model.weight.square().sum(), [torch.zeros(1)])
    return filter_normalized(H, direction.reshape(-1)).reshape(weight.shape)


def in_place(direction: Tensor, weight: Tensor) -> Tensor:
    return direction.copy_(normalized(direction, weight))


def careless(direction: Tensor, weight: Tensor) -> Tensor:
    shape = (-1, *[1] * (weight.ndim - 1))
    lengths = direction.flatten(1).norm(dim=1), weight.flatten(1).norm(dim=1)
    return direction * (lengths[1] / lengths[0]).reshape(shape)


def by_last_index(direction: Tensor, weight: Tensor) -> Tensor:
    own = direction.norm(dim=1, keepdim=True)
    return direction * weight.norm(dim=1, keepdim=True) / torch.where(own > 0, own, 1.0)


def test_the_filter_normalization_of_the_library_is_accepted() -> None:
    assert check_filter_normalized(normalized).solved
    assert check_filter_normalized(through_the_library).solved


def test_the_right_predictions_agree_with_the_library() -> None:
    def quadratic(eigenvalues: Tensor) -> HessianOperator:
        model = torch.nn.Linear(98, 1, bias=False).double()
        torch.nn.init.zeros_(model.weight)
        x, y = torch.diag(eigenvalues.sqrt()), torch.zeros(98, 1, dtype=torch.float64)
        return HessianOperator(model, lambda out, y: 0.5 * (out - y).square().sum(), (x, y))

    steep = quadratic(torch.eye(98, dtype=torch.float64)[0])
    worst = [worst_case_loss(steep, rho, num_steps=10).rise for rho in (0.5, 1.0)]
    measured = [worst[1] / worst[0]]
    for H in (steep, quadratic(torch.ones(98, dtype=torch.float64))):
        average = average_case_loss(H, 1.0, num_draws=300)
        ratio = worst_case_loss(H, 1.0).rise / average.rise
        assert average.standard_error / average.rise < 0.1
        measured.append(ratio)
    assert measured[0] == pytest.approx(4, rel=1e-6)
    assert measured[1] == pytest.approx(100, rel=0.3)
    assert measured[2] == pytest.approx(100 / 98, rel=0.01)
    assert check_ball_factors(4, 100, 100 / 98).solved


@pytest.mark.parametrize(
    ("check", "answers", "message"),
    [
        (check_climb, (descending,), "uphill"),
        (check_climb, (from_the_centre,), "the first point is theta itself"),
        (check_climb, (leaves_the_ball,), "scale each step to length rho"),
        (check_climb, (changes_the_start,), "itself was changed"),
        (check_climb, (ignores_the_start,), "at each point take its loss and gradient"),
        (check_climb, (lambda *arguments: climb(*arguments)[1:],), "visit 5 points"),
        (check_climb, (lambda *arguments: max(climb(*arguments)),), "a list of losses is expected, got float"),
        (check_climb, (lambda *arguments: [0.0] * 5,), "never called"),
        (check_climb, (lambda f, *arguments: [f(1.0)],), "your code raised"),
        (check_climb, (lambda *arguments: [],), "never called"),
        (check_climb, (lambda *arguments: [None],), NOT_ATTEMPTED),
        (check_climb, (3.0,), "a function is expected"),
        (check_kink, (lambda rho: 2 / rho,), "compare their averages"),
        (check_kink, (lambda rho: 1.5 / rho,), "factor ½"),
        (check_kink, (lambda rho: 1 / rho,), "ρ²/3"),
        (check_kink, (lambda rho: 0.0,), "beside the kink"),
        (check_kink, (lambda rho: rho / 3,), "inverted"),
        (check_kink, (lambda rho: 6.0,), "solve"),
        (check_kink, (lambda rho: None,), NOT_ATTEMPTED),
        (check_filter_normalized, (in_place,), "itself was changed"),
        (check_filter_normalized, (lambda d, w: d * w.norm() / d.norm(),), "the tensor as a whole"),
        (check_filter_normalized, (lambda d, w: d / d.norm(dim=1, keepdim=True),), "each row has length 1"),
        (check_filter_normalized, (lambda d, w: d * w.norm(dim=1, keepdim=True),), "divide by their own"),
        (check_filter_normalized, (lambda d, w: d * w.norm(dim=0) / d.norm(dim=0),), "columns were normalized"),
        (check_filter_normalized, (lambda d, w: w,), "needs the direction of direction[i]"),
        (check_filter_normalized, (lambda d, w: d.norm(dim=1),), "shape (3, 4) is expected, got Tensor of shape (3,)"),
        (check_filter_normalized, (careless,), "avoid 0/0"),
        (check_filter_normalized, (by_last_index,), "all of weight[i] (flatten)"),
        (check_filter_normalized, (lambda d, w: ...,), NOT_ATTEMPTED),
        (check_ball_factors, (2, 100, 100 / 98), "the slope is zero"),
        (check_ball_factors, (8, 100, 100 / 98), "substitute 2ρ"),
        (check_ball_factors, (4, 98, 100 / 98), "average over the sphere"),
        (check_ball_factors, (4, 0.01, 100 / 98), "inverted"),
        (check_ball_factors, (4, 1, 100 / 98), "n = 98 and tr H = 1"),
        (check_ball_factors, (4, 100, 1), "including its inside"),
        (check_ball_factors, (4, 100, float("nan")), "tr H = 98"),
        (check_ball_factors, ("four", 100, 1), "one number is expected"),
        (check_ball_factors, (..., ..., ...), NOT_ATTEMPTED),
    ],
)
def test_messages(check: Callable[..., Any], answers: tuple[Any, ...], message: str) -> None:
    feedback = check(*answers)
    assert not feedback.solved
    assert message in repr(feedback)
