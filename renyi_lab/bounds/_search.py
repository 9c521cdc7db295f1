"""The routes of a certificate: which posterior to take, and what its bound is once it was measured with fresh draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from renyi_lab._utils.bernoulli_kl import kl_inverse_upper
from renyi_lab._utils.minibatches import batches
from renyi_lab.bounds._bound import Bound
from renyi_lab.bounds._certificate import Route
from renyi_lab.bounds._held_out import held_out
from renyi_lab.bounds._pac_bayes import IID, UNIT_LOSS, pac_bayes_terms, sampling_assumptions
from renyi_lab.operators import GGNOperator
from renyi_lab.posterior import GaussianPosterior, LowRankCurvature, leading_curvature
from renyi_lab.training import evaluate

# Shares of δ for the held-out route, the PAC-Bayes routes, and their draws. Our choice: draws are cheap.
HELD_OUT_SHARE, PAC_BAYES_SHARE, DRAWS_SHARE = 0.45, 0.45, 0.1
_SAMPLED_ROUTES = 3
# The grid of σ, relative to the noise that the prior was trained under: fixed beforehand, paid for. Our choice.
SIGMA_FACTORS = (0.25, 0.5, 1.0, 2.0)
# β relative to N, for which Q is Laplace's approximation of the Bayesian posterior. Our choice, free of charge.
_BETA_FACTORS = (1.0, 10.0, 100.0)
# Draws that candidates are compared on, and samples that share a draw in the final measurement: many small blocks make
# many independent draws for the same work. Our choice.
_PILOT_DRAWS, _BLOCK_SIZE = 20, 50
_CURVATURE_SAMPLES = 1000  # our choice: C need not be exact, it only shapes Q
# Seeds far from those of training, so that no draw repeats what a posterior was chosen by. Our choice.
_PILOT_SEED, _FINAL_SEED, _TEST_SEED = 10**9, 2 * 10**9, 3 * 10**9
_TEST_DRAWS = 200  # our choice: a standard error of the test error far below the test set's own


class PosteriorSearch:
    """Compares posteriors over ``network``'s weights by their bound on ``num_samples`` samples, and measures it."""

    def __init__(
        self,
        network: nn.Module,
        data_set: Dataset[Any],
        num_samples: int,
        noise: float,
        delta: float,
        chance: float,
        num_draws: int,
        seed: int,
        progress: bool | None,
    ) -> None:
        self._network, self._data_set, self._num_samples = network, data_set, num_samples
        self._delta, self._chance, self._num_draws = delta, chance, num_draws
        self._seed, self._progress = seed, progress
        self._priors = [GaussianPosterior(network, factor * noise) for factor in SIGMA_FACTORS]

    def curvature(self, num_directions: int) -> LowRankCurvature:
        """The leading part of the Gauss–Newton matrix at the prior's mean, on the first of the bound's samples."""
        taken, parts = 0, []
        for inputs, targets in batches(self._data_set, _CURVATURE_SAMPLES, self._network):
            parts.append((inputs, targets))
            taken += len(targets)
            if taken >= _CURVATURE_SAMPLES:
                break
        operator = GGNOperator(self._network, F.cross_entropy, parts)
        return leading_curvature(operator, min(num_directions, operator.dim), seed=self._seed)

    def route(self, name: str, certifies: str, means: Sequence[nn.Module], curvature: LowRankCurvature | None) -> Route:
        """The best of the posteriors around these means, over the grid of σ (and β), as a route."""
        best: tuple[float, GaussianPosterior, float] | None = None
        betas = (0.0,) if curvature is None else tuple(factor * self._num_samples for factor in _BETA_FACTORS)
        for prior in self._priors:
            for mean in means:
                for beta in betas:
                    candidate = GaussianPosterior(mean, prior.sigma, curvature, beta)
                    kl = candidate.kl(prior)
                    if best is not None and self._value(0.0, kl) >= best[0]:
                        continue  # even without a single mistake
                    pilot = candidate.gibbs_error(self._data_set, _PILOT_DRAWS, seed=_PILOT_SEED + self._seed)
                    value = self._value(pilot.value, kl)
                    if best is None or value < best[0]:
                        best = value, candidate, kl
        assert best is not None  # the grid is not empty
        return Route(name, certifies, self._measured(name, best[1], best[2]), best[1])

    def _terms(self, loss: float, kl: float) -> dict[str, float]:
        return pac_bayes_terms(loss, kl, self._num_samples, PAC_BAYES_SHARE * self._delta, len(self._priors))

    def _value(self, loss: float, kl: float) -> float:
        return kl_inverse_upper(loss, self._terms(loss, kl)["complexity"])

    def _measured(self, name: str, posterior: GaussianPosterior, kl: float) -> Bound:
        """The Langford–Seeger bound from fresh draws, with the parts that its value is made of."""
        error = posterior.gibbs_error(
            self._data_set,
            self._num_draws,
            block_size=_BLOCK_SIZE,
            seed=_FINAL_SEED + self._seed,
            progress=self._progress,
        )
        upper = error.upper_limit(DRAWS_SHARE * self._delta / _SAMPLED_ROUTES)
        terms = self._terms(upper, kl)
        value, without_kl = self._value(upper, kl), self._value(upper, 0.0)
        terms |= {
            "sampled_loss": error.value,
            "num_draws": float(error.num_draws),
            "from_measured_error": error.value,
            "from_draws": upper - error.value,
            "from_confidence": without_kl - upper,
            "from_divergence": value - without_kl,
            "sigma": posterior.sigma,
            "beta": posterior.beta,
            "choices": float(len(self._priors)),
            "delta_draws": DRAWS_SHARE * self._delta / _SAMPLED_ROUTES,
        }
        assumptions = (UNIT_LOSS, IID, *sampling_assumptions(error.num_draws))
        source = "Langford & Seeger 2001; Maurer 2004; Langford & Caruana 2001"
        return Bound(f"certificate, {name}", value, terms, assumptions, self._chance, source)


def held_out_route(network: nn.Module, data_set: Dataset[Any], num_samples: int, delta: float, chance: float) -> Route:
    """The prior's network without noise, judged by the samples that it never saw."""
    accuracy = evaluate(network, data_set).accuracy
    if accuracy is None:
        raise ValueError("train_set's targets must be class indices for scores of shape (batch, classes ≥ 2).")
    errors = round((1 - accuracy) * num_samples)
    bound = held_out(errors, num_samples, HELD_OUT_SHARE * delta, trivial_value=chance)
    share = errors / num_samples
    bound = bound.with_terms(
        from_measured_error=share, from_draws=0.0, from_confidence=bound.value - share, from_divergence=0.0
    )
    return Route("held-out", "the prior's network itself, by samples it never saw", bound, network)


def with_test_error(route: Route, test_set: Dataset[Any], seed: int) -> Route:
    """The route with its classifier's error on a test set."""
    classifier = route.classifier
    if isinstance(classifier, GaussianPosterior):
        error = classifier.gibbs_error(test_set, _TEST_DRAWS, seed=_TEST_SEED + seed).value
    else:
        error = 1 - float(evaluate(classifier, test_set).accuracy or 0.0)
    return replace(route, test_error=error)
