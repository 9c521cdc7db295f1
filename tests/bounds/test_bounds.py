"""Bounds against brute force in high precision, dense Gaussians, and the inequalities between them."""

from __future__ import annotations

import html
import math
from functools import partial
from types import SimpleNamespace

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from renyi_lab import bounds
from renyi_lab.spectrum import Spectrum

unit = st.floats(0.0, 1.0)
delta = st.floats(1e-9, 0.999)
examples = settings(deadline=None, max_examples=200)


def spectrum_of(eigenvalues: list[float]) -> SimpleNamespace:
    return SimpleNamespace(nodes=np.array(eigenvalues), weights=np.ones(len(eigenvalues)), dim=len(eigenvalues))


# --- Bernoulli KL -----------------------------------------------------------------------------------------------


def precise_kl(q: float, p: mpmath.mpf) -> mpmath.mpf:
    q = mpmath.mpf(q)
    first = q * mpmath.log(q / p) if q > 0 else mpmath.mpf(0)
    return first + ((1 - q) * mpmath.log((1 - q) / (1 - p)) if q < 1 else 0)


def brute_force_inverse(q: float, c: float, far: int) -> float:
    """The p between q and ``far`` (0 or 1) with kl(q‖p) = c, by 150 halvings at 60 digits."""
    with mpmath.workdps(60):
        near, beyond = mpmath.mpf(q), mpmath.mpf(far)
        for _ in range(150):
            middle = (near + beyond) / 2
            near, beyond = (middle, beyond) if precise_kl(q, middle) <= c else (near, middle)
        return float(near)


MEANS = [0.0, 1e-300, 1e-12, 0.001, 0.1, 0.3, 0.5, 0.77, 0.999, 1 - 1e-12, 1.0]
BUDGETS = [0.0, 1e-16, 1e-9, 1e-4, 0.01, 0.3, 1.0, 5.0, 40.0, 800.0]


@pytest.mark.parametrize("q", MEANS)
def test_kl_inverses_equal_bisection_at_60_digits(q: float):
    for c in BUDGETS:
        assert bounds.kl_inverse_upper(q, c) == pytest.approx(brute_force_inverse(q, c, 1), abs=1e-12, rel=0)
        assert bounds.kl_inverse_lower(q, c) == pytest.approx(brute_force_inverse(q, c, 0), abs=1e-12, rel=0)


def test_kl_inverse_at_the_edges():
    assert bounds.kl_inverse_upper(0.3, 0.0) == bounds.kl_inverse_lower(0.3, 0.0) == 0.3
    assert bounds.kl_inverse_upper(1.0, 0.7) == 1.0
    assert bounds.kl_inverse_lower(0.0, 0.7) == 0.0
    assert bounds.kl_inverse_upper(0.0, 0.7) == pytest.approx(1 - math.exp(-0.7), rel=1e-15)
    assert bounds.kl_inverse_lower(1.0, 0.7) == pytest.approx(math.exp(-0.7), rel=1e-15)
    assert bounds.kl_inverse_upper(0.3, math.inf) == 1.0
    assert bounds.kl_inverse_lower(0.3, math.inf) == 0.0


@examples
@given(unit, st.floats(0.0, 1e4))
def test_kl_inverses_bracket_the_observed_mean(q: float, c: float):
    assert bounds.kl_inverse_lower(q, c) <= q
    assert q <= bounds.kl_inverse_upper(q, c) <= 1.0


@pytest.mark.parametrize(("q", "p"), [(0.3, 0.3 + 1e-9), (0.5, 0.25), (1e-9, 0.5), (0.9, 1e-6), (0.2, 1 - 1e-10)])
def test_bernoulli_kl_has_all_its_digits(q: float, p: float):
    with mpmath.workdps(60):
        expected = float(precise_kl(q, mpmath.mpf(p)))
    # Beside q = p only the digits of p − q itself remain.
    assert bounds.kl_bernoulli(q, p) == pytest.approx(expected, rel=1e-6 if abs(q - p) < 1e-6 else 1e-14)


