"""The checkers of deflation and calibration accept their solutions and explain typical mistakes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from renyi_lab import lanczos, matrix_with_spectrum
from renyi_lab.exercises import check_calibration, check_deflation


def deflated(step: Any, dim: int, *, limit: Any = None, left: Any = None, one: float = 1.0) -> Any:
    found = step.residuals <= (1e-3 * np.abs(step.ritz_values) if limit is None else limit(step))
    rest = np.where(found, 0.0, step.weights)
    return np.where(found, one, rest * ((dim - found.sum()) if left is None else left(dim)) / rest.sum())


def not_rescaled(step: Any, dim: int) -> Any:
    return np.where(step.residuals <= 1e-3 * np.abs(step.ritz_values), 1.0, dim * step.weights)


def no_absolute_value(step: Any, dim: int) -> Any:
    return deflated(step, dim, limit=lambda s: 1e-3 * s.ritz_values)


def small_step_changed(step: Any, dim: int) -> Any:
    weights = deflated(step, dim)
    step.ritz_values[0] = 0.0
    return weights


def calibrated(weights: Any, V: Any, totals: Any) -> Any:
    gram = V.T @ (weights[:, None] * V)
    return np.maximum(weights * (1 + V @ np.linalg.solve(gram, totals - V.T @ weights)), 0)


def unclipped(weights: Any, V: Any, totals: Any) -> Any:
    gram = V.T @ (weights[:, None] * V)
    return weights * (1 + V @ np.linalg.solve(gram, totals - V.T @ weights))


def equal_changes(weights: Any, V: Any, totals: Any) -> Any:
    return weights + V @ np.linalg.solve(V.T @ V, totals - V.T @ weights)


def in_place(weights: Any, V: Any, totals: Any) -> Any:
    new = calibrated(weights, V, totals)
    weights *= 2
    return new


@pytest.mark.parametrize(("check", "solution"), [(check_deflation, deflated), (check_calibration, calibrated)])
def test_solutions_are_accepted_twice_and_then_used(check: Callable[..., Any], solution: Callable[..., Any]) -> None:
    for _ in range(2):
        feedback = check(solution)
        assert feedback.solved, feedback
        assert feedback.function is solution


def test_until_they_are_solved_the_library_stands_in() -> None:
    step = lanczos(matrix_with_spectrum(np.append([3.0, -2.0], np.linspace(0.01, 0.1, 38))), num_steps=12)
    deflation, calibration = check_deflation(None).function, check_calibration(None).function
    assert deflation is not None
    assert calibration is not None
    np.testing.assert_allclose(deflation(step, 40), deflated(step, 40))
    assert deflation(step, 40).sum() == pytest.approx(40)
    x = np.linspace(-1, 1, 7)
    weights, V, totals = np.ones(7), np.stack([np.ones(7), x], axis=1), np.array([7.5, 1.0])
    np.testing.assert_allclose(calibration(weights, V, totals) @ V, totals)
    assert check_deflation(deflation).solved
    assert check_calibration(calibration).solved


def stub(*arguments: Any) -> Any: ...


@pytest.mark.parametrize(
    ("check", "attempt", "message"),
    [
        (check_deflation, lambda step, dim: step.weights, "these sum to 1"),
        (check_deflation, lambda step, dim: np.ones(step.num_steps), "every pair counts once here"),
        (check_deflation, lambda step, dim: dim * step.weights, "converged pairs must have weight 1"),
        (check_deflation, not_rescaled, "must be scaled so that they sum to n − k"),
        (check_deflation, lambda step, dim: deflated(step, dim, left=lambda n: n), "belong to the k converged"),
        (check_deflation, lambda step, dim: deflated(step, dim, limit=lambda s: 1e-3), "not with 1e-3"),
        (check_deflation, no_absolute_value, "may be negative"),
        (check_deflation, lambda step, dim: deflated(step, dim, one=0.0), "have weight 0 here"),
        (check_deflation, lambda step, dim: 2 * deflated(step, dim), "n · step.weights"),
        (check_deflation, lambda step, dim: deflated(step, dim)[:-1], "a NumPy array of shape (2,) is expected"),
        (check_deflation, lambda step, dim: torch.from_numpy(deflated(step, dim)), "expected, got Tensor"),
        (check_deflation, lambda step, dim: deflated(step, dim).astype(complex), "got complex128"),
        (check_deflation, lambda step, dim: step.nonsense, "your code raised AttributeError"),
        (check_deflation, small_step_changed, "were changed"),
        (check_calibration, unclipped, "some weights are negative"),
        (check_calibration, lambda *given: abs(unclipped(*given)), "not its absolute value"),
        (check_calibration, equal_changes, "must be a share of each weight"),
        (check_calibration, lambda w, V, t: w, "the weights are unchanged"),
        (check_calibration, lambda w, V, t: unclipped(w, V, t) - w, "must be added to 1"),
        (check_calibration, lambda w, V, t: 2 * w - unclipped(w, V, t), "wrong sign"),
        (check_calibration, lambda w, V, t: unclipped(w, V, t + w @ V), "solve for the gap"),
        (check_calibration, lambda w, V, t: 3 * w, "is not totals yet"),
        (check_calibration, in_place, "weights itself was changed"),
        (check_calibration, lambda w, V, t: w.sum(), "a NumPy array of shape (9,) is expected, got float64"),
        (check_calibration, lambda w, V, t: V @ t[:2], "your code raised ValueError"),
        *(
            (check, blank, "not attempted yet")
            for check in (check_deflation, check_calibration)
            for blank in (None, ..., stub, lambda *_: ...)
        ),
    ],
)
def test_messages(check: Callable[[Any], Any], attempt: Any, message: str) -> None:
    feedback = check(attempt)
    assert not feedback.solved
    assert message in repr(feedback)
