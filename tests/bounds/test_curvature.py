"""Level-set, Rényi, SAM and reported bounds: Monte Carlo in small dimension, dense Gaussians, inequalities."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from renyi_lab import bounds
from renyi_lab.operators import MatrixOperator, matrix_with_spectrum
from renyi_lab.spectrum import Spectrum, estimate_spectrum

examples = settings(deadline=None, max_examples=200)
alphas = st.floats(0.05, 30.0)
spectra = st.lists(st.floats(-12.0, 3.0), min_size=1, max_size=40).map(lambda logs: np.exp(np.array(logs)))


def of(eigenvalues: np.ndarray, alpha: float) -> tuple[float, float, int, float]:
    """Entropy, trace, dimension and α, the way the Rényi bounds take them."""
    spectrum = Spectrum.from_eigenvalues(eigenvalues)
    return float(spectrum.renyi_entropy(alpha)), float(spectrum.trace), spectrum.dim, alpha


def basin_points(hessian: np.ndarray, height: float, count: int) -> np.ndarray:
    """Uniform points of {½δᵀHδ ≤ r}: a ball's, stretched."""
    n = len(hessian)
    rng = np.random.default_rng(0)
    ball = rng.normal(size=(count, n))
    ball *= (rng.random(count) ** (1 / n) / np.linalg.norm(ball, axis=1))[:, None]
    values, vectors = np.linalg.eigh(hessian)
    return math.sqrt(2 * height) * (ball / np.sqrt(values)) @ vectors.T


def spd(n: int = 3, seed: int = 1) -> np.ndarray:
    factor = np.random.default_rng(seed).normal(size=(n, n))
    return factor @ factor.T + 0.3 * np.eye(n)


# --- level set --------------------------------------------------------------------------------------------------


def test_basin_volume_equals_monte_carlo():
    hessian, height, count = spd(), 0.7, 400_000
    half_sides = np.sqrt(2 * height * np.diag(np.linalg.inv(hessian)))
    points = np.random.default_rng(0).uniform(-1, 1, size=(count, 3)) * half_sides
    inside = (0.5 * np.einsum("ki,ij,kj->k", points, hessian, points) <= height).mean()
    error = 4 * math.sqrt(inside * (1 - inside) / count) * np.prod(2 * half_sides)
    log_volume = bounds.basin_log_volume(height, float(np.linalg.slogdet(hessian)[1]), 3)
    assert math.exp(log_volume) == pytest.approx(inside * np.prod(2 * half_sides), abs=error)
    assert error < 0.02 * math.exp(log_volume)


def test_height_and_volume_are_inverse_in_any_dimension():
    for dim in (1, 3, 5210, 10**6):
        log_volume = bounds.basin_log_volume(0.3, -4.0 * dim, dim)
        assert bounds.basin_height(log_volume, -4.0 * dim, dim) == pytest.approx(0.3, rel=1e-8)


def test_the_height_at_a_balls_volume_is_half_its_radius_squared_times_the_geometric_mean_curvature():
    eigenvalues = np.array([0.5, 2.0, 7.0, 0.1])
    height = bounds.basin_height(bounds.ball_log_volume(1.5, 4), float(np.log(eigenvalues).sum()), 4)
    assert height == pytest.approx(0.5 * 1.5**2 * np.prod(eigenvalues) ** 0.25, rel=1e-12)


def test_mean_energy_on_the_basin_equals_monte_carlo():
    hessian, height = spd(), 0.7
    points = basin_points(hessian, height, 200_000)
    energies = 0.5 * np.einsum("ki,ij,kj->k", points, hessian, points)
    log_det = float(np.linalg.slogdet(hessian)[1])
    bound = bounds.level_set(bounds.Basin(0.0, 3, bounds.basin_log_volume(height, log_det, 3)), log_det, 100)
    assert bound.terms["kl"] == pytest.approx(energies.mean(), abs=4 * energies.std() / math.sqrt(len(energies)))
    assert bound.terms["kl"] == pytest.approx(height * 3 / 5, rel=1e-12)


