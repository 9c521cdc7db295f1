"""The operator interface that every algorithm relies on.

An algorithm uses only ``shape``, ``dtype``, ``device`` and ``@`` of a symmetric matrix, never a model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from renyi_lab._utils.ranks import Ranks
from renyi_lab._utils.validation import check_tensor
from renyi_lab.operators._symmetric_products import SymmetricProducts, check_dense_symmetry

if TYPE_CHECKING:
    import scipy.sparse.linalg

# Heuristic: 20,000² doubles are 3.2 GB, about what a laptop spares.
DENSE_LIMIT = 20_000


class LinearOperator(ABC):
    """A real symmetric ``n × n`` matrix that is accessed through its products; ``num_matvecs`` counts them.

    A subclass implements `_matvec`; it may override `_matmat` where several products at once are cheaper, and `_dense`
    where the entries are known. The shape of every product is checked, and symmetry by comparing products with each
    other, which costs none of its own.

    Args:
        dim: Number of rows ``n``.
        dtype: Data type of the products.
        device: Device of the products.
    """

    dim: int
    dtype: torch.dtype
    device: torch.device
    ranks: Ranks | None = None  # the processes that share the operator's data, which all make the same products
    _checks_symmetry: ClassVar[bool] = True
    _products_seen: SymmetricProducts | None = None

    def __init__(self, dim: int, dtype: torch.dtype, device: torch.device) -> None:
        self.dim, self.dtype, self.device = dim, dtype, device
        self.num_matvecs = 0

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, n)``."""
        return (self.dim, self.dim)

    @property
    def vector_ranks(self) -> Ranks | None:
        """The processes that make the same products, so that they can share the vectors of an algorithm."""
        return self.ranks

    @property
    def eps(self) -> float:
        """Relative rounding error of a product, of which an algorithm makes its tolerances.

        That of the dtype, unless a subclass knows that its products are less precise.
        """
        return torch.finfo(self.dtype).eps

    def __matmul__(self, other: Tensor) -> Tensor:
        """``H @ v`` for ``v`` of shape ``(n,)`` or ``H @ V`` for ``(n, k)``; the result has the operator's dtype.

        Raises:
            ValueError: An operand of another shape or device, a product of another shape than the operand, or products
                that no symmetric matrix has.
            TypeError: An operand that is not a real torch tensor.
        """
        vectors = self._check_operand(other)
        if vectors.numel() == 0:  # no columns
            return vectors
        self.num_matvecs += 1 if vectors.ndim == 1 else vectors.shape[1]
        products = self._matvec(vectors) if vectors.ndim == 1 else self._matmat(vectors)
        if products.shape != vectors.shape:
            raise ValueError(
                f"a product of {type(self).__name__} must have the operand's shape {tuple(vectors.shape)}, "
                f"got {tuple(products.shape)}."
            )
        if self._checks_symmetry:
            self._products_seen = self._products_seen or SymmetricProducts()
            self._products_seen.observe(vectors, products)
        return products

    def unchanged(self) -> AbstractContextManager[None]:
        """A context for many products in a row, in which nobody changes the matrix: what is checked before each product
        is checked before the first one only.
        """
        return nullcontext()

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
            ValueError: More than 20,000 rows (``DENSE_LIMIT``), or a matrix that is not symmetric.
        """
        if self.dim > DENSE_LIMIT:
            gigabytes = self.dim**2 * torch.finfo(self.dtype).bits / 8e9
            raise ValueError(
                f"the dense matrix of {self.dim} rows would take {gigabytes:.0f} GB (limit {DENSE_LIMIT} rows); "
                "use estimate_spectrum, or a block from blocks()."
            )
        with self.unchanged():
            dense = self._dense()
        return check_dense_symmetry(dense) if self._checks_symmetry else dense

    def _dense(self) -> Tensor:
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

        Array = np.ndarray[Any, np.dtype[Any]]

        def columns(array: Array) -> Array:
            operand = torch.from_numpy(np.array(array, dtype=np.float64)).to(self.device, self.dtype)
            return (self @ operand).cpu().double().numpy()

        def rows(array: Array) -> Array:  # one vector as a row or a column; several, one a row, since SciPy 1.18
            vectors = array.reshape(-1) if array.size == self.dim else array.reshape(-1, self.dim).T
            return columns(vectors).T.reshape(array.shape)

        return scipy.sparse.linalg.LinearOperator(
            self.shape, matvec=rows, rmatvec=rows, matmat=columns, rmatmat=columns, dtype=np.float64
        )