def test_bernoulli_kl_at_the_edges():
    assert bounds.kl_bernoulli(0.0, 0.0) == bounds.kl_bernoulli(1.0, 1.0) == bounds.kl_bernoulli(0.4, 0.4) == 0.0
    assert bounds.kl_bernoulli(0.0, 1.0) == bounds.kl_bernoulli(0.5, 0.0) == bounds.kl_bernoulli(0.5, 1.0) == math.inf
    assert bounds.kl_bernoulli(0.0, 0.25) == pytest.approx(-math.log(0.75), rel=1e-15)
    assert bounds.kl_bernoulli(1.0, 0.25) == pytest.approx(-math.log(0.25), rel=1e-15)


# --- PAC-Bayes --------------------------------------------------------------------------------------------------


def test_maurer_is_its_formula():
    bound = bounds.maurer(0.1, kl=50.0, num_samples=1000, delta=0.05)
    assert float(bound) == pytest.approx(0.1 + math.sqrt((50 + math.log(2 * math.sqrt(1000) / 0.05)) / 2000), rel=1e-15)
    assert bound.terms["kl"] == 50.0
    assert bound.terms["complexity"] == pytest.approx((50 + bound.terms["log_term"]) / 1000)


def test_langford_seeger_solves_its_equation():
    bound = bounds.langford_seeger(0.1, kl=50.0, num_samples=1000, delta=0.05)
    right_side = (50 + math.log(2 * math.sqrt(1000) / 0.05)) / 1000
    assert bounds.kl_bernoulli(0.1, bound.value) == pytest.approx(right_side, rel=1e-12)
    assert bound.value > 0.1


@examples
@given(unit, st.floats(0.0, 1e6), st.integers(2, 10**7), delta)
def test_langford_seeger_is_never_above_maurer(loss: float, kl: float, num_samples: int, delta: float):
    arguments = (loss, kl, num_samples, delta)
    assert loss <= bounds.langford_seeger(*arguments).value <= bounds.maurer(*arguments).value + 1e-14


@examples
@given(unit, st.floats(0.0, 1e3), st.floats(0.0, 1e3), st.integers(2, 10**6), delta)
def test_bounds_grow_with_the_divergence_and_shrink_with_samples(
    loss: float, kl: float, more: float, num_samples: int, delta: float
):
    for calculate in (bounds.maurer, bounds.langford_seeger):
        here = calculate(loss, kl, num_samples, delta).value
        assert here <= calculate(loss, kl + more, num_samples, delta).value + 1e-14
        assert here >= calculate(loss, kl, 2 * num_samples, delta).value - 1e-14


def test_the_inverse_is_an_upper_limit_where_it_rounds_to_one():
    budgets, entropy = (13.0, 20.0, 26.24, 30.0), -0.625 * math.log(0.625) - 0.375 * math.log(0.375)
    values = [bounds.kl_inverse_upper(0.625, c) for c in budgets]
    assert values == sorted(values)
    assert values[1:] == [-math.expm1(-(c + entropy) / 0.375) for c in budgets[1:]] == [1.0] * 3


def test_a_divergence_that_overflows_is_refused():
    with pytest.raises(ValueError, match="the divergence overflows: prior_variance 1 to 1"):
        bounds.laplace_kl([1e300, 1.0], [1.0, 1.0], 2, 0.0, 1.0, 1e300)


def test_more_samples_than_a_float_counts_are_refused():
    with pytest.raises(ValueError, match="num_samples must be at most"):
        bounds.langford_seeger(0.1, 1.0, 10**400)


def test_two_root_n_bounds_maurers_quantity_where_his_proof_starts_only_at_eight():
    for n in range(2, 60):
        quantity = sum(math.comb(n, k) * (k / n) ** k * (1 - k / n) ** (n - k) for k in range(n + 1))
        assert quantity <= 2 * math.sqrt(n)


def test_the_bound_fails_for_a_known_risk_in_at_most_delta_of_the_samples():
    # One classifier of known risk, KL = 0.
    risk, num_samples, delta = 0.2, 50, 0.1
    errors = np.random.default_rng(0).binomial(num_samples, risk, size=4000)
    failures = sum(bounds.langford_seeger(k / num_samples, 0.0, num_samples, delta).value < risk for k in errors)
    assert failures / len(errors) <= delta