@pytest.mark.parametrize("height", [0.01, 0.5, 4.0])
@pytest.mark.parametrize("n", [1, 4, 50])
def test_jensens_divergence_is_above_the_true_one_and_near_it_for_shallow_basins(n: int, height: float):
    # Under P the energy u/r = s has the density (n/2) s^{n/2−1} on [0, 1]; Q weighs it with e^{−rs}.
    def mean(f) -> float:
        return quad(lambda t: 2 * t * (n / 2) * (t * t) ** (n / 2 - 1) * f(t * t), 0, 1)[0]

    z = mean(lambda s: math.exp(-height * s))
    energy = mean(lambda s: height * s * math.exp(-height * s)) / z
    true_kl = -energy - math.log(z)
    volume = bounds.basin_log_volume(height, 0.0, n)
    bound = bounds.level_set(bounds.Basin(0.0, n, volume), 0.0, 1000)
    assert 0 <= true_kl <= bound.terms["kl"] == pytest.approx(height * n / (n + 2), rel=1e-9)
    assert energy <= bound.terms["empirical_loss"] or bound.terms["empirical_loss"] == 1.0


def test_level_set_bound_is_langford_seeger_with_the_basins_divergence():
    bound = bounds.level_set(bounds.Basin(0.05, 6, math.log(0.3), posterior_loss=0.07), -9.0, 500, delta=0.1)
    assert bound.value == bounds.langford_seeger(0.07, bound.terms["kl"], 500, 0.1).value


def test_jia_su_is_its_formula_and_its_A_is_the_height_by_stirling():
    n, log_det = 40_000, -5.0 * 40_000
    log_volume = bounds.ball_log_volume(2.0, n)
    bound = bounds.jia_su(bounds.Basin(0.02, n, log_volume), log_det, 4000)
    assert bound.terms["A"] == pytest.approx(bounds.basin_height(log_volume, log_det, n), rel=1e-3)
    small = bounds.jia_su(bounds.Basin(0.02, 3, math.log(0.2), posterior_loss=0.1), math.log(6.0), 4000)
    a = 3 * 0.2 ** (2 / 3) * math.pi ** (1 / 3) * 6.0 ** (1 / 3) / (4 * math.pi * math.e)
    assert small.value == pytest.approx(0.1 + 2 * math.sqrt((0.04 + 2 * a + math.log(8000 / 0.05)) / 3999), rel=1e-12)


# --- indefinite spectra -----------------------------------------------------------------------------------------


def test_negative_ratio_covers_an_indefinite_hessian():
    eigenvalues, damping, height = np.array([-0.4, 0.5, 3.0]), 0.5, 0.6
    spectrum = Spectrum.from_eigenvalues(eigenvalues)
    definite = bounds.positive_definite(spectrum, damping)
    points = basin_points(np.diag(np.clip(eigenvalues, 0, None) + damping), height, 400_000)
    energies = 0.5 * points**2 @ eigenvalues
    weights = np.exp(-energies)
    true_kl = -(weights * energies).sum() / weights.sum() - math.log(weights.mean())
    ratio = bounds.negative_ratio(spectrum, damping)
    log_det = bounds.log_determinant(definite)
    volume = bounds.basin_log_volume(height, log_det, 3)
    basin = bounds.Basin(0.0, 3, volume, negative_ratio=ratio)
    bound = bounds.level_set(basin, log_det, 100)
    assert ratio == pytest.approx(0.8)
    assert -energies.min() <= height * ratio
    assert true_kl <= bound.terms["kl"] == pytest.approx(height * (3 / 5 + 0.8))
    assert any("clipped" in line for line in bound.assumptions)
    assert bound.is_certificate
    assert not bounds.jia_su(basin, log_det, 100).is_certificate  # stated for a definite Hessian


def test_a_definite_spectrum_needs_no_correction():
    spectrum = Spectrum.from_eigenvalues([0.5, 2.0])
    assert bounds.negative_ratio(spectrum, 0.1) == 0.0
    assert bounds.log_determinant(spectrum) == pytest.approx(0.0, abs=1e-15)
    assert bounds.log_determinant(bounds.positive_definite(spectrum, 1.5)) == pytest.approx(math.log(7.0))


@pytest.fixture(scope="module")
def repeated():
    """Ten copies of each eigenvalue, and an estimate with negative weights."""
    values = np.repeat(np.arange(1.0, 61.0) ** -1.5, 10)
    spectrum = estimate_spectrum(MatrixOperator(matrix_with_spectrum(values)), num_matvecs=100)
    assert spectrum.weights.min() < 0
    return values, spectrum


def test_damped_estimate_of_repeated_eigenvalues(repeated):
    values, spectrum = repeated
    definite, exact = bounds.positive_definite(spectrum, 0.01), Spectrum.from_eigenvalues(values + 0.01)
    assert definite.has_repeated
    for found, true in ((definite.trace, exact.trace), (definite.renyi_entropy(1.5), exact.renyi_entropy(1.5))):
        assert 0 < abs(found.value - true.value) < 4 * found.standard_error
    assert definite.trace.standard_error == pytest.approx(spectrum.trace.standard_error)
    error = definite.trace_of(np.log).standard_error
    assert abs(bounds.log_determinant(definite) - bounds.log_determinant(exact)) < 4 * error


