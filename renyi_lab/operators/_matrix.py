"""A symmetric matrix that is given entry by entry, dense or sparse, as an operator."""

from __future__ import annotations

import torch
from torch import Tensor

from renyi_lab.operators._base import LinearOperator

_SPARSE = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)


class MatrixOperator(LinearOperator):
    """A symmetric matrix, dense or sparse, as an operator.

    Half precision (float16, bfloat16 and below) is raised to float32: the entries are the same, but products in half
    precision would show as rounding errors in every eigenvalue.

    Args:
        matrix: Finite, symmetric up to rounding, shape ``(n, n)``; any sparse layout of torch is accepted.

    Raises:
        ValueError: A matrix that is not square, finite and symmetric.
        TypeError: Not a tensor of real floating-point numbers.

    Example:
        >>> A = MatrixOperator(torch.diag(torch.tensor([1.0, 2.0])))
        >>> (A @ torch.ones(2)).tolist(), A.num_matvecs
        ([1.0, 2.0], 1)
    """

    _checks_symmetry = False  # of all entries, at construction

    def __init__(self, matrix: Tensor) -> None:
        matrix = symmetric_matrix(matrix)
        super().__init__(matrix.shape[0], matrix.dtype, matrix.device)
        self.matrix = matrix

    def _matvec(self, vector: Tensor) -> Tensor:
        return self.matrix @ vector

    def _matmat(self, vectors: Tensor) -> Tensor:
        return self.matrix @ vectors

    def _dense(self) -> Tensor:
        if type(self) is not MatrixOperator:  # a subclass may change the products
            return super()._dense()
        self.num_matvecs += self.dim  # each row counts as a product, as for every other operator
        return self.matrix.clone() if self.matrix.layout == torch.strided else self.matrix.to_dense()


def symmetric_matrix(matrix: Tensor) -> Tensor:
    """Return ``matrix`` in at least float32 and exactly symmetric, or raise; errors are those of `MatrixOperator`."""
    matrix = _checked_values(matrix)
    precision = torch.finfo(matrix.dtype)
    # Entries in half precision are sums that were rounded once at the end; longer sums carry their own rounding.
    roundings = 100 * matrix.shape[0] ** 0.5 if precision.bits >= 32 else 4
    matrix = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    transposed = matrix.T if matrix.layout == torch.strided else matrix.t().coalesce()
    asymmetry = _largest(matrix - transposed)
    if asymmetry > roundings * precision.eps * _largest(matrix):
        raise ValueError(
            f"matrix must be symmetric, but differs from its transpose by {asymmetry:g}; if that is rounding, pass "
            "(matrix + matrix.T) / 2."
        )
    return (matrix + transposed) / 2 if asymmetry > 0 else matrix


def _checked_values(matrix: Tensor) -> Tensor:
    if not isinstance(matrix, Tensor) or matrix.is_nested or matrix.layout not in (torch.strided, *_SPARSE):
        nested = isinstance(matrix, Tensor) and matrix.is_nested
        kind = "a nested tensor" if nested else getattr(matrix, "layout", type(matrix).__name__)
        raise TypeError(
            f"matrix must be a dense or sparse torch tensor, got {kind}; use as_operator for other libraries' matrices."
        )
    matrix = matrix.detach()
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] == 0:
        raise ValueError(f"matrix must be square with at least one row, got shape {tuple(matrix.shape)}.")
    if not matrix.is_floating_point():
        fix = "matrix.dequantize()" if matrix.is_quantized else "matrix.double()"
        raise TypeError(f"matrix must hold real floating-point numbers, got {matrix.dtype}; use {fix}.")
    if matrix.device.type == "meta":
        raise ValueError("matrix is on the meta device, which holds no numbers; make it on another device.")
    if matrix.layout != torch.strided:
        matrix = matrix.to_sparse_coo().coalesce()  # duplicate entries are added up
    # float8 has no isfinite.
    if not bool(torch.isfinite(_entries(matrix).to(torch.promote_types(matrix.dtype, torch.float16))).all()):
        raise ValueError("matrix holds NaN or infinity; remove or replace those entries.")
    return matrix


def _entries(matrix: Tensor) -> Tensor:
    return matrix if matrix.layout == torch.strided else matrix.coalesce().values()


def _largest(matrix: Tensor) -> float:
    entries = _entries(matrix)
    return float(entries.abs().max()) if entries.numel() else 0.0
