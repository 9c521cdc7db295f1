"""A check of the first few products for ``⟨u, Hv⟩ = ⟨v, Hu⟩``, which costs two inner products each."""

from __future__ import annotations

import torch
from torch import Tensor

_NUM_CHECKED = 4  # heuristic: unit vectors, say, may well have products that are zero at each other's places


class SymmetryCheck:
    """Compares each of the first few products with the one before it.

    Args:
        scale: Typical size of the loss, below which products may be nothing but rounding.
        eps: Relative rounding error of a product.
    """

    def __init__(self, scale: float, eps: float) -> None:
        self._scale, self._eps = max(1.0, scale), eps
        self._num_left = _NUM_CHECKED
        self._latest: tuple[Tensor, Tensor] | None = None

    def passes(self, vectors: Tensor, products: Tensor) -> bool:
        """Whether new products, ``(n,)`` or rows ``(k, n)``, agree with a symmetric matrix as far as is seen."""
        if self._num_left == 0:
            return True
        self._num_left -= 1
        vector, product = (vectors, products) if vectors.ndim == 1 else (vectors[-1], products[-1])
        before = (vectors[0], products[0]) if vectors.ndim == 2 and len(vectors) > 1 else self._latest
        self._latest = (vector.clone(), product.clone()) if self._num_left else None
        return before is None or self.agree(*before, vector, product)

    def agree(self, u: Tensor, product_u: Tensor, v: Tensor, product_v: Tensor) -> bool:
        """Whether ``⟨u, Hv⟩`` and ``⟨v, Hu⟩`` agree to a hundredth, or up to rounding; what is not finite passes."""
        one, other = float(torch.dot(u, product_v)), float(torch.dot(v, product_u))
        eps, length = self._eps, float(u.norm() * v.norm())
        size = float(u.norm() * product_v.norm() + v.norm() * product_u.norm())
        # Heuristic: double backward of the steepest networks tried loses about four digits.
        rounding = max(300 * eps, 1e-8) * size + 1e4 * eps * self._scale * length / len(u) ** 0.5
        return not abs(one - other) > max(1e-2 * max(abs(one), abs(other)), rounding)
