"""The checkers of notebook 01 accept its solutions and explain typical mistakes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import renyi_lab as rl
from renyi_lab.exercises import check_crossing, check_entropy_changes, check_weighted_entropy

LOG2 = math.log(2)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, math.inf])
def test_the_right_predictions_agree_with_the_library(alpha: float) -> None:
    eigenvalues = np.array([3.0, -1.0, 0.5, 0.01])
    before = rl.renyi_entropy(np.abs(eigenvalues), alpha)
    changed = (3 * eigenvalues, np.repeat(eigenvalues, 2), np.append(eigenvalues, np.zeros(100)))
    changes = [rl.renyi_entropy(np.abs(values), alpha) - before for values in changed]
    assert check_entropy_changes(*changes).solved
    assert check_entropy_changes(0, LOG2, 0).solved


def weighted(values: np.ndarray, counts: np.ndarray, alpha: float) -> float:
    p = np.abs(values) / (counts @ np.abs(values))
    return np.log(counts @ p**alpha) / (1 - alpha)


def count_in_the_power(values: np.ndarray, counts: np.ndarray, alpha: float) -> float:
    p = counts * np.abs(values) / (counts @ np.abs(values))
    return np.log((p**alpha).sum()) / (1 - alpha)


def no_counts(values: np.ndarray, counts: np.ndarray, alpha: float) -> float:
    p = np.abs(values) / np.abs(values).sum()
    return np.log((p**alpha).sum()) / (1 - alpha)


def sum_without_counts(values: np.ndarray, counts: np.ndarray, alpha: float) -> float:
    return np.log(counts @ (np.abs(values) / np.abs(values).sum()) ** alpha) / (1 - alpha)


def not_normalized(values: np.ndarray, counts: np.ndarray, alpha: float) -> float:
    return np.log(counts @ np.abs(values) ** alpha) / (1 - alpha)


def wrong_sign(values: np.ndarray, counts: np.ndarray, alpha: float) -> float:
    return -weighted(values, counts, alpha)


def in_bits(values: np.ndarray, counts: np.ndarray, alpha: float) -> float:
    return weighted(values, counts, alpha) / LOG2


def by_repeating(values: np.ndarray, counts: np.ndarray, alpha: float) -> float:
    return rl.renyi_entropy(np.abs(np.repeat(values, counts.astype(int))), alpha)


def sign_kept(values: np.ndarray, counts: np.ndarray, alpha: float) -> float:
    with np.errstate(invalid="ignore"):
        return np.log(counts @ (values / (counts @ values)) ** alpha) / (1 - alpha)


def negatives_refused(values: np.ndarray, counts: np.ndarray, alpha: float) -> float:
    if values.min() < 0:
        raise ValueError("negative")
    return weighted(values, counts, alpha)


def from_the_spectrum(values: np.ndarray, counts: np.ndarray, alpha: float) -> float:
    order = np.argsort(values)
    scale = 1000 / counts.sum()  # a spectrum's weights sum to a whole number
    return rl.Spectrum(values[order], scale * counts[order], 1000).renyi_entropy(alpha).value - math.log(scale)


@pytest.mark.parametrize("solution", [weighted, from_the_spectrum])
def test_the_weighted_entropy_is_accepted(solution: Callable[..., Any]) -> None:
    feedback = check_weighted_entropy(solution)
    assert feedback.solved, feedback


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([10.0] + [0.2] * 100, [1.0] * 12),
        (np.array([-10.0] + [0.2] * 100), (*[5] * 12, 0)),
    ],
)
def test_a_long_tail_with_a_large_top_crosses_a_few_equal_eigenvalues(first: Any, second: Any) -> None:
    assert rl.renyi_entropy(np.abs(first), 0.5) > rl.renyi_entropy(np.abs(second), 0.5)
    assert rl.renyi_entropy(np.abs(first), 2) < rl.renyi_entropy(np.abs(second), 2)
    assert check_crossing(first, second).solved


LONG_TAIL = [10.0] + [0.2] * 100
NOT_ATTEMPTED = "not attempted yet"


@pytest.mark.parametrize(
    ("check", "answers", "message"),
    [
        (check_entropy_changes, (math.log(3), LOG2, 0), "scaled: the factor is in every λ_i and in their sum"),
        (check_entropy_changes, (0, 1, 0), "natural logarithm"),
        (check_entropy_changes, (0, 2, 0), "natural logarithm"),
        (check_entropy_changes, (0, 0, 0), "list two equal eigenvalues twice"),
        (check_entropy_changes, (0, -0.3, 0), "list each twice"),
        (check_entropy_changes, (0, LOG2, math.log(100)), "padded: what does a zero eigenvalue add"),
        (check_entropy_changes, (0, LOG2, math.nan), "padded"),
        (check_entropy_changes, (0, LOG2, "zero"), "one number is expected, got str"),
        (check_entropy_changes, (..., ..., ...), NOT_ATTEMPTED),
        (check_entropy_changes, (0, LOG2, ...), NOT_ATTEMPTED),
        (check_weighted_entropy, (count_in_the_power,), "take the power without the count"),
        (check_weighted_entropy, (no_counts,), "the counts have no effect"),
        (check_weighted_entropy, (sum_without_counts,), "Σ w x, not Σ x"),
        (check_weighted_entropy, (not_normalized,), "eigenvalues, not yet probabilities"),
        (check_weighted_entropy, (wrong_sign,), "the sign is wrong"),
        (check_weighted_entropy, (in_bits,), "this is in bits"),
        (check_weighted_entropy, (by_repeating,), "counts may be fractions"),
        (check_weighted_entropy, (sign_kept,), "take their absolute values"),
        (check_weighted_entropy, (negatives_refused,), "take their absolute values"),
        (check_weighted_entropy, (lambda x, w, a: x,), "one number is expected"),
        (check_weighted_entropy, (lambda x, w, a: 0.0,), "with all counts 1"),
        (check_weighted_entropy, (lambda x, w, a: math.nan,), "with all counts 1"),
        (check_weighted_entropy, (lambda x, w, a: x[5],), "your code raised IndexError"),
        (check_weighted_entropy, (lambda x, w: 0,), "your code raised TypeError"),
        (check_weighted_entropy, (lambda values, counts, alpha: ...,), NOT_ATTEMPTED),
        (check_crossing, ([1.0] * 12, LONG_TAIL), "swap first and second"),
        (check_crossing, ([1.0] * 8, [4.0, 1.0]), "first has the larger entropy at α = 0.5 and at α = 2"),
        (check_crossing, ([4.0, 1.0], [1.0] * 8), "second has the larger entropy"),
        (check_crossing, ([4.0, 1.0], [1.0, 4.0]), "multiples of each other"),
        (check_crossing, ([4.0, 1.0], [8.0, 2.0]), "multiples of each other"),
        (check_crossing, (LONG_TAIL, [1.0] * 3), "first has the larger entropy"),
        (check_crossing, (LONG_TAIL, [1.0] * 9), "they cross, but hardly (+2.139 and -0.039 nats)"),
        (check_crossing, ([0.0, 0.0], [1.0]), "first: a list of finite numbers"),
        (check_crossing, ([1.0], [1.0, math.nan]), "second: a list of finite numbers"),
        (check_crossing, ("ab", [1.0]), "first: a list of numbers"),
        (check_crossing, ([], [1.0]), "first: a list of finite numbers"),
        (check_crossing, (..., [1.0]), NOT_ATTEMPTED),
        (check_crossing, ([...], [...]), NOT_ATTEMPTED),
    ],
)
def test_messages(check: Callable[..., Any], answers: tuple[Any, ...], message: str) -> None:
    feedback = check(*answers)
    assert not feedback.solved
    assert message in repr(feedback)
