"""Checkers of `01_renyi_entropy.ipynb`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from renyi_lab._utils.typing import FloatArray
from renyi_lab.exercises._feedback import Feedback, Hint, answer_of, first_hint, number_of
from renyi_lab.spectrum import renyi_entropy

_TOLERANCE = 1e-6  # of an entropy in nats; answers in single precision pass
# A crossing must be seen in print, to two decimals. Our choice.
_CLEARLY = 0.05
_VALUES, _COUNTS = np.array([4.0, 1.0, 0.25]), np.array([1.0, 3.0, 20.0])


def check_entropy_changes(scaled: Any, doubled: Any, padded: Any) -> Feedback:
    """Predict by how many nats ``H_α`` changes when a spectrum is tripled, listed twice, or padded with zeros.

    Args:
        scaled: Change when every eigenvalue is multiplied by 3.
        doubled: Change when every eigenvalue is there twice.
        padded: Change when a hundred zero eigenvalues are added.
    """
    return first_hint(
        (scaled, doubled, padded),
        [_scaled, _doubled, _padded],
        "all three. Scale and zeros are not heard; twice as many directions are log 2 more, at every α.",
    )


def _scaled(answers: tuple[Any, Any, Any]) -> str | None:
    if abs(number_of(answers[0])) <= _TOLERANCE:
        return None
    return "scaled: the factor stands in every λ_i and in their sum; what is left of it in p_i?"


def _doubled(answers: tuple[Any, Any, Any]) -> str | None:
    change = number_of(answers[1])
    if abs(change - math.log(2)) <= _TOLERANCE:
        return None
    if abs(change - 1) <= _TOLERANCE or abs(change - 2) <= _TOLERANCE:
        return (
            "doubled: the effective number doubles; H_α is its natural logarithm. What does that add to H_α, in nats?"
        )
    if abs(change) <= _TOLERANCE:
        return "doubled: every p_i is halved, but there are twice as many. Try it with two equal ones made four."
    return "doubled: take k equal eigenvalues, H_α = log k, and list each twice."


def _padded(answers: tuple[Any, Any, Any]) -> str | None:
    if abs(number_of(answers[2])) <= _TOLERANCE:
        return None
    return "padded: what does a zero eigenvalue add to Σ|λ|, and what to Σ p^α for α > 0?"


def check_weighted_entropy(function: Callable[[NDArray[Any], NDArray[Any], float], Any]) -> Feedback:
    """Check ``function(values, counts, alpha)``: the Rényi entropy where ``values[k]`` occurs ``counts[k]`` times."""
    return first_hint(
        function,
        [_weighted_plain, _weighted_right, _weighted_unnormalised, _weighted_fractional, _weighted_negative],
        "this is how a Spectrum computes it: counts may be any weights, so an estimated density will do.",
    )


def _weighted(function: Callable[..., Any], values: ArrayLike, counts: ArrayLike, alpha: float) -> float:
    return number_of(answer_of(function, np.array(values, dtype=float), np.array(counts, dtype=float), alpha))


def _weighted_plain(function: Callable[..., Any]) -> str | None:
    entropy = _weighted(function, [0.5, 0.3, 0.2], [1, 1, 1], 2.0)
    expected = renyi_entropy([0.5, 0.3, 0.2], 2.0)
    if abs(entropy - expected) <= _TOLERANCE:
        return None
    if abs(entropy + expected) <= _TOLERANCE:
        return "the sign is turned round: the factor is 1/(1−α), which is negative for α > 1."
    if abs(entropy - expected / math.log(2)) <= _TOLERANCE:
        return "this is in bits; take the natural logarithm for nats."
    return f"with all counts 1 it should be the plain entropy: {expected:.4f} at α = 2 for (0.5, 0.3, 0.2)."


def _weighted_right(function: Callable[..., Any]) -> str | None:
    p = _VALUES / (_VALUES @ _COUNTS)
    for alpha in (0.5, 2.0):
        entropy = _weighted(function, p, _COUNTS, alpha)
        uncounted = np.log(_COUNTS @ (p / p.sum()) ** alpha) / (1 - alpha)
        if abs(entropy - renyi_entropy(np.repeat(p, _COUNTS.astype(int)), alpha)) <= _TOLERANCE:
            continue
        if abs(entropy - renyi_entropy(p * _COUNTS, alpha)) <= _TOLERANCE:
            return "twenty eigenvalues of 0.25 are not one of 5: the power goes on each value, the count stays outside."
        if abs(entropy - renyi_entropy(p, alpha)) <= _TOLERANCE:
            return "the counts have no effect so far: a value that occurs twenty times must be added up twenty times."
        if abs(entropy - uncounted) <= _TOLERANCE:
            return "the sum that you divide by counts too: Σ w x, not Σ x."
        return (
            f"wrong at α = {alpha:g} where counts differ: compare with renyi_entropy(np.repeat(values, counts), alpha)."
        )
    return None


def _weighted_unnormalised(function: Callable[..., Any]) -> str | None:
    change = _weighted(function, 10 * _VALUES, _COUNTS, 2.0) - _weighted(function, _VALUES, _COUNTS, 2.0)
    if abs(change) <= _TOLERANCE:
        return None
    return (
        "multiplying all values by 10 changes the result: they are eigenvalues, not yet probabilities. "
        "Divide them by their sum, in which each is counted as often as it occurs."
    )


def _weighted_fractional(function: Callable[..., Any]) -> str | None:
    # Each count divided by 2: half as many directions.
    change = _weighted(function, _VALUES, _COUNTS, 1.5) - _weighted(function, _VALUES, _COUNTS / 2, 1.5)
    if abs(change - math.log(2)) <= _TOLERANCE:
        return None
    return "counts may be fractions, as in an estimated spectrum: multiply by them, do not repeat by them."


def _weighted_negative(function: Callable[..., Any]) -> str | None:
    try:
        difference = _weighted(function, _VALUES * [1, -1, 1], _COUNTS, 1.5) - _weighted(
            function, _VALUES, _COUNTS, 1.5
        )
    except Hint:
        difference = math.nan
    return None if abs(difference) <= _TOLERANCE else "some eigenvalues are negative: take their absolute values first."


def check_crossing(first: ArrayLike, second: ArrayLike) -> Feedback:
    """Check two spectra for which orders disagree: ``H_½(first) > H_½(second)`` but ``H_2(first) < H_2(second)``."""
    return first_hint(
        (first, second),
        [_crossing],
        "α = 0.5 and α = 2 rank your two spectra in opposite order. Neither is the more spread out as such.",
    )


def _crossing(pair: tuple[ArrayLike, ArrayLike]) -> str | None:
    p, q = (_spectrum(name, values) for name, values in zip(("first", "second"), pair, strict=True))
    at_half, at_two = (renyi_entropy(p, alpha) - renyi_entropy(q, alpha) for alpha in (0.5, 2.0))
    if at_half > _CLEARLY and at_two < -_CLEARLY:
        return None
    if at_half < -_CLEARLY and at_two > _CLEARLY:
        return "they do cross, but the other way round: swap first and second."
    if at_half > 0 > at_two:
        return f"they cross, if barely ({at_half:+.3f} and {at_two:+.3f} nats); make it {_CLEARLY} at both orders."
    if max(abs(at_half), abs(at_two)) <= _TOLERANCE:
        return "the two have the same entropies; are they multiples of each other? Neither size nor order is heard."
    both = "first" if at_half > 0 else "second"
    return (
        f"{both} is the more even one at α = 0.5 and at α = 2 ({at_half:+.2f} and {at_two:+.2f} nats). First should "
        "win where small ones have a vote (a long tail), and lose where the top decides (one large eigenvalue)."
    )


def _spectrum(name: str, values: ArrayLike) -> FloatArray:
    try:
        spectrum: FloatArray = np.abs(np.asarray(values, dtype=float))
    except (TypeError, ValueError):
        raise Hint(f"{name}: a list of numbers is asked for.") from None
    if spectrum.ndim != 1 or spectrum.size == 0 or not np.isfinite(spectrum).all() or not spectrum.any():
        raise Hint(f"{name}: a list of finite numbers is asked for, not all of them zero.")
    return spectrum
