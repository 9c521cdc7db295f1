r"""The Lanczos process: an orthonormal basis ``Q`` in which a symmetric matrix is tridiagonal.

    A Q_m = Q_m T_m + β_m q_{m+1} e_mᵀ

The eigenpairs ``(θ_k, y_k)`` of ``T_m`` give Ritz values, residuals ``|β_m e_mᵀ y_k|`` and the Gauss quadrature
``q_1ᵀ f(A) q_1 ≈ Σ_k (e_1ᵀ y_k)² f(θ_k)``.

Vectors are in the operator's dtype, coefficients in double precision on the CPU. Vectors are fully re-orthogonalized,
twice: without it converged Ritz values appear again as ghost eigenvalues. Where the vectors are kept is said by
`renyi_lab.krylov._basis`.

Source:
    Golub & Meurant 2010, chapters 4 and 6.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from renyi_lab._utils.fields import check_fields, check_vectors
from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_choice, check_flag, check_int, check_tensor
from renyi_lab.krylov._basis import Basis, Storage, orthogonal_to
from renyi_lab.operators import LinearOperator, as_operator


@dataclass(frozen=True, eq=False)
class Tridiagonal:
    """``T_m`` and its basis after ``m = num_steps`` Lanczos steps.

    Attributes:
        diagonal: Coefficients ``q_jᵀ A q_j``, shape ``(m,)``.
        off_diagonal: Coefficients ``β_j``, shape ``(m,)``; the last one couples to the next Lanczos vector.
        vectors: The Lanczos vectors; ``None`` where they were not kept.
        breakdown: Whether the Krylov space is exhausted: ``β_m`` is rounding error (at most ``10·eps`` of the largest
            coefficients), and Ritz pairs are exact up to it.
    """

    diagonal: FloatArray
    off_diagonal: FloatArray
    vectors: Basis | None
    breakdown: bool

    def __post_init__(self) -> None:
        check_fields(self)
        check_vectors(self, "diagonal", "off_diagonal")

    @property
    def num_steps(self) -> int:
        """Number ``m`` of products spent."""
        return len(self.diagonal)

    @property
    def basis(self) -> Tensor:
        """The Lanczos vectors as rows, ``(m, n)``, as they are stored; of a sharded basis, this rank's columns.

        Raises:
            ValueError: They were not kept.
        """
        return self._kept().rows

    def _kept(self) -> Basis:
        if self.vectors is None:
            raise ValueError("the Lanczos vectors were not kept (basis=None).")
        return self.vectors

    @cached_property
    def _eigenpairs(self) -> tuple[FloatArray, FloatArray]:
        from scipy.linalg import eigh_tridiagonal

        values, vectors = eigh_tridiagonal(self.diagonal, self.off_diagonal[:-1])
        return values, vectors

    @property
    def ritz_values(self) -> FloatArray:
        """Eigenvalues ``θ_k`` of ``T_m``, ascending, ``(m,)``."""
        return self._eigenpairs[0]

    @property
    def eigenvectors(self) -> FloatArray:
        """Eigenvectors ``y_k`` of ``T_m`` as columns, ``(m, m)``."""
        return self._eigenpairs[1]

    @property
    def weights(self) -> FloatArray:
        """Gauss weights ``(e_1ᵀ y_k)²``, summing to 1, ``(m,)``."""
        return np.asarray(self._eigenpairs[1][0] ** 2)

    @property
    def residuals(self) -> FloatArray:
        """``‖A x_k − θ_k x_k‖ = |β_m e_mᵀ y_k|`` of each Ritz pair, ``(m,)``."""
        return np.asarray(np.abs(self.off_diagonal[-1] * self._eigenpairs[1][-1]))

    def ritz_vectors(self, indices: NDArray[Any] | slice = slice(None)) -> Tensor:
        """The Ritz vectors ``x_k = Qᵀ y_k`` as rows, ``(len(indices), n)``."""
        try:
            chosen = self._eigenpairs[1][:, indices]
        except Exception as error:  # an index may be anything, and NumPy's errors have many types
            raise ValueError(f"indices must be integers below {self.num_steps}, or a slice: {error}") from error
        if chosen.ndim != 2:
            raise ValueError("indices must be a vector of integers or a slice; for one Ritz vector write [index].")
        return self._kept().combine(torch.from_numpy(np.ascontiguousarray(chosen.T)))

    def leading(self, num_steps: int) -> Tridiagonal:
        """The result after the first ``num_steps`` steps, without further products."""
        steps = check_int("num_steps", num_steps, 1, self.num_steps)
        finished = self.breakdown and steps == self.num_steps
        vectors = None if self.vectors is None else self.vectors.leading(steps)
        return Tridiagonal(self.diagonal[:steps], self.off_diagonal[:steps], vectors, finished)

    def matrix(self) -> FloatArray:
        """``T_m`` as a dense matrix, ``(m, m)``."""
        inner = self.off_diagonal[:-1]
        return np.diag(self.diagonal) + np.diag(inner, 1) + np.diag(inner, -1)


def lanczos_steps(
    operator: Any,
    start: Tensor | None = None,
    *,
    num_steps: int | None = None,
    seed: int = 0,
    reorthogonalize: bool | str = "full",
    deflate: Tensor | None = None,
    restart: bool = False,
    basis: str | None = "device",
    basis_dtype: torch.dtype | None = None,
) -> Iterator[Tridiagonal]:
    """Run Lanczos one step at a time and yield the `Tridiagonal` reached after every step.

    Args:
        operator: Symmetric; anything with ``.shape`` and ``@`` (`as_operator`).
        start: Start vector of shape ``(n,)``, not necessarily normalized; ``None``: Gaussian from ``seed``.
        num_steps: Maximal number of steps, one product each; ``None`` and anything above ``n`` mean ``n``.
        seed: Random seed for the start vector.
        reorthogonalize: ``"full"`` or ``True``: every vector is made orthogonal to all before it. ``"none"`` or
            ``False``: the plain three-term recurrence, which produces ghost eigenvalues.
        deflate: Orthonormal rows of shape ``(k, n)``; the process is kept orthogonal to them, so that it runs on the
            operator restricted to their complement.
        restart: Whether to go on when the Krylov space is exhausted: in the direction that rounding left over or, where
            there is none, in a new random one. The run then finds further copies of repeated eigenvalues. Gauss
            weights stay those of ``start``, to rounding.
        basis: Where the vectors are kept: ``"device"``, that of the operator; ``"cpu"``, the host's memory;
            ``"sharded"``, columns of them on each rank of the operator's process group. ``None`` (three-term recurrence
            only) keeps none.
        basis_dtype: Data type in which they are kept: ``torch.bfloat16``, ``torch.float32`` or ``torch.float64``, no
            wider than the operator's. ``None``: the operator's.

    Yields:
        One `Tridiagonal` per step; the last one has ``breakdown=True`` when the Krylov space is exhausted.

    Raises:
        ValueError: ``num_steps < 1``, a start vector of wrong length, zero, or not finite, rows of ``deflate`` that
            are not orthonormal, ``restart`` without re-orthogonalization, a basis that the operator cannot have or that
            does not fit into memory, or a product that is not finite.
        TypeError: ``start`` or ``deflate`` is not a real torch tensor.

    Example:
        >>> A = torch.diag(torch.tensor([1.0, 2.0, 4.0]))
        >>> [len(step.ritz_values) for step in lanczos_steps(A)]
        [1, 2, 3]
    """
    matrix = as_operator(operator)
    full = check_reorthogonalize(reorthogonalize)
    deflate = None if deflate is None else _checked_rows(matrix, deflate)
    if check_flag("restart", restart) and not full:
        raise ValueError('restart=True needs reorthogonalize="full": new directions must be orthogonal to all others.')
    if basis is None and full:
        raise ValueError('basis=None needs reorthogonalize="none": else each new vector is compared with all others.')
    storage = None if basis is None else Storage.of_options(matrix, basis, basis_dtype)
    free_dim = matrix.dim - (0 if deflate is None else len(deflate))
    limit = min(free_dim, check_int("num_steps", matrix.dim if num_steps is None else num_steps))
    # Where no number of steps is given, few may be needed: memory then grows with them.
    capacity = limit if num_steps is not None else min(limit, 32)
    if storage is not None:
        storage.check_memory(matrix, capacity)
    generator = torch.Generator().manual_seed(check_int("seed", seed, 0))
    vector = _start_vector(matrix, start, generator, deflate)
    if not full:
        return _three_term(matrix, vector, limit, None if storage is None else Basis(matrix, capacity, storage))
    kept_out = () if deflate is None else (deflate,)
    return _iterate(matrix, vector, limit, Basis(matrix, capacity, storage), kept_out, generator if restart else None)


def check_reorthogonalize(reorthogonalize: bool | str) -> bool:
    """Whether ``"full"`` or ``True`` was asked for, rather than ``"none"`` or ``False``."""
    if isinstance(reorthogonalize, bool):
        return reorthogonalize
    return check_choice("reorthogonalize", reorthogonalize, ("full", "none")) == "full"


def _iterate(
    operator: LinearOperator,
    vector: Tensor,
    limit: int,
    basis: Basis,
    kept_out: tuple[Tensor, ...],
    spare: torch.Generator | None,
) -> Iterator[Tridiagonal]:
    """Lanczos with full re-orthogonalization; ``spare`` draws new directions in place of a breakdown."""
    diagonal, off_diagonal = np.zeros(limit), np.zeros(limit)
    free_dim = operator.dim - sum(map(len, kept_out))
    eps, scale, before = operator.eps, 0.0, None
    for step in range(limit):
        basis.append(vector)
        product = operator @ vector
        coefficient, length = _dot(vector, product), _norm(product)
        if basis.is_rounded:  # large components are removed along the vectors themselves
            product = _recurrence(product, coefficient, vector, off_diagonal[step - 1], before)
        residual = orthogonal_to(product, *kept_out, basis)
        diagonal[step], size, norm = on_host(coefficient, length, _norm(residual))
        del product
        scale = max(scale, abs(diagonal[step]), check_product(size))
        off_diagonal[step] = norm
        # Relative to the size of the matrix seen so far: an exact zero never occurs in floating point. No factor of n:
        # on steep spectra couplings fall far below eps·√n and still mean something.
        exhausted = norm <= 10 * eps * scale
        breakdown = step + 1 == free_dim or (exhausted and spare is None)
        known = basis.leading(step + 1)
        yield Tridiagonal(diagonal[: step + 1].copy(), off_diagonal[: step + 1].copy(), known, breakdown)
        if breakdown:
            return
        before = vector
        vector = residual / norm if norm > 0 else residual
        if exhausted and spare is not None and step + 1 < limit:
            if norm <= 0.01 * eps * scale:  # nothing at all is left
                vector, off_diagonal[step] = gaussian_rows(operator, 1, spare)[0], 0.0
            # What cancellation leaves is no longer orthogonal to the other vectors.
            for _ in range(2):
                vector = orthogonal_to(vector, *kept_out, basis)
                vector = vector / _norm(vector).to(vector.dtype)


def _three_term(operator: LinearOperator, vector: Tensor, limit: int, basis: Basis | None) -> Iterator[Tridiagonal]:
    """The plain three-term recurrence."""
    diagonal, off_diagonal = np.zeros(limit), np.zeros(limit)
    eps, scale, before, known = operator.eps, 0.0, None, None
    for step in range(limit):
        if basis is not None:
            basis.append(vector)
            known = basis.leading(step + 1)
        product = operator @ vector
        coefficient = _dot(vector, product)
        residual = _recurrence(product, coefficient, vector, off_diagonal[step - 1], before)
        diagonal[step], size, norm = on_host(coefficient, _norm(product), _norm(residual))
        del product
        scale = max(scale, check_product(size))
        off_diagonal[step] = norm
        breakdown = norm <= 10 * eps * scale
        yield Tridiagonal(diagonal[: step + 1].copy(), off_diagonal[: step + 1].copy(), known, breakdown)
        if breakdown:
            return
        before, vector = vector, residual / norm


def _recurrence(product: Tensor, diagonal: Tensor, vector: Tensor, coupling: float, before: Tensor | None) -> Tensor:
    """``A q_j − α_j q_j − β_{j−1} q_{j−1}``."""
    residual = product - diagonal.to(product.dtype) * vector
    return residual if before is None else residual - coupling * before


def lanczos(
    operator: Any,
    start: Tensor | None = None,
    *,
    num_steps: int,
    seed: int = 0,
    reorthogonalize: bool | str = "full",
    deflate: Tensor | None = None,
    restart: bool = False,
    basis: str | None = "device",
    basis_dtype: torch.dtype | None = None,
) -> Tridiagonal:
    """Run Lanczos for ``num_steps`` steps (fewer on breakdown); arguments and errors are those of `lanczos_steps`.

    Example:
        >>> A = torch.diag(torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64))
        >>> lanczos(A, num_steps=3).ritz_values.round(9).tolist()
        [1.0, 2.0, 4.0]
    """
    check_int("num_steps", num_steps)
    matrix = as_operator(operator)
    steps = lanczos_steps(
        matrix,
        start,
        num_steps=num_steps,
        seed=seed,
        reorthogonalize=reorthogonalize,
        deflate=deflate,
        restart=restart,
        basis=basis,
        basis_dtype=basis_dtype,
    )
    with matrix.unchanged():
        result = next(steps)
        for result in steps:
            pass
    return result


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return torch.dot(x.to(accumulator(x)), y.to(accumulator(y)))


def _norm(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, dtype=accumulator(x))  # without a copy in that precision
    return norm


def on_host(*numbers: Tensor) -> list[float]:
    """The numbers in one transfer, for which the host waits once."""
    return list(torch.stack(numbers).tolist())


def gaussian_rows(operator: LinearOperator, count: int, generator: torch.Generator) -> Tensor:
    """Independent Gaussian vectors for ``operator`` as rows ``(count, n)``, the same numbers on every device."""
    rows = torch.randn(count, operator.dim, dtype=torch.float64, generator=generator, device="cpu")
    return rows.to(operator.dtype).to(operator.device)  # in this order: float64 may be more than the device can hold


def check_product(size: float) -> float:
    """Return ``size``, a norm or inner product of a product's result, when it is finite or raise."""
    if not math.isfinite(size):
        raise ValueError("a product of the operator is not finite. Likely causes: diverged weights, NaN in the data.")
    return size


