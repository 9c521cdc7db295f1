"""Checkers of `01_renyi_entropy.ipynb`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from renyi_lab._utils.typing import FloatArray
from renyi_lab.exercises._feedback import TOLERANCE, Feedback, Hint, answer_of, close, explain, first_hint, number_of
from renyi_lab.spectrum import renyi_entropy

# Heuristic: a crossing must be visible in numbers printed with two decimals.
_CLEARLY = 0.05
_VALUES, _COUNTS = np.array([4.0, 1.0, 0.25]), np.array([1.0, 3.0, 20.0])
_ROUNDED = 0.006  # nats: an answer with two decimals
_LOG2 = math.log(2)
_SHARES = np.array([0.1, 0.9])  # of two layers


def check_entropy_changes(equal: Any, unequal_at_half: Any, unequal_at_two: Any) -> Feedback:
    """Predict by how many nats the entropy of two layers together exceeds that of each alone.

    The layers do not interact, and their spectra are multiples of each other, so that both have the same entropy.

    Args:
        equal: Excess at any α if both spectra are the same.
        unequal_at_half: Excess of ``H_½`` if the second spectrum is nine times the first.
        unequal_at_two: The same for ``H_2``.
    """
    return first_hint(
        (equal, unequal_at_half, unequal_at_two),
        [
            lambda given: _equal_layers(given[0]),
            lambda given: _unequal_layers(given[1], "unequal_at_half", 0.5),
            lambda given: _unequal_layers(given[2], "unequal_at_two", 2.0),
        ],
        "all three. The excess is H_α of the layers' shares: so the whole's entropy depends on the layers' scales.",
    )


def _equal_layers(answer: Any) -> str | None:
    mistakes = {
        "equal: this is in bits; take the natural logarithm for nats.": 1.0,
        "equal: the effective number doubles; H_α is its natural logarithm. How much does that add?": 2.0,
        "equal: every p_i is halved, but there are twice as many. Try it: list two equal eigenvalues twice.": 0.0,
    }
    otherwise = "equal: let each layer have k equal eigenvalues, H_α = log k. How many are there together?"
    return _prediction("equal", number_of(answer), _LOG2, mistakes, otherwise)


def _unequal_layers(answer: Any, name: str, alpha: float) -> str | None:
    right = renyi_entropy(_SHARES, alpha)
    mistakes = {
        f"{name}: this is the excess for layers of equal size; here one carries nine tenths of the curvature.": _LOG2,
        f"{name}: the scale of one spectrum has no effect, but the two have different scales.": 0.0,
        f"{name}: this is in bits; take the natural logarithm for nats.": right / _LOG2,
        f"{name}: this is the effective number of layers; its logarithm, please.": math.exp(right),
        f"{name}: this is the excess at another α; put the order of the question into the formula.": (
            renyi_entropy(_SHARES, 1 / alpha)
        ),
        f"{name}: this is Shannon's entropy of the shares .1 and .9; which order is asked for?": (
            renyi_entropy(_SHARES, 1)
        ),
        f"{name}: the sign; there are more directions together than in one layer.": -right,
    }
    otherwise = (
        f"{name}: an eigenvalue of share p in its layer has .1 p or .9 p of the whole. Put both into Σ p^α: what "
        "factor does the sum over one layer get?"
    )
    return _prediction(name, number_of(answer), right, mistakes, otherwise)


def _prediction(name: str, answer: float, right: float, mistakes: dict[str, float], otherwise: str) -> str | None:
    if not close(answer, right) and abs(answer - right) < _ROUNDED:
        return f"{name}: right, but rounded; give the expression itself, with np.log."
    return explain(answer, right, mistakes, otherwise)


def check_weighted_entropy(function: Callable[[NDArray[Any], NDArray[Any], float], Any]) -> Feedback:
    """Check ``function(values, counts, alpha)``: the Rényi entropy when ``values[k]`` occurs ``counts[k]`` times.

    Args:
        function: Your solution; takes two arrays of equal length and the order, returns the entropy in nats.
    """
    return first_hint(
        function,
        [_equal_counts, _different_counts, _unnormalized_values, _fractional_counts, _negative_values],
        "this is how a Spectrum computes it: counts may be any weights, so an estimated density works too.",
        signature="(values, counts, alpha)",
    )


def _weighted(function: Callable[..., Any], values: ArrayLike, counts: ArrayLike, alpha: float) -> float:
    return number_of(answer_of(function, np.array(values, dtype=float), np.array(counts, dtype=float), alpha))


def _equal_counts(function: Callable[..., Any]) -> str | None:
    right = renyi_entropy([0.5, 0.3, 0.2], 2.0)
    mistakes = {
        "the sign is wrong: the factor is 1/(1−α), which is negative for α > 1.": -right,
        "this is in bits; take the natural logarithm for nats.": right / _LOG2,
    }
    return explain(
        _weighted(function, [0.5, 0.3, 0.2], [1, 1, 1], 2.0),
        right,
        mistakes,
        f"with all counts 1 it should be the plain entropy: {right:.4f} at α = 2 for (0.5, 0.3, 0.2).",
    )


def _different_counts(function: Callable[..., Any]) -> str | None:
    p = _VALUES / (_VALUES @ _COUNTS)
    for alpha in (0.5, 2.0):
        mistakes = {
            "twenty eigenvalues of 0.25 are not one of 5: take the power without the count.": renyi_entropy(
                p * _COUNTS, alpha
            ),
            "the counts have no effect so far: add a value that occurs twenty times twenty times.": renyi_entropy(
                p, alpha
            ),
            "the sum that you divide by needs the counts too: Σ w x, not Σ x.": (
                np.log(_COUNTS @ (p / p.sum()) ** alpha) / (1 - alpha)
            ),
        }
        hint = explain(
            _weighted(function, p, _COUNTS, alpha),
            renyi_entropy(np.repeat(p, _COUNTS.astype(int)), alpha),
            mistakes,
            f"wrong at α = {alpha:g} when counts differ: compare with renyi_entropy(np.repeat(values, counts), alpha).",
        )
        if hint:
            return hint
    return None


def _unnormalized_values(function: Callable[..., Any]) -> str | None:
    if close(_weighted(function, 10 * _VALUES, _COUNTS, 2.0), _weighted(function, _VALUES, _COUNTS, 2.0)):
        return None
    return (
        "multiplying all values by 10 changes the result: they are eigenvalues, not yet probabilities. "
        "Divide them by their sum, in which each counts as often as it occurs."
    )


def _fractional_counts(function: Callable[..., Any]) -> str | None:
    # Each count divided by 2: half as many directions.
    change = _weighted(function, _VALUES, _COUNTS, 1.5) - _weighted(function, _VALUES, _COUNTS / 2, 1.5)
    return explain(change, _LOG2, {}, "counts may be fractions, as in an estimated spectrum: multiply by them.")


def _negative_values(function: Callable[..., Any]) -> str | None:
    right = _weighted(function, _VALUES, _COUNTS, 1.5)
    try:
        answer = _weighted(function, _VALUES * [1, -1, 1], _COUNTS, 1.5)
    except Hint:
        answer = math.nan
    return explain(answer, right, {}, "some eigenvalues are negative: take their absolute values first.")


def check_crossing(first: ArrayLike, second: ArrayLike) -> Feedback:
    """Check two spectra for which orders disagree: ``H_½(first) > H_½(second)`` but ``H_2(first) < H_2(second)``.

    Args:
        first: Eigenvalues of the first spectrum.
        second: Eigenvalues of the second spectrum.
    """
    return first_hint(
        (first, second),
        [_crossing],
        "α = 0.5 and α = 2 rank your two spectra in opposite order: neither is more spread out at every order.",
    )


def _crossing(pair: tuple[ArrayLike, ArrayLike]) -> str | None:
    p, q = (_spectrum(name, values) for name, values in zip(("first", "second"), pair, strict=True))
    at_half, at_two = (renyi_entropy(p, alpha) - renyi_entropy(q, alpha) for alpha in (0.5, 2.0))
    if at_half > _CLEARLY and at_two < -_CLEARLY:
        return None
    if at_half < -_CLEARLY and at_two > _CLEARLY:
        return "they cross, but in the opposite direction: swap first and second."
    if at_half > 0 > at_two:
        return f"they cross, but hardly ({at_half:+.3f} and {at_two:+.3f} nats); reach {_CLEARLY} at both orders."
    if max(abs(at_half), abs(at_two)) <= TOLERANCE:
        return "the two have the same entropies; are they multiples of each other? Neither scale nor order matters."
    larger = "first" if at_half > 0 else "second"
    return (
        f"{larger} has the larger entropy at α = 0.5 and at α = 2 ({at_half:+.2f} and {at_two:+.2f} nats). Give first a"
        " long tail of small eigenvalues, which count at α = 0.5, and one large eigenvalue, which dominates at α = 2."
    )


def _spectrum(name: str, values: ArrayLike) -> FloatArray:
    try:
        spectrum: FloatArray = np.abs(np.asarray(values, dtype=float))
    except (TypeError, ValueError, OverflowError, RuntimeError):  # RuntimeError: a tensor that requires gradients
        raise Hint(f"{name}: a list of numbers is expected.") from None
    if spectrum.ndim != 1 or spectrum.size == 0 or not np.isfinite(spectrum).all() or not spectrum.any():
        raise Hint(f"{name}: a list of finite numbers is expected, not all of them zero.")
    return spectrum
