"""Checkers of `03_lanczos_and_slq.ipynb` for the Lanczos process; `_quadrature` has those for quadrature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from renyi_lab._utils.typing import FloatArray
from renyi_lab.exercises._feedback import (
    TOLERANCE,
    Feedback,
    Hint,
    answer_of,
    close,
    explain,
    first_hint,
    number_of,
    tensor_of,
)
from renyi_lab.krylov import lanczos
from renyi_lab.operators import matrix_with_spectrum

# Larger than what two passes leave, smaller than what one pass leaves after ten digits have cancelled.
_ORTHOGONAL = 1e-11


class Recorder:
    """A matrix that only multiplies vectors, and keeps copies of them.

    Args:
        matrix: ``(n, n)``.
    """

    def __init__(self, matrix: Tensor) -> None:
        self._matrix = matrix
        self.shape, self.dtype, self.device = matrix.shape, matrix.dtype, matrix.device
        self.vectors: list[Tensor] = []

    def __len__(self) -> int:
        return len(self._matrix)

    def __matmul__(self, other: Tensor) -> Tensor:
        self.vectors += list(other.detach().clone().reshape(len(self), -1).T)
        return self._matrix @ other


def check_lanczos(function: Callable[[Any, Tensor, int], Any]) -> Feedback:
    """Check ``function(A, v, num_steps)``: ``T``, ``Q`` and the last ``β`` of the Lanczos process from ``v``.

    Until it is solved, `Feedback.function` is the library's Lanczos process with the same arguments and results.

    Args:
        function: Your solution; takes a symmetric operator with ``n`` rows, a tensor ``(n,)`` and ``m``; returns ``T``
            as a NumPy array ``(m, m)``, ``Q`` as a tensor ``(m, n)``, and a number.
    """
    feedback = first_hint(
        function,
        [_first_row, _small_matrix, _last_coefficient, _only_products, _stays_orthogonal],
        "two new numbers per product, α and β: T is tridiagonal, and the rows of Q stay orthonormal to rounding.",
    )
    return feedback.otherwise(function, _library_lanczos)


def _library_lanczos(A: Any, v: Tensor, num_steps: int) -> tuple[FloatArray, Tensor, float]:
    run = lanczos(A, v, num_steps=num_steps, restart=True)
    return run.matrix(), run.basis, float(run.off_diagonal[-1])


def _result(function: Callable[..., Any], A: Any, v: Tensor, num_steps: int) -> tuple[FloatArray, Tensor, float]:
    answer = answer_of(function, A, v, num_steps)
    if not isinstance(answer, (tuple, list)) or len(answer) != 3:
        raise Hint("three values are expected: return T, Q, beta.")
    T, Q, beta = answer
    shape, size = (num_steps, num_steps), len(v)
    if not isinstance(T, np.ndarray):
        raise Hint(f"T: a NumPy array of shape {shape} is expected, got {type(T).__name__}.")
    if T.shape == (num_steps + 1, num_steps + 1):
        raise Hint(f"T has one row and column too many: the last β is returned separately; T has shape {shape}.")
    if T.shape != shape:
        raise Hint(f"T: an array of shape {shape} is expected, got shape {T.shape}.")
    if T.dtype.kind not in "fiu":
        raise Hint(f"T holds {T.dtype}; real numbers are expected.")
    if T.dtype != np.float64:
        raise Hint(f"T is in {T.dtype}, which loses digits: make it with NumPy's default, float64.")
    if isinstance(Q, (list, tuple)):
        raise Hint("Q is a list of vectors: torch.stack makes a tensor of it, one vector per row.")
    if isinstance(Q, Tensor) and Q.shape == (size, num_steps):
        raise Hint("Q has the Lanczos vectors as columns; rows are expected: Q.T.")
    if isinstance(Q, Tensor) and Q.shape == (num_steps + 1, size):
        raise Hint("Q has one vector too many: the one after the last step does not belong to it.")
    rows = tensor_of(Q, (num_steps, size))
    if Q.dtype != v.dtype:
        raise Hint(f"Q is in {Q.dtype}, but v in {v.dtype}: make Q with dtype=v.dtype.")
    return np.asarray(T, dtype=np.float64), rows, number_of(beta)


def _example() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(12, 12, dtype=torch.float64, generator=generator)
    return matrix + matrix.T, 3 * torch.randn(12, dtype=torch.float64, generator=generator)


def _first_row(function: Callable[..., Any]) -> str | None:
    A, v = _example()
    _, Q, _ = _result(function, A, v, 5)
    mistakes = {"the first row of Q is v itself; it must have length 1: v / v.norm().": v}
    return explain(Q[0], v / v.norm(), mistakes, "the first row of Q must be v / v.norm().")


def _small_matrix(function: Callable[..., Any]) -> str | None:
    A, v = _example()
    T, Q, _ = _result(function, A, v, 5)
    right, basis, _ = _library_lanczos(A, v, 5)
    mistakes = {
        "T has only its diagonal; each norm β_j also belongs above and below it.": np.diag(np.diag(right)),
        "T has the β_j above its diagonal only; it is symmetric.": np.triu(right),
        "T has the β_j below its diagonal only; it is symmetric.": np.tril(right),
        "T has the β_j only; the diagonal holds q_j · A q_j.": right - np.diag(np.diag(right)),
        "Q is right, but T has squared coefficients: β_j is the norm, not its square.": np.diag(np.diag(right))
        + (right - np.diag(np.diag(right))) ** 2,
    }
    if not close(Q, basis):
        if float((Q @ Q.T - torch.eye(5, dtype=Q.dtype)).abs().max()) > TOLERANCE:
            return "the rows of Q are not orthonormal: subtract from A @ Q[j] its components along all rows so far."
        return "the rows of Q are orthonormal, but not those of the Lanczos process: row j + 1 comes from A @ Q[j]."
    return explain(T, right, mistakes, "Q is right, but T is not Q A Qᵀ yet.")


def _last_coefficient(function: Callable[..., Any]) -> str | None:
    A, v = _example()
    beta = _result(function, A, v, 5)[2]
    T, _, right = _library_lanczos(A, v, 5)
    mistakes = {"beta is the last entry beside T's diagonal; the norm after the last step is expected.": T[-1, -2]}
    return explain(beta, right, mistakes, "T and Q are right; beta must be the norm that the last step leaves.")


def _only_products(function: Callable[..., Any]) -> str | None:
    A, v = _example()
    recorder, start = Recorder(A), v.flip(0)
    T, _, _ = _result(function, recorder, start.clone(), 4)
    if not close(T, _library_lanczos(A, start, 4)[0]):
        return "right for one start vector, but not for the next: does the function keep something between calls?"
    if len(recorder.vectors) == 4:
        return None
    return f"4 steps need 4 products with A, one per step; this took {len(recorder.vectors)}."


def _stays_orthogonal(function: Callable[..., Any]) -> str | None:
    bulk = 1e-10 * np.linspace(1, 2, 34)
    A = matrix_with_spectrum(np.append([6.0, 5.0, 4.0, 3.0, 2.0, 1.0], bulk))
    v = torch.randn(40, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    _, Q, _ = _result(function, A, v, 12)
    loss = float((Q @ Q.T - torch.eye(12, dtype=Q.dtype)).abs().max())
    if loss <= _ORTHOGONAL:
        return None
    return (
        f"right in exact arithmetic, but in floating point rows of Q are not orthogonal (|qᵢᵀqⱼ| up to {loss:.0e}) "
        "when almost nothing of A q_j is left. Subtract its components along all rows, and then a second time."
    )


def check_orthogonalization(function: Callable[[Tensor, Tensor], Any]) -> Feedback:
    """Check ``function(w, Q)``: the part of ``w`` orthogonal to the orthonormal rows of ``Q``, to working precision.

    The second test vector has only a part in 10¹⁰ outside the span of the rows, as happens in the Lanczos method when a
    Ritz pair has converged.

    Args:
        function: Your solution; takes tensors of shape ``(n,)`` and ``(k, n)``.
    """
    return first_hint(
        function,
        [_projection, _cancellation],
        "orthogonal to rounding even after ten digits have cancelled, so that no ghost eigenvalues appear.",
    )


def _projection(function: Callable[..., Any]) -> str | None:
    rows, inside, outside = _rows_and_directions()
    w = inside + 0.5 * outside
    mistakes = {
        "this is the part of w inside the span; subtract it from w.": inside,
        "this is w unchanged: subtract its components (Q @ w), each times its row.": w,
        "the components have been added; subtract them.": w + inside,
        "right direction, but of length 1: keep the length, the Lanczos method needs it as β.": outside,
        "only the last row was removed; does the loop start from w each time?": w - (rows[-1] @ w) * rows[-1],
    }
    answer = tensor_of(answer_of(function, w.clone(), rows.clone()), w.shape)
    return explain(answer, 0.5 * outside, mistakes, "not w minus its components along the rows yet.")


def _cancellation(function: Callable[..., Any]) -> str | None:
    rows, inside, outside = _rows_and_directions()
    answer = tensor_of(answer_of(function, inside + 1e-10 * outside, rows.clone()), rows.shape[1:])
    cosine = float((rows @ answer).norm() / answer.norm())
    if cosine <= 1e-12:
        return None
    return (
        "right in exact arithmetic, but when nearly all of w is in the span, the result is not orthogonal to it "
        f"(cosine {cosine:.0e}): the rounding error of the large part remains. Remove the components a second time."
    )


def _rows_and_directions() -> tuple[Tensor, Tensor, Tensor]:
    """Five orthonormal rows in 40 dimensions, a vector in their span, and a unit vector orthogonal to them."""
    gaussian = torch.randn(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = torch.linalg.qr(gaussian).Q.T.contiguous()
    return rows[:5].clone(), torch.tensor([3.0, -1.0, 2.0, 0.5, 1.0], dtype=torch.float64) @ rows[:5], rows[5].clone()
