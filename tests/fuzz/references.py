"""References for numeric results: formulas, and what holds between results of neighbouring arguments."""

from __future__ import annotations

import inspect
import math
from numbers import Real
from typing import Any

import mpmath
import numpy as np
import torch

import renyi_lab as rl
from fuzz.formulas import FORMULAS


def close(found: Any, true: Any, tolerance: float = 1e-9) -> str | None:
    """A complaint unless the numbers agree, relative to the larger of 1 and the true one."""
    value, expected = float(found), float(true)
    if value == expected or abs(value - expected) <= tolerance * max(1.0, abs(expected)):
        return None
    return f"{value!r} instead of {expected!r}"


def _held_out_is_exact(result: Any, num_errors: Any, num_samples: Any, delta: Any) -> str | None:
    if num_errors == num_samples or num_samples > 2000:
        return None
    p, n = mpmath.mpf(result.value), int(num_samples)
    mass = mpmath.fsum(mpmath.binomial(n, k) * p**k * (1 - p) ** (n - k) for k in range(int(num_errors) + 1))
    return close(mass / mpmath.mpf(float(delta)), 1, 1e-6)


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
    if math.isnan(true) or math.isnan(result.value):  # undefined, or of too few models, which the remark says
        return None if math.isnan(result.value) and result.remark else f"{result.value} instead of {true}"
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


def lengths(name: str, result: Any, owner: Any, arguments: dict[str, Any]) -> str | None:
    """Lengths of directions, parameters and perturbations, shares in [0, 1], and traces."""
    if name == "perturbation.random_direction":
        return close(result.norm(), 1.0, 1e-5)
    if name == "sharpness.parameter_norm":
        parts = [float(part.detach().double().square().sum()) for part in arguments["operator"].parameters.values()]
        return close(result, math.sqrt(math.fsum(parts)), 1e-5)
    if name == "ASAM.step" and type(owner) is rl.SAM:
        return close(owner.perturbation_norm, owner.param_groups[0]["rho"], 1e-4)
    if name == "exact_spectrum" and isinstance(arguments["operator"], torch.Tensor):
        matrix = arguments["operator"].detach().double()
        return close(float(result.trace), float(matrix.trace()), 1e-6 * (1.0 + float(matrix.norm())))
    shares = [getattr(result, part, None) for part in ("accuracy",)] if isinstance(result, rl.Evaluation) else []
    shares += [result.value] if isinstance(result, rl.GibbsError) else []
    wrong = [share for share in shares if share is not None and not 0 <= share <= 1]
    return f"a share of {wrong[0]}" if wrong else None


def eigenpair(result: Any, operator: Any) -> str | None:
    """Whether a residual is that of the pair."""
    product = rl.as_operator(operator) @ result.eigenvector
    residual = float((product - result.eigenvalue * result.eigenvector).norm())
    return close(residual, result.residual, 1e-4 * max(1.0, abs(result.eigenvalue)))
