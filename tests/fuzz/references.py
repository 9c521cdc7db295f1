"""References for numeric results: formulas in many digits, and what holds between results of neighbouring arguments."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import mpmath
import numpy as np
import torch

import renyi_lab as rl


def close(found: Any, true: Any, tolerance: float = 1e-9) -> str | None:
    """A complaint unless the numbers agree, relative to the larger of 1 and the true one."""
    value, expected = float(found), float(true)
    if value == expected or abs(value - expected) <= tolerance * max(1.0, abs(expected)):
        return None
    return f"{value!r} instead of {expected!r}"


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


def _held_out_is_exact(result: Any, num_errors: Any, num_samples: Any, delta: Any) -> str | None:
    if num_errors == num_samples or num_samples > 2000:
        return None
    p, n = mpmath.mpf(result.value), int(num_samples)
    mass = mpmath.fsum(mpmath.binomial(n, k) * p**k * (1 - p) ** (n - k) for k in range(int(num_errors) + 1))
    return close(mass / mpmath.mpf(float(delta)), 1, 1e-6)


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
# Arguments of bounds and the direction in which a larger one moves them.
DIRECTIONS = {"kl": 1, "squared_distance": 1, "empirical_loss": 1, "worst_loss": 1, "sampled_loss": 1} | {
    "empirical_gibbs_loss": 1,
    "weight_norm": 1,
    "num_samples": -1,
    "delta": -1,
    "num_draws": -1,
    "choices": 1,
    "num_sigmas": 1,
}


def bound_arguments(function: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments with defaults, as numbers of Python where they are numbers."""
    bound = inspect.signature(function).bind(**arguments)
    bound.apply_defaults()
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in bound.arguments.items()}


def _plain(value: Any) -> Any:
    """Fractions and single-precision numbers as floats, as the package takes them."""
    return float(value) if isinstance(value, Real) and not isinstance(value, int) else value


def formula(name: str, function: Any, result: Any, arguments: dict[str, Any]) -> str | None:
    """Whether the result is that of the formula, if there is one."""
    given = bound_arguments(function, arguments)
    with mpmath.workdps(60):
        if name == "bounds.held_out":
            return _held_out_is_exact(result, **given)
        if name in FORMULAS and np.ndim(getattr(result, "value", result)) == 0:
            given = {key: _plain(value) for key, value in given.items()}
            true = FORMULAS[name](**given)
            small = name == "bounds.basin_height"  # of any size
            return close(float(result) / float(true), 1) if small and 1e-300 < true < 1e300 else close(result, true)
    return None


def monotone(function: Any, result: Any, arguments: dict[str, Any]) -> str | None:
    """Whether a bound moves in the right direction with each of its arguments."""
    given = bound_arguments(function, arguments)
    for name in given.keys() & DIRECTIONS.keys():
        value = given[name]
        if not isinstance(value, (int, float)) or (isinstance(value, int) and value > 10**6):
            continue
        changed = value * 2 if isinstance(value, int) and name != "kl" else _moved(name, float(value))
        try:
            other = function(**given | {name: changed})
        except ValueError:
            continue
        rise = float(other) - float(result)
        if DIRECTIONS[name] * rise < -1e-9 * max(1.0, abs(float(result))):
            return f"{float(result)!r} moves to {float(other)!r} where {name} is {changed!r} instead of {value!r}"
    return None


def _moved(name: str, value: float) -> float:
    """A larger number in the same range."""
    return (1 + value) / 2 if name == "delta" or "loss" in name else 2 * value + 0.5


def jacobi_rule(owner: Any, result: Any) -> str | None:
    """Mass, mean and second moment of a Gauss rule."""
    nodes, weights = result
    moments = [float(weights @ nodes**power) for power in (0, 1, 2)]
    known = [1.0, owner.diagonal[0], owner.diagonal[0] ** 2 + owner.off_diagonal[0] ** 2]
    return next(filter(None, map(close, moments[: 2 * len(nodes)], known)), None)


def tridiagonal(result: Any) -> str | None:
    """Mass and mean of Gauss weights."""
    mean = close(result.weights @ result.ritz_values, result.diagonal[0], 1e-5)
    return close(result.weights.sum(), 1.0) or mean


def function_unchanged(result: Any, model: Any) -> str | None:
    """Whether a rescaled network has the outputs of the network that it was made of."""
    first = next(model.parameters())
    size = int(first.shape[1]) if first.ndim == 2 else 0
    if not size:
        return None
    x = torch.linspace(-1, 1, 4 * size, dtype=first.dtype).reshape(4, size)
    with torch.no_grad():
        before, after = model(x), result(x)
    off = float((before - after).abs().max())
    return None if off <= 1e-3 * float(before.abs().max()) else f"a function that differs by {off}"


def in_ball(result: Any, rho: Any, norm: Any = "l2", scale: Any = None) -> str | None:
    """Whether the perturbation lies in the ball and the loss does not fall below that at its centre."""
    epsilon = result.perturbation if scale is None else (result.perturbation / scale).nan_to_num()
    length = float(epsilon.abs().max() if norm == "linf" else epsilon.norm())
    if length > float(rho) * (1 + 1e-4):
        return f"a perturbation of length {length} in a ball of radius {float(rho)}"
    return None if result.loss >= result.base_loss else f"a worst loss {result.loss} below that at the centre"


def kendall(result: Any, x: Any, y: Any) -> str | None:
    """SciPy's τ_b, inside an interval."""
    from scipy.stats import kendalltau

    first, second = (np.asarray(v, dtype=float) for v in (x, y))
    kept = np.isfinite(first) & np.isfinite(second)
    true = float(kendalltau(first[kept], second[kept]).statistic)
    if math.isnan(true) or math.isnan(result.value):
        return None if math.isnan(true) == math.isnan(result.value) else f"{result.value} instead of {true}"
    return close(result.value, true)


def of_spectrum(name: str, spectrum: Any, result: Any) -> str | None:
    """Functions of exact spectra, from their eigenvalues."""
    values, mass = spectrum.nodes, spectrum.weights
    if not spectrum.is_exact:
        return None
    largest, trace = float(values[-1]), float(mass @ values)
    known = {
        "sharpness.trace": trace,
        "Spectrum.trace": trace,
        "sharpness.lambda_max": largest,
        "Spectrum.max_eigenvalue": largest,
        "sharpness.frobenius_norm": float(np.sqrt(mass @ values**2)),
    }
    return close(result, known[name], 1e-9) if name in known else None


def eigenpair(result: Any, operator: Any) -> str | None:
    """Whether a residual is that of the pair."""
    product = rl.as_operator(operator) @ result.eigenvector
    residual = float((product - result.eigenvalue * result.eigenvector).norm())
    return close(residual, result.residual, 1e-4 * max(1.0, abs(result.eigenvalue)))
