"""Checkers of weights: deflation in `03_lanczos_and_slq.ipynb`, calibration in `03b_the_estimator.ipynb`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from renyi_lab._utils.typing import FloatArray
from renyi_lab.exercises._feedback import Feedback, Hint, answer_of, close, explain, first_hint
from renyi_lab.krylov import CONVERGED, Tridiagonal, lanczos
from renyi_lab.operators import matrix_with_spectrum


def check_deflation(function: Callable[[Tridiagonal, int], Any]) -> Feedback:
    """Check ``function(step, dim)``: weights of the Ritz values in which each converged pair counts once.

    Until it is solved, `Feedback.function` is the library's own version.

    Args:
        function: Your solution; takes a `Tridiagonal` and the number of rows, returns a NumPy array, one weight for
            each Ritz value.
    """
    feedback = first_hint(
        function,
        [_nothing_converged, _some_converged, _step_unchanged],
        "converged pairs count once, the others share the dimensions that remain; the sum is always n.",
    )
    return feedback.otherwise(function, _library_deflation)


def _library_deflation(step: Tridiagonal, dim: int) -> FloatArray:
    return _deflated(step, dim, step.residuals <= CONVERGED * np.abs(step.ritz_values))


def _deflated(step: Tridiagonal, dim: int, found: Any, rest_size: int | None = None) -> FloatArray:
    rest = np.where(found, 0.0, step.weights)
    size = dim - int(found.sum()) if rest_size is None else rest_size
    return np.asarray(np.where(found, 1.0, size * rest / max(rest.sum(), np.finfo(float).tiny)))


def _run(num_steps: int) -> Tridiagonal:
    values = np.concatenate([[4.0, 2.5, -2.0], np.linspace(1e-3, 1e-2, 57)])
    return lanczos(matrix_with_spectrum(values), num_steps=num_steps, seed=0)


def _weights(function: Callable[..., Any], step: Tridiagonal) -> FloatArray:
    return _array(answer_of(function, step, 60), (step.num_steps,))


def _nothing_converged(function: Callable[..., Any]) -> str | None:
    step = _run(2)
    mistakes = {
        "nothing has converged after 2 steps, and the weights must then sum to n = 60; these sum to 1.": step.weights,
        "nothing has converged after 2 steps, yet every pair counts once here; what does found contain?": np.ones(2),
    }
    return explain(
        _weights(function, step),
        60 * step.weights,
        mistakes,
        "if nothing has converged, the weights are n · step.weights.",
    )


def _some_converged(function: Callable[..., Any]) -> str | None:
    step = _run(8)
    size, weights = np.abs(step.ritz_values), step.weights
    found = step.residuals <= CONVERGED * size
    absolute, signed = step.residuals <= CONVERGED, step.residuals <= CONVERGED * step.ritz_values
    mistakes = {
        "converged pairs must have weight 1; this is n · step.weights.": 60 * weights,
        "converged pairs have weight 1, but the others must be scaled so that they sum to n − k.": np.where(
            found, 1.0, 60 * weights
        ),
        "the others must sum to n − k: k dimensions belong to the k converged pairs.": _deflated(step, 60, found, 60),
        "the others must sum to n − k; here they sum to 1.": _deflated(step, 60, found, 1),
        "the others keep their weights of the unit vector; scale them so that they sum to n − k.": np.where(
            found, 1.0, weights
        ),
        "compare the residual with 1e-3 times |θ|, not with 1e-3: small Ritz values are not found yet.": _deflated(
            step, 60, absolute
        ),
        "θ may be negative: compare the residual with 1e-3 times |θ|.": _deflated(step, 60, signed),
        "it is the converged pairs that count once; here it is the others.": _deflated(step, 60, ~found),
        "converged pairs have weight 0 here; each counts once.": np.where(found, 0.0, _deflated(step, 60, found)),
    }
    otherwise = "not yet: weight 1 where residual ≤ 1e-3·|θ|; the others in proportion to step.weights, with sum n − k."
    return explain(_weights(function, step), _deflated(step, 60, found), mistakes, otherwise)


def _step_unchanged(function: Callable[..., Any]) -> str | None:
    step, untouched = _run(8), _run(8)
    _weights(function, step)
    if np.array_equal(step.ritz_values, untouched.ritz_values) and np.array_equal(step.weights, untouched.weights):
        return None
    return "right, but the arrays of step were changed: make new ones, for example with np.where."


def check_calibration(function: Callable[[FloatArray, FloatArray, FloatArray], Any]) -> Feedback:
    """Check ``function(weights, V, totals)``: weights that reproduce the ``totals``, as close to the given as can be.

    The new weights are ``w_i (1 + Σ_j a_j V_ij)`` with ``Vᵀ`` times them equal to ``totals``, and 0 where that is
    negative. Until it is solved, `Feedback.function` is the library's own version.

    Args:
        function: Your solution; takes arrays ``(k,)``, ``(k, p)`` and ``(p,)``, returns ``(k,)``.
    """
    feedback = first_hint(
        function,
        [_totals_met, _no_negative_weights],
        "the new weights have the measured totals, and no other function is changed more than these demand.",
    )
    return feedback.otherwise(function, _library_calibration)


def _library_calibration(weights: FloatArray, V: FloatArray, totals: FloatArray) -> FloatArray:
    return np.asarray(np.maximum(_calibrated(weights, V, totals), 0.0))


def _calibrated(weights: FloatArray, V: FloatArray, totals: FloatArray) -> FloatArray:
    coefficients = np.linalg.solve((weights[:, None] * V).T @ V, totals - weights @ V)
    return np.asarray(weights * (1 + V @ coefficients))


def _survey(change: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    x = np.linspace(-1, 1, 9)
    weights, V = 1 + x**2, np.stack([np.ones(9), x, x**3 - 0.2], axis=1)
    return weights, V, weights @ V + change * np.array([0.5, -2.0, 0.3])


def _totals_met(function: Callable[..., Any]) -> str | None:
    weights, V, totals = _survey(0.5)
    answer = _array(answer_of(function, weights.copy(), V.copy(), totals.copy()), (9,))
    gap, gram = totals - weights @ V, (weights[:, None] * V).T @ V
    mistakes = {
        "the weights are unchanged.": weights,
        "the correction must be added to 1: w · (1 + V a).": weights * (V @ np.linalg.solve(gram, gap)),
        "the correction has the wrong sign: the gap is totals − Vᵀw.": _calibrated(weights, V, weights @ V - gap),
        "right totals, but the correction must be a share of each weight: w · (1 + V a).": weights
        + V @ np.linalg.solve(V.T @ V, gap),
        "solve for the gap, totals − Vᵀw, not for the totals.": _calibrated(weights, V, weights @ V + totals),
        "the matrix of the equations is Vᵀ diag(w) V; w is missing in it.": weights
        * (1 + V @ np.linalg.solve(V.T @ V, gap)),
    }
    otherwise = "Vᵀ times the new weights is not totals yet."
    if close(answer @ V, totals):
        otherwise = "these weights have the totals, but are not of the form w · (1 + V a)."
    return explain(answer, _calibrated(weights, V, totals), mistakes, otherwise)


def _no_negative_weights(function: Callable[..., Any]) -> str | None:
    given = _survey(1.0)
    answer = _array(answer_of(function, *(array.copy() for array in given)), (9,))
    mistakes = {
        "right, but some weights are negative here; replace these by 0.": _calibrated(*given),
        "a negative weight becomes 0, not its absolute value.": np.abs(_calibrated(*given)),
    }
    return explain(answer, _library_calibration(*given), mistakes, "negative weights become 0, the others stay.")


def _array(answer: Any, shape: Sequence[int]) -> FloatArray:
    """The answer as an array in double precision; raises `Hint` if it is not a real NumPy array of this shape."""
    if not isinstance(answer, np.ndarray) or answer.shape != tuple(shape) or answer.dtype.kind not in "fiu":
        kind = f"{answer.dtype} " if isinstance(answer, np.ndarray) else ""
        size = f" of shape {tuple(answer.shape)}" if hasattr(answer, "shape") else ""
        raise Hint(f"a NumPy array of shape {tuple(shape)} is expected, got {kind}{type(answer).__name__}{size}.")
    return np.asarray(answer, dtype=np.float64)
