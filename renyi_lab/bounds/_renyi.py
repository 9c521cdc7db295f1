"""Bounds in the Rényi entropy of the spectrum: AM–GM on λ^α puts it in the place of the log-determinant.

With the power mean of the eigenvalues, which trace and entropy give,

    m_α = (1/n Σ λ^α)^{1/α} = tr H · exp((1/α − 1) H_α − (log n)/α)

    log|H| ≤ n log m_α = n log tr H + (n/α) [(1−α) H_α − log n]          for H ≻ 0 and every α > 0
    log|I + cH| ≤ n log(1 + c m_α)                for H ⪰ 0 and α ≥ 1    (Minkowski's inequality)
                ≤ (n/α) log(1 + (c m_α)^α)        for H ⪰ 0 and α ≤ 1    (as (1+x)^α ≤ 1 + x^α)

with equality at the uniform spectrum (in the last line only for α = 1). m_α falls when H_α grows only for α > 1, at
α = 1 it is tr H / n whatever the entropy, and it never falls with α: a small α is tighter, and α → 0 gives |H|^{1/n}.
So for α > 1, where a larger entropy lowers the bound, the bound is never below what the trace alone gives (α = 1).
Derived here; the inequality of means is classical (Hardy, Littlewood & Pólya 1934).
"""

from __future__ import annotations

import math
import sys
from dataclasses import replace

from renyi_lab._utils.validation import check_int, check_real
from renyi_lab.bounds._bound import Bound
from renyi_lab.bounds._level_set import Basin, check_basin, level_set
from renyi_lab.bounds._pac_bayes import (
    DELTA,
    IID,
    SEEGER,
    UNIT_LOSS,
    sampled_terms,
    sampling_assumption,
    seeger_bound,
)

NOT_DECREASING = "α ≤ 1: this bound does not fall when the Rényi entropy grows, so it gives no reason for flatness"
_SOURCE = f"derived here: AM–GM on λ^α; {SEEGER}"


def power_mean_curvature(entropy: float, trace: float, dim: int, alpha: float) -> float:
    """The power mean m_α = (1/n Σ λ^α)^{1/α} of the eigenvalues, from trace and Rényi entropy.

    Args:
        entropy: Rényi entropy H_α of the spectrum in nats, in [0, log n].
        trace: Trace tr H > 0.
        dim: Number n ≥ 1 of eigenvalues.
        alpha: Order α in (0, ∞].

    Example:
        >>> power_mean_curvature(math.log(4), trace=8.0, dim=4, alpha=2.0)
        2.0
    """
    dim = check_int("dim", dim)
    alpha = check_real("alpha", alpha, 0.0, open_minimum=True, allow_infinite=True)
    trace = check_real("trace", trace, 0.0, open_minimum=True)
    largest = math.log(dim)
    # A thousandth of a nat above the maximum: an estimated entropy may be there.
    entropy = min(check_real("entropy", entropy, 0.0, largest + 1e-3), largest)
    # Written as the deviation from the uniform spectrum, for which the result is exact.
    gap = largest - entropy
    return trace / dim * (math.exp((1 - 1 / alpha) * gap) if gap else 1.0)


def renyi_log_determinant(entropy: float, trace: float, dim: int, alpha: float) -> float:
    """The upper bound n log tr H + (n/α) [(1−α) H_α − log n] on log|H|, for H ≻ 0.

    Arguments and errors as for `power_mean_curvature`, and an entropy too far from log n for a small order.
    """
    mean = power_mean_curvature(entropy, trace, dim, alpha)
    if mean < sys.float_info.min:  # 0, or a number of few digits
        raise ValueError(
            f"entropy={float(entropy):g} at alpha={float(alpha):g} puts the power mean of {dim} eigenvalues below "
            f"2e-308: with trace={float(trace):g} a spectrum without zeros has an entropy of nearly log(dim) at so "
            "small an order; take a larger alpha, or rescale the loss."
        )
    return dim * math.log(mean)


