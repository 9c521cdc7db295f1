"""Whether a matrix that is only known through its products is symmetric."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

# Products that are compared. Heuristic: an asymmetry that matters for a spectrum shows in the first few.
NUM_COMPARED = 32

_CAUSES = (
    "Likely causes: a matrix that is not symmetric (pass (A + A.T) / 2) or is zero up to rounding, hooks or custom "
    "functions that change gradients, a model that draws random numbers or whose weights changed between two products."
)


def relative_tolerance(dtype: torch.dtype) -> float:
    """The asymmetry, relative to the size of the matrix, that counts as rounding: 5e-7 in float64, 2e-3 in float32.

    Heuristic: more than finite differences or TF32 arithmetic cause, and of no consequence for a spectrum.
    """
    return math.pow(torch.finfo(dtype).eps, 0.4)


class SymmetricProducts:
    """Compares ``uᵀ(A v)`` with ``vᵀ(A u)`` for the vectors of successive products; it needs no product of its own.

    ``u`` is a sum with random signs of all vectors before ``v``, so that unit vectors are compared with each other too.

    Args:
        scale: Size ``‖A‖`` of the matrix as far as it is known; products show when it is larger.
    """

    def __init__(self, scale: float = 0.0) -> None:
        self._random = np.random.default_rng(0)
        self._num_compared, self._scale = 0, scale
        self._before: tuple[Tensor, Tensor] | None = None

    def observe(self, vectors: Tensor, products: Tensor) -> None:
        """Compare one product, or the columns of several, with those before.

        Args:
            vectors: Operands, shape ``(n,)`` or ``(n, k)``.
            products: What the operator returned for them, of the same shape.

        Raises:
            ValueError: The matrix is not symmetric.
        """
        if self._num_compared >= NUM_COMPARED:
            return
        if vectors.ndim == 1:
            self._compare(vectors, products)
            return
        for _ in range(min(2, vectors.shape[1])):
            signs = torch.from_numpy(self._random.choice([-1.0, 1.0], vectors.shape[1])).to(vectors)
            self._compare(vectors @ signs, products @ signs)

    def _compare(self, vector: Tensor, product: Tensor) -> None:
        difference, size = self._difference(vector, product)
        limit = relative_tolerance(product.dtype) * size
        if difference > limit:
            raise ValueError(
                f"the operator is not symmetric: uᵀ(A v) and vᵀ(A u) differ by {difference:.2g} for vectors u and v "
                f"that were multiplied, where rounding explains at most {limit:.2g}. {_CAUSES}"
            )
        self.remember(vector, product)

    def asymmetry(self, vector: Tensor, product: Tensor) -> float:
        """``|uᵀ(A v) − vᵀ(A u)|`` over ``‖A‖ ‖u‖ ‖v‖``; of a symmetric ``A``, at most the products' relative error.

        Args:
            vector: ``v``, shape ``(n,)``.
            product: ``A v``.
        """
        difference, size = self._difference(vector, product)
        return difference / size if size > 0 else 0.0

    def remember(self, vector: Tensor, product: Tensor) -> None:
        """Compare later products with this one, of the same shapes, too."""
        unit, image, size = _normalized(vector, product)
        if not 0.0 <= size < float("inf"):  # a zero vector, or a product that is refused elsewhere
            return
        self._num_compared += 1
        self._scale = max(self._scale, size)
        if self._before is None:
            self._before = unit, image
        else:
            sign = self._random.choice([-1.0, 1.0])
            self._before = self._before[0] + sign * unit, self._before[1] + sign * image

    def _difference(self, vector: Tensor, product: Tensor) -> tuple[float, float]:
        """``|uᵀ(A v) − vᵀ(A u)|`` for ``v`` of length 1, and ``‖A‖ ‖u‖``."""
        unit, image, size = _normalized(vector, product)
        if self._before is None or not 0.0 <= size < float("inf"):
            return 0.0, 0.0
        total, total_image = self._before
        difference = abs(float(torch.dot(total, image) - torch.dot(unit, total_image)))
        return difference, max(self._scale, size) * float(torch.linalg.vector_norm(total))


def _normalized(vector: Tensor, product: Tensor) -> tuple[Tensor, Tensor, float]:
    """The vector and its product, divided by the vector's length, and the length of the latter.

    In double precision where the device has it: squares of large entries overflow in single precision.
    """
    wide = torch.float32 if vector.device.type == "mps" else torch.float64
    length = torch.linalg.vector_norm(vector.to(wide))
    unit, image = vector.to(wide) / length, product.to(wide) / length
    return unit, image, float(torch.linalg.vector_norm(image))


def check_dense_symmetry(matrix: Tensor) -> Tensor:
    """Return a matrix made of products when it is symmetric up to their rounding, or raise ``ValueError``.

    The difference of the transposes is formed in blocks of rows, to spare memory.
    """
    scale, worst = 0.0, 0.0
    largest = float(matrix.abs().max()) or 1.0  # squares of small or large entries leave the range of single precision
    for start in range(0, len(matrix), 1024):
        rows = matrix[start : start + 1024]
        scale = max(scale, largest * float(torch.linalg.vector_norm(rows / largest, dim=1).max()))
        worst = max(worst, float((rows - matrix[:, start : start + 1024].T).abs().max()))
    limit = relative_tolerance(matrix.dtype) * scale
    if worst > limit:
        raise ValueError(
            f"the operator is not symmetric: its matrix differs from its transpose by {worst:.2g} in an entry, where "
            f"rounding explains at most {limit:.2g}. {_CAUSES}"
        )
    return matrix
