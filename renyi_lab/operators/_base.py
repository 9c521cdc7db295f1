"""The operator interface that every algorithm relies on, and adapters to it.

An algorithm uses only ``shape``, ``dtype``, ``device`` and ``@`` of a symmetric matrix, never a model. Anything with
``.shape`` and ``@`` is adapted: a torch or NumPy matrix, a SciPy ``LinearOperator``, an operator of curvlinops.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from renyi_lab._utils.validation import check_int, check_tensor

if TYPE_CHECKING:
    import scipy.sparse.linalg

# Heuristic: 20,000² doubles are 3.2 GB, about what a laptop spares.
DENSE_LIMIT = 20_000


class LinearOperator(ABC):
    """A real symmetric ``n × n`` matrix that is accessed through its products; ``num_matvecs`` counts them.

    A subclass implements `_matvec`; it may override `_matmat` where several products at once are cheaper.

    Args:
        dim: Number of rows ``n``.
        dtype: Data type of the products.
        device: Device of the products.
    """

    dim: int
    dtype: torch.dtype
    device: torch.device

    def __init__(self, dim: int, dtype: torch.dtype, device: torch.device) -> None:
        self.dim, self.dtype, self.device = dim, dtype, device
        self.num_matvecs = 0

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, n)``."""
        return (self.dim, self.dim)

    def __matmul__(self, other: Tensor) -> Tensor:
        """``H @ v`` for ``v`` of shape ``(n,)`` or ``H @ V`` for ``(n, k)``; the result has the operator's dtype."""
        vectors = self._check_operand(other)
        if vectors.numel() == 0:  # no columns
            return vectors
        if vectors.ndim == 1:
            self.num_matvecs += 1
            return self._matvec(vectors)
        self.num_matvecs += vectors.shape[1]
        return self._matmat(vectors)

    @abstractmethod
    def _matvec(self, vector: Tensor) -> Tensor: ...

    def _matmat(self, vectors: Tensor) -> Tensor:
        return torch.stack([self._matvec(column) for column in vectors.T.contiguous()], dim=1)

    def _check_operand(self, other: Any) -> Tensor:
        tensor = check_tensor("the right operand of @", other, self.device)
        if tensor.ndim not in (1, 2) or tensor.shape[0] != self.dim:
            raise ValueError(
                f"the right operand of @ must have shape ({self.dim},) or ({self.dim}, k), got {tuple(tensor.shape)}."
            )
        return tensor.to(self.dtype)

    def to_dense(self) -> Tensor:
        """The matrix itself, ``(n, n)``, by ``n`` products.

        Raises:
            ValueError: More than 20,000 rows (``DENSE_LIMIT``).
        """
        if self.dim > DENSE_LIMIT:
            gigabytes = self.dim**2 * torch.finfo(self.dtype).bits / 8e9
            raise ValueError(
                f"the dense matrix of {self.dim} rows would take {gigabytes:.0f} GB (limit {DENSE_LIMIT} rows); "
                "use estimate_spectrum, or a block from blocks()."
            )
        dense = torch.empty(self.shape, dtype=self.dtype, device=self.device)
        for start in range(0, self.dim, 256):
            stop = min(start + 256, self.dim)
            unit_vectors = torch.zeros(self.dim, stop - start, dtype=self.dtype, device=self.device)
            unit_vectors.diagonal(-start).fill_(1)
            dense[:, start:stop] = self @ unit_vectors
        return dense

    def to_scipy(self) -> scipy.sparse.linalg.LinearOperator:
        """The same operator for SciPy in double precision, for example for ``scipy.sparse.linalg.eigsh``."""
        import scipy.sparse.linalg

        def product(array: np.ndarray[Any, np.dtype[Any]]) -> np.ndarray[Any, np.dtype[np.float64]]:
            operand = torch.from_numpy(np.array(array, dtype=np.float64)).to(self.device, self.dtype)
            return (self @ operand).cpu().double().numpy()

        return scipy.sparse.linalg.LinearOperator(
            self.shape, matvec=lambda v: product(v.reshape(-1)), matmat=product, rmatvec=product, dtype=np.float64
        )