def renyi_level_set(
    basin: Basin, entropy: float, trace: float, alpha: float, num_samples: int, *, delta: float = DELTA
) -> Bound:
    """`level_set` with the log-determinant replaced by its bound in the Rényi entropy, so never below it.

        r ≤ (V Γ(n/2+1))^{2/n} m_α / (2π)

    Args:
        basin: The basin of the minimum.
        entropy: As for `power_mean_curvature`.
        trace: As for `power_mean_curvature`.
        alpha: Order α in (0, ∞]; for α ≤ 1 the assumptions name what the bound does not show.
        num_samples: Number N ≥ 2 of samples.
        delta: Allowed probability of failure δ in (0, 1). Default 0.05 (customary).
    """
    log_det = renyi_log_determinant(entropy, trace, check_basin(basin).dim, alpha)
    bound = level_set(basin, log_det, num_samples, delta=delta)
    terms = bound.terms | {"alpha": alpha, "entropy": entropy, "trace": trace}
    terms["log_determinant_bound"] = terms.pop("log_determinant")
    name = f"level set, Rényi entropy at α = {float(alpha):g}"
    return replace(bound, name=name, terms=terms, source=_SOURCE, assumptions=bound.assumptions + _remarks(alpha))


def renyi_laplace_kl(
    entropy: float,
    trace: float,
    dim: int,
    alpha: float,
    squared_distance: float,
    prior_variance: float,
    beta: float,
    effective_parameters: float = 0.0,
) -> float:
    """An upper bound on `laplace_kl` in trace and Rényi entropy alone, for H ⪰ 0.

        KL ≤ ½ [ B_α − γ + ‖θ−θ₀‖²/σ² ],   B_α = n log(1 + σ²β m_α)                           for α ≥ 1
                                           B_α = min{ (n/α) log(1 + (σ²β m_α)^α), B_1 }       for α < 1

    Args:
        entropy: As for `power_mean_curvature`.
        trace: As for `power_mean_curvature`.
        dim: As for `power_mean_curvature`.
        alpha: As for `power_mean_curvature`.
        squared_distance: ‖θ−θ₀‖² ≥ 0 from the prior's mean.
        prior_variance: Variance σ² > 0 of the prior.
        beta: Weight β ≥ 0 of the curvature in the posterior's precision.
        effective_parameters: γ = Σ x/(1+x), x = σ²βλ, where it is known (MacKay's effective number of parameters).
            Default 0: dropped.
    """
    mean = power_mean_curvature(entropy, trace, dim, alpha)
    distance = check_real("squared_distance", squared_distance, 0.0)
    variance = check_real("prior_variance", prior_variance, 0.0, open_minimum=True)
    x = variance * check_real("beta", beta, 0.0) * mean
    gamma = check_real("effective_parameters", effective_parameters, 0.0, dim)
    log_det = dim * math.log1p(x)
    if alpha < 1:  # the trace alone, α = 1, bounds it too
        of_trace = dim * math.log1p(variance * beta * trace / dim)
        log_det = min(dim / alpha * math.log1p(x**alpha), of_trace)
    return max(0.0, 0.5 * (log_det - gamma)) + distance / (2 * variance)


def renyi_laplace(
    empirical_loss: float,
    entropy: float,
    trace: float,
    dim: int,
    alpha: float,
    num_samples: int,
    *,
    squared_distance: float,
    prior_variance: float,
    beta: float,
    effective_parameters: float = 0.0,
    num_draws: int | None = None,
    choices: int = 1,
    delta: float = DELTA,
) -> Bound:
    """The Langford–Seeger bound of Laplace's posterior with its divergence bounded by `renyi_laplace_kl`.

    Arguments and errors as for `renyi_laplace_kl` and `isotropic_pac_bayes`; ``choices`` is the number of (σ², β) that
    were tried, each of which gets δ / choices. Default of ``num_draws`` is ``None``: the loss is exact.
    """
    arguments = (squared_distance, prior_variance, beta, effective_parameters)
    kl = renyi_laplace_kl(entropy, trace, dim, alpha, *arguments)
    terms = sampled_terms(empirical_loss, kl, num_samples, num_draws, delta, check_int("choices", choices))
    terms |= {"alpha": alpha, "entropy": entropy, "trace": trace, "prior_variance": prior_variance, "beta": beta}
    assumptions = (UNIT_LOSS, IID, sampling_assumption(num_draws), "the Hessian has no negative eigenvalue")
    name = f"PAC-Bayes, Laplace posterior, Rényi entropy at α = {float(alpha):g}"
    return seeger_bound(name, terms, (*assumptions, *_remarks(alpha)), _SOURCE)


def _remarks(alpha: float) -> tuple[str, ...]:
    """What a bound at this order does not show."""
    return (NOT_DECREASING,) if alpha <= 1 else ()
