"""Checker of `03b_the_estimator.ipynb`: what more products buy, and what a bias does to coverage."""

from __future__ import annotations

from typing import Any

from renyi_lab.exercises._feedback import Feedback, explain, first_hint, number_of


def check_error_budget(probes: Any, steps: Any, covered: Any) -> Feedback:
    """Predict how sampling error, truncation error and coverage of an estimate behave; two digits are enough.

    Args:
        probes: Factor by which the number of independent probes must grow to halve the sampling error.
        steps: Factor by which the number of steps must grow to leave an eighth of a truncation error that shrinks like
            ``M^−p``, ``p = min(α, 1) + ½``, at ``α = 1.5``.
        covered: Share of the estimates within two standard errors of the truth, if estimates are normally distributed
            with a bias of twice their standard deviation, and the standard error is that standard deviation.
    """
    return first_hint(
        (probes, steps, covered),
        [_probes, _steps, _covered],
        "all three. Four times the probes halve one error, four times the steps leave an eighth of the other here; and "
        "a standard error that misses the bias nearly halves the coverage.",
    )


def _probes(given: tuple[Any, Any, Any]) -> str | None:
    mistakes = {
        "probes: doubling them divides the error by √2 only.": 2.0,
        "probes: the error grows with fewer probes; invert the factor.": 0.25,
        "probes: that halves the error twice; the variance must fall to a quarter.": 16.0,
    }
    return explain(number_of(given[0]), 4.0, mistakes, "probes: the error of a mean of k draws falls like 1/√k.")


def _steps(given: tuple[Any, Any, Any]) -> str | None:
    mistakes = {
        "steps: right for p = 1, which is α = ½; at α = 1.5 the power is min(α, 1) + ½.": 8.0,
        "steps: p = α + ½ would be 2, but min(α, 1) is 1 here.": 2.83,
        "steps: that is 8^p; solve factor^p = 8 for the factor.": 22.63,
        "steps: that is the law of probes, p = ½; steps follow p = min(α, 1) + ½.": 64.0,
        "steps: more steps are needed, not fewer; invert the factor.": 0.25,
    }
    otherwise = "steps: solve factor^−p = 1/8 with p = min(1.5, 1) + ½."
    return explain(round(number_of(given[1]), 2), 4.0, mistakes, otherwise)


def _covered(given: tuple[Any, Any, Any]) -> str | None:
    mistakes = {
        "covered: that is the coverage without a bias.": 0.95,
        "covered: that would be the share outside, without a bias.": 0.05,
        "covered: only the mean of the estimates is two standard errors off; single ones scatter around it.": 0.0,
        "covered: a share between 0 and 1 is expected, not a percentage.": 50.0,
    }
    otherwise = "covered: for the bias 2σ and a standard normal z, in which share of cases is |2 + z| ≤ 2?"
    return explain(round(number_of(given[2]), 2), 0.5, mistakes, otherwise)
