"""Formulas of bounds in many digits, by the names of their functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np


def _complexity(kl: Any, n: Any, delta: Any, choices: Any = 1) -> Any:
    return (mpmath.mpf(kl) + mpmath.log(2 * mpmath.sqrt(n) * choices / mpmath.mpf(delta))) / n


def _kl(q: Any, p: Any) -> Any:
    pairs = ((q, p), (1 - q, 1 - p))
    return (
        mpmath.inf if any(a > 0 and b <= 0 for a, b in pairs) else sum(a * mpmath.log(a / b) for a, b in pairs if a > 0)
    )


def inverse(q: Any, budget: Any) -> Any:
    """``sup {p : kl(q‖p) ≤ budget}`` by bisection."""
    low, high = mpmath.mpf(q), mpmath.mpf(1)
    for _ in range(120):
        middle = (low + high) / 2
        low, high = (middle, high) if _kl(mpmath.mpf(q), middle) <= budget else (low, middle)
    return low


def _maurer(empirical_loss: Any, kl: Any, num_samples: Any, delta: Any) -> Any:
    return empirical_loss + mpmath.sqrt(_complexity(kl, num_samples, delta) / 2)


def _langford_seeger(empirical_loss: Any, kl: Any, num_samples: Any, delta: Any) -> Any:
    return inverse(empirical_loss, _complexity(kl, num_samples, delta))


def _sampled(loss: Any, kl: Any, num_samples: Any, num_draws: Any, delta: Any, choices: Any) -> Any:
    if num_draws is not None:
        loss = inverse(loss, mpmath.log(4 * choices / mpmath.mpf(delta)) / num_draws)
        delta = mpmath.mpf(delta) / 2
    return inverse(loss, _complexity(kl, num_samples, delta, choices))


def _isotropic(
    empirical_gibbs_loss: Any,
    squared_distance: Any,
    sigma: Any,
    num_samples: Any,
    num_draws: Any,
    delta: Any,
    num_sigmas: Any,
) -> Any:
    kl = mpmath.mpf(float(squared_distance)) / (2 * mpmath.mpf(float(sigma)) ** 2)
    return _sampled(empirical_gibbs_loss, kl, num_samples, num_draws, delta, num_sigmas)


def _sampled_pac_bayes(sampled_loss: Any, kl: Any, num_samples: Any, num_draws: Any, delta: Any, choices: Any) -> Any:
    return _sampled(sampled_loss, kl, num_samples, num_draws, delta, choices)


def _catoni(empirical_loss: Any, kl: Any, num_samples: Any, delta: Any, rates: Any) -> Any:
    grid = [mpmath.mpf(float(rate)) for rate in rates]
    total = (mpmath.mpf(kl) + mpmath.log(len(grid) / mpmath.mpf(delta))) / num_samples
    return min((1 - mpmath.exp(-c * empirical_loss - total)) / (1 - mpmath.exp(-c)) for c in grid)


def _sam(worst_loss: Any, weight_norm: Any, rho: Any, num_parameters: Any, num_samples: Any, delta: Any) -> Any:
    n, k = mpmath.mpf(num_samples), mpmath.mpf(num_parameters)
    ratio = (mpmath.mpf(float(weight_norm)) / mpmath.mpf(float(rho)) * (1 + mpmath.sqrt(mpmath.log(n) / k))) ** 2
    total = k * mpmath.log(1 + ratio) + 4 * mpmath.log(n / mpmath.mpf(delta)) + 8 * mpmath.log(6 * n + 3 * k)
    return worst_loss + mpmath.sqrt(total / (n - 1))


def _ball(radius: Any, dim: Any) -> Any:
    n = mpmath.mpf(dim)
    return n / 2 * mpmath.log(mpmath.pi) + n * mpmath.log(mpmath.mpf(float(radius))) - mpmath.loggamma(n / 2 + 1)


def _height(log_volume: Any, log_determinant: Any, dim: Any) -> Any:
    n, volume, det = mpmath.mpf(dim), mpmath.mpf(float(log_volume)), mpmath.mpf(float(log_determinant))
    return mpmath.exp((2 * (volume + mpmath.loggamma(n / 2 + 1)) + det) / n) / (2 * mpmath.pi)


def _volume(height: Any, log_determinant: Any, dim: Any) -> Any:
    n = mpmath.mpf(dim)
    scale = n / 2 * mpmath.log(2 * mpmath.pi * mpmath.mpf(float(height)))
    return scale - mpmath.loggamma(n / 2 + 1) - mpmath.mpf(float(log_determinant)) / 2


def _theorem_3_3(empirical_loss: Any, entropy: Any, num_samples: Any, a: Any, delta: Any) -> Any:
    n = mpmath.mpf(num_samples)
    inside = mpmath.mpf(float(a)) - mpmath.mpf(float(entropy)) / 2 + mpmath.log(2 * n / mpmath.mpf(delta))
    return empirical_loss + 2 * mpmath.sqrt(inside / (n - 1))


def _power_mean(entropy: Any, trace: Any, dim: Any, alpha: Any) -> Any:
    gap = mpmath.log(dim) - min(mpmath.mpf(float(entropy)), mpmath.log(dim))
    return mpmath.mpf(float(trace)) / dim * mpmath.exp((1 - 1 / mpmath.mpf(float(alpha))) * gap)


def _log_determinant_bound(entropy: Any, trace: Any, dim: Any, alpha: Any) -> Any:
    return dim * mpmath.log(_power_mean(entropy, trace, dim, alpha))


def _power_kl(**given: Any) -> Any:
    nodes, weights = (np.asarray(given[name], dtype=float).ravel() for name in ("eigenvalues", "weights"))
    variance, beta = (mpmath.mpf(float(given[name])) for name in ("prior_variance", "beta"))
    terms = []
    for node, weight in zip(nodes, weights, strict=True):
        x = variance * beta * mpmath.mpf(float(node))
        terms.append(mpmath.mpf(float(weight)) * (mpmath.log(1 + x) - x / (1 + x)))
    return (mpmath.fsum(terms) + mpmath.mpf(float(given["squared_distance"])) / variance) / 2


# By the target's name without the package: what a result is, with 60 digits.
FORMULAS: dict[str, Callable[..., Any]] = {
    "bounds.maurer": _maurer,
    "bounds.langford_seeger": _langford_seeger,
    "bounds.catoni": _catoni,
    "bounds.isotropic_pac_bayes": _isotropic,
    "bounds.sampled_pac_bayes": _sampled_pac_bayes,
    "bounds.sam_bound": _sam,
    "bounds.ball_log_volume": _ball,
    "bounds.basin_height": _height,
    "bounds.basin_log_volume": _volume,
    "bounds.renyi_theorem_3_3": _theorem_3_3,
    "bounds.power_mean_curvature": _power_mean,
    "bounds.renyi_log_determinant": _log_determinant_bound,
    "bounds.laplace_kl": _power_kl,
}