class MatrixOperator(LinearOperator):
    """A dense symmetric matrix as an operator.

    Args:
        matrix: Finite, symmetric up to rounding, shape ``(n, n)``.

    Raises:
        ValueError: A matrix that is not square, finite and symmetric.
        TypeError: Not a dense tensor of real floating-point numbers.

    Example:
        >>> A = MatrixOperator(torch.diag(torch.tensor([1.0, 2.0])))
        >>> (A @ torch.ones(2)).tolist(), A.num_matvecs
        ([1.0, 2.0], 1)
    """

    def __init__(self, matrix: Tensor) -> None:
        if not isinstance(matrix, Tensor) or matrix.layout != torch.strided:
            kind = matrix.layout if isinstance(matrix, Tensor) else type(matrix).__name__
            raise TypeError(f"matrix must be a dense torch tensor, got {kind}; use as_operator, or matrix.to_dense().")
        matrix = matrix.detach()
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] == 0:
            raise ValueError(f"matrix must be square with at least one row, got shape {tuple(matrix.shape)}.")
        if not matrix.is_floating_point():
            raise TypeError(f"matrix must hold real floating-point numbers, got {matrix.dtype}; use matrix.double().")
        if not bool(torch.isfinite(matrix).all()):
            raise ValueError("matrix holds NaN or infinity; remove or replace those entries.")
        asymmetry = float((matrix - matrix.T).abs().max())
        tolerance = 100 * torch.finfo(matrix.dtype).eps * float(matrix.abs().max()) * len(matrix) ** 0.5
        if asymmetry > tolerance:
            raise ValueError(f"matrix must be symmetric, but differs from its transpose by {asymmetry:g}.")
        super().__init__(matrix.shape[0], matrix.dtype, matrix.device)
        self.matrix = matrix

    def _matvec(self, vector: Tensor) -> Tensor:
        return self.matrix @ vector

    def _matmat(self, vectors: Tensor) -> Tensor:
        return self.matrix @ vectors


class _ForeignOperator(LinearOperator):
    """Any object with ``.shape`` and ``@``, called with torch tensors if its dtype is torch's, else NumPy arrays."""

    def __init__(self, operator: Any) -> None:
        shape = tuple(operator.shape)
        if len(shape) != 2 or shape[0] != shape[1] or shape[0] == 0:
            raise ValueError(f"operator must be square with at least one row, got shape {shape}.")
        dtype = getattr(operator, "dtype", None)
        self._takes_torch = isinstance(dtype, torch.dtype)
        is_complex = dtype.is_complex if isinstance(dtype, torch.dtype) else np.dtype(dtype).kind == "c"
        if is_complex:
            raise TypeError(f"operator must be real, got dtype {dtype}.")
        device = torch.device(getattr(operator, "device", "cpu")) if self._takes_torch else torch.device("cpu")
        own_dtype = dtype if isinstance(dtype, torch.dtype) else torch.float64
        super().__init__(check_int("operator.shape[0]", shape[0]), own_dtype, device)
        self._operator = operator

    def _matvec(self, vector: Tensor) -> Tensor:
        # Copies on both sides: a foreign operator may return its argument, or a buffer that it uses again.
        if self._takes_torch:
            product: Tensor = self._operator @ vector.clone()
            return product.detach().clone().to(self.device, self.dtype).reshape(-1)
        return torch.from_numpy(np.array(self._operator @ vector.numpy().copy(), dtype=np.float64)).reshape(-1)


def as_operator(operator: Any) -> LinearOperator:
    """Return ``operator`` as a `LinearOperator`.

    Args:
        operator: A `LinearOperator`, a torch or NumPy matrix, or any object with ``.shape`` and ``@``, such as
            operators of SciPy and curvlinops; real and symmetric.

    Raises:
        TypeError: Complex numbers, or no ``.shape`` or no ``@``.
        ValueError: Not square, or a matrix that is not finite and symmetric.
    """
    if isinstance(operator, LinearOperator):
        return operator
    if isinstance(operator, Tensor):
        return MatrixOperator(operator)
    if isinstance(operator, np.ndarray):
        if operator.dtype.kind not in "iuf":
            raise TypeError(f"operator must hold real numbers, got dtype {operator.dtype}.")
        return MatrixOperator(torch.from_numpy(np.require(operator, np.float64, ["C", "W"])))
    if hasattr(operator, "shape") and hasattr(operator, "__matmul__"):
        return _ForeignOperator(operator)
    raise TypeError(
        f"operator must have .shape and support @, got {type(operator).__name__}; "
        "pass a HessianOperator, a matrix, or an operator of SciPy or curvlinops."
    )