# --- the isotropic posterior ------------------------------------------------------------------------------------


def test_isotropic_bound_with_an_exact_loss_is_langford_seeger():
    bound = bounds.isotropic_pac_bayes(0.1, 4.0, 0.5, 1000, num_draws=None, delta=0.05)
    assert bound.value == bounds.langford_seeger(0.1, kl=8.0, num_samples=1000, delta=0.05).value
    assert bound.terms["kl"] == 8.0


def test_isotropic_bound_splits_delta_between_sampling_and_the_sigmas():
    bound = bounds.isotropic_pac_bayes(0.1, 4.0, 0.5, 1000, num_draws=200, delta=0.05, num_sigmas=10)
    loss = bounds.kl_inverse_upper(0.1, math.log(2 * 10 / 0.025) / 200)
    assert bound.value == pytest.approx(bounds.langford_seeger(loss, 8.0, 1000, 0.025 / 10).value, rel=1e-14)
    assert bound.terms["sampled_loss"] == 0.1
    assert bound.terms["empirical_loss"] == pytest.approx(loss, rel=1e-15)
    assert bound.terms["delta"] == 0.05
    assert any("200 independent draws" in line for line in bound.assumptions)


def test_more_draws_tighten_the_isotropic_bound_towards_a_halved_delta():
    values = [bounds.isotropic_pac_bayes(0.1, 4.0, 0.5, 1000, num_draws=m).value for m in (10, 1000, 10**9)]
    assert values[0] > values[1] > values[2]
    assert values[2] == pytest.approx(bounds.langford_seeger(0.1, 8.0, 1000, 0.025).value, abs=1e-4)


# --- Laplace ----------------------------------------------------------------------------------------------------


def dense_kl(hessian: torch.Tensor, shift: torch.Tensor, variance: float, beta: float) -> float:
    n = len(shift)
    eye = torch.eye(n, dtype=torch.float64)
    posterior = torch.distributions.MultivariateNormal(shift, precision_matrix=eye / variance + beta * hessian)
    prior = torch.distributions.MultivariateNormal(torch.zeros_like(shift), variance * eye)
    return float(torch.distributions.kl_divergence(posterior, prior))