def test_laplace_bound_of_repeated_eigenvalues(repeated):
    values, spectrum = repeated
    arguments = {"squared_distance": 1.0, "num_samples": 1000, "prior_variances": [0.1], "betas": [100.0]}
    both = (spectrum, Spectrum.from_eigenvalues(values))
    found, exact = (bounds.laplace_pac_bayes(one, empirical_loss=0.1, **arguments) for one in both)
    assert float(found) == pytest.approx(float(exact), rel=0.05)
    assert float(found) != float(exact)


# --- Rényi ------------------------------------------------------------------------------------------------------


@examples
@given(spectra, alphas)
def test_the_log_determinant_is_never_above_its_renyi_bound(eigenvalues: np.ndarray, alpha: float):
    entropy, trace, n, _ = of(eigenvalues, alpha)
    bound = bounds.renyi_log_determinant(entropy, trace, n, alpha)
    slack = 1e-9 * (1 + n) / min(alpha, 1.0)
    assert np.log(eigenvalues).sum() <= bound + slack
    written_out = n * math.log(trace) + n / alpha * ((1 - alpha) * entropy - math.log(n))
    assert bound == pytest.approx(written_out, abs=slack)


@examples
@given(st.floats(1e-6, 1e6), st.integers(1, 10_000), alphas)
def test_equality_holds_at_the_uniform_spectrum(eigenvalue: float, n: int, alpha: float):
    bound = bounds.renyi_log_determinant(math.log(n), n * eigenvalue, n, alpha)
    assert bound == pytest.approx(n * math.log(eigenvalue), rel=1e-9, abs=1e-9 * n)


@examples
@given(spectra, alphas, st.floats(1.0, 5.0))
def test_a_smaller_order_is_never_looser(eigenvalues: np.ndarray, alpha: float, factor: float):
    lower, upper = (bounds.power_mean_curvature(*of(eigenvalues, a)) for a in (alpha, factor * alpha))
    assert lower <= upper * (1 + 1e-9 / min(alpha, 1.0))


def test_the_power_mean_at_infinite_order_is_the_largest_eigenvalue():
    assert bounds.power_mean_curvature(*of(np.array([0.5, 2.0, 7.0]), math.inf)) == pytest.approx(7.0)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_the_bound_falls_when_the_entropy_grows_only_above_order_one(alpha: float):
    basin = bounds.Basin(0.0, 10, math.log(0.1))
    low, high = (bounds.renyi_level_set(basin, h, 5.0, alpha, 100) for h in (1.0, 2.0))
    assert np.sign(high.value - low.value) == np.sign(1 - alpha)
    caveat = any("does not fall" in line for line in low.assumptions)
    assert caveat == (alpha <= 1)


@examples
@given(spectra, alphas, st.floats(0.01, 2.0))
def test_renyi_level_set_is_never_below_the_log_determinants_and_meets_it_at_the_uniform_spectrum(
    eigenvalues: np.ndarray, alpha: float, radius: float
):
    n = len(eigenvalues)
    basin = bounds.Basin(0.1, n, bounds.ball_log_volume(radius, n), negative_ratio=0.5)
    for values, same in ((eigenvalues, False), (np.full(n, eigenvalues[0]), True)):
        entropy, trace, _, _ = of(values, alpha)
        tight = bounds.level_set(basin, float(np.log(values).sum()), 200).value
        loose = bounds.renyi_level_set(basin, entropy, trace, alpha, 200).value
        assert loose == pytest.approx(tight) if same else tight <= loose + 1e-9


@examples
@given(spectra, alphas, st.floats(1e-3, 1e5))
def test_renyi_laplace_divergence_is_never_below_the_true_one(eigenvalues: np.ndarray, alpha: float, beta: float):
    n, variance = len(eigenvalues), 0.3
    true_kl = float(bounds.laplace_kl(eigenvalues, np.ones(n), n, 2.0, variance, beta))
    x = variance * beta * eigenvalues
    gamma = float((x / (1 + x)).sum())
    sharp = bounds.renyi_laplace_kl(*of(eigenvalues, alpha), 2.0, variance, beta, gamma)
    assert true_kl <= sharp * (1 + 1e-9) + 1e-9
    assert sharp <= bounds.renyi_laplace_kl(*of(eigenvalues, alpha), 2.0, variance, beta) + 1e-12


