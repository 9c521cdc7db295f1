"""Arrays of real numbers from what users pass: sequences, arrays, tensors, series."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from typing import Any

import numpy as np
import torch
from torch import Tensor

from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_real


def real_array(name: str, values: Any) -> FloatArray:
    """Return a copy of ``values`` in double precision, of any shape, or raise an error that names the argument.

    Masked arrays are refused, since their masked entries would count; so are sets and mappings, which have no order,
    iterators, complex numbers and Booleans. The numbers may be NaN or infinite.
    """
    if isinstance(values, Tensor):
        return _from_tensor(name, values)
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose masked entries would count; pass {name}.compressed().")
    if isinstance(values, (Mapping, Set, str, bytes, Iterator)):
        raise TypeError(f"{name} must hold real numbers in a sequence or an array, got {type(values).__name__}.")
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} must be a vector of numbers, but its entries differ in length: {error}") from error
    except Exception as error:
        raise TypeError(f"{name} cannot be made an array, got {type(values).__name__}: {error}") from error
    if array.dtype.kind == "O":
        return _from_objects(name, array)
    if array.dtype.kind not in "iuf":
        if array.dtype.kind == "c" and name == "eigenvalues":
            raise TypeError(f"{name} must be real; use eigvalsh on the symmetric matrix.")
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}.")
    return np.array(array, dtype=np.float64, order="C", subok=False)


def finite_array(name: str, values: Any, *shape: int | None) -> FloatArray:
    """As `real_array`, of finite numbers in an array of this shape, in which ``None`` stands for any size, or raise."""
    array = real_array(name, values)
    if array.ndim != len(shape) or any(want not in (None, size) for want, size in zip(shape, array.shape, strict=True)):
        sizes = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} must have the shape ({sizes}), got {array.shape}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, but holds NaN or infinity.")
    return array


def _from_tensor(name: str, values: Tensor) -> FloatArray:
    if values.is_complex() or values.dtype == torch.bool or values.is_quantized:
        raise TypeError(f"{name} must hold real numbers, got dtype {values.dtype}.")
    if values.layout is not torch.strided or values.device.type == "meta":
        raise TypeError(f"{name} must be a dense tensor with values, got {values.layout} on {values.device}.")
    return np.array(values.detach().cpu().double().numpy())


def _from_objects(name: str, array: np.ndarray[Any, Any]) -> FloatArray:
    """From fractions and other exact numbers; each is checked."""
    try:
        numbers = [check_real(f"each of {name}", value, allow_infinite=True) for value in array.ravel()]
    except TypeError:
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}.") from None
    return np.array(numbers, dtype=np.float64).reshape(array.shape)
