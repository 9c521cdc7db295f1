"""The PAC-Bayes bound of Laplace's posterior, whose divergence from the prior is a sum over the Hessian's spectrum."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from renyi_lab._utils.arrays import real_array
from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_int, check_real, printed
from renyi_lab.bounds._bound import Bound
from renyi_lab.bounds._pac_bayes import (
    DELTA,
    IID,
    SEEGER,
    UNIT_LOSS,
    sampled_terms,
    sampling_assumption,
    seeger_bound,
)

_PRIOR_VARIANCES = tuple(10.0 ** (k / 2) for k in range(-8, 3))
_BETAS = tuple(10.0 ** (k / 2) for k in range(13))


def laplace_kl(
    eigenvalues: Any, weights: Any, dim: int, squared_distance: float, prior_variance: Any, beta: Any
) -> FloatArray:
    """KL(Q‖P) of Laplace's posterior Q = N(θ, (I/σ² + βH)⁻¹) from the prior P = N(θ₀, σ²I), from the spectrum of H.

        KL = ½ [ Σ w (log(1+x) − x/(1+x)) + ‖θ−θ₀‖²/σ² ],   x = σ²βλ

    which is ½[Σ log(1+x) + Σ 1/(1+x) − n + ‖θ−θ₀‖²/σ²] without its cancellation.

    Args:
        eigenvalues: λ ≥ 0, shape (k,): eigenvalues, or the nodes of a quadrature.
        weights: Multiplicities w ≥ 0, shape (k,), that add up to ``dim``.
        dim: Number n of parameters.
        squared_distance: ‖θ−θ₀‖² ≥ 0.
        prior_variance: σ² > 0, a number or an array.
        beta: β ≥ 0, a number or an array that broadcasts against ``prior_variance``.

    Returns:
        KL in nats, in the shape that σ² and β broadcast to.

    Raises:
        ValueError: A negative eigenvalue, weights that do not add up to ``dim``, an argument outside its range, or a
            divergence too large for a number.
    """
    nodes, mass = _arrays(eigenvalues, weights, dim)
    if nodes.min() < 0:
        raise ValueError(
            f"eigenvalues must be ≥ 0, the smallest is {nodes.min():.3g}: (I/σ² + βH)⁻¹ need not be a covariance. "
            "Clip them at zero and state it (laplace_pac_bayes does), or use the spectrum of a GGN."
        )
    distance = check_real("squared_distance", squared_distance, 0.0)
    variances = _array("prior_variance", prior_variance, 0.0, open_minimum=True)
    return _kl(nodes, mass, distance, variances, _array("beta", beta, 0.0))


def _kl(nodes: FloatArray, mass: FloatArray, distance: float, variances: FloatArray, betas: FloatArray) -> FloatArray:
    """`laplace_kl` of checked arguments."""
    with np.errstate(over="ignore", invalid="ignore"):
        x = (variances * betas)[..., None] * nodes
        curvature = ((np.log1p(x) - x / (1 + x)) * mass).sum(axis=-1)
        kl = np.asarray(0.5 * (curvature + distance / variances))
    if not np.isfinite(kl).all():
        raise ValueError(
            f"the divergence overflows: prior_variance {variances.min():.3g} to {variances.max():.3g}, beta up to "
            f"{betas.max():.3g}, eigenvalues up to {nodes.max():.3g}, squared_distance {distance:.3g}; rescale them."
        )
    return kl


def laplace_pac_bayes(
    spectrum: Any,
    *,
    empirical_loss: float | Callable[[float, float], float],
    squared_distance: float,
    num_samples: int,
    num_draws: int | None = None,
    delta: float = DELTA,
    prior_variances: Sequence[float] = _PRIOR_VARIANCES,
    betas: Sequence[float] = _BETAS,
) -> Bound:
    """The Langford–Seeger bound for Laplace's posterior, smallest over a grid of (σ², β) by a union bound.

        kl(E_Q L_S ‖ E_Q L_D) ≤ (KL(Q‖P) + log(2√N · #grid / δ)) / N,   KL from `laplace_kl`

    Negative eigenvalues are clipped at zero, a choice of Q that leaves the bound valid; the clipped mass is a term.

    The loss of Q is not in the spectrum: the expansion E_Q L_S ≈ L_S(θ) + ½ tr(HΣ) is no bound. Measure it: draw
    weights from Q, average their loss, and pass the number of draws.

    Args:
        spectrum: Spectrum of the Hessian or GGN at θ: a `Spectrum`, or anything else with ``nodes`` and ``weights`` of
            shape (k,) and ``dim``. ``leading_curvature(...).spectrum`` is the exact one of what `GaussianPosterior`
            draws from.
        empirical_loss: E_Q L_S in [0, 1] as a function of (σ², β), called at each grid point; or one number, when
            the grid is one point, because another Q has another loss.
        squared_distance: ‖θ−θ₀‖² ≥ 0 from the prior's mean, for instance the initialisation.
        num_samples: Number N ≥ 2 of samples.
        num_draws: Number of independent draws of weights that ``empirical_loss`` averages at each grid point; half of δ
            is then spent on `kl_inverse_upper` of it (Langford & Caruana 2001). Default ``None``: the loss is exact.
        delta: Allowed probability of failure δ in (0, 1). Default 0.05 (customary).
        prior_variances: Grid of σ² > 0. Default 1e-4 … 10 in half decades (heuristic: weights of common scale).
        betas: Grid of β ≥ 0. Default 1 … 1e6 in half decades (heuristic: around N, where Q is Laplace's
            approximation of the Bayesian posterior).

    Raises:
        TypeError: A spectrum without the three attributes.
        ValueError: A number as loss with a grid of several points, or an argument outside its range.

    Source:
        McAllester 1999 and Langford & Seeger 2001 with a Gaussian Q; the sum over the spectrum is elementary.
    """
    missing = [name for name in ("nodes", "weights", "dim") if not hasattr(spectrum, name)]
    if missing:
        raise TypeError(f"spectrum must have nodes, weights and dim; {type(spectrum).__name__} lacks {missing}.")
    variances = _array("prior_variances", prior_variances, 0.0, open_minimum=True).ravel()
    beta_grid = _array("betas", betas, 0.0).ravel()
    choices = variances.size * beta_grid.size
    if not callable(empirical_loss) and choices != 1:
        raise ValueError(
            f"empirical_loss is one number, {printed(empirical_loss)}, but the grid has {choices} points, each with "
            "another Q: pass a function of (prior_variance, beta), or a grid of one point."
        )
    # Single weights of an estimate may be negative where eigenvalues are repeated; sums over all of them are not.
    signed = getattr(spectrum, "has_repeated", False)
    nodes, mass = _arrays(spectrum.nodes, spectrum.weights, spectrum.dim, signed=signed)
    distance = check_real("squared_distance", squared_distance, 0.0)
    kls = _kl(nodes.clip(min=0), mass, distance, variances[:, None], beta_grid[None, :])
    if kls.min() < 0:
        raise ValueError(
            f"the estimated spectrum gives a divergence of {kls.min():.3g}, which cannot be negative: its repeated "
            "eigenvalues are too uncertain; use a larger num_matvecs."
        )
    assumptions = (
        UNIT_LOSS,
        IID,
        sampling_assumption(num_draws),
        "Q uses the Hessian with its negative eigenvalues clipped at zero",
        "the spectrum is exact; with an estimated one the bound is an estimate too",
    )
    candidates = []
    for (i, j), kl in np.ndenumerate(kls):
        point = {"prior_variance": float(variances[i]), "beta": float(beta_grid[j])}
        loss = empirical_loss(*point.values()) if callable(empirical_loss) else empirical_loss
        terms = sampled_terms(loss, float(kl), num_samples, num_draws, delta, choices) | point
        candidates.append(
            seeger_bound("PAC-Bayes, Laplace posterior", terms, assumptions, f"{SEEGER}; Gaussian posterior")
        )
    best = min(candidates, key=float)
    return best.with_terms(
        kl_distance=squared_distance / (2 * best.terms["prior_variance"]),
        clipped_mass=float(-(mass * nodes.clip(max=0)).sum()),
    )


def _arrays(nodes: Any, weights: Any, dim: int, signed: bool = False) -> tuple[FloatArray, FloatArray]:
    """Nodes and weights as checked float64 arrays; ``signed``: weights may be negative."""
    points, mass = _array("eigenvalues", nodes), _array("weights", weights)
    if points.ndim != 1 or points.shape != mass.shape:
        raise ValueError(f"eigenvalues and weights must be vectors of one length, got {points.shape} and {mass.shape}.")
    dim = check_int("dim", dim)
    if (mass.min() < 0 and not signed) or not np.isclose(mass.sum(), dim, rtol=1e-6):
        raise ValueError(
            f"weights must be ≥ 0 and add up to dim = {dim}, they add up to {mass.sum():g} and the smallest is "
            f"{mass.min():g}: give each of n eigenvalues weight 1, or the nodes of a quadrature their multiplicities."
        )
    return points, mass


def _array(name: str, values: Any, minimum: float = -math.inf, *, open_minimum: bool = False) -> FloatArray:
    """One number or several of them, as a checked float64 array."""
    array = real_array(name, values)
    if array.size == 0:
        raise ValueError(f"{name} is empty: give at least one number.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got {array[~np.isfinite(array)][0]}.")
    check_real(f"the smallest of {name}", array.min(), minimum, open_minimum=open_minimum)
    return array