def test_renyi_laplace_divergence_is_exact_at_the_uniform_spectrum_from_order_one_on():
    uniform = np.full(7, 0.4)
    x = 0.3 * 50 * 0.4
    true_kl = float(bounds.laplace_kl(uniform, np.ones(7), 7, 2.0, 0.3, 50.0))
    for alpha in (1.0, 1.5, 4.0):
        assert bounds.renyi_laplace_kl(*of(uniform, alpha), 2.0, 0.3, 50.0, 7 * x / (1 + x)) == pytest.approx(true_kl)


def test_renyi_laplace_bound_is_langford_seeger_at_its_divergence():
    arguments = {"squared_distance": 2.0, "prior_variance": 0.3, "beta": 50.0}
    entropy_and_rest = of(np.array([0.1, 0.5, 2.0]), 2.0)
    bound = bounds.renyi_laplace(0.1, *entropy_and_rest, 300, **arguments)
    kl = bounds.renyi_laplace_kl(*entropy_and_rest, 2.0, 0.3, 50.0)
    assert bound.value == bounds.langford_seeger(0.1, kl, 300).value
    paid = bounds.renyi_laplace(0.1, *entropy_and_rest, 300, choices=6, num_draws=50, **arguments)
    upper = bounds.kl_inverse_upper(0.1, math.log(2 * 6 / 0.025) / 50)
    assert paid.value == pytest.approx(bounds.langford_seeger(upper, kl, 300, 0.025 / 6).value, rel=1e-14)


# --- SAM and the reported theorems ------------------------------------------------------------------------------


def test_sam_bound_is_its_formula_and_its_norm_term_is_twice_a_gaussian_divergence():
    k, n, norm, rho, delta = 7, 500, 3.0, 0.5, 0.05
    bound = bounds.sam_bound(0.1, norm, rho, k, n, delta)
    inside = k * math.log(1 + norm**2 / rho**2 * (1 + math.sqrt(math.log(n) / k)) ** 2)
    inside += 4 * math.log(n / delta) + 8 * math.log(6 * n + 3 * k)
    assert bound.value == pytest.approx(0.1 + math.sqrt(inside / (n - 1)), rel=1e-13)
    # The proof: Q = N(w, s²I) with s = ρ/(√k + √log N) and the best centred prior's variance s² + ‖w‖²/k.
    s2 = (rho / (math.sqrt(k) + math.sqrt(math.log(n)))) ** 2
    eye = torch.eye(k, dtype=torch.float64)
    w = torch.full((k,), norm / math.sqrt(k), dtype=torch.float64)
    posterior = torch.distributions.MultivariateNormal(w, s2 * eye)
    prior = torch.distributions.MultivariateNormal(torch.zeros_like(w), (s2 + norm**2 / k) * eye)
    assert bound.terms["norm_term"] == pytest.approx(2 * float(torch.distributions.kl_divergence(posterior, prior)))
    assert bound.value >= bounds.maurer(0.1, bound.terms["norm_term"] / 2, n, delta).value


def test_theorem_3_2_is_its_formula_as_reported():
    basin = bounds.Basin(0.02, 6, math.log(0.3), posterior_loss=0.1)
    bound = bounds.renyi_theorem_3_2(basin, 1.3, 400, a=0.4, c=2.0, delta=0.1)
    inside = 0.04 + 2.0 * 0.3 ** (2 / 6) * math.exp(-(1.3 - 0.4) / 6) + math.log(8000)
    assert bound.value == pytest.approx(0.1 + 2 * math.sqrt(inside / 399), rel=1e-13)
    assert "as reported" in bound.name
    assert not bound.is_certificate
    assert any("as reported, not derived" in line for line in bound.assumptions)


def test_theorem_3_3_is_its_formula_as_reported_and_falls_with_the_entropy():
    low, high = (bounds.renyi_theorem_3_3(0.1, h, 400, a=3.0, delta=0.1).value for h in (1.0, 4.0))
    assert high == pytest.approx(0.1 + 2 * math.sqrt((3 - 2 + math.log(8000)) / 399), rel=1e-13)
    assert high < low


def test_at_the_largest_entropy_the_power_mean_is_the_mean_at_any_order():
    assert bounds.power_mean_curvature(math.log(4), 8.0, 4, 1e-320) == 2.0


def test_sam_bound_of_weights_too_large_to_square_is_a_number():
    assert math.isfinite(bounds.sam_bound(0.1, 1e200, 0.05, 100, 1000).value)


