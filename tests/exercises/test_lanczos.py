"""The checkers of notebook 03 accept its solutions and explain typical mistakes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from renyi_lab.exercises import check_orthogonalization, check_probes_needed

CHECKS = (check_orthogonalization, check_probes_needed)


def twice(w: Tensor, Q: Tensor) -> Tensor:
    for _ in range(2):
        w = w - Q.T @ (Q @ w)
    return w


def row_by_row_twice(w: Tensor, Q: Tensor) -> Tensor:
    for row in [*Q, *Q]:
        w = w - (row @ w) * row
    return w


def once(w: Tensor, Q: Tensor) -> Tensor:
    return w - Q.T @ (Q @ w)


def projection(w: Tensor, Q: Tensor) -> Tensor:
    return Q.T @ (Q @ w)


def normalized(w: Tensor, Q: Tensor) -> Tensor:
    return twice(w, Q) / twice(w, Q).norm()


def last_row_only(w: Tensor, Q: Tensor) -> Tensor:
    result = w
    for row in Q:
        result = w - (row @ w) * row
    return result


def in_place(w: Tensor, Q: Tensor) -> Tensor:
    for _ in range(2):
        w -= Q.T @ (Q @ w)
    return w


@pytest.mark.parametrize("solution", [twice, row_by_row_twice])
def test_orthogonalizing_twice_is_accepted(solution: Callable[..., Any]) -> None:
    assert check_orthogonalization(solution).solved


def probes(eigenvalues: Any, relative_error: float) -> int:
    n, total = len(eigenvalues), eigenvalues.sum()
    variance = 2 * n / (n + 2) * ((eigenvalues**2).sum() - total**2 / n)
    return max(1, math.ceil(variance / (relative_error * total) ** 2))


def rounded_down(eigenvalues: Any, relative_error: float) -> int:
    return max(1, probes(eigenvalues, relative_error) - 1)


def from_standard_error(eigenvalues: Any, relative_error: float) -> int:
    n, total = len(eigenvalues), eigenvalues.sum()
    variance = 2 * n / (n + 2) * ((eigenvalues**2).sum() - total**2 / n)
    return math.ceil(math.sqrt(variance) / (relative_error * total))


def without_the_mean(eigenvalues: Any, relative_error: float) -> int:
    n, total = len(eigenvalues), eigenvalues.sum()
    return math.ceil(2 * n / (n + 2) * (eigenvalues**2).sum() / (relative_error * total) ** 2)


def absolute(eigenvalues: Any, relative_error: float) -> int:
    return probes(eigenvalues, relative_error / eigenvalues.sum())


def not_squared(eigenvalues: Any, relative_error: float) -> int:
    return probes(eigenvalues, math.sqrt(relative_error))


def fraction(eigenvalues: Any, relative_error: float) -> float:
    n, total = len(eigenvalues), eigenvalues.sum()
    return float(2 * n / (n + 2) * ((eigenvalues**2).sum() - total**2 / n) / (relative_error * total) ** 2)


def no_probe_for_equal_eigenvalues(eigenvalues: Any, relative_error: float) -> int:
    return 0 if np.ptp(eigenvalues) == 0 else probes(eigenvalues, relative_error)


def test_the_right_number_of_probes_is_accepted_and_has_the_standard_error() -> None:
    assert check_probes_needed(probes).solved
    values = np.array([4.0, 2.0] + [0.1] * 58)
    u = np.random.default_rng(0).standard_normal((4000, probes(values, 0.1), 60))
    u /= np.linalg.norm(u, axis=-1, keepdims=True)
    traces = 60 * (u**2 @ values).mean(1)
    assert traces.std() / values.sum() == pytest.approx(0.1, rel=0.05)


def stub(first: Any, second: Any) -> Any: ...


@pytest.mark.parametrize(
    ("check", "attempt", "message"),
    [
        (check_orthogonalization, once, "Remove the components a second time"),
        (check_orthogonalization, projection, "this is the part of w inside the span"),
        (check_orthogonalization, normalized, "of length 1"),
        (check_orthogonalization, last_row_only, "only the last row"),
        (check_orthogonalization, in_place, "overwritten"),
        (check_orthogonalization, lambda w, Q: w, "this is w unchanged"),
        (check_orthogonalization, lambda w, Q: w + Q.T @ (Q @ w), "have been added"),
        (check_orthogonalization, lambda w, Q: Q @ w, "shape (40,) is expected, got Tensor of shape (5,)"),
        (check_orthogonalization, lambda w, Q: 0.5 * twice(w, Q), "not w minus"),
        (check_orthogonalization, lambda w, Q: w @ Q, "your code raised RuntimeError"),
        (check_orthogonalization, torch.eye(2), "a function is expected"),
        (check_probes_needed, rounded_down, "rounded down"),
        (check_probes_needed, from_standard_error, "compare squares"),
        (check_probes_needed, without_the_mean, "is missing"),
        (check_probes_needed, absolute, "share of the trace"),
        (check_probes_needed, not_squared, "must be squared"),
        (check_probes_needed, fraction, "not a whole number"),
        (check_probes_needed, no_probe_for_equal_eigenvalues, "max(1, ...)"),
        (check_probes_needed, lambda eigenvalues, relative_error: 10, "not yet; solve"),
        (check_probes_needed, lambda eigenvalues, relative_error: eigenvalues, "one number is expected"),
        (check_probes_needed, lambda eigenvalues, relative_error: 1 / 0, "your code raised ZeroDivisionError"),
        *((check, blank, "not attempted yet") for check in CHECKS for blank in (None, ..., stub, lambda *_: ...)),
    ],
)
def test_messages(check: Callable[[Any], Any], attempt: Any, message: str) -> None:
    feedback = check(attempt)
    assert not feedback.solved
    assert message in repr(feedback)
