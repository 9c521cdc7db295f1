r"""The error model of an estimated spectrum: what its values add to the plain sum, and their standard error.

A quantity ``F``, such as ``tr f(H)`` or an entropy, is a function of a quadrature rule. With ``h(M)`` its value for the
rules averaged up to ``M`` Lanczos steps, it is estimated as

    value           h(M) + e
    standard error  √(sampling² + truncation² + rounding²)

*Extrapolation.* A cusp ``|λ|^c`` at 0 (``0 < c ≤ 1``) leaves an error that falls about with ``M^−(c + 1/2)`` on spectra
with a bulk near zero, and Richardson extrapolation removes its leading part:

    e = [h(M) − h(M/2)] / (2^(c + 1/2) − 1)

For polynomials of low degree, such as the trace, ``e`` is 0. It is also 0 for deep runs of fewer than 60 steps, whose
changes do not follow that law yet.

*Sampling.* With the derivative ``φ = ∂F/∂w`` (what one more eigenvalue adds to ``F``) and the orthonormal polynomials
``p_j`` whose moments the shallow probes measure, ``φ = Σ_j a_j p_j + r``. The deep probe has the variance of the
residual ``r``, the shallow ones that of the moments: a probe ``u`` uniform on the sphere of the ``d``-dimensional
complement of the eigenvectors found exactly has ``Var(d uᵀφu) = 2d²/(d+2) · mean φ²`` for ``Σφ = 0``. So

    sampling² = 1.4 · 2d²/(d+2) · [mean r² + Σ_{j≥1} a_j²/(K_j + 1)]

and with repeated eigenvalues the second part comes from the sample covariance of the moments.

*Truncation.* The larger of the last extrapolation ``e`` and the one before, scaled to the last number of steps:
``max(|e|, |h(M/2) − h(M/4)| / 2^(c + 1/2) / (2^(c + 1/2) − 1))``. For ``c ≤ 1/2``, where errors fall slowly and may
cross zero, also the one from ``h(M/4) − h(M/8)``.

*Rounding.* Nodes below ``30·eps·max|λ|`` may be rounding errors: ``3/4·|h(M) − h(M) with these nodes at 0|``, and
``100·eps``. Where all that is not counted is that small, the nodes are 0, and the change is that to what was measured.

*Data.* Where ``estimate_spectrum(data_error=True)`` left one of ``G`` groups of samples out at a time, the jackknife
of these values ``h_g``, with as many steps from the same probes, gives the variance and the bias of the sample:

    data² = c² · {(G−1)/G · Σ_g (h_g − h̄)²  +  [(G−1)(h̄ − h)]²}

The bias is a part of the error, not of the value. The factor ``c``, Student's 97.5 % quantile for ``G − 1`` degrees of
freedom over the normal one, makes two standard errors cover about 95 % although there are few groups. The
standard error is then the root of all four parts.

The standard error is infinite where nothing is known: after fewer than 4 steps, and for entropies of orders below 0.1,
which count exact zeros; at order 0 the value is then the upper bound ``log n``. `remark` says where and why a standard
error is large.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from renyi_lab._utils.estimate import Estimate
from renyi_lab._utils.fields import check_fields
from renyi_lab._utils.typing import FloatArray
from renyi_lab.spectrum._rule import QuadratureRule

# Nodes below this multiple of the rounding error of the largest are not told from zero. Heuristic: products of networks
# in single precision have errors of 1 to 10 times eps.
NEGLIGIBLE = 30.0
# Heuristics, calibrated on the families of tests/benchmarks/coverage.py.
INFLATION, ROUNDING_SHARE, ROUNDING_FLOOR = 1.4, 0.75, 100.0
# Heuristic: with fewer steps, on trained networks, extrapolation doubled errors as often as it halved them.
ASYMPTOTIC_STEPS = 60
# Heuristic: at orders up to 1/2, two changes by half the steps were by chance both too small in one of 200 runs.
LOW_CUSP = 0.5
# Heuristic: below this, no entropy's standard error was reliable on synthetic spectra of 50 to 1,000 eigenvalues.
FEWEST_STEPS = 8
# Heuristic: with fewer, the changes that truncation is judged by are those of rules of one or two nodes.
FEWEST_COMPARED = 4
# Heuristic: at smaller orders an entropy nearly counts the eigenvalues that are not exactly zero, and zeros that no
# rule shows left errors of 4 to 400 standard errors.
LOWEST_ORDER = 0.1
# Student's 97.5 % quantiles by number of groups, for one degree of freedom fewer.
STUDENT = {4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
# Nats; 10 % of the effective number of eigenvalues. Heuristic: larger than most differences between networks.
LARGE_ERROR = 0.1


@dataclass(frozen=True, eq=False)
class Sampling:
    """What the standard error of an estimated spectrum with ``k`` nodes is computed from.

    Attributes:
        polynomials: Orthonormal polynomials ``p_j`` at the nodes, ``(degree+1, k)``.
        fit: Weights of the measure in which they are orthonormal, ``(k,)``: ``a_j = Σ fit·φ·p_j``.
        spread: Variance that the deep probe leaves is ``Σ spread·r²``, ``(k,)``; 0 for eigenvalues found exactly.
        covariance: Covariance of the shallow probes' totals ``tr p_j``, ``(degree+1, degree+1)``.
        shrink: Share of each coefficient that the shallow probes account for, ``(degree+1,)``.
        levels: The rules up to all, half, a quarter and an eighth of the steps; their differences show the truncation
            error.
        half: The rule up to half the steps, not calibrated.
        last: The rule of the last step alone, not calibrated, in which a converged eigenvalue has weight 1.
        eps: Machine precision of the products.
        noise: Magnitude of the nodes that were set to 0, since all that is not counted is rounding error.
        repeated: Whether the probes showed eigenvalues that occur more often than the deep run can see.
        num_steps: Number of steps of the deep run.
        top_error: Truncation error of the largest eigenvalue, see `top_error`.
    """

    polynomials: FloatArray
    fit: FloatArray
    spread: FloatArray
    shrink: FloatArray
    covariance: FloatArray
    levels: tuple[QuadratureRule, ...]
    half: QuadratureRule
    last: QuadratureRule
    eps: float
    noise: float
    repeated: bool
    num_steps: int
    top_error: float

    def __post_init__(self) -> None:
        check_fields(self)
        nodes, degrees = self.fit.shape, self.shrink.shape
        shapes = [nodes, self.spread.shape, self.polynomials.shape, self.covariance.shape]
        if len(nodes) != 1 or shapes != [nodes, nodes, degrees + nodes, degrees + degrees] or len(self.levels) < 2:
            raise ValueError(f"the shapes of fit, spread, polynomials and covariance do not belong together: {shapes}.")


def estimate(
    functional: Callable[[QuadratureRule], float],
    rule: QuadratureRule,
    influence: FloatArray,
    sampling: Sampling | None,
    num_matvecs: int,
    *,
    cusp: float = 1.0,
    size: float = 1.0,
    eps: float = 0.0,
    leaving_out: Sequence[QuadratureRule] = (),
) -> Estimate:
    """Extrapolated value of a quantity, with its standard error.

    Args:
        functional: The quantity ``F`` as a function of a quadrature rule.
        rule: The spectrum, an average of rules.
        influence: ``∂F/∂w`` at each node of ``rule``, ``(k,)``.
        sampling: How the weights of ``rule`` were sampled; ``None``: they are exact, so the value is ``F(rule)``, and
            only rounding of the smallest eigenvalues is uncertain.
        num_matvecs: Products spent.
        cusp: Exponent ``c`` of the quantity's cusp at 0; values above 1 count as 1.
        size: Size of the terms that rounding errors are relative to; 1 for an entropy.
        eps: Machine precision of the products that an exact spectrum was computed from.
        leaving_out: The spectra of the data without one group of samples each.
    """
    value = functional(rule)
    data = data_error(value, [functional(other) for other in leaving_out])
    if sampling is None:
        rounding = rounding_error(functional, rule, eps)
        return Estimate(value, math.hypot(rounding, data), num_matvecs, 0.0, rounding, data)
    levels = [functional(earlier) for earlier in sampling.levels]
    added = extrapolation(levels[0], levels[1], cusp) if sampling.num_steps >= ASYMPTOTIC_STEPS else 0.0
    truncation = truncation_error(levels, cusp)
    rounding = rounding_error(functional, rule, sampling.eps, sampling.noise)
    rounding = math.hypot(rounding, ROUNDING_FLOOR * sampling.eps * size)
    error = math.hypot(sampling_error(influence, sampling), truncation, rounding)
    if sampling.num_steps < FEWEST_COMPARED or not math.isfinite(value + error):
        return Estimate(value, math.inf, num_matvecs, math.inf, data_error=data)
    return Estimate(value + added, math.hypot(error, data), num_matvecs, truncation, rounding, data)


def data_error(value: float, leaving_out: Sequence[float]) -> float:
    """Root of the jackknife's variance and squared bias, given the values without one group of samples each.

    Infinite where one of these values is not defined.

    Source:
        Quenouille 1956, *Notes on bias in estimation*; Tukey 1958; Efron 1982, *The Jackknife, the Bootstrap and Other
        Resampling Plans*.
    """
    if not leaving_out:
        return 0.0
    if not all(map(math.isfinite, leaving_out)):
        return math.inf
    count, mean = len(leaving_out), math.fsum(leaving_out) / len(leaving_out)
    variance = (count - 1) / count * math.fsum((other - mean) ** 2 for other in leaving_out)
    few_groups = STUDENT[count] / 1.96
    return few_groups * math.hypot(math.sqrt(variance), (count - 1) * (mean - value))


def extrapolation(last: float, earlier: float, cusp: float) -> float:
    """What Richardson extrapolation adds to the value at ``M`` steps, given it there and at ``M/2`` steps."""
    return (last - earlier) / (2 ** _rate(cusp) - 1)


def truncation_error(levels: Sequence[float], cusp: float) -> float:
    """Standard error from too few steps, given the values at ``M``, ``M/2``, ``M/4`` and ``M/8`` steps."""
    pairs = list(pairwise(levels))[: 3 if cusp <= LOW_CUSP else 2]
    changes = [extrapolation(last, earlier, cusp) for last, earlier in pairs]
    return max(abs(change) / 2 ** (back * _rate(cusp)) for back, change in enumerate(changes))


def sampling_error(influence: FloatArray, sampling: Sampling) -> float:
    """Standard error from random probes, given the influence ``φ`` of each node."""
    coefficients = sampling.polynomials @ (sampling.fit * influence)
    residual = influence - (sampling.shrink * coefficients) @ sampling.polynomials
    variance = sampling.spread @ residual**2 + coefficients @ sampling.covariance @ coefficients
    return math.sqrt(INFLATION * max(float(variance), 0.0))


def rounding_error(
    functional: Callable[[QuadratureRule], float], rule: QuadratureRule, eps: float, noise: float = 0.0
) -> float:
    """Standard error from nodes that may be rounding errors of zero, or zeros that hide what is not."""
    small = rule.magnitudes <= NEGLIGIBLE * eps * rule.magnitudes.max()
    other = np.where(small, np.where(rule.nodes == 0, noise, 0.0), rule.nodes)
    if np.array_equal(other, rule.nodes):
        return 0.0
    with np.errstate(all="ignore"):  # a function that is infinite at 0 is not known at all
        change = functional(rule) - functional(QuadratureRule(other, rule.weights, rule.dim))
    return ROUNDING_SHARE * abs(change) if math.isfinite(change) else math.inf


def _rate(cusp: float) -> float:
    return min(cusp, 1.0) + 0.5


def remark(alpha: float, entropy: Estimate, sampling: Sampling | None) -> str:
    """Why an estimated entropy of this order is unreliable, and what to do about it; empty if it is not."""
    if sampling is None and not entropy.data_error:
        return ""
    if alpha == 0 and sampling is not None:
        return (
            "alpha=0 counts the eigenvalues that are not exactly zero, which matrix-vector products cannot determine: "
            "log(dim) is only an upper bound; use alpha=0.5, or exact_spectrum."
        )
    if alpha < LOWEST_ORDER and sampling is not None:
        return (
            f"alpha={alpha:g} nearly counts the eigenvalues that are not exactly zero, which matrix-vector products "
            f"cannot determine, so its standard error is infinite; use alpha={LOWEST_ORDER} or more, or exact_spectrum."
        )
    if sampling is not None and sampling.num_steps < FEWEST_STEPS:
        return (
            f"{sampling.num_steps} Lanczos steps are too few for a reliable standard error of any entropy; use "
            f"num_matvecs={FEWEST_STEPS} or more."
        )
    if entropy.standard_error <= LARGE_ERROR:
        return ""
    parts = {
        "samples": entropy.data_error,  # first, since that to probes is infinite wherever another part is
        "probes": entropy.sampling_error,
        "steps": entropy.truncation_error,
        "rounding": entropy.rounding_error,
    }
    causes = {
        "probes": f"use more products than {entropy.num_matvecs}.",
        "steps": f"the bulk of eigenvalues near zero is not resolved; use more products than {entropy.num_matvecs}.",
        "rounding": "eigenvalues near zero are not told from rounding errors; use double precision, or a larger alpha.",
        "samples": "another sample of the data would have another spectrum; use more samples.",
    }
    cause = max(parts, key=parts.__getitem__)
    return (
        f"the entropy of order {alpha:g} has a large standard error, {entropy.standard_error:.2g} nats: {causes[cause]}"
    )