def random_hessian(n: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    factor = torch.randn(n, n - 2, generator=generator, dtype=torch.float64)
    return factor @ factor.T / n, torch.randn(n, generator=generator, dtype=torch.float64)


def test_laplace_kl_equals_that_of_dense_gaussians_on_a_grid():
    hessian, shift = random_hessian()
    eigenvalues = torch.linalg.eigvalsh(hessian).clip(min=0)
    variances, betas = [0.01, 0.3, 2.0], [0.0, 1.0, 50.0, 1e4]
    grid = bounds.laplace_kl(
        eigenvalues, torch.ones(7), 7, float(shift @ shift), np.array(variances)[:, None], np.array(betas)
    )
    assert grid.shape == (3, 4)
    for i, variance in enumerate(variances):
        for j, beta in enumerate(betas):
            assert grid[i, j] == pytest.approx(dense_kl(hessian, shift, variance, beta), rel=1e-9)


def test_laplace_kl_takes_weights_as_multiplicities():
    repeated = bounds.laplace_kl([0.0, 0.5, 0.5, 0.5, 2.0], np.ones(5), 5, 1.5, 0.3, 7.0)
    weighted = bounds.laplace_kl([0.0, 0.5, 2.0], [1.0, 3.0, 1.0], 5, 1.5, 0.3, 7.0)
    assert float(weighted) == pytest.approx(float(repeated), rel=1e-14)


def test_laplace_kl_keeps_its_digits_for_tiny_curvature():
    # x = σ²βλ = 1e-6: KL = n x²/4 to first order, 1e-13 of the n from which the textbook form subtracts it.
    assert float(bounds.laplace_kl([1e-6], [1000.0], 1000, 0.0, 1.0, 1.0)) == pytest.approx(1000 * 1e-12 / 4, rel=1e-5)


def test_laplace_bound_is_langford_seeger_at_the_best_grid_point_with_a_union_bound():
    hessian, shift = random_hessian()
    spectrum = spectrum_of(torch.linalg.eigvalsh(hessian).clip(min=0).tolist())
    variances, betas = [0.1, 1.0, 10.0], [1.0, 100.0]

    def loss(variance: float, beta: float) -> float:
        return 0.1 + 0.3 * variance / (variance + beta)

    distance = float(shift @ shift)
    arguments = {"squared_distance": distance, "num_samples": 300, "delta": 0.05}
    bound = bounds.laplace_pac_bayes(spectrum, empirical_loss=loss, prior_variances=variances, betas=betas, **arguments)
    every = {
        (variance, beta): bounds.langford_seeger(
            loss(variance, beta), dense_kl(hessian, shift, variance, beta), 300, 0.05 / 6
        )
        for variance in variances
        for beta in betas
    }
    best = min(every, key=lambda point: every[point].value)
    assert bound.value == pytest.approx(every[best].value, rel=1e-9)
    assert (bound.terms["prior_variance"], bound.terms["beta"]) == best
    assert bound.terms["choices"] == 6
    assert bound.terms["kl_distance"] == pytest.approx(distance / (2 * best[0]), rel=1e-14)


POINT = {
    "empirical_loss": 0.1,
    "squared_distance": 1.0,
    "num_samples": 300,
    "prior_variances": [1.0],
    "betas": [10.0],
}


def test_laplace_bound_spends_half_of_delta_on_sampling():
    spectrum = spectrum_of([1.0, 2.0])
    exact = bounds.laplace_pac_bayes(spectrum, **POINT)
    sampled = bounds.laplace_pac_bayes(spectrum, num_draws=50, **POINT)
    loss = bounds.kl_inverse_upper(0.1, math.log(2 / 0.025) / 50)
    assert sampled.value == pytest.approx(bounds.langford_seeger(loss, exact.terms["kl"], 300, 0.025).value, rel=1e-14)
    assert sampled.value > exact.value


def test_laplace_bound_clips_negative_eigenvalues_and_returns_the_clipped_mass():
    indefinite = bounds.laplace_pac_bayes(spectrum_of([-0.25, -0.5, 2.0]), **POINT)
    clipped = bounds.laplace_pac_bayes(spectrum_of([0.0, 0.0, 2.0]), **POINT)
    assert indefinite.value == clipped.value
    assert indefinite.terms["clipped_mass"] == 0.75
    assert clipped.terms["clipped_mass"] == 0.0


def test_laplace_bound_takes_a_renyi_lab_spectrum():
    bound = bounds.laplace_pac_bayes(Spectrum.from_eigenvalues([0.0, 0.5, 2.0]), **POINT)
    assert bound.value == bounds.laplace_pac_bayes(spectrum_of([0.0, 0.5, 2.0]), **POINT).value


# --- the result -------------------------------------------------------------------------------------------------


def test_a_bound_is_vacuous_unless_it_is_below_the_trivial_value():
    assert not bounds.langford_seeger(0.5, 10.0, 1000).vacuous
    assert bounds.langford_seeger(0.5, 10.0, 1000).against(0.5).vacuous
    assert bounds.maurer(0.5, 1e5, 1000).vacuous


def test_a_bound_prints_its_value_every_term_and_every_assumption():
    bound = bounds.isotropic_pac_bayes(0.25, 4.0, 0.5, 1000, num_draws=100)
    for text in (repr(bound), bound._repr_html_()):
        assert f"{bound.value:.4g}" in text
        assert "below the trivial 1" in text
        assert "Langford & Caruana 2001" in html.unescape(text)
        assert all(name in text for name in bound.terms)
        assert all(line in html.unescape(text) for line in bound.assumptions)
    assert "vacuous" in repr(bounds.maurer(0.9, 1e5, 1000))


def test_a_comparison_is_not_a_certificate_and_prints_why():
    bound = bounds.maurer(0.1, 1.0, 1000)
    comparison = bound.as_comparison("the prior had seen the samples")
    assert (bound.is_certificate, comparison.is_certificate) == (True, False)
    assert comparison.value == bound.value
    assert "not a certificate" not in repr(bound)
    for text in (repr(comparison), comparison._repr_html_()):
        assert "not a certificate" in text
        assert "the prior had seen the samples" in text


# --- messages ---------------------------------------------------------------------------------------------------

laplace_kl = partial(
    bounds.laplace_kl,
    eigenvalues=[0.5, 1.0],
    weights=[1.0, 1.0],
    dim=2,
    squared_distance=1.0,
    prior_variance=1.0,
    beta=1.0,
)
laplace_pac_bayes = partial(bounds.laplace_pac_bayes, empirical_loss=0.1, squared_distance=1.0, num_samples=100)
isotropic = partial(
    bounds.isotropic_pac_bayes,
    empirical_gibbs_loss=0.1,
    squared_distance=1.0,
    sigma=0.1,
    num_samples=100,
    num_draws=10,
)
MESSAGES = [
    *(
        (partial(calculate, **{"empirical_loss": 0.1, "kl": 1.0, "num_samples": 100, **changed}), error, message)
        for calculate in (bounds.maurer, bounds.langford_seeger)
        for changed, error, message in [
            ({"delta": 0.0}, ValueError, "delta must lie in"),
            ({"delta": 1.0}, ValueError, "delta must lie in"),
            ({"delta": math.nan}, ValueError, "delta must be finite"),
            ({"empirical_loss": -0.1}, ValueError, "empirical_loss must lie in"),
            ({"empirical_loss": 1.1}, ValueError, "empirical_loss must lie in"),
            ({"num_samples": 1}, ValueError, "num_samples must be at least 2"),
            ({"num_samples": 10.5}, TypeError, "num_samples must be an integer"),
            ({"kl": -1.0}, ValueError, "kl must lie in"),
            ({"kl": math.nan}, ValueError, "kl must be finite"),
        ]
    ),
    (lambda: bounds.maurer(0.1, 1.0, 100).against(0.0), ValueError, "trivial_value must lie in"),
    (lambda: bounds.langford_seeger(0.1, 1.0, 100).against(0.0), ValueError, "trivial_value must lie in"),
    *(
        (partial(inverse, *arguments), ValueError, "must")
        for inverse in (bounds.kl_inverse_upper, bounds.kl_inverse_lower)
        for arguments in [(-0.1, 1.0), (1.1, 1.0), (0.5, -1.0), (math.nan, 1.0), (0.5, math.nan)]
    ),
    (partial(laplace_kl, eigenvalues=[-1e-9, 1.0]), ValueError, "Clip them at zero and state it"),
    (partial(laplace_kl, eigenvalues=[math.nan, 1.0]), ValueError, "eigenvalues must be finite"),
    (partial(laplace_kl, eigenvalues=[1.0]), ValueError, "vectors of one length"),
    (partial(laplace_kl, weights=[1.0, 1.5]), ValueError, "add up to dim = 2"),
    (partial(laplace_kl, weights=[-1.0, 3.0]), ValueError, "weights must be ≥ 0"),
    (partial(laplace_kl, squared_distance=-1.0), ValueError, "squared_distance must lie in"),
    (partial(laplace_kl, prior_variance=[1.0, 0.0]), ValueError, "prior_variance must lie in"),
    (partial(laplace_kl, beta=[-1.0]), ValueError, "beta must lie in"),
    (partial(laplace_kl, beta=[]), ValueError, "beta is empty"),
    (partial(laplace_pac_bayes, spectrum_of([1.0])), ValueError, "another Q: pass a function"),
    (partial(laplace_pac_bayes, np.ones(3)), TypeError, r"ndarray lacks \['nodes', 'weights', 'dim'\]"),
    (partial(isotropic, sigma=0.0), ValueError, "sigma must"),
    (partial(isotropic, squared_distance=-1.0), ValueError, "squared_distance must"),
    (partial(isotropic, num_draws=0), ValueError, "num_draws must"),
    (partial(isotropic, num_sigmas=0), ValueError, "num_sigmas must"),
]


@pytest.mark.parametrize(("call", "error", "message"), MESSAGES)
def test_messages(call, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        call()
