"""Checkers of `03_lanczos_and_slq.ipynb` for quadrature: traces from random probes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from renyi_lab._utils.random import seeded_rng
from renyi_lab._utils.typing import FloatArray
from renyi_lab.exercises._feedback import Feedback, answer_of, explain, first_hint, number_of
from renyi_lab.exercises._lanczos import Recorder
from renyi_lab.krylov import Tridiagonal, lanczos
from renyi_lab.operators import matrix_with_spectrum

_STEPS, _PROBES = 4, 6


def check_slq(function: Callable[[Any, Callable[[Any], Any], int, int], Any]) -> Feedback:
    """Check ``function(A, f, num_steps, num_probes)``: the trace of ``f(A)`` by stochastic Lanczos quadrature.

    Any random start vectors are accepted, if they are independent and have Gaussian entries; results are compared with
    those of the library for the same start vectors. Until it is solved, `Feedback.function` is built on the library's
    Lanczos process.

    Args:
        function: Your solution; takes a symmetric operator with ``n`` rows, a function of NumPy arrays and two numbers.
    """
    with seeded_rng(0):
        feedback = first_hint(
            function,
            [_counts_dimensions, _uses_the_products, _draws_probes, _averages_rules],
            "the mean over random starts of n times a Gauss rule; tr 1 = n comes out exactly.",
        )
    return feedback.otherwise(function, _library_slq)


def _library_slq(A: Any, f: Callable[[FloatArray], FloatArray], num_steps: int, num_probes: int) -> float:
    runs = [lanczos(A, num_steps=num_steps, seed=seed) for seed in range(num_probes)]
    return float(np.mean([run.basis.shape[1] * (run.weights @ f(run.ritz_values)) for run in runs]))


def _matrix() -> Tensor:
    return matrix_with_spectrum(np.append([5.0, -3.0], np.linspace(0.1, 1, 28)))


def _counts_dimensions(function: Callable[..., Any]) -> str | None:
    def one(x: Any) -> Any:
        return np.ones_like(x)

    answer = number_of(answer_of(function, _matrix(), one, _STEPS, _PROBES))
    mistakes = {
        "for f = 1 the trace is n = 30, and this gives 1: the rule of one unit vector must be multiplied by n.": 1.0,
        "for f = 1 the trace is n = 30; this is n for each probe: divide the sum by num_probes.": 30.0 * _PROBES,
        "for f = 1 the trace is n = 30; this is num_probes: take the mean, and multiply by n.": 1.0 * _PROBES,
        "for f = 1 the trace is n = 30; this is the number of nodes: the weights are missing.": 1.0 * _STEPS,
        "for f = 1 the trace is n = 30; this is n times the number of nodes: the weights are missing.": 30.0 * _STEPS,
    }
    otherwise = f"for f = 1 the trace is n = 30, got {answer:.4g}: are the weights the squared first entries?"
    return explain(answer, 30.0, mistakes, otherwise)


def _starts(function: Callable[..., Any]) -> tuple[list[Tensor], int, float]:
    """The start vectors, the number of products, and the answer for a function that is no polynomial."""
    recorder = Recorder(_matrix())
    answer = number_of(answer_of(function, recorder, np.exp, _STEPS, _PROBES))
    return recorder.vectors[::_STEPS][:_PROBES], len(recorder.vectors), answer


def _uses_the_products(function: Callable[..., Any]) -> str | None:
    _, products, _ = _starts(function)
    if products == _STEPS * _PROBES:
        return None
    return f"{_PROBES} probes of {_STEPS} steps make {_STEPS * _PROBES} products with A, one per step; got {products}."


def _draws_probes(function: Callable[..., Any]) -> str | None:
    starts, _, _ = _starts(function)
    cosines = torch.stack([start / start.norm() for start in starts]).double()
    if float(torch.triu(cosines @ cosines.T, 1).abs().max()) > 0.9:
        return "two probes are the same vector: draw a new one for each, for example from seeds 0, 1, 2, …"
    sizes = cosines.abs()
    if float(sizes.max() - sizes.min()) < 1e-6:
        return "the probes have entries ±1; draw them with torch.randn: on diagonal matrices signs would be no sample."
    if abs(float(cosines.mean())) > 0.1:
        return "the entries of the probes have a mean that is not 0: torch.randn draws them from a normal distribution."
    return None


def _averages_rules(function: Callable[..., Any]) -> str | None:
    starts, _, answer = _starts(function)
    runs = [lanczos(_matrix(), start, num_steps=_STEPS) for start in starts]

    def mean(weights: Callable[[Tridiagonal], FloatArray]) -> float:
        return float(np.mean([30 * (weights(run) @ np.exp(run.ritz_values)) for run in runs]))

    mistakes = {
        "the weights are the squared last entries of the eigenvectors; the first ones are expected: y[0].": mean(
            lambda run: run.eigenvectors[-1] ** 2
        ),
        "y[:, 0] is the first eigenvector; the first entries of all eigenvectors are y[0].": mean(
            lambda run: run.eigenvectors[:, 0] ** 2
        ),
        "this is the first probe alone; average over all.": float(30 * (runs[0].weights @ np.exp(runs[0].ritz_values))),
    }
    otherwise = "not the mean over the probes of n Σ_k (e₁ᵀy_k)² f(θ_k) yet, with (θ_k, y_k) from each probe's own T."
    return explain(answer, mean(lambda run: run.weights), mistakes, otherwise)


def check_probes_needed(function: Callable[[FloatArray, float], Any]) -> Feedback:
    """Check ``function(eigenvalues, relative_error)``: probes until ``tr H`` has that relative standard error.

    One probe has the variance ``2n/(n+2)·(Σλ² − (Σλ)²/n)``; the mean of ``p`` probes has a ``p``-th of it.

    Args:
        function: Your solution; returns a whole number of at least 1.
    """
    return first_hint(
        function,
        [_smallest_number, _at_least_one],
        "the few large eigenvalues dominate the variance: without them a handful of probes would suffice.",
    )


def _smallest_number(function: Callable[..., Any]) -> str | None:
    for eigenvalues, tolerance in (([4.0, 2.0] + [0.1] * 58, 0.1), (list(range(1, 101)), 0.01)):
        values = np.array(eigenvalues, dtype=float)
        n, total, squares = len(values), values.sum(), (values**2).sum()
        factor, centred = 2 * n / (n + 2), squares - total**2 / n
        needed = factor * centred / (tolerance * total) ** 2
        mistakes = {
            "rounded down: with this many the error is still a little too large; round up.": math.floor(needed),
            "not a whole number; round up to the next one.": needed,
            "p probes divide the variance by p, not the standard error: compare squares.": math.ceil(math.sqrt(needed)),
            "the term (Σλ)²/n is missing: a multiple of the identity has no variance.": math.ceil(
                factor * squares / (tolerance * total) ** 2
            ),
            "the error is a share of the trace: compare with (relative_error · Σλ)².": math.ceil(
                factor * centred / tolerance**2
            ),
            "relative_error must be squared, together with the trace.": math.ceil(
                factor * centred / (tolerance * total**2)
            ),
        }
        hint = explain(
            number_of(answer_of(function, values.copy(), tolerance)),
            math.ceil(needed),
            mistakes,
            "not yet; solve variance / p = (relative_error · trace)² for p, and round up.",
        )
        if hint:
            return hint
    return None


def _at_least_one(function: Callable[..., Any]) -> str | None:
    if number_of(answer_of(function, np.full(8, 2.0), 0.1)) >= 1:
        return None
    return "for equal eigenvalues the variance is zero, but an estimate needs at least one probe: max(1, ...)."
