"""The Gaussian posterior against dense Gaussians, and the confidence limit from its draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from renyi_lab import bounds
from renyi_lab.operators import GGNOperator, matrix_with_spectrum
from renyi_lab.posterior import GaussianPosterior, GibbsError, LowRankCurvature, gibbs_error, leading_curvature

EIGENVALUES = torch.tensor([-0.7, 0.0, 0.2, 0.9, 1.5, 4.0], dtype=torch.float64)


def linear(seed: int = 1, bias: bool = False) -> nn.Linear:
    """Six weights without a bias."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Linear(3, 2, bias=bias, dtype=torch.float64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def problem(count: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, 2, (count,), generator=generator)


def hessian() -> torch.Tensor:
    return matrix_with_spectrum(EIGENVALUES, seed=4)


def dense(posterior: GaussianPosterior, matrix: torch.Tensor) -> torch.distributions.MultivariateNormal:
    """N(θ, (I/σ² + βH₊)⁻¹)."""
    values, vectors = torch.linalg.eigh(matrix)
    clipped = vectors @ torch.diag(values.clip(min=0)) @ vectors.T
    precision = torch.eye(6, dtype=torch.float64) / posterior.sigma**2 + posterior.beta * clipped
    return torch.distributions.MultivariateNormal(posterior.mean, precision_matrix=(precision + precision.T) / 2)


# --- curvature --------------------------------------------------------------------------------------------------


def test_leading_curvature_of_a_full_lanczos_run_is_the_positive_part():
    curvature = leading_curvature(hessian(), 6)
    assert curvature.eigenvalues.tolist() == pytest.approx([4.0, 1.5, 0.9, 0.2], rel=1e-9)
    values, vectors = torch.linalg.eigh(hessian())
    positive = vectors @ torch.diag(values.clip(min=0)) @ vectors.T
    rebuilt = curvature.directions.T @ torch.diag(curvature.eigenvalues) @ curvature.directions
    assert torch.allclose(rebuilt, positive, atol=1e-9)
    spectrum = curvature.spectrum
    assert (spectrum.dim, spectrum.is_exact) == (6, True)
    assert float(spectrum.trace) == pytest.approx(6.6)


def test_directions_of_a_single_precision_network_are_orthonormal_in_double_precision():
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    x = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
    curvature = leading_curvature(GGNOperator(model, nn.CrossEntropyLoss(), (x, torch.arange(30) % 3)), 10)
    gram = curvature.directions @ curvature.directions.T
    assert float((gram - torch.eye(len(gram), dtype=torch.float64)).abs().max()) < 1e-13


def test_an_operator_without_positive_curvature_has_no_directions():
    curvature = leading_curvature(-torch.eye(4, dtype=torch.float64), 3)
    assert curvature.directions.shape == (0, 4)
    assert float(curvature.spectrum.trace) == 0.0


# --- the Gaussian -----------------------------------------------------------------------------------------------


def test_a_draw_is_the_mean_plus_the_inverse_root_of_the_precision_times_normal_noise():
    posterior = GaussianPosterior(linear(), 0.6, leading_curvature(hessian(), 6), beta=3.0)
    values, vectors = torch.linalg.eigh(hessian())
    root = vectors @ torch.diag((1 / 0.6**2 + 3.0 * values.clip(min=0)).rsqrt()) @ vectors.T
    z = torch.randn(6, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    draw = posterior.sample(torch.Generator().manual_seed(9))
    assert torch.allclose(draw, posterior.mean + root @ z, atol=1e-10)


def test_draws_have_the_covariance_of_the_divergence():
    # Of truncated rank, so that C is not H: what counts is the Gaussian that is drawn from.
    curvature = leading_curvature(hessian(), 2, num_matvecs=3)
    posterior = GaussianPosterior(linear(), 0.6, curvature, beta=3.0)
    cut = curvature.directions.T @ torch.diag(curvature.eigenvalues) @ curvature.directions
    expected = torch.linalg.inv(torch.eye(6, dtype=torch.float64) / 0.36 + 3.0 * cut)
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([posterior.sample(generator) for _ in range(20_000)])
    assert torch.allclose(torch.cov(draws.T), expected, atol=0.02)
    assert float((expected - 0.36 * torch.eye(6, dtype=torch.float64)).abs().max()) > 0.1
    prior = GaussianPosterior(linear(seed=2), 0.6)
    by_spectrum = bounds.laplace_kl(
        curvature.spectrum.nodes,
        curvature.spectrum.weights,
        6,
        float((posterior.mean - prior.mean).square().sum()),
        0.36,
        3.0,
    )
    assert posterior.kl(prior) == pytest.approx(float(by_spectrum), rel=1e-12)


@pytest.mark.parametrize("prior_sigma", [0.6, 0.3, 2.0])
@pytest.mark.parametrize("beta", [0.0, 3.0, 1e6])
def test_divergence_equals_that_of_dense_gaussians(prior_sigma: float, beta: float):
    posterior = GaussianPosterior(linear(), 0.6, leading_curvature(hessian(), 6), beta)
    prior = GaussianPosterior(linear(seed=2), prior_sigma)
    expected = torch.distributions.kl_divergence(dense(posterior, hessian()), dense(prior, torch.zeros(6, 6).double()))
    assert posterior.kl(prior) == pytest.approx(float(expected), rel=1e-6)
    assert prior.kl(prior) == 0.0


def test_training_the_model_further_does_not_change_the_posterior():
    model = linear()
    posterior = GaussianPosterior(model, 0.6)
    before = posterior.mean.clone()
    with torch.no_grad():
        model.weight.zero_()
    assert torch.equal(posterior.mean, before)
    assert float(posterior.model.weight.detach().abs().sum()) > 0


@pytest.mark.parametrize("change", ["buffer", "frozen"])
def test_buffers_and_frozen_weights_must_agree_with_the_priors(change: str):
    first, second = (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)) for _ in range(2))
    second.load_state_dict(first.state_dict())
    first[2].requires_grad_(False)
    second[2].requires_grad_(False)
    assert GaussianPosterior(first, 0.1).kl(GaussianPosterior(second, 0.1)) == 0.0
    with torch.no_grad():
        (second[1].running_mean if change == "buffer" else second[2].weight).add_(1e-3)
    with pytest.raises(ValueError, match="their divergence is infinite"):
        GaussianPosterior(first, 0.1).kl(GaussianPosterior(second, 0.1))


