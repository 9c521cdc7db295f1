"""Checkers of exercises of `10_your_own_model.ipynb`: costs, errors, and which claims a report supports."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from renyi_lab.exercises._feedback import Feedback, Hint, explain, first_hint, number_of

_TWO_DIGITS = 0.02  # relative: 0.030 passes for 0.0304, 0.03 does not pass for 0.0316
_CLAIMS = {
    "interval": (True, "interval: value, error, samples and settings are all named; that is what was measured."),
    "other_samples": (False, "other_samples: the error of the probes knows these samples only; data_error is needed."),
    "generalizes": (False, "generalizes: a measure of the training loss's curvature is no test error (notebook 07)."),
    "flatter": (False, "flatter: twins that compute the same function differ by a thousandfold trace (notebook 04)."),
    "minimum": (False, "minimum: gradient norm and negative fraction decide that, not the loss (notebook 04)."),
    "same_probes": (True, "same_probes: same samples, same probes, and a difference of many standard errors."),
}


def check_cost_plan(memory: Any, products: Any, hours: Any) -> Feedback:
    """Predict the cost of a spectrum of 25.6 million parameters in single precision; two digits are enough.

    Args:
        memory: Gigabytes (10⁹ bytes) of two vectors for each of 200 products.
        products: Largest number of products whose vectors fit into 8 GB.
        hours: Hours for 200 products of three gradients each, if a gradient over all data takes three minutes.
    """
    return first_hint(
        (memory, products, hours),
        [_memory, _products, _hours],
        "all three. A block (params=), fewer products, or a subset of the samples make it affordable.",
    )


def _memory(given: tuple[Any, Any, Any]) -> str | None:
    mistakes = {
        "memory: that is one vector for each product.": 20.48,
        "memory: that is double precision; a number in single precision has four bytes.": 81.92,
        "memory: in gigabytes, 10⁹ bytes.": 40.96e9,
        "memory: in gigabytes, not megabytes.": 40960.0,
        "memory: four bytes for each number.": 10.24,
    }
    return _nearly(given[0], 40.96, mistakes, "memory: vectors × parameters × four bytes.")


def _products(given: tuple[Any, Any, Any]) -> str | None:
    mistakes = {
        "products: two vectors for each, not one.": 78.0,
        "products: four bytes for each number, not eight.": 19.0,
        "products: a part of a product cannot be made; round down.": 40.0,
    }
    value = number_of(given[1])
    whole = float(math.floor(value + 1e-9)) if math.isfinite(value) else value
    return explain(whole, 39.0, mistakes, "products: 8 GB / (two vectors of 25.6 million).")


def _hours(given: tuple[Any, Any, Any]) -> str | None:
    mistakes = {
        "hours: three gradients for each product.": 10.0,
        "hours: not in minutes.": 1800.0,
        "hours: not in seconds.": 108000.0,
        "hours: that is two gradients for each; the graph is not kept here.": 20.0,
    }
    return _nearly(given[2], 30.0, mistakes, "hours: products × gradients × minutes / 60.")


def check_error_shares(total: Any, more_products: Any, samples: Any) -> Feedback:
    """Predict errors: .01 from the probes and .03 from the sample of 1,000; two digits are enough.

    Args:
        total: Standard error that contains both.
        more_products: The same after four times the probes, which halve their error.
        samples: Number of samples at which the error from the sample is .01.
    """
    return first_hint(
        (total, more_products, samples),
        [_total, _more_products, _samples],
        "all three. The larger part decides: products cannot buy what only samples can.",
    )


def _total(given: tuple[Any, Any, Any]) -> str | None:
    mistakes = {
        "total: independent errors add as squares.": 0.04,
        "total: take the root of the sum of squares.": 0.001,
        "total: the smaller one counts as well.": 0.03,
    }
    return _nearly(given[0], math.hypot(0.01, 0.03), mistakes, "total: √(.01² + .03²).")


def _more_products(given: tuple[Any, Any, Any]) -> str | None:
    mistakes = {
        "more_products: the error of the sample is not halved by products.": math.hypot(0.005, 0.015),
        "more_products: independent errors add as squares.": 0.035,
        "more_products: the probes' error becomes half of .01, not a quarter.": math.hypot(0.0025, 0.03),
    }
    return _nearly(given[1], math.hypot(0.005, 0.03), mistakes, "more_products: √(.005² + .03²).")


def _samples(given: tuple[Any, Any, Any]) -> str | None:
    mistakes = {
        "samples: the error falls like 1/√N, not like 1/N.": 3000.0,
        "samples: a smaller error takes more samples.": 111.0,
        "samples: that is how many more; how many in all?": 8000.0,
        "samples: that is the factor; the sample has 1,000.": 9.0,
    }
    return explain(number_of(given[2]), 9000.0, mistakes, "samples: (.03 / .01)² times as many.")


def check_claims(
    interval: Any, other_samples: Any, generalizes: Any, flatter: Any, minimum: Any, same_probes: Any
) -> Feedback:
    """Which claims does a report support? `True` or `False` for each; the notebook words them.

    Args:
        interval: A value with its error, samples and settings.
        other_samples: An error for other samples, taken from that of the probes.
        generalizes: A smaller sharpness means a smaller test error.
        flatter: A smaller trace means a flatter function.
        minimum: A small training loss means a minimum.
        same_probes: A difference of two models that is many standard errors large.
    """
    given = dict(
        zip(_CLAIMS, (interval, other_samples, generalizes, flatter, minimum, same_probes), strict=True)
    )  # fmt: skip
    return first_hint(
        tuple(given.values()),
        [lambda answers: _first_wrong(dict(zip(_CLAIMS, answers, strict=True)))],
        "what was measured, with its settings and errors, may be claimed; what it is taken to stand for may not.",
    )


def _first_wrong(given: dict[str, Any]) -> str | None:
    for name, answer in given.items():
        right, reason = _CLAIMS[name]
        if not isinstance(answer, (bool, np.bool_)):
            raise Hint(f"{name}: True or False is expected, got {type(answer).__name__}.")
        if bool(answer) != right:
            return reason
    return None


def _nearly(answer: Any, right: float, mistakes: dict[str, float], otherwise: str) -> str | None:
    """As `explain`, where two digits of the answer are enough."""
    value = number_of(answer)
    return None if abs(value / right - 1) <= _TWO_DIGITS else explain(value, right, mistakes, otherwise)
