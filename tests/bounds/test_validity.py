"""Catoni's and the held-out bound, and all bounds on tasks whose true risk is known."""

from __future__ import annotations

import math
from functools import partial

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from renyi_lab import bounds
from renyi_lab.posterior import GibbsError

# --- Catoni -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("loss", "kl"), [(0.0, 3.0), (0.05, 20.0), (0.3, 1.0), (0.6, 100.0)])
def test_catoni_at_the_best_rate_is_the_kl_inverse_without_two_root_n(loss: float, kl: float):
    n, delta = 500, 0.05
    best = bounds.kl_inverse_upper(loss, (kl + math.log(1 / delta)) / n)
    fine = [bounds.catoni(loss, kl, n, delta, rates=[rate]).value for rate in np.geomspace(1e-3, 30, 4000)]
    assert best <= min(fine) + 1e-12
    assert min(fine) == pytest.approx(best, abs=1e-6)


def test_catoni_takes_the_best_rate_by_a_union_bound():
    bound = bounds.catoni(0.1, 5.0, 500, 0.05, rates=[0.5, 1.0, 2.0])
    c = bound.terms["rate"]
    complexity = (5 + math.log(3 / 0.05)) / 500
    assert bound.value == pytest.approx((1 - math.exp(-c * 0.1 - complexity)) / (1 - math.exp(-c)), rel=1e-13)
    assert bound.value == min(bounds.catoni(0.1, 5.0, 500, 0.05 / 3, rates=[rate]).value for rate in (0.5, 1.0, 2.0))
    assert (c, bound.terms["choices"]) == (0.5, 3.0)


@settings(deadline=None, max_examples=200)
@given(st.floats(0, 1), st.floats(0, 1000), st.integers(2, 10**6), st.floats(1e-6, 0.99))
def test_catonis_default_grid_stays_near_langford_seeger(loss: float, kl: float, n: int, delta: float):
    value = bounds.catoni(loss, kl, n, delta).value
    tight = bounds.kl_inverse_upper(loss, (kl + math.log(1 / delta)) / n)
    assert value >= tight - 1e-12
    if n >= 1000 and kl <= 100:
        assert value <= bounds.langford_seeger(loss, kl, n, delta).value + 0.03


# --- held out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("errors", "n"), [(0, 2), (0, 1000), (1, 50), (52, 1000), (499, 500), (500, 500)])
def test_held_out_bound_solves_the_binomial_tail(errors: int, n: int):
    bound = bounds.held_out(errors, n, 0.05)
    if errors == n:
        assert bound.value == 1.0
        return
    with mpmath.workdps(40):
        p = mpmath.mpf(bound.value)
        tail = mpmath.fsum(mpmath.binomial(n, k) * p**k * (1 - p) ** (n - k) for k in range(errors + 1))
    assert float(tail) == pytest.approx(0.05, rel=1e-9)
    assert bound.value < bounds.langford_seeger(errors / n, 0.0, n, 0.05).value


@pytest.mark.parametrize("risk", [0.02, 0.3, 0.9])
def test_held_out_bound_fails_with_probability_delta_at_most_and_not_far_below(risk: float):
    n, delta = 60, 0.1
    chance_of_failure = sum(binom.pmf(k, n, risk) for k in range(n + 1) if bounds.held_out(k, n, delta).value < risk)
    assert chance_of_failure <= delta
    assert chance_of_failure > 0.3 * delta or (1 - risk) ** n > delta


# --- known risks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["maurer", "langford_seeger", "catoni"])
def test_the_best_of_a_finite_class_is_covered(name: str):
    # 40 classifiers of known risk under a uniform prior; the one with the fewest mistakes is taken: KL = log 40.
    rng, n, delta = np.random.default_rng(0), 60, 0.1
    risks = np.linspace(0.25, 0.45, 40)
    values, failures, naive = [], 0, 0
    for _ in range(400):
        errors = rng.binomial(n, risks) / n
        best = int(errors.argmin())
        value = getattr(bounds, name)(float(errors[best]), math.log(40), n, delta).value
        values.append(value)
        failures += value < risks[best]
        naive += bounds.langford_seeger(float(errors[best]), 0.0, n, 0.999).value < risks[best]
    assert failures / 400 <= delta
    assert naive / 400 > delta  # without the KL term the choice breaks the bound on this task
    assert np.mean(values) < 0.75


def risk_of(weights: np.ndarray, flip: float) -> np.ndarray:
    """Of sign(w·x) for x ~ N(0, I₂) and y = sign(x₁), flipped with probability ``flip``."""
    angle = np.abs(np.arctan2(weights[..., 1], weights[..., 0]))
    return flip + (1 - 2 * flip) * angle / math.pi


def test_langford_seeger_with_sampled_weights_fails_in_at_most_delta_of_400_redraws():
    # The whole chain: data, a posterior mean learned from them, draws of the weights, their limit, the bound.
    rng, n, delta, flip, sigma = np.random.default_rng(0), 30, 0.1, 0.1, 1.0
    failures, naive, values = 0, 0, []
    fresh = rng.normal(size=(4000, 2))
    for _ in range(400):
        x = rng.normal(size=(n, 2))
        y = np.sign(x[:, 0]) * np.where(rng.random(n) < flip, -1, 1)
        mean = 3 * (y[:, None] * x).mean(axis=0)
        kl = float(mean @ mean) / (2 * sigma**2)
        draws = mean + sigma * rng.normal(size=(200, 2))
        errors = (np.sign(draws @ x.T) != y).mean(axis=1)
        sampled = GibbsError(float(errors.mean()), 0.0, tuple(errors.tolist()), sigma)
        bound = bounds.langford_seeger(sampled.upper_limit(delta / 2), kl, n, delta / 2)
        built_in = bounds.isotropic_pac_bayes(sampled.value, float(mean @ mean), sigma, n, num_draws=200, delta=delta)
        truth = float(risk_of(mean + sigma * fresh, flip).mean())
        values.append(bound.value)
        failures += min(bound.value, built_in.value) < truth
        naive += sampled.value < truth
    assert failures / 400 <= delta
    assert naive / 400 > delta
    assert np.mean(values) < 0.75


# --- messages ---------------------------------------------------------------------------------------------------

catoni = partial(bounds.catoni, empirical_loss=0.1, kl=1.0, num_samples=100)
MESSAGES = [
    (partial(catoni, rates=[]), ValueError, "rates is empty"),
    (partial(catoni, rates=[0.0]), ValueError, "each of rates must lie in"),
    (partial(catoni, rates=0.5), TypeError, r"rates must be a sequence of numbers, got 0\.5; write \[0\.5\]"),
    (partial(catoni, empirical_loss=2.3), ValueError, "clip the loss at some B"),
    (partial(catoni, kl=-1.0), ValueError, "kl must lie in"),
    (partial(catoni, kl=math.nan), ValueError, "kl must be finite"),
    (partial(catoni, num_samples=1), ValueError, "num_samples must be at least 2"),
    (partial(catoni, delta=0.0), ValueError, "delta must lie in"),
    (partial(bounds.held_out, -1, 100), ValueError, "num_errors must be at least 0"),
    (partial(bounds.held_out, 101, 100), ValueError, "num_errors must be at most 100"),
    (partial(bounds.held_out, 0.1, 100), TypeError, "num_errors must be an integer"),
    (partial(bounds.held_out, 0, 1), ValueError, "num_samples must be at least 2"),
    (partial(bounds.held_out, 0, 10, 1.0), ValueError, "delta must lie in"),
]


@pytest.mark.parametrize(("call", "error", "message"), MESSAGES)
def test_messages(call, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        call()
