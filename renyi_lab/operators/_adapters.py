"""Other libraries' matrices and operators as a `LinearOperator`.

Anything with ``.shape`` and ``@`` is adapted: a torch, NumPy or pandas matrix, a sparse matrix of torch or SciPy, a
``LinearOperator`` of SciPy, an operator of curvlinops.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from renyi_lab._utils.validation import check_finite, check_int
from renyi_lab.operators._base import LinearOperator
from renyi_lab.operators._matrix import MatrixOperator, symmetric_matrix

_NOT_FINITE = "diverged weights, NaN in the data, an overflow inside the operator."


class _ForeignOperator(LinearOperator):
    """Any object with ``.shape`` and ``@``, called with torch tensors if its dtype is torch's, else NumPy arrays."""

    def __init__(self, operator: Any) -> None:
        shape = operator.shape
        if not isinstance(shape, (tuple, list)) or len(shape) != 2 or shape[0] != shape[1] or shape[0] == 0:
            raise ValueError(f"operator must be square with at least one row, got shape {shape}.")
        dtype = getattr(operator, "dtype", None)
        self._takes_torch = isinstance(dtype, torch.dtype)
        device = torch.device(getattr(operator, "device", "cpu")) if self._takes_torch else torch.device("cpu")
        super().__init__(check_int("operator.shape[0]", shape[0]), _product_dtype(dtype), device)
        self._operator = operator

    def _matvec(self, vector: Tensor) -> Tensor:
        # Copies on both sides: a foreign operator may return its argument, or a buffer that it uses again.
        product = self._operator @ (vector.clone() if self._takes_torch else vector.numpy().copy())
        if not isinstance(product, Tensor):
            if self._takes_torch:
                raise TypeError(
                    f"operator @ v must return a torch tensor, as operator.dtype is {self.dtype}; got "
                    f"{type(product).__name__}."
                )
            array = np.array(product)
            if array.dtype.kind not in "biufc":
                raise TypeError(f"operator @ v must return an array of numbers, got {type(product).__name__}.")
            product = torch.from_numpy(array)
        return self._checked(product.detach().clone())

    def _checked(self, product: Tensor) -> Tensor:
        """The product as a vector, when its shape, dtype and values are those of a product."""
        if product.ndim not in (1, 2) or product.numel() != self.dim:
            raise ValueError(
                f"operator @ v must have shape ({self.dim},) for v of shape ({self.dim},), got {tuple(product.shape)}."
            )
        if not product.is_floating_point():
            raise TypeError(f"operator @ v must hold real floating-point numbers, got {product.dtype}.")
        if torch.finfo(product.dtype).eps > torch.finfo(self.dtype).eps:
            raise TypeError(
                f"operator @ v is in {product.dtype}, but the operator's dtype is {self.dtype}: its rounding would be "
                f"taken for the matrix. Declare the operator's dtype as {product.dtype}, or compute in {self.dtype}."
            )
        check_finite("a product of the operator", product, _NOT_FINITE)
        return product.to(self.device, self.dtype).reshape(-1)


def _product_dtype(dtype: Any) -> torch.dtype:
    """The dtype of a foreign operator's products: float64 where it is undeclared or an integer type of NumPy."""
    if isinstance(dtype, torch.dtype):
        is_real, own = dtype.is_floating_point, dtype
        is_complex = dtype.is_complex
    else:
        declared = np.dtype(dtype)
        is_real, is_complex = declared.kind in "biuf", declared.kind == "c"
        widths = {2: torch.float16, 4: torch.float32} if declared.kind == "f" else {}
        own = widths.get(declared.itemsize, torch.float64)
    if is_complex:
        raise TypeError(f"operator must be real, got dtype {dtype}.")
    if not is_real:
        raise TypeError(f"operator must have a floating-point dtype, got {dtype}; give it dtype float64.")
    if torch.finfo(own).bits < 32:
        raise TypeError(
            f"operator computes in half precision ({dtype}), too coarse for a spectrum; give it dtype float32 or "
            "float64, with products computed in it."
        )
    return own


def _own_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The floating-point dtype that symmetry is judged in; products are in double precision in any case."""
    return dtype.newbyteorder("=") if dtype.kind == "f" and dtype.itemsize <= 8 else np.dtype(np.float64)


def _array_operator(array: np.ndarray[Any, np.dtype[Any]]) -> MatrixOperator:
    if array.dtype.kind not in "iuf":
        raise TypeError(f"operator must hold real numbers, got dtype {array.dtype}.")
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError("operator is a masked array; replace its masked entries by operator.filled(0).")
    tensor = torch.from_numpy(np.require(array, _own_dtype(array.dtype), ["C", "W"]))
    return MatrixOperator(symmetric_matrix(tensor).double())


def _sparse_operator(matrix: Any) -> MatrixOperator:
    """The operator of a sparse matrix or array of SciPy, in double precision."""
    entries = matrix.tocoo()
    if entries.dtype.kind not in "iuf":
        raise TypeError(f"operator must hold real numbers, got dtype {entries.dtype}.")
    indices = torch.from_numpy(np.stack([entries.row, entries.col]).astype(np.int64))
    values = torch.from_numpy(entries.data.astype(_own_dtype(entries.dtype)))
    tensor = torch.sparse_coo_tensor(indices, values, entries.shape, check_invariants=True)
    return MatrixOperator(symmetric_matrix(tensor).double())


def as_operator(operator: Any) -> LinearOperator:
    """Return ``operator`` as a `LinearOperator`.

    All entries of a matrix are checked here. Of an operator every product is checked: its shape, its dtype and that it
    is finite; symmetry by comparing the first products with each other, without products of its own.

    Args:
        operator: A `LinearOperator`; a torch, NumPy or pandas matrix; a sparse matrix of torch or SciPy; or any object
            with ``.shape`` and ``@``, such as operators of SciPy and curvlinops; real and symmetric. The products of
            an operator are taken to be as precise as its ``dtype`` says.

    Raises:
        TypeError: Complex numbers or integers, an operator in half precision, or no ``.shape`` or no ``@``.
        ValueError: Not square, or a matrix that is not finite and symmetric.
    """
    if isinstance(operator, LinearOperator):
        return operator
    if isinstance(operator, Tensor):
        return MatrixOperator(operator)
    if hasattr(operator, "to_numpy"):  # a pandas data frame
        operator = operator.to_numpy()
    if isinstance(operator, np.ndarray):
        return _array_operator(operator)
    if hasattr(operator, "tocoo"):
        return _sparse_operator(operator)
    if hasattr(operator, "shape") and hasattr(operator, "__matmul__"):
        return _ForeignOperator(operator)
    raise TypeError(
        f"operator must have .shape and support @, got {type(operator).__name__}; "
        "pass a HessianOperator, a matrix, or an operator of SciPy or curvlinops."
    )
