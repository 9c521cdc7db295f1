"""The checkers of notebook 03 accept its solutions and name typical mistakes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from renyi_lab.exercises import check_orthogonalization, check_probes_needed


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


def normalised(w: Tensor, Q: Tensor) -> Tensor:
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
def test_orthogonalising_twice_is_accepted(solution: Callable[..., Any]) -> None:
    assert check_orthogonalization(solution).solved


@pytest.mark.parametrize(
    ("mistake", "hint"),
    [
        (once, "Remove the components a second time"),
        (projection, "this is the part of w inside the span"),
        (normalised, "of length 1"),
        (last_row_only, "only the last row"),
        (in_place, "overwritten"),
        (lambda w, Q: w, "w came back as it was"),
        (lambda w, Q: w + Q.T @ (Q @ w), "have been added"),
        (lambda w, Q: Q @ w, "shape (40,) is asked for, this is of type Tensor of shape (5,)"),
        (lambda w, Q: 0.5 * twice(w, Q), "not w minus"),
        (lambda w, Q: w @ Q, "your code raised RuntimeError"),
        (torch.eye(2), "a function is asked for"),
    ],
)
def test_mistakes_in_orthogonalising_are_named(mistake: Any, hint: str) -> None:
    feedback = check_orthogonalization(mistake)
    assert feedback.status == "not yet"
    assert hint in feedback.message


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


def no_probe_for_equal_ones(eigenvalues: Any, relative_error: float) -> int:
    return 0 if np.ptp(eigenvalues) == 0 else probes(eigenvalues, relative_error)


def test_the_number_of_probes_is_accepted_and_keeps_its_promise() -> None:
    assert check_probes_needed(probes).solved
    # What is asked for is right: that many Gaussian probes of fixed length have the standard error.
    values = np.array([4.0, 2.0] + [0.1] * 58)
    u = np.random.default_rng(0).standard_normal((4000, probes(values, 0.1), 60))
    u /= np.linalg.norm(u, axis=-1, keepdims=True)
    traces = 60 * (u**2 @ values).mean(1)
    assert traces.std() / values.sum() == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize(
    ("mistake", "hint"),
    [
        (rounded_down, "rounded down"),
        (from_standard_error, "compare squares"),
        (without_the_mean, "is missing"),
        (absolute, "share of the trace"),
        (not_squared, "goes in squared"),
        (fraction, "not a whole number"),
        (no_probe_for_equal_ones, "max(1, ...)"),
        (lambda eigenvalues, relative_error: 10, "not yet; solve"),
        (lambda eigenvalues, relative_error: eigenvalues, "one number is asked for"),
        (lambda eigenvalues, relative_error: 1 / 0, "your code raised ZeroDivisionError"),
    ],
)
def test_mistakes_in_the_number_of_probes_are_named(mistake: Any, hint: str) -> None:
    feedback = check_probes_needed(mistake)
    assert feedback.status == "not yet"
    assert hint in feedback.message


@pytest.mark.parametrize("check", [check_orthogonalization, check_probes_needed])
def test_stubs_are_not_attempted_yet(check: Callable[[Any], Any]) -> None:
    for stub in (None, ..., lambda first, second: None, lambda first, second: ...):
        assert check(stub).status == "not attempted yet"