# --- messages ---------------------------------------------------------------------------------------------------

basin = partial(bounds.Basin, loss_at_minimum=0.1, dim=3, log_volume=-0.7)
renyi_log_determinant = partial(bounds.renyi_log_determinant, entropy=0.5, trace=2.0, dim=3, alpha=2.0)
sam = partial(bounds.sam_bound, worst_loss=0.1, weight_norm=1.0, rho=0.1, num_parameters=5, num_samples=100)
theorem = partial(bounds.renyi_theorem_3_2, basin=basin(posterior_loss=0.1), entropy=1.0, num_samples=100, a=0.0, c=1.0)
MESSAGES = [
    (partial(basin, log_volume=-math.inf), ValueError, "log_volume must be finite"),
    (partial(basin, log_volume=None), TypeError, "log_volume must be a real number"),
    (partial(basin, loss_at_minimum=2.3), ValueError, "clip the loss at some B"),
    (partial(basin, posterior_loss=2.3), ValueError, "clip the loss at some B"),
    (partial(basin, negative_ratio=-0.1), ValueError, "negative_ratio must lie in"),
    (partial(basin, dim=0), ValueError, "dim must be at least 1"),
    *(
        (partial(calculate, *arguments), ValueError, message)
        for calculate in (bounds.level_set, bounds.jia_su)
        for arguments, message in [
            ((basin(log_volume=1e6), -2.0, 100), "is log_volume the logarithm"),
            ((basin(), math.nan, 100), "log_determinant must be finite"),
            ((basin(), -math.inf, 100), "log_determinant must be finite"),
            ((basin(), -2.0, 1), "num_samples must be at least 2"),
        ]
    ),
    (partial(bounds.level_set, basin(), -2.0, 100, delta=1.0), ValueError, "delta must lie in"),
    (partial(bounds.jia_su, basin(), -2.0, 100, delta=1.0), ValueError, "delta must lie in"),
    (partial(bounds.renyi_level_set, basin(log_volume=1e6), 0.5, 2.0, 2.0, 100), ValueError, "is log_volume the log"),
    (
        partial(bounds.log_determinant, Spectrum.from_eigenvalues([-0.5, 1.0])),
        ValueError,
        r"eigenvalue -0\.5.*positive_definite\(spectrum, damping\)",
    ),
    (partial(bounds.positive_definite, Spectrum.from_eigenvalues([1.0]), 0.0), ValueError, "damping must lie in"),
    (partial(bounds.log_determinant, [1.0]), TypeError, "must be a Spectrum"),
    (partial(renyi_log_determinant, entropy=-0.1), ValueError, "entropy must lie in"),
    (partial(renyi_log_determinant, entropy=1.2), ValueError, "entropy must lie in"),
    (partial(renyi_log_determinant, trace=0.0), ValueError, "trace must lie in"),
    (partial(renyi_log_determinant, alpha=0.0), ValueError, "alpha must lie in"),
    (partial(renyi_log_determinant, alpha=math.nan), ValueError, "alpha must be a number"),
    (partial(renyi_log_determinant, alpha=1e-4), ValueError, "take a larger alpha"),
    (partial(renyi_log_determinant, dim=0), ValueError, "dim must be at least 1"),
    (partial(sam, worst_loss=1.5), ValueError, "clip the loss at some B"),
    (partial(sam, weight_norm=-1.0), ValueError, "weight_norm must lie in"),
    (partial(sam, rho=0.0), ValueError, "rho must lie in"),
    (partial(sam, num_parameters=0), ValueError, "num_parameters must be at least 1"),
    (partial(sam, num_samples=1), ValueError, "num_samples must be at least 2"),
    (partial(sam, delta=0.0), ValueError, "delta must lie in"),
    (partial(theorem, c=-1.0), ValueError, "c must lie in"),
    (partial(theorem, a=math.inf), ValueError, "a must be finite"),
    (partial(theorem, entropy=-1.0), ValueError, "entropy must lie in"),
    (partial(theorem, basin=basin()), ValueError, "basin needs a posterior_loss"),
    (partial(bounds.renyi_theorem_3_3, 1.5, 1.0, 100, a=3.0), ValueError, "clip the loss at some B"),
    (partial(bounds.renyi_theorem_3_3, 0.1, 5.0, 400, a=-20.0), ValueError, "no such A can be right"),
]


@pytest.mark.parametrize(("call", "error", "message"), MESSAGES)
def test_messages(call, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        call()