def _start_vector(
    operator: LinearOperator, start: Tensor | None, generator: torch.Generator, deflate: Tensor | None
) -> Tensor:
    if start is None:
        vector = gaussian_rows(operator, 1, generator)[0]
    else:
        vector = check_tensor("start", start, operator.device).to(operator.dtype)
        if vector.shape != (operator.dim,):
            raise ValueError(f"start must have shape ({operator.dim},), got {tuple(vector.shape)}.")
    before = float(vector.norm())
    if deflate is not None:
        vector = orthogonal_to(vector, deflate)
    norm = float(vector.norm())
    # What rounding leaves of a vector in deflate's span has an arbitrary direction.
    if not np.isfinite(norm) or norm <= 10 * torch.finfo(operator.dtype).eps * before:
        raise ValueError(f"start must be finite and not zero (outside deflate's span), got norm {norm:g}.")
    return vector / norm


def _checked_rows(operator: LinearOperator, deflate: Tensor) -> Tensor:
    """Return ``deflate`` in the operator's dtype when it has fewer than ``n`` orthonormal rows or raise."""
    rows = check_tensor("deflate", deflate, operator.device).to(operator.dtype)
    if rows.ndim != 2 or rows.shape[1] != operator.dim or len(rows) >= operator.dim:
        raise ValueError(
            f"deflate must have shape (k, {operator.dim}) with k < {operator.dim}, got {tuple(rows.shape)}."
        )
    identity = torch.eye(len(rows), dtype=rows.dtype, device=rows.device)
    error = float((rows @ rows.T - identity).abs().max()) if len(rows) else 0.0
    if error > 1e-4:  # Heuristic: rows computed in single precision are accepted.
        raise ValueError(
            f"deflate must have orthonormal rows, but differs from that by {error:g}; "
            "use torch.linalg.qr(deflate.T).Q.T."
        )
    return rows


def accumulator(vector: Tensor) -> torch.dtype:
    """The dtype of scalar coefficients: double precision where the device has it."""
    return torch.float32 if vector.device.type == "mps" else torch.float64
