"""The checkers of notebook 00 accept its solutions and explain typical mistakes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import renyi_lab as rl
from renyi_lab.exercises import check_renyi_entropy, check_two_groups

STEEP = np.append(100.0, np.full(10_000, 0.01))


def entropy(p: np.ndarray, alpha: float) -> float:
    p = p[p > 0] / p.sum()
    return -(p * np.log(p)).sum() if alpha == 1 else np.log((p**alpha).sum()) / (1 - alpha)


def in_torch(p: np.ndarray, alpha: float) -> torch.Tensor:
    return torch.as_tensor(entropy(p, alpha), dtype=torch.float64)


def in_single_precision(p: np.ndarray, alpha: float) -> float:
    return np.float32(entropy(p, alpha))


def without_limit(p: np.ndarray, alpha: float) -> float:
    p = p[p > 0] / p.sum()
    return np.log((p**alpha).sum()) / (1 - alpha)


def without_shannon(p: np.ndarray, alpha: float) -> float | None:
    return None if alpha == 1 else entropy(p, alpha)


def without_sum(p: np.ndarray, alpha: float) -> float:
    return -(p * np.log(p)).sum() if alpha == 1 else np.log((p**alpha).sum()) / (1 - alpha)


def sum_missing_at_one(p: np.ndarray, alpha: float) -> float:
    return -(p * np.log(p)).sum() if alpha == 1 else entropy(p, alpha)


def zeros_kept_at_one(p: np.ndarray, alpha: float) -> float:
    p = p / p.sum()
    return -(p * np.log(p)).sum() if alpha == 1 else np.log((p**alpha).sum()) / (1 - alpha)


def zeros_counted(p: np.ndarray, alpha: float) -> float:
    return entropy(p + 1e-3 * (p == 0), alpha)


def in_place(p: np.ndarray, alpha: float) -> float:
    p /= p.sum()
    return entropy(p, alpha)


def raising(p: np.ndarray, alpha: float) -> float:
    raise KeyError("p")


@pytest.mark.parametrize("function", [entropy, in_torch, in_single_precision, rl.renyi_entropy])
def test_a_right_entropy_is_solved_and_handed_back(function: Callable[..., Any]) -> None:
    for _ in range(2):  # checking leaves nothing behind
        feedback = check_renyi_entropy(function)
        assert feedback.solved, feedback
        assert feedback.function is function


@pytest.mark.parametrize(
    ("function", "hint"),
    [
        (lambda p, alpha: -entropy(p, alpha), "sign"),
        (lambda p, alpha: entropy(p, alpha) / math.log(2), "bits"),
        (lambda p, alpha: np.exp(entropy(p, alpha)), "effective number"),
        (lambda p, alpha: np.log((p**alpha).sum()), "1/(1−α) is missing"),
        (lambda p, alpha: (p**alpha).sum() / (1 - alpha), "logarithm is missing"),
        (lambda p, alpha: np.log(p**alpha).sum() / (1 - alpha), "inside the sum"),
        (lambda p, alpha: 1.0, "α = 1.5"),
        (without_sum, "divide by their sum"),
        (zeros_counted, "a zero in p"),
        (without_limit, "Shannon"),
        (without_shannon, "nothing is returned"),
        (sum_missing_at_one, "at α = 1"),
        (zeros_kept_at_one, "p[p > 0]"),
        (in_place, "argument"),
        (raising, "raised KeyError"),
        (lambda p, alpha: p, "one number"),
        (lambda p, alpha: "1.4 nats", "one number"),
        (lambda p, alpha: math.nan, "α = 1.5"),
        (lambda p: p, "raised TypeError"),
        (1.4, "a function is expected"),
    ],
)
def test_a_wrong_entropy_gets_a_hint_and_the_library_s_function(function: Any, hint: str) -> None:
    feedback = check_renyi_entropy(function)
    assert feedback.status == "not yet"
    assert hint in feedback.message
    assert feedback.function is rl.renyi_entropy


@pytest.mark.parametrize("attempt", [None, ..., lambda p, alpha: None, lambda p, alpha: ...])
def test_an_empty_stub_is_not_attempted_yet(attempt: Any) -> None:
    feedback = check_renyi_entropy(attempt)
    assert feedback.status == "not attempted yet"
    assert feedback.function is rl.renyi_entropy


def test_the_right_predictions_are_those_of_the_library() -> None:
    shares = [rl.escort_probabilities(STEEP, alpha).max() for alpha in (2, 0.5)]
    limit = np.exp(rl.renyi_entropy(STEEP, math.inf))
    assert check_two_groups(*shares, limit).solved
    assert check_two_groups(1, 0.01, 2).solved  # two digits are enough


@pytest.mark.parametrize(
    ("answers", "hint"),
    [
        ((0.5, 0.01, 2), "share_at_two: that is the share at α = 1"),
        ((99.99, 0.01, 2), "not a percentage"),
        ((0.2, 0.01, 2), "100²"),
        ((1, 0.99, 2), "share_at_half: each of the 10,000"),
        ((1, 0.5, 2), "share_at_half: that is the share at α = 1"),
        ((1, 0.2, 2), "√100"),
        ((1, 0.01, math.log(2)), "exponential"),
        ((1, 0.01, 1), "1/2"),
        ((1, 0.01, 10_001), "α → 0"),
        ((1, 0.01, 7), "1/p₁"),
        ((1, 0.01, "two"), "one number"),
        ((math.nan, 0.01, 2), "share_at_two"),
    ],
)
def test_a_wrong_prediction_gets_its_hint(answers: tuple[Any, ...], hint: str) -> None:
    feedback = check_two_groups(*answers)
    assert feedback.status == "not yet"
    assert hint in feedback.message


def test_predictions_left_open_are_not_attempted_yet() -> None:
    assert check_two_groups(..., ..., ...).status == "not attempted yet"