# --- the Gibbs error --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_blocks_measure_the_same_error_as_the_closed_form():
    model = linear()
    x, y = problem(43)
    result = GaussianPosterior(model, 0.5).gibbs_error((x, y), 4000, block_size=10, seed=3)
    scores = model(x).detach()
    margin = scores.gather(1, y[:, None])[:, 0] - scores.gather(1, 1 - y[:, None])[:, 0]
    expected = float(torch.special.ndtr(-margin / (0.5 * (2 * (x**2).sum(1)).sqrt())).mean())
    assert result.num_draws == 4000
    assert result.value == pytest.approx(expected, abs=4 * result.standard_error)
    assert result.standard_error < 0.005
    assert result.stretch == pytest.approx(4 * 11 / 43)
    assert result.value == pytest.approx(result.stretch * np.mean(result.draws), rel=1e-12)


def test_without_curvature_it_estimates_the_isotropic_gibbs_error():
    model, data = linear(), problem()
    mine = GaussianPosterior(model, 0.5).gibbs_error(TensorDataset(*data), 1000)
    plain = gibbs_error(model, data, 0.5, 1000)
    assert mine.value == pytest.approx(plain.value, abs=4 * math.hypot(mine.standard_error, plain.standard_error))
    assert mine.stretch == 1.0


def test_less_noise_along_curved_directions_keeps_the_error_lower():
    x, y = problem(400)
    model = linear()
    y = model(x).argmax(1)
    curvature = leading_curvature(GGNOperator(model, nn.CrossEntropyLoss(), (x, y)), 6)
    wide = GaussianPosterior(model, 2.0).gibbs_error((x, y), 300)
    shaped = GaussianPosterior(model, 2.0, curvature, beta=400.0).gibbs_error((x, y), 300)
    assert shaped.value < wide.value - 5 * wide.standard_error


def gibbs(draws: np.ndarray, stretch: float = 1.0) -> GibbsError:
    return GibbsError(stretch * float(draws.mean()), 0.0, tuple(draws.tolist()), 0.1, stretch)


def test_upper_limit_is_the_smaller_of_its_two_formulas():
    scattered, agreeing = np.repeat([0.0, 1.0], [60, 40]), np.full(1000, 0.3) + np.resize([0.01, -0.01], 1000)
    by_chernoff = bounds.kl_inverse_upper(0.4, math.log(2 / 0.05) / 100)
    assert gibbs(scattered).upper_limit(0.05) == pytest.approx(by_chernoff, rel=1e-12)
    log_term = math.log(4 / 0.05)
    by_bernstein = 0.3 + math.sqrt(2 * agreeing.var(ddof=1) * log_term / 1000) + 7 * log_term / (3 * 999)
    assert gibbs(agreeing).upper_limit(0.05) == pytest.approx(by_bernstein, rel=1e-12)
    assert gibbs(agreeing, stretch=1.5).upper_limit(0.05) == pytest.approx(1.5 * by_bernstein, rel=1e-12)
    assert gibbs(np.ones(3)).upper_limit(0.05) == 1.0


