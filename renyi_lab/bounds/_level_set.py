"""The level-set (log-determinant) bound: a uniform prior on the basin of a minimum, and a posterior inside it.

    P uniform on B = {δ : ½ δᵀHδ ≤ r},   Q ∝ e^{−(L − L₀)} on B,   KL(Q‖P) ≤ E_P[½ δᵀHδ] = r n/(n+2)
    vol B = (2πr)^{n/2} / (Γ(n/2+1) |H|^{1/2}),  so that  2r = (V Γ(n/2+1))^{2/n} |H|^{1/n} / π

by Jensen's inequality. At a given volume V a small determinant |H| means a shallow basin. Source: after Jia & Su 2020,
*Information-theoretic local minima characterization and regularization*; Γ is exact here.
"""

from __future__ import annotations

import math

from renyi_lab._utils.bernoulli_kl import kl_inverse_upper
from renyi_lab._utils.validation import check_int, check_real
from renyi_lab.bounds._bound import Bound
from renyi_lab.bounds._pac_bayes import DELTA, UNIT_LOSS, check_unit_loss, pac_bayes_terms

BASIN = (
    "the basin, and the prior with it, was fixed without the N samples",
    "the loss is quadratic on the basin, with its minimum in the middle",
)


def ball_log_volume(radius: float, dim: int) -> float:
    """Log vol of an n-dimensional ball, (n/2) log π + n log R − log Γ(n/2+1).

    >>> round(ball_log_volume(1.0, 3), 12) == round(math.log(4 / 3 * math.pi), 12)
    True
    """
    radius, dim = check_real("radius", radius, 0.0, open_minimum=True), check_int("dim", dim)
    return dim / 2 * math.log(math.pi) + dim * math.log(radius) - math.lgamma(dim / 2 + 1)


def basin_height(log_volume: float, log_determinant: float, dim: int) -> float:
    """The height r of the basin {½δᵀHδ ≤ r} of volume V: 2r = (V Γ(n/2+1))^{2/n} |H|^{1/n} / π, in loss units.

    For the volume of a ball of radius R it is ½ R² times the geometric mean of H's eigenvalues.
    """
    dim = check_int("dim", dim)
    log_volume, log_det = check_real("log_volume", log_volume), check_real("log_determinant", log_determinant)
    return 0.5 * exp_of((2 * (log_volume + math.lgamma(dim / 2 + 1)) + log_det) / dim - math.log(math.pi))


def basin_log_volume(height: float, log_determinant: float, dim: int) -> float:
    """The log volume of the basin {½δᵀHδ ≤ r}: the inverse of `basin_height`."""
    height, dim = check_real("height", height, 0.0, open_minimum=True), check_int("dim", dim)
    log_det = check_real("log_determinant", log_determinant)
    return dim / 2 * math.log(2 * math.pi * height) - math.lgamma(dim / 2 + 1) - log_det / 2


def level_set(
    loss_at_minimum: float,
    log_determinant: float,
    dim: int,
    num_samples: int,
    *,
    volume: float | None = None,
    log_volume: float | None = None,
    posterior_loss: float | None = None,
    negative_ratio: float = 0.0,
    delta: float = DELTA,
    trivial_value: float = 1.0,
) -> Bound:
    """The Langford–Seeger bound for the level-set prior and posterior of the module's text, with exact Γ.

    Args:
        loss_at_minimum: L₀ in [0, 1].
        log_determinant: log|H| of H ≻ 0; of another spectrum take that of `positive_definite`.
        dim: n, the number of parameters.
        num_samples: N ≥ 2.
        volume: V > 0 of the basin, in units of the weights to the power n; or
        log_volume: its logarithm, for many parameters (`ball_log_volume`).
        posterior_loss: E_Q L_S in [0, 1]. Default: at most L₀ + r n/(n+2), which is taken.
        negative_ratio: |λ_min|/η of a spectrum that was clipped and damped (`negative_ratio`); adds r times it to KL.
        delta: δ in (0, 1). Default 0.05: customary.
        trivial_value: as for `maurer`.

    Raises:
        ValueError: a volume that is not positive, both or none of the two, or an argument outside its range.
    """
    dim = check_int("dim", dim)
    height = basin_height(check_log_volume(volume, log_volume), log_determinant, dim)
    name, source = "level set, log-determinant", "after Jia & Su 2020; Langford & Seeger 2001; Maurer 2004"
    return level_set_at(
        name, source, height, loss_at_minimum, dim, num_samples, posterior_loss, negative_ratio, delta, trivial_value
    ).with_terms(log_determinant=float(log_determinant))


