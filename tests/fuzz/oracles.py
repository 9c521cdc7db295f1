"""Values that are known: entropies to many digits, the mass of a spectrum, symmetry, linearity, monotonicity."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import torch
from torch import Tensor

import renyi_lab as rl
from fuzz import references

# Results that are documented to be, or to hold, NaN: what was not measured, or does not exist.
MAY_BE_NAN = re.compile(r"\b(NaN|nan|not a number)\b")


def entropy(p: Any, alpha: float) -> float:
    """Rényi entropy in nats, with 60 digits."""
    with mpmath.workdps(60):
        values = [mpmath.mpf(float(v)) for v in np.asarray(p, dtype=float).ravel() if v != 0]
        total = mpmath.fsum(values)
        values = [v / total for v in values]
        order = mpmath.mpf(float(alpha))
        if order == 1:
            return float(-mpmath.fsum(v * mpmath.log(v) for v in values))
        if mpmath.isinf(order):
            return float(-mpmath.log(max(values)))
        return float(mpmath.log(mpmath.fsum(v**order for v in values)) / (1 - order))


def _numbers(p: Any) -> Any:
    return p.detach().double().numpy() if isinstance(p, Tensor) else np.asarray(p, dtype=float)


def _precision(p: Any) -> float:
    return (
        1e-3
        if isinstance(p, Tensor) and p.dtype in (torch.float16, torch.bfloat16)
        else 2e-5
        if isinstance(p, Tensor)
        else 1e-9
    )


def _close(found: Any, true: float, tolerance: float) -> str | None:
    value = float(found)
    if value == true or abs(value - true) <= tolerance * max(1.0, abs(true)):
        return None
    return f"{value!r} instead of {true!r}"


def _entropy(result: Any, p: Any, alpha: Any) -> str | None:
    return _close(result, entropy(_numbers(p), float(alpha)), _precision(p))


def _effective_number(result: Any, p: Any, alpha: Any) -> str | None:
    return _close(result, math.exp(entropy(_numbers(p), float(alpha))), 10 * _precision(p))


def _escort(result: Any, p: Any, alpha: Any) -> str | None:
    total, values = float(np.sum(result)), _numbers(p)
    if abs(total - 1) > 1e-9 or np.any(result < 0):
        return f"escort probabilities that sum to {total}"
    ordered = np.all(np.diff(result[np.argsort(values, kind="stable")]) >= -1e-12)
    return None if ordered or float(alpha) <= 0 else "escort probabilities that are not ordered as p"


def _kl(result: Any, q: Any, p: Any) -> str | None:
    q, p = float(q), float(p)
    with mpmath.workdps(60):
        parts = [(mpmath.mpf(q), mpmath.mpf(p)), (1 - mpmath.mpf(q), 1 - mpmath.mpf(p))]
        if any(a > 0 and b == 0 for a, b in parts):
            return _close(result, math.inf, 0.0)
        true = float(mpmath.fsum(a * mpmath.log(a / b) for a, b in parts if a > 0))
    return _close(result, true, 1e-9)


def _kl_inverse(result: Any, q: Any, c: Any) -> str | None:
    if result == 0 and q > 0 and float(q) * math.exp(-float(c) / float(q)) == 0:
        return None  # the lower inverse is below the smallest float
    if result == 1 and rl.bounds.kl_bernoulli(float(q), math.nextafter(1.0, 0.0)) <= float(c):
        return None  # the upper inverse is closer to 1 than any float below it
    outside = not 0 <= result <= 1
    budget = rl.bounds.kl_bernoulli(float(q), float(result)) if not outside else math.inf
    return (
        f"{result} whose divergence {budget} exceeds {c}" if outside or budget > float(c) * (1 + 1e-6) + 1e-12 else None
    )


def _symmetric(result: Any, **_: Any) -> str | None:
    size = float(result.abs().max()) if result.numel() else 0.0
    off = float((result - result.T).abs().max()) if result.numel() else 0.0
    return None if off <= 1e-4 * size else f"a matrix that differs from its transpose by {off}"


def _product(result: Any, owner: Any, argument0: Any) -> str | None:
    again = owner @ (2 * argument0.double()).to(argument0.dtype)  # few operations know all types of eight bits
    if not bool(torch.isfinite(argument0.double()).all() & torch.isfinite(result).all() & torch.isfinite(again).all()):
        return None  # what is not finite was passed, or twice the result is beyond the largest number
    scale = float(result.abs().max()) + 1e-30
    return None if float((again - 2 * result).abs().max()) <= 1e-3 * scale else "a product that is not linear"


def _orthogonal(result: Any, **_: Any) -> str | None:
    off = float((result.T @ result - torch.eye(len(result), dtype=result.dtype)).abs().max())
    return None if off < 1e-6 else f"a matrix that is not orthogonal, by {off}"


def _spectrum(found: Any) -> str | None:
    mass = float(np.sum(found.weights))
    if not (np.isfinite(found.nodes).all() and np.isfinite(found.weights).all() and (found.weights >= 0).all()):
        return "a spectrum with nodes or weights that are not finite, or negative weights"
    if abs(mass - found.dim) > 1e-6 * found.dim:
        return f"a spectrum of {found.dim} eigenvalues whose weights sum to {mass}"
    if not found.nodes.any():
        return None  # of which no entropy is defined
    values = [float(found.renyi_entropy(alpha)) for alpha in (0.5, 1.0, 2.0)]
    exact = not any(found.renyi_entropy(alpha).standard_error for alpha in (0.5, 1.0, 2.0))
    if exact and any(b > a + 1e-9 * max(1.0, a) for a, b in itertools.pairwise(values)):
        return f"an entropy that rises with alpha: {values}"
    return None


def _spectrum_entropy(result: Any, owner: Any, argument0: Any, sign: int = 1) -> str | None:
    if not owner.is_exact or not np.isscalar(argument0):
        return None
    magnitudes = np.repeat(np.abs(owner.nodes), np.round(owner.weights).astype(int))
    return _close(result.value, entropy(magnitudes, float(argument0)), 1e-9)


# By the end of a target's name: the result and the arguments, by name or position, to a complaint or None.
KNOWN: dict[str, Callable[..., str | None]] = {
    "renyi_lab.renyi_entropy": _entropy,
    "renyi_lab.effective_number": _effective_number,
    "renyi_lab.escort_probabilities": _escort,
    "bounds.kl_bernoulli": _kl,
    "bounds.kl_inverse_upper": _kl_inverse,
    "bounds.kl_inverse_lower": _kl_inverse,
    "renyi_lab.dense_hessian": _symmetric,
    "to_dense": _symmetric,
    "haar_orthogonal": _orthogonal,
    "matrix_with_spectrum": _symmetric,
}


def wrong(case: Any, result: Any, namespace: dict[str, Any]) -> str | None:
    """What is wrong with the result of a call; ``None`` where nothing is, or nothing is known."""
    arguments = {name: namespace[f"argument{i}"] for i, (name, _) in enumerate(case.arguments)}
    target = case.target
    for end, check in KNOWN.items():
        if target.name.endswith(end):
            return check(result, **arguments)
    if found := _by_reference(target, result, arguments, namespace):
        return found
    if target.name.endswith("__matmul__"):
        return _product(result, namespace["owner"], namespace["argument0"])
    if target.name == "renyi_lab.Spectrum.renyi_entropy" and arguments.keys() == {"alpha"}:
        return _spectrum_entropy(result, namespace["owner"], namespace["argument0"])
    if target.kind == "class" and not isinstance(result, rl.Spectrum):
        _show(result)
        return None  # a record holds what it was given
    infinite = any(isinstance(value, Tensor) and not _all_finite(value) for value in arguments.values())
    return _general(result, infinite or bool(MAY_BE_NAN.search(target.documentation)))


def _all_finite(tensor: Tensor) -> bool:
    plain = tensor.layout is torch.strided and tensor.device.type == "cpu" and tensor.is_floating_point()
    return not plain or tensor.is_quantized or bool(tensor.detach().double().isfinite().all())


def _by_reference(target: Any, result: Any, arguments: dict[str, Any], namespace: dict[str, Any]) -> str | None:
    """What formulas, neighbouring arguments and identities say."""
    name, function = target.name.removeprefix("renyi_lab."), target.function
    if target.kind == "function" and name.startswith("bounds."):
        found = references.formula(name, function, result, arguments)
        if found is None and isinstance(result, rl.bounds.Bound):
            found = references.monotone(function, result, arguments)
        return found
    if name == "krylov.JacobiMatrix.gauss_rule":
        return references.jacobi_rule(namespace["owner"], result)
    if isinstance(result, rl.Tridiagonal) and target.kind == "function":
        return references.tridiagonal(result)
    if isinstance(result, rl.krylov.TopEigenpair) and target.kind == "function":
        return references.eigenpair(result, arguments["operator"])
    if name == "reparametrize":
        return references.function_unchanged(result, arguments["model"])
    if name == "perturbation.worst_case_loss":
        return references.in_ball(
            result, **{key: arguments[key] for key in ("rho", "norm", "scale") if key in arguments}
        )
    if name == "study.kendall_tau":
        return references.kendall(result, arguments["x"], arguments["y"])
    if target.kind != "class" and (found := references.lengths(name, result, namespace["owner"], arguments)):
        return found
    spectrum = arguments.get("spectrum", namespace["owner"])
    return references.of_spectrum(name, spectrum, result) if isinstance(spectrum, rl.Spectrum) else None


def _general(result: Any, may_be_nan: bool) -> str | None:
    """What holds for every result of its type; all can be shown."""
    if isinstance(result, rl.Spectrum):
        return _spectrum(result)
    if isinstance(result, rl.Estimate):
        names = ("standard_error", "sampling_error", "truncation_error", "rounding_error", "data_error")
        bad = [name for name in names if not getattr(result, name) >= 0]
        if bad:
            return f"an estimate with {bad[0]} = {getattr(result, bad[0])}"
    if isinstance(result, rl.bounds.Bound) and not (result.value >= 0):
        return f"a bound of {result.value}"
    numbers = [float(result)] if isinstance(result, (float, rl.Estimate)) else result
    if isinstance(numbers, Tensor):
        numbers = numbers.detach().cpu().double().numpy() if not numbers.is_complex() else []
    if isinstance(numbers, (list, np.ndarray)) and not may_be_nan:
        floats = (
            np.asarray(numbers)
            if isinstance(numbers, np.ndarray)
            else np.array([v for v in numbers if isinstance(v, float)])
        )
        if floats.dtype.kind == "f" and np.isnan(floats).any():
            return "NaN"
    _show(result)
    return None


def _show(result: Any) -> None:
    """Make what a terminal and a notebook show."""
    repr(result)
    if not isinstance(result, type) and callable(page := getattr(result, "_repr_html_", None)):
        page()
