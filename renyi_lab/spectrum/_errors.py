r"""The error model of an estimated spectrum: what its values add to the plain sum, and their standard error.

A quantity ``F``, such as ``tr f(H)`` or an entropy, is a function of a quadrature rule. From ``K`` probes of ``m``
Lanczos steps each it is estimated as

    value           F(averaged rule) + e
    standard error  √(sampling² + truncation²)

*Extrapolation.* A cusp ``|λ|^c`` at 0 (``0 < c ≤ 1``) leaves an error that falls with ``m^−(1+c)``, and Richardson
extrapolation removes its leading part:

    e = [F(plain rule, m steps) − F(plain rule, m/2 steps)] / (2^(1+c) − 1)

That is a third of the change for traces (the kink of ``|λ|``) and orders ``α ≥ 1``, and 0.55 of it for ``α = 0.5``. The
plain rules are the stochastic Lanczos quadrature in which converged eigenvalues are not counted exactly, averaged over
the last few steps as the spectrum is. They integrate polynomials of low degree exactly, for which ``e`` is then 0.

*Sampling.* A probe uniform on the sphere of the ``d``-dimensional complement of the eigenvectors found exactly has, for
any function ``φ`` of the matrix, ``Var(d uᵀφu) = 2d/(d+2) · (Σφ² − (Σφ)²/d)``: known even for a single probe. With the
derivative ``φ = ∂F/∂w`` (what one more eigenvalue adds to ``F``) this is the delta method:

    sampling² = 2d/(d+2) · [Σ w φ² − (Σ w φ)²/d] / K ,      sums over the sampled nodes, d = Σ w

*Truncation.* With ``s`` the standard deviation of ``F`` among the rules of the last steps,

    truncation² = (OSCILLATION_SHARE · s)² + (EXTRAPOLATION_SHARE · e)²

The standard error is infinite where nothing is known: after a single step, and for the entropy of order 0, whose value
is then the upper bound ``log n``. `bias_remark` explains where too few products may bias an entropy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from renyi_lab._utils.estimate import Estimate
from renyi_lab._utils.typing import FloatArray
from renyi_lab.spectrum._rule import QuadratureRule

# Heuristic, calibrated on six trained networks (as in tests/benchmarks/entropy_error.py): two standard errors cover
# 95 % of all errors, and at least 80 % on each network, at every order from 0.5 on and 50 to 400 products.
OSCILLATION_SHARE = 1 / 2
EXTRAPOLATION_SHARE = 3 / 4
# Heuristic: below these an entropy of order < 1 was up to 0.15 nats too high on the same networks (5,000 to 7,000
# parameters); orders below LOW_ORDER were covered less than 90 % with fewer products than their own limit.
ENOUGH_MATVECS, ENOUGH_MATVECS_LOW_ORDER = 150, 400
LOW_ORDER = 0.5
ENOUGH_STEPS = 25
# Heuristic: below this, no entropy's standard error was reliable on synthetic spectra of 50 to 1,000 eigenvalues.
FEWEST_STEPS = 8


@dataclass(frozen=True, eq=False)
class Sampling:
    """What the standard error of an estimated spectrum is computed from.

    Attributes:
        sampled: ``(k,)``, which nodes come from random probes; the others are eigenvalues found exactly.
        num_probes: Number of independent probes that the sampled weights average over.
        rules: The quadrature rules that the spectrum averages, one for each of the last numbers of steps.
        plain: The quadrature at the last steps, without counting converged eigenvalues exactly.
        plain_earlier: The same at half the steps.
    """

    sampled: NDArray[np.bool_]
    num_probes: int
    rules: tuple[QuadratureRule, ...]
    plain: QuadratureRule
    plain_earlier: QuadratureRule


def estimate(
    functional: Callable[[QuadratureRule], float],
    rule: QuadratureRule,
    influence: FloatArray,
    sampling: Sampling | None,
    num_matvecs: int,
    cusp: float = 1.0,
) -> Estimate:
    """Extrapolated value of a quantity, with its standard error.

    Args:
        functional: The quantity ``F`` as a function of a quadrature rule.
        rule: The spectrum, an average of rules.
        influence: ``∂F/∂w`` at each node of ``rule``, ``(k,)``.
        sampling: How the weights of ``rule`` were sampled; ``None``: it is exact, so the value is ``F(rule)``.
        num_matvecs: Products spent, probes times steps.
        cusp: Exponent ``c`` of the quantity's cusp at 0; values above 1 count as 1.
    """
    value = functional(rule)
    if sampling is None:
        return Estimate(value, 0.0, num_matvecs)
    if num_matvecs == sampling.num_probes:  # one step: nothing to compare it with
        return Estimate(value, math.inf, num_matvecs, math.inf)
    added = extrapolation(functional(sampling.plain), functional(sampling.plain_earlier), cusp)
    truncation = truncation_error([functional(part) for part in sampling.rules], added)
    variance = sampling_variance(influence[sampling.sampled], rule.weights[sampling.sampled], sampling.num_probes)
    return Estimate(value + added, math.hypot(math.sqrt(variance), truncation), num_matvecs, truncation)


def extrapolation(last: float, earlier: float, cusp: float) -> float:
    """What Richardson extrapolation adds to the value at ``m`` steps, given it there and at ``m/2`` steps."""
    return (last - earlier) / (2 ** (1 + min(cusp, 1.0)) - 1)


def sampling_variance(influence: FloatArray, weights: FloatArray, num_probes: int) -> float:
    """Variance from random probes: ``2d/(d+2) · [Σ w φ² − (Σ w φ)²/d] / num_probes``, ``φ`` the influence."""
    d = max(float(weights.sum()), 1.0)
    spread = max(float(weights @ influence**2 - (weights @ influence) ** 2 / d), 0.0)
    return 2 * d / (d + 2) * spread / num_probes


def truncation_error(rule_values: Sequence[float], added: float) -> float:
    """Standard error from too few steps, given ``F`` of each averaged rule and what extrapolation added."""
    return math.hypot(OSCILLATION_SHARE * float(np.std(rule_values)), EXTRAPOLATION_SHARE * added)


def bias_remark(alpha: float, sampling: Sampling | None, num_matvecs: int) -> str:
    """Why an estimated entropy of this order may be biased, and what to do about it; empty if there is no reason."""
    if sampling is None:
        return ""
    if alpha == 0:
        return (
            "alpha=0 counts the eigenvalues that are not exactly zero, which matrix-vector products cannot determine: "
            "log(dim) is only an upper bound; use alpha=0.5, or exact_spectrum."
        )
    steps = num_matvecs // sampling.num_probes
    if steps < FEWEST_STEPS:
        return (
            f"{steps} Lanczos steps are too few for a reliable standard error of any entropy; use "
            f"num_matvecs={FEWEST_STEPS * sampling.num_probes} or more."
        )
    enough = ENOUGH_MATVECS if alpha >= LOW_ORDER else ENOUGH_MATVECS_LOW_ORDER
    if alpha >= 1 or (num_matvecs >= enough and steps >= ENOUGH_STEPS):
        return ""
    return (
        f"{num_matvecs} products in {steps} Lanczos steps are few for alpha={alpha:g} < 1: the bulk of eigenvalues "
        "near zero is not resolved, and the entropy may be too high by more than its standard error; use "
        f"num_matvecs={max(200, enough, 2 * num_matvecs)} or more."
    )
