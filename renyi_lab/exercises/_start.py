"""Checkers of `00_start_here.ipynb`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from renyi_lab._utils.typing import FloatArray
from renyi_lab.exercises._feedback import (
    Feedback,
    Hint,
    NotAttempted,
    answer_of,
    close,
    explain,
    first_hint,
    number_of,
)
from renyi_lab.spectrum import renyi_entropy

Attempt = Callable[[NDArray[Any], float], Any]
_SHARES = np.array([0.5, 0.25, 0.125, 0.125])
_ORDERS = (1.5, 2.0, 0.5)  # at 1.5 the factor 1/(1−α) = −2 is no mere sign
# One steep direction and many flat ones, with the same sum of magnitudes.
_STEEP, _FLAT, _COUNT = 100.0, 0.01, 10_000
_DIGITS = 0.02  # relative: two digits are enough for a prediction


def check_renyi_entropy(function: Attempt) -> Feedback:
    """Check ``function(p, alpha)``: the Rényi entropy in nats of numbers ``p ≥ 0`` that need not sum to one.

    ``Feedback.function`` is the attempt if it is solved, and `renyi_lab.renyi_entropy` until then.

    Args:
        function: Your solution; takes an array and an order α > 0, 1 included, and returns one number.
    """
    checks = [_of_shares, _of_unnormalized_numbers, _with_a_zero, _at_one, _at_one_with_a_zero]
    message = "one formula for every order, with Shannon's entropy as its limit at α = 1."
    return first_hint(function, checks, message, signature="(p, alpha)").otherwise(function, renyi_entropy)


def _entropy(function: Attempt, p: FloatArray, alpha: float) -> float:
    with np.errstate(all="ignore"):  # 0/0 and log 0 are what some hints are about
        return number_of(answer_of(function, p.copy(), alpha))


def _of_shares(function: Attempt) -> str | None:
    for alpha in _ORDERS:
        right, power_sum = renyi_entropy(_SHARES, alpha), float((_SHARES**alpha).sum())
        mistakes = {
            "the sign is wrong: the factor is 1/(1−α), which is negative for α > 1.": -right,
            "this is in bits; take the natural logarithm for nats.": right / math.log(2),
            "this is the effective number of directions; H_α is its natural logarithm.": math.exp(right),
            "the factor 1/(1−α) is missing.": math.log(power_sum),
            "the logarithm is missing: H_α = log(Σ p^α) / (1−α).": power_sum / (1 - alpha),
            "the logarithm is taken inside the sum: add up the powers first.": (
                float(np.log(_SHARES**alpha).sum()) / (1 - alpha)
            ),
        }
        otherwise = f"at α = {alpha:g}, p = (1/2, 1/4, 1/8, 1/8) has H_α = log(Σ p^α) / (1−α) = {right:.4f} nats."
        hint = explain(_entropy(function, _SHARES, alpha), right, mistakes, otherwise)
        if hint:
            return hint
    return None


def _of_unnormalized_numbers(function: Attempt) -> str | None:
    if close(_entropy(function, 16 * _SHARES, 2.0), renyi_entropy(_SHARES, 2.0)):
        return None
    return "multiplying every number by 16 changes the result: divide by their sum first, p = p / p.sum()."


def _with_a_zero(function: Attempt) -> str | None:
    if close(_entropy(function, np.append(_SHARES, 0.0), 0.5), renyi_entropy(_SHARES, 0.5)):
        return None
    return "a zero in p changes the result: it adds nothing to Σ p^α for α > 0."


def _at_one(function: Attempt) -> str | None:
    try:
        answer = _entropy(function, 16 * _SHARES, 1.0)
        raised = ""
    except (Hint, NotAttempted) as found:  # 1/(1−α) may raise, and a branch may be empty so far
        answer, raised = math.nan, str(found) or "nothing is returned"
    right = renyi_entropy(_SHARES, 1.0)
    mistakes = {
        "the sign of Shannon's entropy is wrong: −Σ p log p is positive.": -right,
        "at α = 1 the shares must be divided by their sum, too.": float(-(16 * _SHARES * np.log(16 * _SHARES)).sum()),
        "at α = 1 this is in bits; take the natural logarithm.": right / math.log(2),
    }
    detail = f" ({raised.removesuffix('.')})" if raised else ""
    otherwise = f"at α = 1 the formula is 0/0{detail}: return its limit there, Shannon's entropy −Σ p log p."
    return explain(answer, right, mistakes, otherwise)


def _at_one_with_a_zero(function: Attempt) -> str | None:
    if close(_entropy(function, np.append(_SHARES, 0.0), 1.0), renyi_entropy(_SHARES, 1.0)):
        return None
    return "at α = 1 a zero in p gives 0 · log 0, which NumPy calls nan: leave zeros out, p = p[p > 0]."


def check_two_groups(share_at_two: Any, share_at_half: Any, directions: Any) -> Feedback:
    """Predict for one eigenvalue of 100 beside 10,000 eigenvalues of 0.01; two digits are enough.

    Args:
        share_at_two: Share of the large eigenvalue in the sum ``Σ |λ|^α`` at α = 2.
        share_at_half: The same at α = ½.
        directions: The number that the effective number of directions tends to as α grows without limit.
    """
    at_two, at_half = (_STEEP**alpha / (_STEEP**alpha + _COUNT * _FLAT**alpha) for alpha in (2.0, 0.5))
    checks = [
        lambda given: _predicted(
            "share_at_two",
            number_of(given[0]),
            at_two,
            {"that is the share at α = 1: both groups sum to 100. Now square each λ.": 0.5},
            "compare 100² with 10,000 · 0.01².",
        ),
        lambda given: _predicted(
            "share_at_half",
            number_of(given[1]),
            at_half,
            {
                "each of the 10,000 small ones adds its own √0.01 to the sum.": 10 / 10.1,
                "that is the share at α = 1. Now take the root of each λ.": 0.5,
            },
            "compare √100 with 10,000 · √0.01.",
        ),
        lambda given: _predicted(
            "directions",
            number_of(given[2]),
            2.0,
            {
                "that is the entropy; the effective number is its exponential.": math.log(2),
                "not quite: for large α, Σ p^α is p₁^α with p₁ = 1/2, not 1.": 1.0,
                "that is the limit for α → 0, where every direction counts.": float(_COUNT + 1),
            },
            "for large α only the largest share is left in Σ p^α: (p₁^α)^(1/(1−α)) tends to 1/p₁. What is p₁?",
        ),
    ]
    message = (
        "all three. At α = 2 one eigenvalue is practically the whole sum, at α = ½ one per cent of it: the same "
        "spectrum is worth a few directions or thousands."
    )
    return first_hint((share_at_two, share_at_half, directions), checks, message)


def _predicted(name: str, answer: float, right: float, mistakes: dict[str, float], otherwise: str) -> str | None:
    def near(value: float) -> bool:
        return abs(answer - value) <= _DIGITS * abs(value)

    if near(right):
        return None
    mistakes = mistakes | {"a share is a number between 0 and 1, not a percentage.": 100 * right}
    return f"{name}: " + next((hint for hint, value in mistakes.items() if near(value)), otherwise)
