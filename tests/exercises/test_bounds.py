"""The checkers of notebook 06 accept its solutions and explain typical mistakes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from renyi_lab import bounds, renyi_entropy
from renyi_lab.exercises import (
    check_best_prior_variance,
    check_entropy_against_determinant,
    check_gaussian_kl,
    check_kl_inverse,
    check_samples_needed,
)

NOT_ATTEMPTED = "not attempted yet"


def divergence(q: float, p: float) -> float:
    return sum(a * math.log(a / b) for a, b in ((q, p), (1 - q, 1 - p)) if a > 0)


def bisected(q: float, c: float, halvings: int = 60) -> float:
    low, high = q, 1.0
    for _ in range(halvings):
        middle = (low + high) / 2
        if middle < 1 and divergence(q, middle) <= c:
            low = middle
        else:
            high = middle
    return low


def careless(q: float, c: float) -> float:
    low, high = q, 1.0
    for _ in range(60):
        p = (low + high) / 2
        kl = q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))
        low, high = (p, high) if kl <= c else (low, p)
    return low


def in_torch(mean_q: Tensor, variance_q: Tensor, mean_p: Tensor, variance_p: Tensor) -> Tensor:
    return kl_divergence(Normal(mean_q, variance_q.sqrt()), Normal(mean_p, variance_p.sqrt())).sum()


def wrong_variance(m: Tensor, v: Tensor, k: Tensor, w: Tensor) -> Tensor:
    return in_torch(m, v, m, w) + 0.5 * ((m - k) ** 2 / v).sum()


def reversed_divergence(m: Tensor, v: Tensor, k: Tensor, w: Tensor) -> Tensor:
    return in_torch(k, w, m, v)


def in_place(m: Tensor, v: Tensor, k: Tensor, w: Tensor) -> Tensor:
    m -= k
    return in_torch(m, v, torch.zeros_like(k), w)


def test_right_answers_are_accepted_and_agree_with_the_library() -> None:
    assert check_kl_inverse(bisected).solved
    assert check_kl_inverse(bounds.kl_inverse_upper).solved
    assert check_gaussian_kl(in_torch).solved
    assert check_gaussian_kl(lambda *arguments: in_torch(*arguments).item()).solved
    assert check_best_prior_variance(lambda d, v: (v + d**2).mean()).solved
    assert bounds.kl_inverse_upper(0.3, 0.2) == pytest.approx(bisected(0.3, 0.2), abs=1e-9)


def test_the_library_stands_in_for_functions_that_are_not_solved() -> None:
    for check, solution in ((check_kl_inverse, bisected), (check_gaussian_kl, in_torch)):
        feedback = check(solution)
        assert feedback.function is solution
        stand_in = check(lambda *arguments: None).function
        assert check(stand_in).solved
        assert check(stand_in).function is stand_in, "called twice, and with its own function"


def test_the_best_prior_variance_minimizes_the_divergence() -> None:
    d, v = torch.tensor([0.3, -1.0, 0.1]).double(), torch.tensor([0.2, 0.5, 1.0]).double()
    best = (v + d**2).mean()

    def kl(variance: Tensor) -> float:
        return float(in_torch(d, v, torch.zeros(3).double(), variance.expand(3)))

    assert kl(best) < min(kl(0.99 * best), kl(1.01 * best))


def test_the_numbers_of_samples_are_those_of_the_bounds() -> None:
    held_out = next(n for n in range(2, 1000) if bounds.held_out(0, n).value <= 0.01)
    pac_bayes = next(n for n in range(2, 1000) if bounds.langford_seeger(0.0, 0.0, n).value <= 0.01)
    assert check_samples_needed(held_out, pac_bayes).solved
    assert not check_samples_needed(held_out, pac_bayes - 1).solved


def test_entropy_and_determinant_disagree() -> None:
    first, second = [1.0, 1.0, 1.0, 1e-6], [2.4, 0.2, 0.2, 0.2]
    assert check_entropy_against_determinant(first, second).solved
    assert check_entropy_against_determinant(np.array(first), torch.tensor(second)).solved
    assert renyi_entropy(first, 2) > renyi_entropy(second, 2)


@pytest.mark.parametrize(
    ("check", "answers", "message"),
    [
        (check_kl_inverse, (lambda q, c: q + math.sqrt(c / 2),), "which is larger"),
        (check_kl_inverse, (bounds.kl_inverse_lower,), "below q"),
        (check_kl_inverse, (lambda q, c: bisected(q, c * math.log(2)),), "base 2"),
        (check_kl_inverse, (lambda q, c: bisected(q, c, halvings=8),), "halve the interval more often"),
        (check_kl_inverse, (lambda q, c: min(0.9, bisected(q, c)),), "Search up to 1"),
        (check_kl_inverse, (careless,), "0 log 0"),
        (check_kl_inverse, (lambda q, c: 0.5,), "should be"),
        (check_kl_inverse, (lambda q, c: math.nan,), "NaN"),
        (check_kl_inverse, (lambda q: q,), "called with (q, c)"),
        (check_kl_inverse, (lambda q, c: None,), NOT_ATTEMPTED),
        (check_kl_inverse, (0.3,), "a function is expected"),
        (check_gaussian_kl, (lambda *a: 2 * in_torch(*a),), "factor ½ is missing"),
        (check_gaussian_kl, (lambda *a: in_torch(*a) + 2.5,), "−1 of each dimension"),
        (check_gaussian_kl, (lambda *a: in_torch(*a) / 5,), "a sum"),
        (check_gaussian_kl, (lambda m, v, k, w: ((m - k) ** 2).sum() / 2,), "units of the noise"),
        (check_gaussian_kl, (lambda m, v, k, w: in_torch(m, w, k, w),), "no effect so far"),
        (check_gaussian_kl, (lambda m, v, k, w: in_torch(m, v, m, w),), "the means have no effect"),
        (check_gaussian_kl, (lambda m, v, k, w: in_torch(m, v**2, k, w**2),), "variances, σ²"),
        (check_gaussian_kl, (reversed_divergence,), "KL(P‖Q)"),
        (check_gaussian_kl, (wrong_variance,), "it is P's"),
        (check_gaussian_kl, (in_place,), "itself was changed"),
        (check_gaussian_kl, (lambda *a: a[0],), "one number is expected"),
        (check_gaussian_kl, (lambda *a: ...,), NOT_ATTEMPTED),
        (check_samples_needed, (300, 671), "a little less"),
        (check_samples_needed, (14979, 671), "Hoeffding"),
        (check_samples_needed, (298, 671), "one sample short"),
        (check_samples_needed, (100, 671), "unnoticed"),
        (check_samples_needed, (5, 671), "the smallest N"),
        (check_samples_needed, (299, 299), "held-out bound again"),
        (check_samples_needed, (299, 5), "try values of N"),
        (check_samples_needed, (..., ...), NOT_ATTEMPTED),
        (check_best_prior_variance, (lambda d, v: (d**2).mean(),), "own variances"),
        (check_best_prior_variance, (lambda d, v: v.mean(),), "ignores the shift"),
        (check_best_prior_variance, (lambda d, v: (v + d**2).sum(),), "divide by their number"),
        (check_best_prior_variance, (lambda d, v: (v + d**2).mean().sqrt(),), "standard deviation"),
        (check_best_prior_variance, (lambda d, v: 7.0,), "derivative"),
        (check_best_prior_variance, (lambda d, v: None,), NOT_ATTEMPTED),
        (check_entropy_against_determinant, ([1.0, 1.0], [1.0]), "as many eigenvalues"),
        (check_entropy_against_determinant, ([1.0, 1.0], [1.0, 2.0]), "the traces differ"),
        (check_entropy_against_determinant, ([1.0, 1.0], [1.9, 0.1]), "make one eigenvalue of first tiny"),
        (check_entropy_against_determinant, ([1.9, 0.1], [1.0, 1.0]), "a larger H_2"),
        (check_entropy_against_determinant, ([2.4, 0.2, 0.2, 0.2], [1.0, 1.0, 1.0, 1e-6]), "swap"),
        (check_entropy_against_determinant, ([1.0, 0.0], [0.5, 0.5]), "logarithm of zero"),
        (check_entropy_against_determinant, (["a"], [1.0]), "a list of numbers"),
        (check_entropy_against_determinant, (..., ...), NOT_ATTEMPTED),
    ],
)
def test_messages(check: Callable[..., Any], answers: tuple[Any, ...], message: str) -> None:
    feedback = check(*answers)
    assert not feedback.solved
    assert message in repr(feedback)
