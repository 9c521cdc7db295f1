r"""Block Lanczos: several probes share one Krylov space, and each leading block of ``T`` is a Gauss rule of its own.

    A Q_m = Q_m T_m + Q_{m+1} B_m E_mᵀ ,      V = Q_1 R  (the ``b`` Gaussian probes)

From the eigenpairs ``(θ_j, y_j)`` of ``T_m`` probe ``i`` gets ``v_iᵀ f(A) v_i ≈ Σ_j (Rᵀ E_1ᵀ y_j)_i² f(θ_j)``.
Source: Golub & Meurant 2010, chapters 4.2 and 6.6; deflation as in Chen & Hallman 2023, arXiv:2205.01736.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from renyi_lab._utils.typing import FloatArray
from renyi_lab.krylov._lanczos import accumulator, check_product_norm, gaussian_rows, orthogonal_to
from renyi_lab.operators import LinearOperator

# A Ritz pair is taken for an eigenpair when its residual is below this share of its magnitude: its value is then right
# to about 1e-6 of the gap's size, since the error is quadratic in the residual. Our choice, by experiment.
CONVERGED = 1e-3
# Magnitudes below this share of the largest are rounding, never a converged eigenvalue.
_NEGLIGIBLE = 1e-10
# Ritz values this close, relative to the largest, are copies of one eigenvalue.
_SAME = 1e-6


@dataclass(frozen=True, eq=False)
class BlockTridiagonal:
    """Result of `block_lanczos`.

    Attributes:
        matrix: ``((m+1)·b, m·b)``: the block tridiagonal ``T_m`` with the coupling ``B_m`` below it.
        start: ``(b, b)``, ``Rᵀ``: row ``i`` holds probe ``i``'s coefficients in the first block.
        dim: Size ``n`` of the operator.
    """

    matrix: FloatArray
    start: FloatArray
    dim: int

    @property
    def num_probes(self) -> int:
        """Block size ``b``."""
        return len(self.start)

    @property
    def num_steps(self) -> int:
        """Number ``m`` of block steps; ``m·b`` products were spent."""
        return int(self.matrix.shape[1]) // self.num_probes


@dataclass(frozen=True, eq=False)
class GaussRule:
    """Nodes and weights for ``tr f(A)`` after some number of steps.

    Attributes:
        nodes: Ritz values, ascending.
        weights: Converged pairs once each, the others rescaled to the dimensions that remain; they sum to ``n``.
        converged: Which nodes are eigenvalues found exactly.
        plain_weights: The stochastic Lanczos quadrature without counting; they sum to ``n`` too.
    """

    nodes: FloatArray
    weights: FloatArray
    converged: NDArray[np.bool_]
    plain_weights: FloatArray


def block_lanczos(
    operator: LinearOperator, num_probes: int, num_steps: int, seed: int, on_step: Callable[[], object]
) -> BlockTridiagonal:
    """Run ``num_steps`` block steps from ``num_probes`` Gaussian probes, fully re-orthogonalised.

    Where the Krylov space closes, a fresh random direction goes on: it finds further copies of repeated eigenvalues.
    ``on_step`` is called after each step.
    """
    b, total = num_probes, num_probes * num_steps
    generator = torch.Generator().manual_seed(seed)

    def random_rows(count: int) -> Tensor:
        return gaussian_rows(operator, count, generator)

    basis = torch.empty(total, operator.dim, dtype=operator.dtype, device=operator.device)
    matrix = np.zeros((total + b, total))
    rows, start = _orthonormal_rows(random_rows(b))
    scale = 0.0
    for step in range(num_steps):
        here, below = slice(step * b, (step + 1) * b), slice((step + 1) * b, (step + 2) * b)
        basis[here] = rows
        known = basis[: below.start]
        products = (operator @ rows.T).T
        diagonal = _numpy(rows) @ _numpy(products).T
        matrix[here, here] = (diagonal + diagonal.T) / 2
        norm = float(products.to(accumulator(products)).norm())
        check_product_norm(norm)
        scale = max(scale, norm)
        rows, coupling = _next_rows(orthogonal_to(products, known), known, scale, random_rows)
        matrix[below, here] = coupling
        if step + 1 < num_steps:
            matrix[here, below] = coupling.T
        on_step()
    return BlockTridiagonal(matrix, start.T, operator.dim)


def _next_rows(
    residual: Tensor, known: Tensor, scale: float, random_rows: Callable[[int], Tensor]
) -> tuple[Tensor, FloatArray]:
    """Orthonormal rows that span the residual, and ``B`` with ``residual = Bᵀ rows``, zero where exhausted."""
    rows, triangular = _orthonormal_rows(residual)
    # Singular vectors rather than plain QR, so that exhausted directions are recognised one by one.
    left, singular, right = np.linalg.svd(triangular)
    rows = torch.from_numpy(left.T).to(rows) @ rows
    precision = torch.finfo(residual.dtype).eps
    exhausted = singular <= 10 * precision * residual.shape[1] ** 0.5 * scale
    singular[exhausted] = 0.0
    if exhausted.any():
        rows[torch.from_numpy(exhausted)] = random_rows(int(exhausted.sum()))
    # A direction that survived a cancellation down to rounding is no longer orthogonal to the others.
    if singular.min() <= precision**0.5 * scale:
        for _ in range(2):
            rows, _ = _orthonormal_rows(orthogonal_to(rows, known))
    return rows, singular[:, None] * right


def _orthonormal_rows(rows: Tensor) -> tuple[Tensor, FloatArray]:
    """Orthonormal ``Q`` and ``R`` with ``rows = Rᵀ Q``, ``R`` with a positive diagonal."""
    orthogonal, triangular = torch.linalg.qr(rows.T.to(accumulator(rows)))
    signs = triangular.diagonal().sign()
    return (orthogonal * signs).T.to(rows).contiguous(), _numpy(signs[:, None] * triangular)


def gauss_rule(run: BlockTridiagonal, num_steps: int) -> GaussRule:
    """The rule that the first ``num_steps`` block steps give."""
    b, size = run.num_probes, num_steps * run.num_probes
    nodes, vectors = np.linalg.eigh(run.matrix[:size, :size])
    squared = (run.start @ vectors[:b]) ** 2
    residuals = np.linalg.norm(run.matrix[size : size + b, size - b : size] @ vectors[-b:], axis=0)
    converged = (residuals <= CONVERGED * np.abs(nodes)) & (np.abs(nodes) > _NEGLIGIBLE * np.abs(nodes).max())
    converged &= ~_possibly_repeated(nodes, squared, converged)
    left_over = squared[:, ~converged].sum(1)
    if left_over.size == 0 or converged.all() or left_over.min() < 1e-12 * run.dim:
        converged = np.zeros(size, dtype=bool)  # nothing would be left to carry the remaining dimensions
        left_over = squared.sum(1)
    rest = (squared * ((run.dim - converged.sum()) / left_over)[:, None]).mean(0)
    plain = (squared * (run.dim / squared.sum(1))[:, None]).mean(0)
    return GaussRule(nodes, np.where(converged, 1.0, rest), converged, plain)


def _possibly_repeated(nodes: FloatArray, squared: FloatArray, converged: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Converged values that may stand for more eigenvalues than the space shows.

    ``b`` probes see at most ``b`` copies of an eigenvalue. If the copies seen are all there are, their total weight is
    χ² with copies × b degrees of freedom; a weight too large for that is left to the quadrature.
    """
    from scipy.special import gammaincc

    b = len(squared)
    level = 1e-4 if b == 1 else 1e-3
    repeated = np.zeros(len(nodes), dtype=bool)
    edges = np.flatnonzero(np.diff(nodes) > _SAME * np.abs(nodes).max()) + 1
    for cluster in np.split(np.arange(len(nodes)), edges):
        if len(cluster) >= b and converged[cluster].any():
            probability = gammaincc(len(cluster) * b / 2, squared[:, cluster].sum() / 2)
            repeated[cluster] = probability < level
    return repeated


def _numpy(tensor: Tensor) -> FloatArray:
    return np.asarray(tensor.detach().cpu().double().numpy())
