"""The level-set (log-determinant) bound: a uniform prior on the basin of a minimum, and a posterior inside it.

    P uniform on B = {δ : ½ δᵀHδ ≤ r},   Q ∝ e^{−(L − L₀)} on B,   KL(Q‖P) ≤ E_P[½ δᵀHδ] = r n/(n+2)
    vol B = (2πr)^{n/2} / (Γ(n/2+1) |H|^{1/2}),  so that  2r = (V Γ(n/2+1))^{2/n} |H|^{1/n} / π

by Jensen's inequality. At a given volume V a small determinant |H| means a shallow basin. Source: after Jia & Su 2020,
*Information-theoretic local minima characterization and regularization*, arXiv:1911.08192; Γ is exact here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from renyi_lab._utils.fields import check_fields
from renyi_lab._utils.validation import check_instance, check_int, check_real
from renyi_lab.bounds._bound import Bound
from renyi_lab.bounds._pac_bayes import (
    DELTA,
    SAMPLES,
    SEEGER,
    UNIT_LOSS,
    check_sample,
    check_unit_loss,
    pac_bayes_terms,
    seeger_bound,
)

_ASSUMPTIONS = (
    UNIT_LOSS,
    SAMPLES,
    "the basin, and the prior with it, was fixed without the N samples",
    "the loss is quadratic on the basin, with its minimum in the middle",
)
_CLIPPED = "the Hessian was clipped at zero and damped; negative_ratio is what that costs"


@dataclass(frozen=True)
class Basin:
    """The basin of a minimum, which the level-set bounds are about.

    Attributes:
        loss_at_minimum: Loss L₀ at the minimum, in [0, 1].
        dim: Number n ≥ 1 of parameters.
        log_volume: Logarithm of the basin's volume V, which is in units of the weights to the power n;
            `ball_log_volume` gives that of a ball.
        posterior_loss: Mean loss E_Q L_S of the posterior on the samples, in [0, 1]. Default ``None``: its upper limit
            L₀ + E_P[½ δᵀHδ], at most 1.
        negative_ratio: |λ_min|/η ≥ 0 of a Hessian that was clipped and damped (`negative_ratio`); adds r times it to
            KL(Q‖P). Default 0: the Hessian is positive definite.

    Raises:
        ValueError: An attribute outside its range.

    Example:
        >>> basin = Basin(loss_at_minimum=0.02, dim=100, log_volume=ball_log_volume(1.0, 100))
        >>> level_set(basin, log_determinant=-300.0, num_samples=4000).terms["height"] < 0.03
        True
    """

    loss_at_minimum: float
    dim: int
    log_volume: float
    posterior_loss: float | None = None
    negative_ratio: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self)
        check_unit_loss("loss_at_minimum", self.loss_at_minimum)
        check_int("dim", self.dim)
        check_real("log_volume", self.log_volume)
        if self.posterior_loss is not None:
            check_unit_loss("posterior_loss", self.posterior_loss)
        check_real("negative_ratio", self.negative_ratio, 0.0)


def ball_log_volume(radius: float, dim: int) -> float:
    """Log vol of an n-dimensional ball, (n/2) log π + n log R − log Γ(n/2+1).

    Args:
        radius: Radius R > 0.
        dim: Dimension n ≥ 1.

    Example:
        >>> round(ball_log_volume(1.0, 3), 12) == round(math.log(4 / 3 * math.pi), 12)
        True
    """
    radius, dim = check_real("radius", radius, 0.0, open_minimum=True), check_int("dim", dim)
    return dim / 2 * math.log(math.pi) + dim * math.log(radius) - math.lgamma(dim / 2 + 1)


def basin_height(log_volume: float, log_determinant: float, dim: int) -> float:
    """The height r of the basin {½δᵀHδ ≤ r} of volume V: 2r = (V Γ(n/2+1))^{2/n} |H|^{1/n} / π, in loss units.

    For the volume of a ball of radius R it is ½ R² times the geometric mean of H's eigenvalues.

    Args:
        log_volume: log V, as in `Basin`.
        log_determinant: log|H| of H ≻ 0.
        dim: Number n ≥ 1 of parameters.
    """
    dim = check_int("dim", dim)
    log_volume, log_det = check_real("log_volume", log_volume), check_real("log_determinant", log_determinant)
    return 0.5 * _exp((2 * (log_volume + math.lgamma(dim / 2 + 1)) + log_det) / dim - math.log(math.pi))


def basin_log_volume(height: float, log_determinant: float, dim: int) -> float:
    """The log volume of the basin {½δᵀHδ ≤ r} of height r > 0: the inverse of `basin_height`, arguments as there."""
    height, dim = check_real("height", height, 0.0, open_minimum=True), check_int("dim", dim)
    log_det = check_real("log_determinant", log_determinant)
    return dim / 2 * (math.log(2 * math.pi) + math.log(height)) - math.lgamma(dim / 2 + 1) - log_det / 2


def level_set(basin: Basin, log_determinant: float, num_samples: int, *, delta: float = DELTA) -> Bound:
    """The Langford–Seeger bound for the level-set prior and posterior of the module's text, with exact Γ.

    Args:
        basin: The basin of the minimum.
        log_determinant: log|H| of H ≻ 0; of another spectrum take that of `positive_definite`.
        num_samples: Number N ≥ 2 of samples.
        delta: Allowed probability of failure δ in (0, 1). Default 0.05 (customary).
    """
    check_basin(basin)
    height = basin_height(basin.log_volume, log_determinant, basin.dim)
    mean_energy = height * basin.dim / (basin.dim + 2)
    kl = mean_energy + height * basin.negative_ratio
    terms = pac_bayes_terms(_posterior_loss(basin, mean_energy), kl, num_samples, delta) | {
        "loss_at_minimum": basin.loss_at_minimum,
        "height": height,
        "negative_ratio": basin.negative_ratio,
        "dim": float(basin.dim),
        "log_determinant": float(log_determinant),
    }
    bound = seeger_bound("level set, log-determinant", terms, _ASSUMPTIONS, f"after Jia & Su 2020; {SEEGER}")
    return bound.with_assumption(_CLIPPED) if basin.negative_ratio else bound


def jia_su(basin: Basin, log_determinant: float, num_samples: int, *, delta: float = DELTA) -> Bound:
    """The level-set bound in the form that Jia & Su state; arguments and errors as for `level_set`.

        E_Q L_D ≤ E_Q L_S + 2 √( (2L₀ + 2A + log(2N/δ)) / (N−1) ),   A = n V^{2/n} π^{1/n} |H|^{1/n} / (4πe)

    A is the height r of `level_set` by Stirling's formula, short of its factor n^{1/n}; a missing posterior loss is
    L₀ + A, at most 1. The form is for a positive definite Hessian: with a ``negative_ratio``, which it does not
    contain, the result is no certificate.

    Source:
        Jia & Su 2020, *Information-theoretic local minima characterization and regularization*, arXiv:1911.08192.
    """
    check_basin(basin)
    n, delta = check_sample(num_samples, delta)
    log_det, minimum = check_real("log_determinant", log_determinant), basin.loss_at_minimum
    exponent = (2 * basin.log_volume + math.log(math.pi) + log_det) / basin.dim
    a = basin.dim / (4 * math.pi * math.e) * _exp(exponent)
    loss = _posterior_loss(basin, a)
    complexity = (2 * minimum + 2 * a + math.log(2 * n / delta)) / (n - 1)
    terms = {
        "empirical_loss": loss,
        "loss_at_minimum": minimum,
        "A": a,
        "complexity": complexity,
        "log_determinant": log_det,
        "dim": float(basin.dim),
        "num_samples": float(n),
        "delta": delta,
    }
    assumptions = (*_ASSUMPTIONS, "the Hessian is positive definite")
    value, definite = loss + 2 * math.sqrt(complexity), basin.negative_ratio == 0
    name = "level set, as stated by Jia & Su"
    return Bound(name, value, terms, assumptions, "Jia & Su 2020", is_certificate=definite)


def check_basin(basin: Any) -> Basin:
    """Return ``basin`` if it is one, or raise."""
    return check_instance("basin", basin, Basin, "such as Basin(loss_at_minimum, dim, log_volume)")  # type: ignore[no-any-return]


def _posterior_loss(basin: Basin, mean_energy: float) -> float:
    """E_Q L_S: what is known of it, or its upper limit for this mean of ½ δᵀHδ under the prior."""
    if basin.posterior_loss is not None:
        return basin.posterior_loss
    return min(1.0, basin.loss_at_minimum + mean_energy)


def _exp(exponent: float) -> float:
    """E to a power that a wrong unit of the volume can make absurd."""
    if exponent > 700:
        raise ValueError(
            f"the basin's height would be e^{exponent:.0f}: is log_volume the logarithm of a volume, or the radius of "
            "its ball a length, in units of the weights (to the power dim)? See ball_log_volume."
        )
    return math.exp(exponent)