@pytest.mark.parametrize("block_error", ["independent mistakes", "all or nothing"])
def test_upper_limit_fails_with_probability_delta_at_most(block_error: str):
    # Blocks of unequal size and unequal difficulty, as `GaussianPosterior.gibbs_error` has them.
    rng, delta, rounds = np.random.default_rng(0), 0.2, 8
    sizes, chances = np.array([5, 5, 4, 4]), np.array([0.05, 0.2, 0.3, 0.6])
    truth = float(sizes @ chances / sizes.sum())
    failures, naive = 0, 0
    for _ in range(1500):
        if block_error == "all or nothing":
            mistakes = sizes * (rng.random((rounds, 4)) < chances)
        else:
            mistakes = rng.binomial(sizes, chances, size=(rounds, 4))
        result = gibbs((mistakes / sizes.max()).ravel(), stretch=sizes.max() * 4 / sizes.sum())
        assert result.value == pytest.approx(mistakes.sum() / (rounds * sizes.sum()))
        failures += result.upper_limit(delta) < truth
        naive += result.value < truth
    assert failures / 1500 <= delta
    assert naive / 1500 > delta


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_random_states_and_network_are_restored_after_an_interrupt(error: type[BaseException]):
    class Fragile(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm = nn.Linear(3, 2), nn.BatchNorm1d(2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch.rand(1)
            if self.norm.running_mean is not None and len(x) == 3:
                raise error("in the middle")
            return self.norm(self.linear(x))

    posterior = GaussianPosterior(Fragile().train(), 0.1)
    before = {name: tensor.clone() for name, tensor in posterior.model.state_dict().items()}
    state = torch.get_rng_state()
    data = torch.ones(7, 3), torch.zeros(7, dtype=torch.long)
    with pytest.raises(error, match="in the middle"):
        posterior.gibbs_error(data, 4, block_size=3)
    assert torch.equal(state, torch.get_rng_state())
    assert posterior.model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in posterior.model.state_dict().items())


# --- messages ---------------------------------------------------------------------------------------------------


def broken() -> nn.Linear:
    model = linear()
    with torch.no_grad():
        model.weight[0, 0] = math.nan
    return model


def posterior() -> GaussianPosterior:
    return GaussianPosterior(linear(), 0.1)


def curvature() -> LowRankCurvature:
    return leading_curvature(hessian(), 2)


IDENTITY = torch.eye(3, dtype=torch.float64)
MESSAGES = [
    (lambda: LowRankCurvature(torch.ones(2).double(), torch.ones(2, 3).double()), ValueError, "orthonormal rows"),
    (lambda: LowRankCurvature(torch.ones(2), torch.eye(3)[:2]), TypeError, "double precision"),
    (lambda: LowRankCurvature(-torch.ones(2).double(), IDENTITY[:2]), ValueError, "positive and finite"),
    (lambda: LowRankCurvature(math.nan * torch.ones(2).double(), IDENTITY[:2]), ValueError, "positive and finite"),
    (lambda: LowRankCurvature(torch.ones(3).double(), IDENTITY[:2]), ValueError, r"must be \(k, n\)"),
    (lambda: GaussianPosterior("mlp", 0.1), TypeError, "model must be a torch.nn.Module"),
    (lambda: GaussianPosterior(linear(), 0.0), ValueError, "sigma must lie in"),
    (lambda: GaussianPosterior(linear(), math.nan), ValueError, "sigma must be finite"),
    (lambda: GaussianPosterior(linear(), 0.1, curvature(), -1.0), ValueError, "beta must lie in"),
    (lambda: GaussianPosterior(linear(), 0.1, beta=1.0), ValueError, "needs a curvature"),
    (lambda: GaussianPosterior(linear(), 0.1, hessian(), 1.0), TypeError, "must be a LowRankCurvature"),
    (lambda: GaussianPosterior(linear(bias=True), 0.1, curvature(), 1.0), ValueError, "is of 6 parameters"),
    (lambda: GaussianPosterior(linear().requires_grad_(False), 0.1), ValueError, "no trainable parameter"),
    (lambda: posterior().kl("prior"), TypeError, "prior must be a GaussianPosterior"),
    (lambda: posterior().kl(GaussianPosterior(linear(), 0.1, curvature(), 1.0)), ValueError, "must be isotropic"),
    (lambda: posterior().kl(GaussianPosterior(linear(bias=True), 0.1)), ValueError, "same trainable weights"),
    (lambda: posterior().gibbs_error(problem(), 0), ValueError, "num_draws must be at least 1"),
    (lambda: posterior().gibbs_error(problem(), 2, block_size=0), ValueError, "block_size must be at least 1"),
    (lambda: posterior().gibbs_error((torch.ones(0, 3), torch.ones(0).long())), ValueError, "data_set is empty"),
    (lambda: leading_curvature(hessian(), 0), ValueError, "num_directions must be at least 1"),
    (lambda: leading_curvature(hessian(), 4, num_matvecs=3), ValueError, "num_matvecs must be at least 4"),
    (lambda: GaussianPosterior(broken(), 0.1), ValueError, "mean of the weights is not finite"),
    (lambda: gibbs(np.ones(3)).upper_limit(1.0), ValueError, "delta must lie in"),
]


@pytest.mark.parametrize(("call", "error", "message"), MESSAGES)
def test_messages(call, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        call()
