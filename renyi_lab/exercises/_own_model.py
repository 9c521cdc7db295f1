"""Checkers of the functions that the reader writes in `10_your_own_model.ipynb`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from renyi_lab.exercises._feedback import Feedback, Hint, answer_of, close, explain, first_hint, number_of

_STEP = 0.1
_SIZES = (3, 2, 4, 3)
_Gradient = Callable[[Tensor], Tensor]
_Statistic = Callable[[Sequence[Any]], float]


def check_product_errors(function: Callable[..., Any]) -> Feedback:
    """Check ``function(H, gradient_at, theta, u, v, step)``: is ``H @ v`` symmetric, and the gradient's derivative?

    Args:
        function: Your solution; returns two numbers, ``|uᵀHv − vᵀHu| / (‖u‖ ‖Hv‖)`` and ``‖d − Hv‖ / ‖Hv‖`` with the
            central difference ``d = (∇L(θ + step·v) − ∇L(θ − step·v)) / 2step``.

    Returns:
        Feedback whose ``function`` is yours once it passes and a working one until then.
    """
    feedback = first_hint(
        function,
        [_of_symmetric, _of_any],
        "two products and two gradients tell whether a product is that of a symmetric matrix, and of the right one.",
        signature="(H, gradient_at, theta, u, v, step)",
    )
    return feedback.otherwise(function, _product_errors)


def _product_errors(H: Any, gradient_at: _Gradient, theta: Tensor, u: Tensor, v: Tensor, step: float) -> Any:
    Hu, Hv = H @ u, H @ v
    difference = (gradient_at(theta + step * v) - gradient_at(theta - step * v)) / (2 * step)
    asymmetry = (u @ Hv - v @ Hu).abs() / (u.norm() * Hv.norm())
    return float(asymmetry), float((difference - Hv).norm() / Hv.norm())


def _cube(point: Tensor) -> Tensor:
    """The gradient of ``Σ θ⁴/4``; its derivative is ``diag(3θ²)``."""
    return point**3


def _of_symmetric(function: Callable[..., Any]) -> str | None:
    theta = torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64)
    return _compared(function, torch.diag(3 * theta**2), theta, "the Hessian itself: ")


def _of_any(function: Callable[..., Any]) -> str | None:
    theta = torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64)
    matrix = torch.tensor([[3.0, 1.0, 0.0], [-2.0, 1.0, 0.5], [0.0, 4.0, 9.0]], dtype=torch.float64)
    return _compared(function, matrix, theta, "a matrix that is not symmetric: ")


def _compared(function: Callable[..., Any], matrix: Tensor, theta: Tensor, case: str) -> str | None:
    u, v = torch.tensor([[1.0, 2.0, -1.0], [0.5, 1.0, 3.0]], dtype=torch.float64)
    found = _two_numbers(
        answer_of(function, matrix, _cube, theta.clone(), u.clone(), v.clone(), _STEP), "asymmetry and difference"
    )
    wanted = _product_errors(matrix, _cube, theta, u, v, _STEP)
    here, ahead, behind = _cube(theta), _cube(theta + _STEP * v), _cube(theta - _STEP * v)
    Hu, Hv = matrix @ u, matrix @ v
    gap, size = float((u @ Hv - v @ Hu).abs()), float(Hv.norm())

    def error(difference: Tensor) -> float:
        return float((difference - Hv).norm() / Hv.norm())

    asymmetry = {
        "asymmetry: divide by ‖u‖ ‖Hv‖; else it grows with the vectors.": gap,
        "asymmetry: divide by ‖u‖ too.": gap / size,
        "asymmetry: divide by ‖Hv‖ too.": gap / float(u.norm()),
        "asymmetry: the absolute value is missing.": -wanted[0],
        "asymmetry: 0 here, whatever the matrix? Compare u·(H v) with v·(H u): two products.": 0.0,
    }
    difference = {
        "difference: this is the one-sided difference; take a gradient at theta − step·v too.": error(
            (ahead - here) / _STEP
        ),
        "difference: the two points are 2·step apart; divide by that.": error((ahead - behind) / _STEP),
        "difference: not divided by 2·step yet.": error(ahead - behind),
        "difference: the sign is wrong: ahead minus behind.": error((behind - ahead) / (2 * _STEP)),
        "difference: divide by ‖Hv‖, else it grows with the product.": wanted[1] * size,
        "difference: in percent? A plain ratio is expected.": 100 * wanted[1],
        "difference: divide by the norm of the product, not by that of the difference.": (
            wanted[1] * size / float(((ahead - behind) / (2 * _STEP)).norm())
        ),
    }
    if close(found[0], wanted[1]) and close(found[1], wanted[0]) and not close(*wanted):
        return "the two numbers are interchanged: the asymmetry comes first."
    hint = explain(found[0], wanted[0], asymmetry, "asymmetry: compare with |u·(H v) − v·(H u)| / (‖u‖ ‖H v‖).")
    if hint is None:
        otherwise = "difference: compare ‖d − H v‖ / ‖H v‖, d from gradients at theta ± step·v."
        hint = explain(found[1], wanted[1], difference, otherwise)
    return hint if hint is None else case + hint


def _two_numbers(answer: Any, names: str) -> tuple[float, float]:
    try:
        first, second = answer
    except (TypeError, ValueError, RuntimeError):
        raise Hint(f"two numbers are expected, {names}; got {type(answer).__name__}.") from None
    return number_of(first), number_of(second)


def check_jackknife(function: Callable[[_Statistic, Sequence[Any]], Any]) -> Feedback:
    """Check ``function(statistic, groups)``: standard error and bias by the delete-a-group jackknife.

    With ``θ̂`` the statistic of all ``g`` groups, ``θ_j`` that of all but the ``j``-th, and ``θ̄`` the mean of these: the
    standard error ``√((g − 1)/g · Σ_j (θ_j − θ̄)²)`` and the bias ``(g − 1)(θ̄ − θ̂)``.

    Args:
        function: Your solution; ``groups`` is a list, and ``statistic`` takes a list of groups and returns a number.

    Returns:
        Feedback whose ``function`` is yours once it passes and a working one until then.
    """
    feedback = first_hint(
        function,
        [_of_calls, _of_error, _of_bias],
        "for the mean of single samples these are exactly s/√N and 0; no formula of the statistic is needed.",
        signature="(statistic, groups)",
    )
    return feedback.otherwise(function, _jackknife)


def _jackknife(statistic: _Statistic, groups: Sequence[Any]) -> tuple[float, float]:
    g = len(groups)
    values = [float(statistic([*groups[:j], *groups[j + 1 :]])) for j in range(g)]
    mean = sum(values) / g
    error = math.sqrt((g - 1) / g * sum((value - mean) ** 2 for value in values))
    return error, (g - 1) * (mean - float(statistic(groups)))


def _groups() -> list[list[float]]:
    draws = iter(torch.randn(sum(_SIZES), generator=torch.Generator().manual_seed(3), dtype=torch.float64).exp())
    return [[float(next(draws)) for _ in range(size)] for size in _SIZES]


def _log_mean(kept: Sequence[Sequence[float]]) -> float:
    samples = [sample for group in kept for sample in group]
    return math.log(sum(samples) / len(samples))


def _left_out() -> Tensor:
    groups = _groups()
    values = [_log_mean(groups[:j] + groups[j + 1 :]) for j in range(len(groups))]
    return torch.tensor(values, dtype=torch.float64)


def _of_calls(function: Callable[..., Any]) -> str | None:
    groups, calls = _groups(), []

    def recorded(kept: Any) -> float:
        try:
            calls.append(len(kept))
            return _log_mean(kept)
        except (TypeError, ZeroDivisionError):
            raise Hint(
                f"statistic takes a list of groups that are kept, each as it is in groups; it got {kept!r:.60}."
            ) from None

    answer_of(function, recorded, groups)
    if not calls:
        return "statistic was never called."
    if calls.count(1) >= len(groups):
        return "statistic got one group at a time: leave one out, and keep all the others."
    if calls.count(len(groups) - 1) < len(groups):
        return f"call statistic once for each of the {len(groups)} groups left out; the others are kept."
    return None


def _of_error(function: Callable[..., Any]) -> str | None:
    groups, values = _groups(), _left_out()
    g, whole = len(groups), _log_mean(groups)
    spread = float((values - values.mean()).square().sum())
    found = _two_numbers(answer_of(function, _log_mean, groups), "error and bias")
    right, bias = _jackknife(_log_mean, groups)
    if close(found[0], bias) and close(found[1], right):
        return "the two numbers are interchanged: the standard error comes first."
    mistakes = {
        "error: this is the square; take the root.": (g - 1) / g * spread,
        "error: values that leave out one group share most samples and differ little; multiply by g − 1 inside the "
        "root.": math.sqrt(spread / g),
        "error: the usual standard deviation divides by g − 1; here the sum is multiplied by (g − 1)/g.": math.sqrt(
            spread / (g - 1)
        ),
        "error: a mean's standard error divides by √g once more; these values are no independent samples.": math.sqrt(
            spread / (g * (g - 1))
        ),
        "error: the factor is (g − 1)/g, not g − 1; divide the sum by g.": math.sqrt((g - 1) * spread),
        "error: the deviations are taken from the statistic of all groups; take them from the mean of the g values.": (
            math.sqrt((g - 1) / g * float((values - whole).square().sum()))
        ),
        "error: this is the mean of the values; their spread is asked for.": float(values.mean()),
    }
    return explain(found[0], right, mistakes, "error: compare with √((g − 1)/g · Σ (θ_j − mean)²).")


def _of_bias(function: Callable[..., Any]) -> str | None:
    groups, mean = _groups(), float(_left_out().mean())
    g, whole = len(groups), _log_mean(groups)
    found = _two_numbers(answer_of(function, _log_mean, groups), "error and bias")
    mistakes = {
        "bias: the sign is wrong; mean of the values minus the statistic of all groups.": (g - 1) * (whole - mean),
        "bias: this is the difference; multiply it by g − 1.": mean - whole,
        "bias: the factor is g − 1, not g.": g * (mean - whole),
        "bias: this is the statistic without its bias; return the bias alone.": g * whole - (g - 1) * mean,
        "bias: this is the mean of the values; subtract the statistic of all groups, and multiply by g − 1.": mean,
        "bias: 0? The mean of the values differs from the statistic of all groups.": 0.0,
    }
    return explain(found[1], (g - 1) * (mean - whole), mistakes, "bias: compare with (g − 1)(mean − statistic of all).")
