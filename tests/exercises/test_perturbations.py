"""The checkers of notebook 05 accept its solutions and explain typical mistakes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from renyi_lab import HessianOperator
from renyi_lab.exercises import check_ball_factors, check_equal_weight, check_filter_normalized
from renyi_lab.perturbation import average_case_loss, filter_normalized, weight_perturbation, worst_case_loss

NOT_ATTEMPTED = "not attempted yet"


def equal_weight(W: Tensor, A: Tensor, rho: float) -> Tensor:
    return W + rho * torch.einsum("oi...,ij->oj...", W, A)


def in_place(W: Tensor, A: Tensor, rho: float) -> Tensor:
    W += rho * torch.einsum("oi...,ij->oj...", W, A)
    return W


def mixes_places(W: Tensor, A: Tensor, rho: float) -> Tensor:
    if W.ndim == 2:
        return W + rho * W @ A
    return W + rho * torch.einsum("oix,ij->ojx", W, A.T)


def test_the_equal_weight_of_the_library_is_accepted() -> None:
    assert check_equal_weight(equal_weight).solved
    assert check_equal_weight(lambda W, A, rho: W + rho * weight_perturbation(W, A)).solved
    assert check_equal_weight(lambda W, A, rho: equal_weight(W, A, rho).float()).solved, "single precision is enough"


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
        (check_equal_weight, (lambda W, A, rho: rho * W @ A,), "this is the change, ρWA"),
        (check_equal_weight, (lambda W, A, rho: W + rho * W @ A.T,), "A is transposed"),
        (check_equal_weight, (lambda W, A, rho: W + W @ A,), "ρ has no effect"),
        (check_equal_weight, (lambda W, A, rho: W,), "this is W unchanged"),
        (check_equal_weight, (lambda W, A, rho: W + rho * A @ W,), "your code raised RuntimeError"),
        (
            check_equal_weight,
            (lambda W, A, rho: (W + rho * W @ A).T,),
            "shape (5, 4) is expected, got Tensor of shape (4",
        ),
        (check_equal_weight, (lambda W, A, rho: W - rho * W @ A,), "keep the order of W and A"),
        (check_equal_weight, (lambda W, A, rho: torch.full_like(W, torch.nan),), "keep the order of W and A"),
        (check_equal_weight, (in_place,), "W itself was changed"),
        (check_equal_weight, (lambda W, A, rho: W + rho * W @ A,), "For a convolution weight of shape (6, 4, 3): your"),
        (check_equal_weight, (mixes_places,), "the channels are the middle index"),
        (check_equal_weight, (lambda W, A, rho: 3.0,), "a tensor of shape (5, 4) is expected, got float"),
        (check_equal_weight, (torch.eye(3),), "a function is expected"),
        (check_equal_weight, (lambda W, A, rho: None,), NOT_ATTEMPTED),
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
