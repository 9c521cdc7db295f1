"""The checkers of notebook 01 accept its solutions and explain typical mistakes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import renyi_lab as rl
from renyi_lab.exercises import (
    check_crossing,
    check_effective_number,
    check_entropy_changes,
    check_spectrum_entropy,
    check_weighted_entropy,
)

LOG2 = math.log(2)


UNEQUAL_AT_HALF, UNEQUAL_AT_TWO = (rl.renyi_entropy([0.1, 0.9], alpha) for alpha in (0.5, 2))


def test_the_right_predictions_agree_with_the_library() -> None:
    assert check_entropy_changes(LOG2, UNEQUAL_AT_HALF, UNEQUAL_AT_TWO).solved
    assert check_entropy_changes(np.log(2), 2 * np.log(np.sqrt(0.1) + np.sqrt(0.9)), -np.log(0.82)).solved
    layer = np.array([3.0, 1.0, 0.5, 0.01])
    for factor, alpha, excess in ((1, 0.5, LOG2), (1, 2, LOG2), (9, 0.5, UNEQUAL_AT_HALF), (9, 2, UNEQUAL_AT_TWO)):
        together = rl.renyi_entropy(np.concatenate([layer, factor * layer]), alpha)
        assert math.isclose(together - rl.renyi_entropy(layer, alpha), excess, rel_tol=1e-12)


def mean_of_rarities(p: np.ndarray, alpha: float) -> float:
    p = p[p > 0]
    if alpha == 1:
        return np.exp(p @ np.log(1 / p))
    return 1 / p.max() if alpha == math.inf else (p @ (1 / p) ** (1 - alpha)) ** (1 / (1 - alpha))


def entropy_of_magnitudes(eigenvalues: np.ndarray, alpha: float) -> float:
    p = np.abs(eigenvalues) / np.abs(eigenvalues).sum()
    return np.log(mean_of_rarities(p, alpha))


@pytest.mark.parametrize(
    ("check", "function"),
    [
        (check_effective_number, mean_of_rarities),
        (check_effective_number, rl.effective_number),
        (check_effective_number, lambda p, alpha: np.exp(rl.renyi_entropy(p, alpha))),
        (check_effective_number, lambda p, alpha=2.0, verbose=False: np.float32(mean_of_rarities(p, alpha))),
        (check_effective_number, lambda p, alpha: torch.tensor(mean_of_rarities(p, alpha))),
        (check_spectrum_entropy, entropy_of_magnitudes),
        (check_spectrum_entropy, lambda x, a: rl.Spectrum.from_eigenvalues(x).renyi_entropy(a)),
        (check_spectrum_entropy, lambda x, a: rl.renyi_entropy(np.abs(x), a)),
    ],
)
def test_core_functions_are_accepted_and_handed_back(check: Callable[..., Any], function: Callable[..., Any]) -> None:
    feedback = check(function)
    assert feedback.solved, feedback
    assert feedback.function is function
    assert check(function) == feedback


@pytest.mark.parametrize("attempt", [None, ..., lambda p, alpha: None, lambda p, alpha: 1.0, 3, float])
def test_until_then_the_library_is_handed_back_and_passes_its_own_check(attempt: Any) -> None:
    for check in (check_effective_number, check_spectrum_entropy):
        library = check(attempt).function
        assert not check(attempt).solved
        assert library is not attempt
        assert check(library).solved
    assert math.isclose(check_effective_number(None).function(np.array([0.5, 0.5]), 2), 2)
    assert math.isclose(check_spectrum_entropy(None).function(np.array([1.0, -1.0]), 2), LOG2)


def power_mean(p: np.ndarray, alpha: float) -> float:
    return (p @ (1 / p) ** (1 - alpha)) ** (1 / (1 - alpha))


def without_shannon(p: np.ndarray, alpha: float) -> float:
    p = p[p > 0]
    return power_mean(p, alpha)


def with_shannon(p: np.ndarray, alpha: float) -> float:
    return np.exp(p @ np.log(1 / p)) if alpha == 1 else power_mean(p, alpha)


def zeros_counted(p: np.ndarray, alpha: float) -> float:
    if alpha == 1 or alpha == math.inf:
        return mean_of_rarities(p, alpha)
    return (p**alpha).sum() ** (1 / (1 - alpha))


def normalizes_in_place(p: np.ndarray, alpha: float) -> float:
    p /= p.sum() * 2
    return mean_of_rarities(2 * p, alpha)


def unweighted(p: np.ndarray, alpha: float) -> float:
    return np.mean((1 / p) ** (1 - alpha)) ** (1 / (1 - alpha))


def exponent_turned(p: np.ndarray, alpha: float) -> float:
    return (p @ (1 / p) ** (alpha - 1)) ** (1 / (alpha - 1))


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
        (check_entropy_changes, (1, 0, 0), "natural logarithm"),
        (check_entropy_changes, (2, 0, 0), "natural logarithm"),
        (check_entropy_changes, (0, 0, 0), "list two equal eigenvalues twice"),
        (check_entropy_changes, (0.69, 0, 0), "equal: right, but rounded"),
        (check_entropy_changes, (LOG2, 0.47, 0), "unequal_at_half: right, but rounded"),
        (check_entropy_changes, (-0.3, 0, 0), "How many are there together?"),
        (check_entropy_changes, (LOG2, LOG2, 0), "unequal_at_half: this is the excess for layers of equal size"),
        (check_entropy_changes, (LOG2, 0, 0), "unequal_at_half: the scale of one spectrum"),
        (check_entropy_changes, (LOG2, UNEQUAL_AT_TWO, 0), "unequal_at_half: this is the excess at another α"),
        (check_entropy_changes, (LOG2, rl.renyi_entropy([0.1, 0.9], 1), 0), "Shannon's entropy of the shares"),
        (check_entropy_changes, (LOG2, -UNEQUAL_AT_HALF, 0), "unequal_at_half: the sign"),
        (check_entropy_changes, (LOG2, 1.6, 0), "this is the effective number of layers"),
        (check_entropy_changes, (LOG2, 5, 0), "unequal_at_half: an eigenvalue of share p"),
        (check_entropy_changes, (LOG2, UNEQUAL_AT_HALF, UNEQUAL_AT_TWO / LOG2), "unequal_at_two: this is in bits"),
        (check_entropy_changes, (LOG2, UNEQUAL_AT_HALF, math.nan), "NaN or infinite: unequal_at_two"),
        (check_entropy_changes, (np.array([LOG2]), 0, 0), "one number is expected, got ndarray of shape (1,)"),
        (check_entropy_changes, (LOG2, "half", 0), "one number is expected, got str"),
        (check_entropy_changes, (..., ..., ...), NOT_ATTEMPTED),
        (check_entropy_changes, (LOG2, UNEQUAL_AT_HALF, ...), NOT_ATTEMPTED),
        (check_effective_number, (lambda p, a: np.log(mean_of_rarities(p, a)),), "leave the logarithm out"),
        (check_effective_number, (lambda p, a: 1 / mean_of_rarities(p, a),), "upside down"),
        (check_effective_number, (unweighted,), "weight it by its probability"),
        (check_effective_number, (exponent_turned,), "wrong sign: 1 − α inside"),
        (check_effective_number, (lambda p, a: 8.0 if len(p) == 8 else p @ (1 / p) ** (1 - a),), "the root is missing"),
        (check_effective_number, (lambda p, a: len(p),), "α = 0.5: it should be 3.6642"),
        (check_effective_number, (without_shannon,), "the geometric mean exp(Σ p log(1/p))"),
        (check_effective_number, (with_shannon,), "α = ∞: return the limit"),
        (check_effective_number, (zeros_counted,), "leave it out"),
        (check_effective_number, (normalizes_in_place,), "p itself was changed"),
        (check_effective_number, (lambda p: 8.0,), "called with (p, alpha), in this order, but yours takes (p)"),
        (check_effective_number, (lambda p, alpha: p,), "one number is expected, got ndarray of shape (8,)"),
        (check_effective_number, (lambda p, alpha: (8.0, 2.0),), "one number is expected, got tuple"),
        (check_effective_number, (lambda p, alpha: math.nan,), "NaN or infinite"),
        (check_effective_number, (8.0,), "a function is expected, got float"),
        (check_effective_number, (lambda p, alpha: ...,), NOT_ATTEMPTED),
        (check_spectrum_entropy, (lambda x, a: np.exp(entropy_of_magnitudes(x, a)),), "the entropy is its logarithm"),
        (check_spectrum_entropy, (lambda x, a: entropy_of_magnitudes(x, a) / LOG2,), "in bits"),
        (check_spectrum_entropy, (lambda x, a: -entropy_of_magnitudes(x, a),), "Rényi sharpness"),
        (check_spectrum_entropy, (lambda x, a: np.log(((np.abs(x) / x.sum()) ** a).sum()) / (1 - a),), "not Σλ"),
        (check_spectrum_entropy, (lambda x, a: entropy_of_magnitudes(x.clip(0), a),), "left out"),
        (check_spectrum_entropy, (lambda x, a: entropy_of_magnitudes(x**2, a),), "shares of λ²"),
        (check_spectrum_entropy, (lambda x, a: np.log((np.abs(x) ** a).sum()) / (1 - a),), "p must sum to 1"),
        (check_spectrum_entropy, (lambda x, a: 1.2 if a == 2 else 0.0,), "α = 2: it should be"),
        (check_spectrum_entropy, (lambda x, a: rl.renyi_entropy(x, a),), "your code raised ValueError: p must be non"),
        (
            check_spectrum_entropy,
            (lambda x, a: entropy_of_magnitudes(x, a) if 0 < a < math.inf else 0.0,),
            "α = 0: it should be 1.3863",
        ),
        (check_spectrum_entropy, (lambda x, a: None,), NOT_ATTEMPTED),
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
        (check_crossing, ([10**400], [1.0]), "first: a list of numbers"),
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
