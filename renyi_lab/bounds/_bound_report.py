"""All bounds side by side for one trained network, its full training set in every one of them.

The prior is the initialisation, so the values show what curvature and distance alone can certify; for most networks
most of them are vacuous. For a useful certificate use `certify`, which trains the prior on data of its own.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from renyi_lab._utils.data_sets import Pair, check_data
from renyi_lab._utils.fields import check_fields
from renyi_lab._utils.model_checks import check_module
from renyi_lab._utils.parameters import flatten, select_parameters, unflatten
from renyi_lab._utils.progress import progress_bar
from renyi_lab._utils.validation import check_delta, check_instance, check_int, check_reals
from renyi_lab.bounds._bound import Bound
from renyi_lab.bounds._catoni import catoni
from renyi_lab.bounds._classifier import chance_error, error_rate
from renyi_lab.bounds._level_set_bounds import LOSS_CLIP, level_set_bounds
from renyi_lab.bounds._pac_bayes import DELTA, langford_seeger, maurer
from renyi_lab.bounds._renyi import NOT_DECREASING, renyi_laplace_kl
from renyi_lab.bounds._sam import sam_bound
from renyi_lab.bounds._search import BETA_FACTORS
from renyi_lab.operators import GGNOperator, HessianOperator
from renyi_lab.posterior import GaussianPosterior, GibbsError, leading_curvature
from renyi_lab.spectrum import estimate_spectrum
from renyi_lab.training import evaluate

if TYPE_CHECKING:
    import pandas as pd

_FACTORS = BETA_FACTORS[:2]  # heuristic: few, as the union bound over the draws includes β here


@dataclass(frozen=True, eq=False)
class BoundReport:
    """The bounds that `bound_report` computed, each with δ of its own.

    Attributes:
        bounds: The bounds; ``report[name]`` gives one of them.
    """

    bounds: tuple[Bound, ...]

    def __post_init__(self) -> None:
        check_fields(self)

    def to_frame(self) -> pd.DataFrame:
        """One row per bound: value, trivial value, whether vacuous, loss, divergence, whether a certificate, source."""
        import pandas as pd

        rows = [
            {
                "value": bound.value,
                "trivial": bound.trivial_value,
                "vacuous": bound.vacuous,
                "loss": bound.terms.get("empirical_loss", bound.terms.get("worst_loss", math.nan)),
                "kl": bound.terms.get("kl", math.nan),
                "certificate": bound.is_certificate,
                "source": bound.source,
            }
            for bound in self.bounds
        ]
        return pd.DataFrame(rows, index=pd.Index([bound.name for bound in self.bounds], name="bound"))

    def __getitem__(self, name: str) -> Bound:
        check_instance("name", name, str)
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
    train_set: Dataset[Any] | Pair,
    *more: Any,
    initial: nn.Module | None = None,
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
        model: Trained network with scores (batch, classes).
        train_set: Samples of (input, class index) that it was trained on.
        more: Nothing; in earlier versions ``initial`` and ``train_set`` stood here, which is refused with the new call.
        initial: The same network before training, required: the prior's mean, which may not depend on the data. Make
            it by ``copy.deepcopy(model)`` before `train`, which changes the model in place.
        alphas: Orders α > 0 of the Rényi bounds. Default 0.5, 1, 1.5, 2: those of the paper's rule, and between.
        sigmas: Noise levels of the PAC-Bayes bounds, which take the best by a union bound. The level sets have the
            volume of a ball of radius σ√n for the middle one, the typical length of such noise. Default 0.02 … 0.2
            (heuristic: below and around the scale of initial weights).
        rho: Radius of the SAM bound. Default 0.05 (Foret et al. 2021).
        num_matvecs: Products for the Hessian's spectrum. Default 200, as in `estimate_spectrum`.
        num_draws: Number of draws of the weights, for each posterior. Default 50 (heuristic: a standard error of at
            most 0.07).
        delta: Allowed probability of failure δ in (0, 1), of each bound by itself. Default 0.05 (customary).
        seed: Random seed for draws and probes.
        progress: Show a bar; ``None``: in a terminal or notebook.

    Raises:
        TypeError: A model of the wrong kind, or ``initial`` is missing.
        ValueError: Another network as ``initial``, or the trained one itself; labels that are not class indices, an
            empty grid, or an argument outside its range.

    Example:
        >>> from renyi_lab import datasets, models, training
        >>> model, train_set = models.mlp(64, 10), datasets.digits()[0][:300]
        >>> initial = copy.deepcopy(model)
        >>> history = training.train(model, train_set, epochs=2)
        >>> report = bound_report(model, train_set, initial=initial, alphas=[2.0], num_draws=2)
        >>> report["PAC-Bayes, Langford–Seeger"].is_certificate
        True
    """
    if more or isinstance(train_set, nn.Module):
        raise TypeError(
            "the initial network is a keyword now: call bound_report(model, train_set, initial=initial), with all "
            "other options by keyword too."
        )
    before = _check_initial(initial, check_module(model))
    data = check_data("train_set", train_set)
    n = check_int("the size of train_set", len(data), minimum=2)  # type: ignore[arg-type]  # check_data() did that
    levels = check_reals("sigmas", sigmas, 0.0, open_minimum=True)
    orders = check_reals("alphas", alphas, 0.0, open_minimum=True, allow_infinite=True)
    if not levels or not orders:
        raise ValueError("sigmas and alphas must each hold at least one number.")
    chance = chance_error(model, data, "train_set")
    loss = evaluate(model, data).loss
    seed = check_int("seed", seed, minimum=0)
    case = _Case(model, before, data, n, levels, check_delta(delta), num_draws, seed)
    with progress_bar(4, "bounds", progress) as bar:
        found = case.isotropic()
        bar.update()
        found += case.laplace(orders)
        bar.update()
        operator = HessianOperator(model, F.cross_entropy, data)
        found.append(case.sam(operator.gradient(), rho))
        found = [bound.against(chance) for bound in found]
        bar.update()
        spectrum = estimate_spectrum(operator, num_matvecs=num_matvecs, seed=seed, progress=progress)
        radius = levels[len(levels) // 2] * math.sqrt(spectrum.dim)
        found += level_set_bounds(spectrum, min(1.0, loss / LOSS_CLIP), radius, orders, n, delta=delta)
        bar.update()
    return BoundReport(tuple(found))


def _check_initial(initial: Any, model: nn.Module) -> nn.Module:
    if not isinstance(initial, nn.Module):
        got = "it is missing" if initial is None else f"got {type(initial).__name__}"
        raise TypeError(
            f"initial must be the network before training, but {got}: its weights are the prior's mean, which may not "
            "depend on the data. Make initial = copy.deepcopy(model) before train(model, ...), and pass "
            "initial=initial."
        )
    if not {id(p) for p in model.parameters()}.isdisjoint(id(p) for p in initial.parameters()):
        raise ValueError(
            "initial shares its weights with model, so the prior would be the trained network; make initial = "
            "copy.deepcopy(model) before train(model, ...), which changes the model in place."
        )
    return initial


@dataclass(frozen=True, eq=False)
class _Case:
    """A trained network, its prior and its data."""

    model: nn.Module
    initial: nn.Module
    data: Dataset[Any]
    num_samples: int
    sigmas: Sequence[float]
    delta: float
    num_draws: int
    seed: int

    def isotropic(self) -> list[Bound]:
        """McAllester/Maurer, Langford–Seeger and Catoni for Q = N(θ, σ²I) and the initialisation as prior."""
        each = self.delta / 2 / len(self.sigmas)
        kinds: dict[Any, list[Bound]] = {maurer: [], langford_seeger: [], catoni: []}
        for sigma in self.sigmas:
            posterior = GaussianPosterior(self.model, sigma)
            error, kl = self._measured(posterior)
            for calculate, results in kinds.items():
                bound = calculate(error.upper_limit(each), kl, self.num_samples, each)
                results.append(bound.with_terms(sigma=sigma, sampled_loss=error.value, choices=float(len(self.sigmas))))
        return [min(results, key=float) for results in kinds.values()]

    def laplace(self, alphas: Sequence[float]) -> list[Bound]:
        """Laplace's posterior from the leading Gauss–Newton directions, and the same with its divergence in H_α."""
        curvature = leading_curvature(GGNOperator(self.model, F.cross_entropy, self.data), seed=self.seed)
        each = self.delta / 2 / (len(self.sigmas) * len(_FACTORS))
        candidates = []
        for sigma in self.sigmas:
            for factor in _FACTORS:
                posterior = GaussianPosterior(self.model, sigma, curvature, factor * self.num_samples)
                error, kl = self._measured(posterior)
                bound = langford_seeger(error.upper_limit(each), kl, self.num_samples, each)
                candidates.append((bound, posterior))
        bound, posterior = min(candidates, key=lambda pair: float(pair[0]))
        rows = [bound.renamed("PAC-Bayes, Laplace posterior").with_terms(sigma=posterior.sigma, beta=posterior.beta)]
        for alpha in alphas:
            kl = self._renyi_kl(posterior, alpha)
            renyi = langford_seeger(bound.terms["empirical_loss"], kl, self.num_samples, each)
            renyi = renyi.renamed(f"PAC-Bayes, Laplace posterior, Rényi at α = {alpha:g}")
            rows.append(renyi.with_assumption(NOT_DECREASING) if alpha <= 1 else renyi)
        return rows

    def _measured(self, posterior: GaussianPosterior) -> tuple[GibbsError, float]:
        """The posterior's error on the data, and its divergence from the initialisation."""
        error = posterior.gibbs_error(self.data, self.num_draws, seed=self.seed)
        return error, posterior.kl(GaussianPosterior(self.initial, posterior.sigma))

    def _renyi_kl(self, posterior: GaussianPosterior, alpha: float) -> float:
        """The divergence of this Laplace posterior, bounded in trace and Rényi entropy."""
        spectrum, variance, beta = posterior.curvature.spectrum, posterior.sigma**2, posterior.beta
        distance = float((posterior.mean - GaussianPosterior(self.initial, posterior.sigma).mean).square().sum())
        x = variance * beta * posterior.curvature.eigenvalues
        entropy, trace, used = float(spectrum.renyi_entropy(alpha)), float(spectrum.trace), float((x / (1 + x)).sum())
        return renyi_laplace_kl(entropy, trace, spectrum.dim, alpha, distance, variance, beta, used)

    def sam(self, gradient: Tensor, rho: float) -> Bound:
        """The SAM bound with the error at the end of one ascent step in place of the maximum."""
        moved = copy.deepcopy(self.model)
        parameters = list(select_parameters(moved).values())
        weights, length = flatten(parameters), float(gradient.norm())
        step = (rho / length if length else 0.0) * gradient
        with torch.no_grad():
            for parameter, part in zip(parameters, unflatten(step, parameters), strict=True):
                parameter.add_(part)
        worst = max(error_rate(network, self.data) for network in (self.model, moved))
        bound = sam_bound(worst, float(weights.norm()), rho, len(weights), self.num_samples, self.delta)
        return bound.as_comparison("worst_loss is from one ascent step, a lower estimate of the maximum")
