"""The checkers of notebook 01 accept its solutions and name typical mistakes."""

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
def test_the_predicted_changes_are_those_of_the_library(alpha: float) -> None:
    eigenvalues = np.array([3.0, -1.0, 0.5, 0.01])
    before = rl.renyi_entropy(np.abs(eigenvalues), alpha)
    changed = (3 * eigenvalues, np.repeat(eigenvalues, 2), np.append(eigenvalues, np.zeros(100)))
    changes = [rl.renyi_entropy(np.abs(values), alpha) - before for values in changed]
    assert check_entropy_changes(*changes).solved
    assert check_entropy_changes(0, LOG2, 0).solved


@pytest.mark.parametrize(
    ("answers", "hint"),
    [
        ((math.log(3), LOG2, 0), "scaled: the factor stands in every λ_i and in their sum"),
        ((0, 1, 0), "natural logarithm"),
        ((0, 2, 0), "natural logarithm"),
        ((0, 0, 0), "two equal ones made four"),
        ((0, -0.3, 0), "list each twice"),
        ((0, LOG2, math.log(100)), "padded: what does a zero eigenvalue add"),
        ((0, LOG2, math.nan), "padded"),
        ((0, LOG2, "zero"), "one number is asked for"),
    ],
)
def test_a_wrong_prediction_is_answered_with_what_to_think_about(answers: tuple[Any, ...], hint: str) -> None:
    feedback = check_entropy_changes(*answers)
    assert feedback.status == "not yet"
    assert hint in feedback.message


def test_predictions_left_open_are_not_judged() -> None:
    assert check_entropy_changes(..., ..., ...).status == "not attempted yet"
    assert check_entropy_changes(0, LOG2, ...).status == "not attempted yet"


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


def not_normalised(values: np.ndarray, counts: np.ndarray, alpha: float) -> float:
    return np.log(counts @ np.abs(values) ** alpha) / (1 - alpha)


def sign_turned(values: np.ndarray, counts: np.ndarray, alpha: float) -> float:
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
    ("mistake", "hint"),
    [
        (count_in_the_power, "the power goes on each value, the count stays outside"),
        (no_counts, "the counts have no effect"),
        (sum_without_counts, "Σ w x, not Σ x"),
        (not_normalised, "eigenvalues, not yet probabilities"),
        (sign_turned, "the sign is turned round"),
        (in_bits, "this is in bits"),
        (by_repeating, "counts may be fractions"),
        (sign_kept, "take their absolute values"),
        (negatives_refused, "take their absolute values"),
        (lambda x, w, a: x, "one number is asked for"),
        (lambda x, w, a: 0.0, "with all counts 1"),
        (lambda x, w, a: math.nan, "with all counts 1"),
        (lambda x, w, a: x[5], "your code raised IndexError"),
        (lambda x, w: 0, "your code raised TypeError"),
    ],
)
def test_a_wrong_weighted_entropy_is_answered_with_its_mistake(mistake: Callable[..., Any], hint: str) -> None:
    feedback = check_weighted_entropy(mistake)
    assert feedback.status == "not yet"
    assert hint in feedback.message, feedback


def test_a_stub_of_the_weighted_entropy_is_not_judged() -> None:
    assert check_weighted_entropy(lambda values, counts, alpha: ...).status == "not attempted yet"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([10.0] + [0.2] * 100, [1.0] * 12),
        (np.array([-10.0] + [0.2] * 100), (*[5] * 12, 0)),
    ],
)
def test_a_long_tail_with_a_large_top_crosses_a_few_equal_ones(first: Any, second: Any) -> None:
    assert rl.renyi_entropy(np.abs(first), 0.5) > rl.renyi_entropy(np.abs(second), 0.5)
    assert rl.renyi_entropy(np.abs(first), 2) < rl.renyi_entropy(np.abs(second), 2)
    assert check_crossing(first, second).solved


@pytest.mark.parametrize(
    ("first", "second", "hint"),
    [
        ([1.0] * 12, [10.0] + [0.2] * 100, "swap first and second"),
        ([1.0] * 8, [4.0, 1.0], "first is the more even one at α = 0.5 and at α = 2"),
        ([4.0, 1.0], [1.0] * 8, "second is the more even one"),
        ([4.0, 1.0], [1.0, 4.0], "multiples of each other"),
        ([4.0, 1.0], [8.0, 2.0], "multiples of each other"),
        ([10.0] + [0.2] * 100, [1.0] * 3, "first is the more even one"),
        ([0.0, 0.0], [1.0], "first: a list of finite numbers"),
        ([1.0], [1.0, math.nan], "second: a list of finite numbers"),
        ("ab", [1.0], "first: a list of numbers"),
        ([], [1.0], "first: a list of finite numbers"),
    ],
)
def test_spectra_that_do_not_cross_are_answered_with_where_to_move(first: Any, second: Any, hint: str) -> None:
    feedback = check_crossing(first, second)
    assert feedback.status == "not yet"
    assert hint in feedback.message, feedback


def test_a_crossing_too_small_to_see_is_sent_back() -> None:
    first, second = [10.0] + [0.2] * 100, [1.0] * 9
    assert 0 < rl.renyi_entropy(second, 2) - rl.renyi_entropy(first, 2) < 0.05
    assert "they cross, if barely" in check_crossing(first, second).message


def test_spectra_left_open_are_not_judged() -> None:
    assert check_crossing(..., [1.0]).status == "not attempted yet"
    assert check_crossing([...], [...]).status == "not attempted yet"
