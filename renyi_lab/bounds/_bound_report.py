"""All bounds side by side for one trained network, its whole training set in every one of them.

The prior is the initialisation, so the figures say what curvature and distance alone can show; for most networks most
of them are vacuous. For a certificate worth having use `certify`, which trains the prior on data of its own.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from renyi_lab._utils.minibatches import Pair, batches, check_data
from renyi_lab._utils.model_state import training_flags
from renyi_lab._utils.parameters import flatten, select_parameters
from renyi_lab._utils.progress import progress_bar
from renyi_lab._utils.random import preserved_rng
from renyi_lab._utils.validation import check_int, check_reals
from renyi_lab.bounds._bound import Bound
from renyi_lab.bounds._catoni import catoni
from renyi_lab.bounds._level_set_bounds import LOSS_CLIP, NO_CERTIFICATE, level_set_bounds
from renyi_lab.bounds._pac_bayes import DELTA, langford_seeger, maurer
from renyi_lab.bounds._renyi import NOT_DECREASING, renyi_laplace_kl
from renyi_lab.bounds._sam import sam_bound
from renyi_lab.operators import GGNOperator, HessianOperator
from renyi_lab.posterior import GaussianPosterior, leading_curvature
from renyi_lab.spectrum import estimate_spectrum
from renyi_lab.training import evaluate

if TYPE_CHECKING:
    import pandas as pd

# β relative to N, at which Q is Laplace's approximation of the Bayesian posterior. Our choice.
_BETA_FACTORS = (1.0, 10.0)


@dataclass(frozen=True, eq=False)
class BoundReport:
    """The bounds that `bound_report` computed, each with δ of its own."""

    bounds: tuple[Bound, ...]

    def to_frame(self) -> pd.DataFrame:
        """One row for each bound: value, what it must undercut, loss and divergence in it, is it proven here."""
        import pandas as pd

        rows = [
            {
                "value": bound.value,
                "trivial": bound.trivial_value,
                "vacuous": bound.vacuous,
                "loss": bound.terms.get("empirical_loss", bound.terms.get("worst_loss", math.nan)),
                "kl": bound.terms.get("kl", math.nan),
                "certificate": not any(NO_CERTIFICATE in line for line in bound.assumptions),
                "source": bound.source,
            }
            for bound in self.bounds
        ]
        return pd.DataFrame(rows, index=pd.Index([bound.name for bound in self.bounds], name="bound"))

    def __getitem__(self, name: str) -> Bound:
        found = [bound for bound in self.bounds if bound.name == name]
        if not found:
            raise KeyError(f"no bound {name!r}; there are {[bound.name for bound in self.bounds]}.")
        return found[0]

    def __repr__(self) -> str:
        return f"BoundReport, each with probability 1 − δ of its own:\n{self.to_frame().round(4).to_string()}"

    def _repr_html_(self) -> str:
        return str(self.to_frame().round(4).to_html())


def bound_report(
    model: nn.Module,
    initial: nn.Module,
    train_set: Dataset[Any] | Pair,
    *,
    alphas: Sequence[float] = (0.5, 1.0, 1.5, 2.0),
    sigmas: Sequence[float] = (0.02, 0.05, 0.1, 0.2),
    rho: float = 0.05,
    num_matvecs: int = 200,
    num_draws: int = 50,
    delta: float = DELTA,
    seed: int = 0,
    progress: bool | None = None,
) -> BoundReport:
    """Compute the bounds for a trained classifier side by side: PAC-Bayes, Laplace, Rényi, level set, Jia & Su, SAM.

    The paper's Theorems 3.2 and 3.3 are not among them: their constants A and C are not known, so that they have no
    value without numbers of your own (`renyi_theorem_3_2`, `renyi_theorem_3_3`).

    Args:
        model: the trained network, with scores (batch, classes).
        initial: the same network before training: the prior's mean.
        train_set: the samples of (input, class index) that it was trained on.
        alphas: orders α > 0 of the Rényi bounds. Default: those of the paper's rule, and between.
        sigmas: noise levels that the PAC-Bayes bounds choose among and pay for; the level sets get the volume of a ball
            of radius σ√n for the middle one, where most of such noise lies. Default: our choice.
        rho: radius of the SAM bound. Default 0.05: Foret et al. 2021.
        num_matvecs: products for the Hessian's spectrum. Default 200, as in `estimate_spectrum`.
        num_draws: of the weights, for each posterior. Default 50, our choice.
        delta: δ in (0, 1), of each bound by itself. Default 0.05: customary.
        seed: of draws and probes.
        progress: show a bar; ``None``: in a terminal or notebook.

    Raises:
        TypeError: a model of the wrong kind.
        ValueError: another network as ``initial``, labels that are no class indices, an empty grid, or an argument
            outside its range.
    """
    if not isinstance(initial, nn.Module):
        raise TypeError(f"initial must be the network before training, got {type(initial).__name__}.")
    data = check_data("train_set", train_set)
    n = check_int("the size of train_set", len(data), minimum=2)  # type: ignore[arg-type]  # check_data() did that
    levels = check_reals("sigmas", sigmas, 0.0, open_minimum=True)
    orders = check_reals("alphas", alphas, 0.0, open_minimum=True, allow_infinite=True)
    if not levels or not orders:
        raise ValueError("sigmas and alphas must each hold at least one number.")
    result = evaluate(model, data)
    if result.accuracy is None:
        raise ValueError("model must give scores (batch, classes ≥ 2), and train_set class indices.")
    with progress_bar(4, "bounds", progress) as bar:
        chance = 1 - 1 / _num_classes(model, data)
        settings = _Settings(n, delta, chance, num_draws, check_int("seed", seed, minimum=0))
        found = _isotropic(model, initial, data, levels, settings)
        bar.update()
        found += _laplace(model, initial, data, levels, orders, settings)
        bar.update()
        operator = HessianOperator(model, F.cross_entropy, data)
        found.append(_sam(model, operator.gradient(), data, rho, settings))
        bar.update()
        spectrum = estimate_spectrum(operator, num_matvecs=num_matvecs, seed=seed, progress=progress)
        radius = levels[len(levels) // 2] * math.sqrt(spectrum.dim)
        found += level_set_bounds(spectrum, min(1.0, result.loss / LOSS_CLIP), radius, orders, n, delta=delta)
        bar.update()
    return BoundReport(tuple(found))


@dataclass(frozen=True)
class _Settings:
    num_samples: int
    delta: float
    chance: float
    num_draws: int
    seed: int


def _isotropic(
    model: nn.Module, initial: nn.Module, data: Dataset[Any], sigmas: Sequence[float], s: _Settings
) -> list[Bound]:
    """McAllester/Maurer, Langford–Seeger and Catoni for Q = N(θ, σ²I) and the initialisation as prior."""
    each = s.delta / 2 / len(sigmas)
    kinds: dict[Any, list[Bound]] = {maurer: [], langford_seeger: [], catoni: []}
    for sigma in sigmas:
        posterior = GaussianPosterior(model, sigma)
        error = posterior.gibbs_error(data, s.num_draws, seed=s.seed)
        kl = posterior.kl(GaussianPosterior(initial, sigma))
        for calculate, results in kinds.items():
            bound = calculate(error.upper_limit(each), kl, s.num_samples, each, trivial_value=s.chance)
            results.append(bound.with_terms(sigma=sigma, sampled_loss=error.value, choices=float(len(sigmas))))
    return [min(results, key=float) for results in kinds.values()]


def _laplace(
    model: nn.Module,
    initial: nn.Module,
    data: Dataset[Any],
    sigmas: Sequence[float],
    alphas: Sequence[float],
    s: _Settings,
) -> list[Bound]:
    """Laplace's posterior from the leading Gauss–Newton directions, and the same with its divergence in H_α."""
    curvature = leading_curvature(GGNOperator(model, F.cross_entropy, data), seed=s.seed)
    each = s.delta / 2 / (len(sigmas) * len(_BETA_FACTORS))
    candidates = []
    for sigma in sigmas:
        for factor in _BETA_FACTORS:
            posterior = GaussianPosterior(model, sigma, curvature, factor * s.num_samples)
            error = posterior.gibbs_error(data, s.num_draws, seed=s.seed)
            kl = posterior.kl(GaussianPosterior(initial, sigma))
            bound = langford_seeger(error.upper_limit(each), kl, s.num_samples, each, trivial_value=s.chance)
            candidates.append((bound, posterior))
    bound, posterior = min(candidates, key=lambda pair: float(pair[0]))
    distance = float((posterior.mean - GaussianPosterior(initial, 1.0).mean).square().sum())
    variance, spectrum = posterior.sigma**2, curvature.spectrum
    x = variance * posterior.beta * curvature.eigenvalues
    rows = [bound.renamed("PAC-Bayes, Laplace posterior").with_terms(sigma=posterior.sigma, beta=posterior.beta)]
    for alpha in alphas:
        entropy, trace = float(spectrum.renyi_entropy(alpha)), float(spectrum.trace)
        kl = renyi_laplace_kl(
            entropy, trace, spectrum.dim, alpha, distance, variance, posterior.beta, float((x / (1 + x)).sum())
        )
        loss = bound.terms["empirical_loss"]
        renyi = langford_seeger(loss, kl, s.num_samples, each, trivial_value=s.chance)
        renyi = renyi.renamed(f"PAC-Bayes, Laplace posterior, Rényi at α = {alpha:g}")
        rows.append(renyi.with_assumption(NOT_DECREASING) if alpha <= 1 else renyi)
    return rows


def _sam(model: nn.Module, gradient: torch.Tensor, data: Dataset[Any], rho: float, s: _Settings) -> Bound:
    """The SAM bound with the error at the end of one ascent step in place of the maximum."""
    moved = copy.deepcopy(model)
    parameters = list(select_parameters(moved).values())
    weights = flatten(parameters)
    length = float(gradient.norm())
    step = (rho / length if length else 0.0) * gradient
    with torch.no_grad():
        for parameter, part in zip(parameters, step.split([p.numel() for p in parameters]), strict=True):
            parameter.add_(part.reshape(parameter.shape))
    errors = [1 - float(evaluate(network, data).accuracy or 0.0) for network in (model, moved)]
    bound = sam_bound(
        max(errors), float(weights.norm()), rho, len(weights), s.num_samples, s.delta, trivial_value=s.chance
    )
    return bound.with_assumption(f"worst_loss is from one ascent step, so from below: {NO_CERTIFICATE}")


def _num_classes(model: nn.Module, data: Dataset[Any]) -> int:
    with preserved_rng(), training_flags(model, False), torch.no_grad():
        inputs, _ = next(batches(data, 1, model))
        return int(model(inputs).shape[1])
