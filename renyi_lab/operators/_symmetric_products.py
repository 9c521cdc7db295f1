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
    """

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)
        self._num_compared, self._scale = 0, 0.0
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
        # In double precision where the device has it: squares of large entries overflow in single precision.
        wide = torch.float32 if vector.device.type == "mps" else torch.float64
        length = torch.linalg.vector_norm(vector.to(wide))
        unit, image = vector.to(wide) / length, product.to(wide) / length
        size = float(torch.linalg.vector_norm(image))
        if not 0.0 <= size < float("inf"):  # a zero vector, or a product that is refused elsewhere
            return
        self._num_compared += 1
        self._scale = max(self._scale, size)
        if self._before is None:
            self._before = unit, image
            return
        total, total_image = self._before
        difference = abs(float(torch.dot(total, image) - torch.dot(unit, total_image)))
        limit = relative_tolerance(product.dtype) * self._scale * float(torch.linalg.vector_norm(total))
        if difference > limit:
            raise ValueError(
                f"the operator is not symmetric: uᵀ(A v) and vᵀ(A u) differ by {difference:.2g} for vectors u and v "
                f"that were multiplied, where rounding explains at most {limit:.2g}. {_CAUSES}"
            )
        sign = self._random.choice([-1.0, 1.0])
        self._before = total + sign * unit, total_image + sign * image


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