def level_set_at(
    name: str,
    source: str,
    height: float,
    loss_at_minimum: float,
    dim: int,
    num_samples: int,
    posterior_loss: float | None,
    negative_ratio: float,
    delta: float,
    trivial_value: float,
    remarks: tuple[str, ...] = (),
) -> Bound:
    """The bound for a basin of this height."""
    minimum = check_unit_loss("loss_at_minimum", loss_at_minimum)
    mean_energy = height * dim / (dim + 2)
    kl = mean_energy + height * check_real("negative_ratio", negative_ratio, 0.0)
    loss = (
        min(1.0, minimum + mean_energy) if posterior_loss is None else check_unit_loss("posterior_loss", posterior_loss)
    )
    terms = pac_bayes_terms(loss, kl, num_samples, delta)
    terms |= {"loss_at_minimum": minimum, "height": height, "negative_ratio": negative_ratio, "dim": float(dim)}
    if negative_ratio:
        remarks = ("the Hessian was clipped at zero and damped; negative_ratio is what that costs", *remarks)
    value = kl_inverse_upper(loss, terms["complexity"])
    assumptions = (UNIT_LOSS, "the N samples are i.i.d.", *BASIN, *remarks)
    return Bound(name, value, terms, assumptions, trivial_value, source)


def jia_su(
    loss_at_minimum: float,
    log_determinant: float,
    dim: int,
    num_samples: int,
    *,
    volume: float | None = None,
    log_volume: float | None = None,
    posterior_loss: float | None = None,
    delta: float = DELTA,
    trivial_value: float = 1.0,
) -> Bound:
    """The level-set bound in the form that Jia & Su state.

        E_Q L_D ≤ E_Q L_S + 2 √( (2L₀ + 2A + log(2N/δ)) / (N−1) ),   A = n V^{2/n} π^{1/n} |H|^{1/n} / (4πe)

    A is the height r of `level_set` by Stirling's formula, short of its factor n^{1/n}. Arguments and errors as for
    `level_set`; without ``posterior_loss`` it is L₀ + A, at most 1.

    Source: Jia & Su 2020, *Information-theoretic local minima characterization and regularization*.
    """
    minimum = check_unit_loss("loss_at_minimum", loss_at_minimum)
    dim, n = check_int("dim", dim), check_int("num_samples", num_samples, minimum=2)
    log_det = check_real("log_determinant", log_determinant)
    delta = check_real("delta", delta, 0.0, 1.0, open_minimum=True, open_maximum=True)
    exponent = (2 * check_log_volume(volume, log_volume) + math.log(math.pi) + log_det) / dim
    a = dim / (4 * math.pi * math.e) * exp_of(exponent)
    loss = min(1.0, minimum + a) if posterior_loss is None else check_unit_loss("posterior_loss", posterior_loss)
    complexity = (2 * minimum + 2 * a + math.log(2 * n / delta)) / (n - 1)
    terms = {
        "empirical_loss": loss,
        "loss_at_minimum": minimum,
        "A": a,
        "complexity": complexity,
        "log_determinant": log_det,
        "dim": float(dim),
        "num_samples": float(n),
        "delta": delta,
    }
    assumptions = (UNIT_LOSS, "the N samples are i.i.d.", *BASIN, "the Hessian is positive definite")
    value = loss + 2 * math.sqrt(complexity)
    return Bound("level set, as stated by Jia & Su", value, terms, assumptions, trivial_value, "Jia & Su 2020")


def exp_of(exponent: float) -> float:
    """E to a power that a wrong unit of the volume can make absurd."""
    if exponent > 700:
        raise ValueError(
            f"the basin's height would be e^{exponent:.0f}: is log_volume the logarithm of a volume in units of the "
            "weights to the power dim, as from ball_log_volume?"
        )
    return math.exp(exponent)


def check_log_volume(volume: float | None, log_volume: float | None) -> float:
    """The logarithm of the volume, given in one of two ways."""
    if (volume is None) == (log_volume is None):
        raise ValueError("give the basin's volume or its log_volume, one of the two; ball_log_volume makes one.")
    if volume is None:
        return check_real("log_volume", log_volume)
    return math.log(check_real("volume", volume, 0.0, open_minimum=True))
