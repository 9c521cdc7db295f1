"""Two baselines for `estimate_spectrum`: power iteration, and Hutchinson's trace estimator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from renyi_lab._utils.estimate import Estimate
from renyi_lab._utils.fields import check_fields
from renyi_lab._utils.validation import check_int
from renyi_lab.krylov._lanczos import accumulator, check_product, gaussian_rows, on_host
from renyi_lab.operators import as_operator


@dataclass(frozen=True, eq=False)
class TopEigenpair:
    """Result of `power_iteration`.

    Attributes:
        eigenvalue: Rayleigh quotient ``xᵀ A x``.
        eigenvector: Unit vector ``x`` of shape ``(n,)``.
        residual: ``‖A x − (xᵀ A x) x‖``: the distance from ``eigenvalue`` to the nearest eigenvalue is at most this.
        num_matvecs: Number of products spent.
    """

    eigenvalue: float
    eigenvector: Tensor
    residual: float
    num_matvecs: int

    def __post_init__(self) -> None:
        check_fields(self)

    def __float__(self) -> float:
        return self.eigenvalue

    def __repr__(self) -> str:
        return (
            f"TopEigenpair(eigenvalue={self.eigenvalue:.6g}, residual={self.residual:.2g}, {self.num_matvecs} products)"
        )


def power_iteration(operator: Any, *, num_matvecs: int = 100, seed: int = 0) -> TopEigenpair:
    r"""The eigenvalue of largest magnitude, by ``x ← A x / ‖A x‖``.

    The error of ``x`` shrinks by ``|λ₂/λ₁|`` per product, that of the eigenvalue by its square; for ``λ₂ = −λ₁``
    there is no convergence, which the residual shows. Lanczos is more accurate with the same number of products.

    Args:
        operator: Symmetric; anything with ``.shape`` and ``@``.
        num_matvecs: Maximal number of products; fewer are spent when the residual is down to rounding error. Default
            100 (heuristic: ample where ``|λ₂/λ₁| ≤ 0.9``).
        seed: Random seed for the Gaussian start vector.

    Raises:
        ValueError: ``num_matvecs < 1``, or a product that is not finite.

    Source:
        von Mises & Pollaczek-Geiringer 1929; Golub & Van Loan 2013, section 8.2.1.

    Example:
        >>> power_iteration(torch.diag(torch.tensor([1.0, -2.0, 8.0])))
        TopEigenpair(eigenvalue=8, residual=..., ... products)
    """
    matrix, budget = as_operator(operator), check_int("num_matvecs", num_matvecs)
    generator = torch.Generator().manual_seed(check_int("seed", seed, 0))
    vector = gaussian_rows(matrix, 1, generator)[0]
    vector = vector / vector.norm()
    with matrix.unchanged():
        for count in range(1, budget + 1):
            product = matrix @ vector
            x, image = vector.to(accumulator(vector)), product.to(accumulator(product))
            quotient = torch.dot(x, image)
            eigenvalue, norm, residual = on_host(quotient, image.norm(), (image - quotient * x).norm())
            check_product(norm)
            if count == budget or residual <= matrix.eps * matrix.dim**0.5 * norm:
                break
            vector = product / norm
    return TopEigenpair(eigenvalue, vector, residual, count)


def hutchinson_trace(operator: Any, *, num_matvecs: int = 100, seed: int = 0) -> Estimate:
    r"""An unbiased estimate of the trace, ``tr A ≈ (1/m) Σ_k v_kᵀ A v_k`` with random signs ``v_k ∈ {−1, 1}ⁿ``.

    Its variance is ``(2/m) Σ_{i≠j} A_ij²``, which is zero for a diagonal matrix. The standard error is estimated from
    the sample of ``m`` terms.

    Args:
        operator: Symmetric; anything with ``.shape`` and ``@``.
        num_matvecs: Number ``m`` of products, at least 2. Default 100 (heuristic: a tenth of the error of a single
            product).
        seed: Random seed for the signs.

    Raises:
        ValueError: ``num_matvecs < 2``, or a product that is not finite.

    Source:
        Hutchinson 1990, *A stochastic estimator of the trace of the influence matrix*.

    Example:
        >>> hutchinson_trace(torch.diag(torch.tensor([1.0, 2.0, 4.0])), num_matvecs=5)
        Estimate(7 ± 0, 5 products)
    """
    matrix, count = as_operator(operator), check_int("num_matvecs", num_matvecs, 2)
    generator = torch.Generator().manual_seed(check_int("seed", seed, 0))
    forms = np.empty(count)
    with matrix.unchanged():
        for index in range(count):
            bits = torch.randint(2, (matrix.dim,), generator=generator, device="cpu")
            signs = 2 * bits.to(matrix.device, matrix.dtype) - 1
            form = torch.dot(signs.to(accumulator(signs)), (matrix @ signs).to(accumulator(signs)))
            forms[index] = check_product(float(form))
    return Estimate(float(forms.mean()), float(forms.std(ddof=1) / count**0.5), count)
