"""Checkers of the functions that the reader writes in `01_renyi_entropy.ipynb`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from renyi_lab._utils.typing import FloatArray
from renyi_lab.exercises._feedback import Feedback, Hint, answer_of, close, explain, first_hint, number_of
from renyi_lab.spectrum import Spectrum, effective_number, renyi_entropy

_P = np.array([0.5, 0.25, 0.125, 0.125])
_EIGENVALUES = np.array([4.0, -2.0, 1.0, -0.5, 0.0])


def check_effective_number(function: Callable[[FloatArray, float], Any]) -> Feedback:
    """Check ``function(p, alpha)``: the power mean with exponent ``1 − α`` of the rarities ``1/p_i``.

    Args:
        function: Your solution; takes a probability vector, possibly with zeros, and an order in ``[0, inf]``.

    Returns:
        Feedback whose ``function`` is yours once it passes and `renyi_lab.effective_number` until then.
    """
    feedback = first_hint(
        function,
        [_even, _uneven, _shannon, _largest, _impossible_outcomes],
        "a mean of rarities for every order, α = 1 and α = ∞ included.",
        signature="(p, alpha)",
    )
    return feedback.otherwise(function, effective_number)


def _even(function: Callable[..., Any]) -> str | None:
    mistakes = {
        "this is the entropy, the logarithm of the effective number: leave the logarithm out.": math.log(8),
        "upside down: eight equal outcomes are worth 8, not 1/8.": 1 / 8,
    }
    answer = number_of(answer_of(function, np.full(8, 1 / 8), 2))
    return explain(answer, 8.0, mistakes, f"eight equal outcomes are worth 8 at every α; yours gives {answer:.4g}.")


def _uneven(function: Callable[..., Any]) -> str | None:
    rarity = 1 / _P
    for alpha in (0.5, 2.0):
        exponent, right = 1 - alpha, effective_number(_P, alpha)
        power = _P @ rarity**exponent
        mistakes = {
            "this mean gives every rarity the same weight; weight it by its probability.": (
                np.mean(rarity**exponent) ** (1 / exponent)
            ),
            "the root is missing: a power mean is raised to 1/(1 − α) at the end.": power,
            "the exponents have the wrong sign: 1 − α inside, 1/(1 − α) outside.": (_P @ rarity**-exponent)
            ** (-1 / exponent),
            "the last power has the wrong sign: it is 1/(1 − α).": power ** (-1 / exponent),
            "this is the entropy, the logarithm of the effective number: leave the logarithm out.": math.log(right),
        }
        answer = number_of(answer_of(function, _P.copy(), alpha))
        otherwise = f"α = {alpha:g}: it should be {right:.4f} for (1/2, 1/4, 1/8, 1/8); yours gives {answer:.4g}."
        if hint := explain(answer, right, mistakes, otherwise):
            return hint
    return None


def _shannon(function: Callable[..., Any]) -> str | None:
    if close(_tried(function, _P, 1), effective_number(_P, 1)) and close(_tried(function, _P, 1.0), 2**1.75):
        return None
    return "α = 1: there 1/(1 − α) has no value. Return the limit, the geometric mean exp(Σ p log(1/p))."


def _largest(function: Callable[..., Any]) -> str | None:
    if close(_tried(function, _P, math.inf), 2.0):
        return None
    return "α = ∞: return the limit, the smallest of the rarities."


def _impossible_outcomes(function: Callable[..., Any]) -> str | None:
    p = np.array([0.5, 0.0, 0.5])
    for alpha in (0, 0.5, 1, 2, math.inf):
        if not close(_tried(function, p, alpha), 2.0):
            return f"an outcome of probability 0 has no rarity: leave it out (p[p > 0]); at α = {alpha:g} it counts."
    return None


def check_spectrum_entropy(function: Callable[[FloatArray, float], Any]) -> Feedback:
    """Check ``function(eigenvalues, alpha)``: the Rényi entropy of ``p_i = |λ_i| / Σ|λ_j|`` in nats.

    Args:
        function: Your solution; takes eigenvalues of either sign, zeros among them, and an order in ``[0, inf]``.

    Returns:
        Feedback whose ``function`` is yours once it passes, and until then one that uses `renyi_lab.Spectrum`.
    """
    feedback = first_hint(
        function,
        [_signed_values, _other_scale, _special_orders],
        "H_α of a spectrum: of magnitudes, normalised, in nats.",
        signature="(eigenvalues, alpha)",
    )
    return feedback.otherwise(function, _library_entropy)


def _library_entropy(eigenvalues: FloatArray, alpha: float) -> float:
    return Spectrum.from_eigenvalues(eigenvalues).renyi_entropy(alpha).value


def _signed_values(function: Callable[..., Any]) -> str | None:
    magnitudes = np.abs(_EIGENVALUES)
    for alpha in (2.0, 0.5):
        right = renyi_entropy(magnitudes, alpha)
        by_trace = np.sum((magnitudes / _EIGENVALUES.sum()) ** alpha)
        mistakes = {
            "this is the effective number; the entropy is its logarithm.": math.exp(right),
            "this is in bits; take the natural logarithm for nats.": right / math.log(2),
            "the sign is wrong: this is the Rényi sharpness −H_α.": -right,
            "the sum that you divide by still has signs in it: Σ|λ|, not Σλ.": math.log(by_trace) / (1 - alpha),
            "negative eigenvalues are left out: take their absolute values.": renyi_entropy(
                _EIGENVALUES.clip(0), alpha
            ),
            "these are shares of λ²; take shares of |λ|.": renyi_entropy(magnitudes**2, alpha),
            "divide the absolute values by their sum first: p must sum to 1.": (
                math.log(np.sum(magnitudes**alpha)) / (1 - alpha)
            ),
        }
        answer = number_of(answer_of(function, _EIGENVALUES.copy(), alpha))
        otherwise = f"α = {alpha:g}: it should be {right:.4f} nats for (4, −2, 1, −1/2, 0); yours gives {answer:.4g}."
        if hint := explain(answer, right, mistakes, otherwise):
            return hint
    return None


def _other_scale(function: Callable[..., Any]) -> str | None:
    if close(_tried(function, 1000 * _EIGENVALUES, 2.0), renyi_entropy(np.abs(_EIGENVALUES), 2.0)):
        return None
    return "multiplying all eigenvalues by 1000 changes the result: p_i = |λ_i|/Σ|λ_j| does not depend on the scale."


def _special_orders(function: Callable[..., Any]) -> str | None:
    for alpha in (0, 1, math.inf):
        right = renyi_entropy(np.abs(_EIGENVALUES), alpha)
        if not close(_tried(function, _EIGENVALUES, alpha), right):
            return f"α = {alpha:g}: it should be {right:.4f} nats for (4, −2, 1, −1/2, 0); use effective_number."
    return None


def _tried(function: Callable[..., Any], values: FloatArray, alpha: float) -> float:
    """The answer, or NaN where the call fails."""
    try:
        return number_of(answer_of(function, values.copy(), alpha))
    except Hint:
        return math.nan
