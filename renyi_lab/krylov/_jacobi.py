r"""Measures given by Jacobi matrices: Gauss rules and orthonormal polynomials.

A symmetric matrix ``T`` with eigenpairs ``(θ_k, y_k)`` and a unit vector ``w`` define the measure
``Σ_k (y_kᵀw)² δ(θ_k)``. Lanczos on ``T`` from ``w`` gives its Jacobi matrix, with ``a`` on the diagonal and ``b``
beside it. Each leading block is a Gauss rule, and the orthonormal polynomials follow the recurrence

    b_j p_{j+1}(x) = (x − a_j) p_j(x) − b_{j−1} p_{j−1}(x) ,      p_0 = 1

Sources: Golub & Meurant 2010, chapters 2 and 6; Gautschi 2004, section 2.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from renyi_lab._utils.arrays import finite_array
from renyi_lab._utils.fields import check_fields, check_vectors
from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_int

# Relative to the diagonal. Heuristic: what rounding leaves of a coupling that is 0 in a dense matrix of some hundred
# rows is 1e-14.
NO_COUPLING = 1e-13


@dataclass(frozen=True, eq=False)
class JacobiMatrix:
    """Recurrence coefficients of a measure of mass 1.

    Attributes:
        diagonal: ``a``, ``(m,)``.
        off_diagonal: ``b``, ``(m,)``; the last entry couples to what lies outside.
    """

    diagonal: FloatArray
    off_diagonal: FloatArray

    def __post_init__(self) -> None:
        check_fields(self)
        check_vectors(self, "diagonal", "off_diagonal")

    def __len__(self) -> int:
        return len(self.diagonal)

    @property
    def exhausted(self) -> bool:
        """Whether nothing lies outside: the last coupling is a rounding error, and the full Gauss rule is exact."""
        return bool(self.off_diagonal[-1] <= NO_COUPLING * np.abs(self.diagonal).max())

    def coupled(self) -> JacobiMatrix:
        """The leading part up to the first coupling that is a rounding error."""
        couples = self.off_diagonal[:-1] > NO_COUPLING * np.abs(self.diagonal).max()
        size = int(np.cumprod(couples).sum()) + 1
        return JacobiMatrix(self.diagonal[:size], self.off_diagonal[:size])

    def extended(self) -> JacobiMatrix:
        """One row more, of an arbitrary entry: its rule uses the last coupling, so it is exact to degree ``2·len``."""
        return JacobiMatrix(np.append(self.diagonal, self.diagonal[-1]), np.append(self.off_diagonal, 0.0))

    def eigenpairs(self) -> tuple[FloatArray, FloatArray]:
        """Eigenvalues, ascending, and eigenvectors as columns."""
        return self._eigenpairs(len(self))

    def _eigenpairs(self, size: int) -> tuple[FloatArray, FloatArray]:
        from scipy.linalg import eigh_tridiagonal, lapack

        if size == 1:
            return self.diagonal[:1].copy(), np.ones((1, 1))
        # Divide and conquer is three to five times faster here than SciPy's default; SciPy has it from 1.16 on, and
        # before it QR iterations, as exact.
        driver = "stevd" if hasattr(lapack, "dstevd") else "stev"
        nodes, vectors = eigh_tridiagonal(self.diagonal[:size], self.off_diagonal[: size - 1], lapack_driver=driver)
        return nodes, vectors

    def gauss_rule(self, num_nodes: int) -> tuple[FloatArray, FloatArray]:
        """Nodes, ascending, and weights, with sum 1, of the Gauss rule; exact up to degree ``2·num_nodes − 1``.

        Args:
            num_nodes: Number of nodes, at most ``len(self)``.

        Raises:
            ValueError: More nodes than that, or none.
        """
        nodes, vectors = self._eigenpairs(check_int("num_nodes", num_nodes, 1, len(self)))
        return nodes, np.asarray(vectors[0] ** 2)

    def polynomials(self, degree: int, x: FloatArray) -> FloatArray:
        """The orthonormal polynomials ``p_0 … p_degree`` at ``x``, ``(degree + 1, len(x))``.

        Args:
            degree: Highest degree, at most the number of couplings that are not 0.
            x: Points, ``(k,)``.

        Raises:
            ValueError: A degree that is too high, or points that are no vector of finite numbers.
        """
        x = finite_array("x", x, None)
        values = np.ones((check_int("degree", degree, 0, len(self)) + 1, len(x)))
        if not (self.off_diagonal[:degree] > 0).all():
            raise ValueError(f"degree must be at most the number of couplings that are not 0, got {degree}.")
        with np.errstate(over="ignore", invalid="ignore"):
            for j in range(degree):
                before = self.off_diagonal[j - 1] * values[j - 1] if j else 0.0
                values[j + 1] = ((x - self.diagonal[j]) * values[j] - before) / self.off_diagonal[j]
        if not np.isfinite(values).all():
            raise ValueError(f"x must be smaller for degree={degree}: the polynomials overflow.")
        return values


def jacobi_matrix(
    matrix: FloatArray, start: FloatArray, num_steps: int, kept_out: FloatArray
) -> tuple[JacobiMatrix, FloatArray]:
    """The Jacobi matrix of the measure that ``start`` and a small symmetric matrix define.

    Args:
        matrix: ``(m, m)``; a vector ``(m,)`` is a diagonal matrix.
        start: ``(m,)``, orthogonal to the rows of ``kept_out``, not zero.
        num_steps: Largest number of steps; fewer are made where nothing is left.
        kept_out: ``(k, m)``, orthonormal rows; the process runs in their complement.

    Returns:
        The Jacobi matrix, and ``kept_out`` with the vectors of the process below it.

    Raises:
        ValueError: Shapes that do not belong together, numbers that are not finite, or a ``start`` of zeros.
    """
    start = finite_array("start", start, None)
    size = len(start)
    matrix = finite_array("matrix", matrix, *((size,) if np.ndim(matrix) == 1 else (size, size)))
    kept_out = finite_array("kept_out", kept_out, None, size)
    num_steps = check_int("num_steps", num_steps, 1, size)
    if not start.any():
        raise ValueError("start must not be zero: it has no direction.")
    diagonal, off_diagonal = np.zeros(num_steps), np.zeros(num_steps)
    rows = np.concatenate([kept_out, np.empty((num_steps, size))])
    vector, first = start / np.linalg.norm(start), len(kept_out)
    for step in range(num_steps):
        rows[first + step] = vector
        known = rows[: first + step + 1]
        residual = matrix * vector if matrix.ndim == 1 else matrix @ vector
        diagonal[step] = vector @ residual
        for _ in range(2):
            residual = residual - (known @ residual) @ known
        off_diagonal[step] = np.linalg.norm(residual)
        if off_diagonal[step] <= NO_COUPLING * np.abs(diagonal).max():
            break
        vector = residual / off_diagonal[step]
    return JacobiMatrix(diagonal[: step + 1], off_diagonal[: step + 1]), known
