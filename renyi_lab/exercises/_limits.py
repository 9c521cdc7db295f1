"""Checkers of `04_renyi_sharpness.ipynb` on the limits of an entropy, and on what exceeds them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from renyi_lab._utils.typing import FloatArray
from renyi_lab.exercises._feedback import Feedback, Hint, answer_of, close, explain, first_hint, number_of
from renyi_lab.spectrum import Spectrum, renyi_entropy

# Trace, largest eigenvalue and number of rows.
_FACTS = (10.0, 4.0, 6)


def check_entropy_range(function: Callable[[float, float, int], Any]) -> Feedback:
    """Check ``function(trace, largest, n)``: the smallest and the largest ``H_2`` that a positive semi-definite matrix
    with ``n`` rows, this trace and this largest eigenvalue can have.

    Args:
        function: Your solution; returns two numbers, the smaller first.
    """
    return first_hint(
        function,
        [_range_high, _range_low, _range_of_few],
        "trace and λ_max bracket H₂: the rest is equal at the top of the range, and in as few directions as λ_max "
        "allows at its bottom.",
    )


def check_too_many_directions(eigenvalues: Any) -> Feedback:
    """Check a list of eigenvalues of positive sum for which ``normalization="signed"`` counts more directions at
    α = ½ than there are eigenvalues.

    Args:
        eigenvalues: At least two numbers.
    """
    return first_hint(
        eigenvalues,
        [_signed_defined, _signed_exceeds],
        "with a signed sum the p_i add up to more than one, and an 'effective number' above n has no meaning.",
    )


def _range(function: Callable[..., Any], facts: tuple[float, float, int]) -> FloatArray:
    answer = answer_of(function, *facts)
    if not hasattr(answer, "__len__") or len(answer) != 2:
        raise Hint("two numbers are expected: the smallest and the largest H₂.")
    return np.array([number_of(value) for value in answer])


def _range_of(trace: float, largest: float, n: int) -> FloatArray:
    full = math.floor(trace / largest + 1e-9)
    lowest = [largest] * full + [trace - full * largest]
    highest = [largest] + [(trace - largest) / max(n - 1, 1)] * (n - 1)
    return np.array([renyi_entropy(np.array(lowest), 2.0), renyi_entropy(np.array(highest), 2.0)])


def _range_high(function: Callable[..., Any]) -> str | None:
    (trace, largest, n), right = _FACTS, _range_of(*_FACTS)
    found = _range(function, _FACTS)
    if close(found, right[::-1]):
        return "the smaller number comes first."
    if close(found, -right) or close(found, -right[::-1]):
        return "these are sharpnesses; the entropies are their negatives."
    mistakes = {
        "the largest cannot be log n here: one eigenvalue is above the mean.": math.log(n),
        "the largest: the rest of the trace is shared by n − 1 eigenvalues, not by n.": _rest_shared_by(
            trace, largest, n
        ),
    }
    hint = "the largest: one eigenvalue is λ_max. How must the others share what is left so that Σλ² is smallest?"
    return explain(found[1], right[1], mistakes, hint)


def _rest_shared_by(trace: float, largest: float, count: int) -> float:
    return -math.log((largest**2 + (trace - largest) ** 2 / count) / trace**2)


def _range_low(function: Callable[..., Any]) -> str | None:
    (trace, largest, _), right = _FACTS, _range_of(*_FACTS)
    mistakes = {
        "the smallest: trace / λ_max eigenvalues of size λ_max are only possible if that is a whole number; here a "
        "remainder is left for one smaller eigenvalue.": math.log(trace / largest),
        "the smallest: no eigenvalue may be larger than λ_max, so the rest cannot be in one.": (
            _rest_shared_by(trace, largest, 1)
        ),
        "the smallest: 0 would be a single direction that holds the whole trace, more than λ_max.": 0.0,
    }
    hint = "the largest is right. The smallest: give as many eigenvalues as possible the size λ_max; what remains?"
    return explain(_range(function, _FACTS)[0], right[0], mistakes, hint)


def _range_of_few(function: Callable[..., Any]) -> str | None:
    for facts in ((6.0, 2.0, 3), (3.0, 3.0, 1), (9.0, 2.5, 4)):
        if not close(_range(function, facts), _range_of(*facts)):
            return "right for the first example; wrong for trace {:g}, λ_max {:g} and n = {}.".format(*facts)
    return None


def _eigenvalues(answer: Any) -> FloatArray:
    values = np.array([number_of(value) for value in np.asarray(answer, dtype=object).reshape(-1)])
    if not np.isfinite(values).all() or len(values) < 2:
        raise Hint("at least two finite numbers are expected.")
    return values


def _signed_defined(answer: Any) -> str | None:
    values = _eigenvalues(answer)
    if values.min() >= 0:
        return "without negative eigenvalues the signed sum is the sum of magnitudes, and nothing can go wrong."
    if values.sum() <= 0:
        return f"their sum is {values.sum():g}: not positive, so the signed version is not even defined."
    return None


def _signed_exceeds(answer: Any) -> str | None:
    values = _eigenvalues(answer)
    entropy = Spectrum.from_eigenvalues(values).renyi_entropy(0.5, normalization="signed").value
    if entropy > np.log(len(values)):
        return None
    return (
        f"it counts {np.exp(entropy):.2f} directions of {len(values)}, so far not too many: bring the sum closer to "
        "zero, or the magnitudes closer together."
    )
