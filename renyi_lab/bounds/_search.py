"""The routes of a certificate: which posterior to take, and what its bound is once it was measured with fresh draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from renyi_lab._utils.bernoulli_kl import kl_inverse_upper
from renyi_lab._utils.minibatches import batches
from renyi_lab.bounds._bound import Bound
from renyi_lab.bounds._certificate import Route
from renyi_lab.bounds._classifier import error_rate
from renyi_lab.bounds._held_out import held_out
from renyi_lab.bounds._pac_bayes import IID, SEEGER, UNIT_LOSS, pac_bayes_terms, sampling_assumption, seeger_bound
from renyi_lab.operators import GGNOperator
from renyi_lab.posterior import GaussianPosterior, LowRankCurvature, leading_curvature

# Shares of δ for the held-out route, the PAC-Bayes routes, and their draws. Heuristic: draws are cheap.
HELD_OUT_SHARE, PAC_BAYES_SHARE, DRAWS_SHARE = 0.45, 0.45, 0.1
_SAMPLED_ROUTES = 3
# The grid of σ, relative to the noise of the prior's training: fixed beforehand, with a union bound. Heuristic.
SIGMA_FACTORS = (0.25, 0.5, 1.0, 2.0)
# β relative to N; at 1, Q is Laplace's approximation of the Bayesian posterior. Heuristic: the bound holds for all β.
BETA_FACTORS = (1.0, 10.0, 100.0)
# Draws that candidates are compared on, and samples that share a draw in the final measurement. Heuristic: many small
# blocks make many independent draws for the same work.
_PILOT_DRAWS, _BLOCK_SIZE = 20, 50
_CURVATURE_SAMPLES = 1000  # heuristic: C need not be exact, it only shapes Q
# Seeds far from those of training, so that no draw repeats what a posterior was chosen by.
_PILOT_SEED, _FINAL_SEED, _TEST_SEED = 10**9, 2 * 10**9, 3 * 10**9
_TEST_DRAWS = 200  # heuristic: a standard error of the test error far below the test set's own


@dataclass(frozen=True, eq=False)
class PosteriorSearch:
    """Compares posteriors over ``network``'s weights by their bound on ``num_samples`` samples, and measures it."""

    network: nn.Module
    data_set: Dataset[Any]
    num_samples: int
    noise: float
    delta: float
    chance: float
    num_draws: int
    seed: int
    progress: bool | None

    def curvature(self, num_directions: int) -> LowRankCurvature:
        """The leading part of the Gauss–Newton matrix at the prior's mean, on the first of the bound's samples."""
        taken, parts = 0, []
        for inputs, targets in batches(self.data_set, _CURVATURE_SAMPLES, self.network):
            parts.append((inputs, targets))
            taken += len(targets)
            if taken >= _CURVATURE_SAMPLES:
                break
        operator = GGNOperator(self.network, F.cross_entropy, parts)
        return leading_curvature(operator, min(num_directions, operator.dim), seed=self.seed)

    def route(
        self, name: str, certifies: str, means: Sequence[nn.Module], curvature: LowRankCurvature | None = None
    ) -> Route:
        """The best of the posteriors around these means, over the grid of σ (and β), as a route."""
        best: tuple[float, GaussianPosterior, float] | None = None
        betas = (0.0,) if curvature is None else tuple(factor * self.num_samples for factor in BETA_FACTORS)
        for prior in [GaussianPosterior(self.network, factor * self.noise) for factor in SIGMA_FACTORS]:
            for mean in means:
                for beta in betas:
                    candidate = GaussianPosterior(mean, prior.sigma, curvature, beta)
                    kl = candidate.kl(prior)
                    if best is not None and self._value(0.0, kl) >= best[0]:
                        continue  # even without a single mistake
                    pilot = candidate.gibbs_error(self.data_set, _PILOT_DRAWS, seed=_PILOT_SEED + self.seed)
                    value = self._value(pilot.value, kl)
                    if best is None or value < best[0]:
                        best = value, candidate, kl
        assert best is not None  # the grid is not empty
        return Route(name, certifies, self._measured(name, best[1], best[2]), best[1])

    def _terms(self, loss: float, kl: float) -> dict[str, float]:
        return pac_bayes_terms(loss, kl, self.num_samples, PAC_BAYES_SHARE * self.delta, len(SIGMA_FACTORS))

    def _value(self, loss: float, kl: float) -> float:
        return kl_inverse_upper(loss, self._terms(loss, kl)["complexity"])

    def _measured(self, name: str, posterior: GaussianPosterior, kl: float) -> Bound:
        """The Langford–Seeger bound from fresh draws, with the parts that its value is made of."""
        seed, delta_draws = _FINAL_SEED + self.seed, DRAWS_SHARE * self.delta / _SAMPLED_ROUTES
        error = posterior.gibbs_error(
            self.data_set, self.num_draws, block_size=_BLOCK_SIZE, seed=seed, progress=self.progress
        )
        upper = error.upper_limit(delta_draws)
        assumptions = (UNIT_LOSS, IID, sampling_assumption(error.num_draws))
        source = f"{SEEGER}; Langford & Caruana 2001"
        bound = seeger_bound(f"certificate, {name}", self._terms(upper, kl), assumptions, source)
        without_kl = self._value(upper, 0.0)
        return bound.against(self.chance).with_terms(
            sampled_loss=error.value,
            num_draws=float(error.num_draws),
            from_measured_error=error.value,
            from_draws=upper - error.value,
            from_confidence=without_kl - upper,
            from_divergence=bound.value - without_kl,
            sigma=posterior.sigma,
            beta=posterior.beta,
            choices=float(len(SIGMA_FACTORS)),
            delta_draws=delta_draws,
        )


def held_out_route(network: nn.Module, data_set: Dataset[Any], num_samples: int, delta: float, chance: float) -> Route:
    """The prior's network without noise, on the samples that it never saw."""
    errors = round(error_rate(network, data_set) * num_samples)
    share, bound = errors / num_samples, held_out(errors, num_samples, HELD_OUT_SHARE * delta).against(chance)
    parts = {"from_draws": 0.0, "from_confidence": bound.value - share, "from_divergence": 0.0}
    bound = bound.with_terms(from_measured_error=share, **parts)
    return Route("held-out", "the prior's network itself, by samples it never saw", bound, network)


def with_test_error(route: Route, test_set: Dataset[Any], seed: int) -> Route:
    """The route with its classifier's error on a test set."""
    classifier = route.classifier
    if isinstance(classifier, GaussianPosterior):
        return replace(route, test_error=classifier.gibbs_error(test_set, _TEST_DRAWS, seed=_TEST_SEED + seed).value)
    return replace(route, test_error=error_rate(classifier, test_set))
