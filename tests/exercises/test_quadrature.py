"""The checkers of stochastic quadrature accept its solutions and explain typical mistakes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from renyi_lab import lanczos, matrix_with_spectrum
from renyi_lab.exercises import check_probes_needed, check_slq


def gaussian(dim: int, seed: int) -> Tensor:
    return torch.randn(dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rule(A: Any, start: Tensor, num_steps: int) -> tuple[Any, Any]:
    run = lanczos(A, start, num_steps=num_steps)
    return run.ritz_values, run.eigenvectors


def slq(
    A: Any,
    f: Callable[[Any], Any],
    num_steps: int,
    num_probes: int,
    *,
    start: Callable[[int, int], Tensor] = gaussian,
    weigh: Callable[[Any], Any] = lambda y: y[0] ** 2,
    factor: Callable[[int, int], float] = lambda n, probes: n / probes,
) -> float:
    total = 0.0
    for seed in range(num_probes):
        theta, y = rule(A, start(len(A), seed), num_steps)
        total += float(weigh(y) @ f(theta))
    return total * factor(len(A), num_probes)


def with_global_generator(A: Any, f: Any, num_steps: int, num_probes: int) -> float:
    return slq(A, f, num_steps, num_probes, start=lambda n, _: torch.randn(n, dtype=torch.float64))


def variant(**options: Any) -> Callable[..., float]:
    return lambda A, f, num_steps, num_probes: slq(A, f, num_steps, num_probes, **options)


@pytest.mark.parametrize(
    "solution", [slq, with_global_generator, variant(start=lambda n, seed: gaussian(n, seed + 77))]
)
def test_slq_with_any_gaussian_probes_is_accepted_twice_and_then_used(solution: Callable[..., Any]) -> None:
    state = torch.get_rng_state()
    for _ in range(2):
        feedback = check_slq(solution)
        assert feedback.solved, feedback
        assert feedback.function is solution
    assert torch.equal(torch.get_rng_state(), state)


def test_until_slq_is_solved_the_library_stands_in() -> None:
    function = check_slq(None).function
    assert function is not None
    A = matrix_with_spectrum(np.linspace(1, 2, 50))
    assert function(A, np.square, 8, 3) == pytest.approx(slq(A, np.square, 8, 3))
    assert check_slq(function).solved


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


def stub(*arguments: Any) -> Any: ...


@pytest.mark.parametrize(
    ("check", "attempt", "message"),
    [
        (check_slq, variant(factor=lambda n, probes: 1 / probes), "must be multiplied by n"),
        (check_slq, variant(factor=lambda n, probes: n), "divide the sum by num_probes"),
        (check_slq, variant(factor=lambda n, probes: 1), "take the mean, and multiply by n"),
        (check_slq, variant(weigh=lambda y: np.ones(len(y))), "the weights are missing"),
        (check_slq, variant(weigh=lambda y: abs(y[0])), "are the weights the squared first entries"),
        (check_slq, variant(weigh=lambda y: y[-1] ** 2), "squared last entries"),
        (check_slq, variant(weigh=lambda y: y[:, 0] ** 2), "y[:, 0] is the first eigenvector"),
        (check_slq, variant(start=lambda n, seed: gaussian(n, 0)), "the same vector"),
        (check_slq, variant(start=lambda n, seed: gaussian(n, seed).sign()), "entries ±1"),
        (check_slq, variant(start=lambda n, seed: gaussian(n, seed).abs()), "a mean that is not 0"),
        (check_slq, lambda A, f, m, k: slq(A, f, m, 1), "make 24 products with A, one per step; got 4"),
        (check_slq, lambda A, f, m, k: slq(A, f, m + 1, k), "got 30"),
        (
            check_slq,
            lambda A, f, m, k: slq(A, f, m, k) if f([0.0])[0] == 1 and isinstance(A, Tensor) else 30.0,
            "got 0",
        ),
        (check_slq, lambda A, f, m, k: slq(A, lambda x: f(x) ** 2, m, k), "not the mean over the probes"),
        (check_slq, lambda A, f, m, k: f, "one number is expected"),
        (check_slq, lambda A, f, m, k: 1 / 0, "your code raised ZeroDivisionError"),
        (check_slq, 3.0, "a function is expected"),
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
        *(
            (check, blank, "not attempted yet")
            for check in (check_slq, check_probes_needed)
            for blank in (None, ..., stub, lambda *_: ...)
        ),
    ],
)
def test_messages(check: Callable[[Any], Any], attempt: Any, message: str) -> None:
    feedback = check(attempt)
    assert not feedback.solved
    assert message in repr(feedback)
