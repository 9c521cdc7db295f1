"""The checkers of notebook 10 accept its solutions and explain typical mistakes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import renyi_lab as rl
from renyi_lab import exercises
from renyi_lab.exercises import (
    check_claims,
    check_cost_plan,
    check_error_shares,
    check_jackknife,
    check_product_errors,
)

NOT_ATTEMPTED = "not attempted yet"
CLAIMS = (True, False, False, False, False, True)


def product_errors(H: Any, gradient_at: Any, theta: Any, u: Any, v: Any, step: float) -> tuple[Any, Any]:
    Hu, Hv = H @ u, H @ v
    d = (gradient_at(theta + step * v) - gradient_at(theta - step * v)) / (2 * step)
    return (u @ Hv - v @ Hu).abs() / (u.norm() * Hv.norm()), (d - Hv).norm() / Hv.norm()


def changed(asymmetry: Callable[..., Any] | None = None, difference: Callable[..., Any] | None = None) -> Any:
    """`product_errors` with one of the two numbers computed in another way."""

    def attempt(*arguments: Any) -> tuple[Any, Any]:
        right = product_errors(*arguments)
        return (
            right[0] if asymmetry is None else asymmetry(*arguments),
            right[1] if difference is None else difference(*arguments),
        )

    return attempt


def of_difference(d: Callable[..., Any]) -> Any:
    def difference(H: Any, g: Any, theta: Any, u: Any, v: Any, h: float) -> Any:
        Hv = H @ v
        return (d(g, theta, v, h) - Hv).norm() / Hv.norm()

    return changed(difference=difference)


def jackknife(statistic: Any, groups: Any) -> tuple[float, float]:
    g = len(groups)
    values = np.array([statistic(groups[:j] + groups[j + 1 :]) for j in range(g)])
    error = math.sqrt((g - 1) / g * ((values - values.mean()) ** 2).sum())
    return error, (g - 1) * (values.mean() - statistic(groups))


def of_error(formula: Callable[[Any, float], float]) -> Any:
    """`jackknife` with another error, from the values with one group left out and the statistic of all groups."""

    def attempt(statistic: Any, groups: Any) -> tuple[float, float]:
        g = len(groups)
        values = np.array([statistic(groups[:j] + groups[j + 1 :]) for j in range(g)])
        return formula(values, statistic(groups)), jackknife(statistic, groups)[1]

    return attempt


def of_bias(formula: Callable[[Any, float], float]) -> Any:
    """`jackknife` with another bias."""

    def attempt(statistic: Any, groups: Any) -> tuple[float, float]:
        g = len(groups)
        values = np.array([statistic(groups[:j] + groups[j + 1 :]) for j in range(g)])
        return jackknife(statistic, groups)[0], formula(values, statistic(groups))

    return attempt


def one_at_a_time(statistic: Any, groups: Any) -> float:
    return float(np.std([statistic([group]) for group in groups]))


def pops(statistic: Any, groups: Any) -> float:
    groups.pop()
    return 0.0


def test_the_check_of_a_product_is_accepted_and_tells_operators_apart() -> None:
    assert check_product_errors(product_errors).solved
    assert check_product_errors(lambda *a: [float(x) for x in product_errors(*a)]).solved
    generator = torch.Generator().manual_seed(0)
    model = rl.models.mlp(4, 5, 3, activation="tanh").double()
    x, y = torch.randn(20, 4, generator=generator).double(), torch.randint(0, 3, (20,), generator=generator)
    H = rl.HessianOperator(model, torch.nn.functional.cross_entropy, (x, y))
    theta = torch.nn.utils.parameters_to_vector(model.parameters()).detach()

    def gradient_at(weights: Any) -> Any:
        other = rl.models.mlp(4, 5, 3, activation="tanh").double()
        torch.nn.utils.vector_to_parameters(weights, other.parameters())
        return rl.HessianOperator(other, torch.nn.functional.cross_entropy, (x, y)).gradient()

    u, v = torch.randn(2, H.dim, generator=generator).double()
    asymmetry, difference = product_errors(H, gradient_at, theta, u, v, 1e-5)
    assert asymmetry < 1e-12
    assert difference < 1e-7
    ggn = rl.GGNOperator(model, torch.nn.functional.cross_entropy, (x, y))
    asymmetry, difference = product_errors(ggn, gradient_at, theta, u, v, 1e-5)
    assert asymmetry < 1e-12
    assert difference > 1e-3


def test_the_jackknife_is_accepted_and_gives_the_error_of_a_mean() -> None:
    assert check_jackknife(jackknife).solved
    samples = np.random.default_rng(0).normal(size=50)
    error, bias = jackknife(lambda kept: float(np.mean(kept)), list(samples))
    assert error == pytest.approx(samples.std(ddof=1) / math.sqrt(50))
    assert bias == pytest.approx(0, abs=1e-12)
    bias = jackknife(lambda kept: float(np.var(kept)), list(samples))[1]
    assert np.var(samples) - bias == pytest.approx(samples.var(ddof=1))


@pytest.mark.parametrize(
    ("check", "solution"), [(check_product_errors, product_errors), (check_jackknife, jackknife)]
)  # fmt: skip
def test_the_library_stands_in_for_functions_that_are_not_solved(check: Any, solution: Any) -> None:
    assert check(solution).function is solution
    stand_in = check(lambda *arguments: None).function
    assert check(stand_in).solved
    assert check(stand_in).function is stand_in, "called twice, and with its own function"


def test_the_solutions_of_the_exercises_are_accepted() -> None:
    vector = 25.6e6 * 4
    assert check_cost_plan(2 * 200 * vector / 1e9, 8e9 // (2 * vector), 200 * 3 * 3 / 60).solved
    assert check_cost_plan(41, 39, 30).solved
    assert check_error_shares(math.hypot(0.01, 0.03), math.hypot(0.005, 0.03), 9000).solved
    assert check_error_shares(0.032, 0.03, 9000).solved
    assert check_claims(*CLAIMS).solved


@pytest.mark.parametrize("index", range(6))
def test_every_wrong_claim_is_explained(index: int) -> None:
    answers = [answer != (place == index) for place, answer in enumerate(CLAIMS)]
    feedback = check_claims(*answers)
    assert not feedback.solved
    assert "expected" not in feedback.message


@pytest.mark.parametrize(
    ("check", "answers", "message"),
    [
        (check_product_errors, (changed(lambda H, g, t, u, v, h: (u @ (H @ v) - v @ (H @ u)).abs()),), "divide by"),
        (check_product_errors, (changed(lambda H, g, t, u, v, h: 0.0),), "two products"),
        (
            check_product_errors,
            (changed(lambda H, g, t, u, v, h: (u @ (H @ v) - v @ (H @ u)) / u.norm() / (H @ v).norm()),),
            "",
        ),
        (check_product_errors, (of_difference(lambda g, t, v, h: (g(t + h * v) - g(t)) / h),), "one-sided"),
        (check_product_errors, (of_difference(lambda g, t, v, h: (g(t + h * v) - g(t - h * v)) / h),), "2·step apart"),
        (check_product_errors, (of_difference(lambda g, t, v, h: g(t + h * v) - g(t - h * v)),), "not divided"),
        (
            check_product_errors,
            (of_difference(lambda g, t, v, h: (g(t - h * v) - g(t + h * v)) / 2 / h),),
            "the sign is wrong",
        ),
        (check_product_errors, (lambda *a: product_errors(*a)[::-1],), "interchanged"),
        (check_product_errors, (lambda *a: product_errors(*a)[1],), "two numbers are expected"),
        (check_product_errors, (lambda *a: (None, 1.0),), NOT_ATTEMPTED),
        (check_product_errors, (lambda H, v: 0.0,), "(H, gradient_at, theta, u, v, step)"),
        (check_product_errors, (lambda H, g, t, u, v, h: v.mul_(2),), "v itself was changed"),
        (check_jackknife, (of_error(lambda v, w: ((v - v.mean()) ** 2).sum() * (len(v) - 1) / len(v)),), "the root"),
        (check_jackknife, (of_error(lambda v, w: v.std()),), "g − 1 inside the root"),
        (check_jackknife, (of_error(lambda v, w: v.std(ddof=1)),), "multiplied by (g − 1)/g"),
        (check_jackknife, (of_error(lambda v, w: v.std(ddof=1) / math.sqrt(len(v))),), "no independent samples"),
        (
            check_jackknife,
            (of_error(lambda v, w: math.sqrt((len(v) - 1) * ((v - v.mean()) ** 2).sum())),),
            "divide the sum by g",
        ),
        (
            check_jackknife,
            (of_error(lambda v, w: math.sqrt((len(v) - 1) / len(v) * ((v - w) ** 2).sum())),),
            "from the mean of the g values",
        ),
        (check_jackknife, (of_error(lambda v, w: v.mean()),), "spread is asked for"),
        (check_jackknife, (of_error(lambda v, w: 7.0),), "compare with"),
        (check_jackknife, (of_bias(lambda v, w: (len(v) - 1) * (w - v.mean())),), "the sign is wrong"),
        (check_jackknife, (of_bias(lambda v, w: v.mean() - w),), "multiply it by g − 1"),
        (check_jackknife, (of_bias(lambda v, w: len(v) * (v.mean() - w)),), "not g"),
        (check_jackknife, (of_bias(lambda v, w: len(v) * w - (len(v) - 1) * v.mean()),), "the bias alone"),
        (check_jackknife, (of_bias(lambda v, w: 0.0),), "bias: 0?"),
        (check_jackknife, (lambda s, g: jackknife(s, g)[::-1],), "the standard error comes first"),
        (check_jackknife, (lambda s, g: jackknife(s, g)[0],), "two numbers are expected, error and bias"),
        (check_jackknife, (one_at_a_time,), "one group at a time"),
        (check_jackknife, (lambda s, groups: s(groups),), "once for each of the 4 groups"),
        (check_jackknife, (lambda s, groups: s(groups[0]),), "takes a list of groups"),
        (check_jackknife, (lambda s, groups: 0.3,), "never called"),
        (check_jackknife, (pops,), "groups itself was changed"),
        (check_jackknife, (lambda s, groups: ...,), NOT_ATTEMPTED),
        (check_cost_plan, (20.48, 39, 30), "one vector for each product"),
        (check_cost_plan, (40.96e9, 39, 30), "in gigabytes"),
        (check_cost_plan, (41, 78, 30), "two vectors"),
        (check_cost_plan, (41, 40, 30), "round down"),
        (check_cost_plan, (41, 39, 10), "three gradients"),
        (check_cost_plan, (41, 39, 1800), "not in minutes"),
        (check_cost_plan, (41, 39, math.nan), "NaN or infinite"),
        (check_cost_plan, (..., 39, 30), NOT_ATTEMPTED),
        (check_error_shares, (0.04, 0.03, 9000), "add as squares"),
        (check_error_shares, (0.03, 0.03, 9000), "the smaller one counts"),
        (check_error_shares, (0.0316, 0.0158, 9000), "√(.005² + .03²)"),
        (check_error_shares, (0.0316, 0.0304, 3000), "1/√N"),
        (check_error_shares, (0.0316, 0.0304, 9), "that is the factor"),
        (check_error_shares, ("a", 0.0304, 9), "one number is expected"),
        (check_claims, (1, 0, 0, 0, 0, 1), "True or False is expected"),
        (check_claims, (True, ..., False, False, False, True), NOT_ATTEMPTED),
    ],
)
def test_messages(check: Callable[..., Any], answers: tuple[Any, ...], message: str) -> None:
    feedback = check(*answers)
    assert not feedback.solved
    assert message in repr(feedback)


def test_infinite_products_and_numpy_booleans_are_read_as_what_they_are() -> None:
    assert "NaN or infinite" in str(exercises.check_cost_plan(40.96, math.inf, 30))
    assert exercises.check_claims(*np.array([True, False, False, False, False, True])).solved
