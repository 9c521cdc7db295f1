r"""Block Lanczos: several probes share one Krylov space, and each leading block of ``T`` gives a Gauss rule.

    A Q_m = Q_m T_m + Q_{m+1} B_m E_mᵀ ,      V = Q_1 R  (the ``b`` Gaussian probes)

With the eigenpairs ``(θ_j, y_j)`` of ``T_m``, ``v_iᵀ f(A) v_i ≈ Σ_j (Rᵀ E_1ᵀ y_j)_i² f(θ_j)`` for probe ``i``.

Source:
    Golub & Meurant 2010, chapters 4.2 and 6.6; deflation as in Chen & Hallman 2023, arXiv:2205.01736.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from renyi_lab._utils.fields import check_fields, check_vectors
from renyi_lab._utils.threads import one_thread
from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_closure, check_instance, check_int
from renyi_lab.krylov._basis import orthogonal_to
from renyi_lab.krylov._lanczos import accumulator, check_product, gaussian_rows
from renyi_lab.operators import LinearOperator

# A Ritz pair counts as an eigenpair when its residual is below this share of its magnitude. Heuristic: its error is
# quadratic in the residual, so about 1e-6 of the gap.
CONVERGED = 1e-3
# Magnitudes below this share of the largest are rounding errors, never a converged eigenvalue.
_NEGLIGIBLE = 1e-10
# Ritz values that differ by less, relative to the largest, are copies of one eigenvalue.
_SAME = 1e-6


@dataclass(frozen=True, eq=False)
class BlockTridiagonal:
    """Result of `block_lanczos`.

    Attributes:
        matrix: The block tridiagonal ``T_m`` with the coupling ``B_m`` below it, shape ``((m+1)·b, m·b)``.
        start: ``Rᵀ``, shape ``(b, b)``: row ``i`` holds the coefficients of probe ``i`` in the first block.
        dim: Number of rows ``n`` of the operator.
    """

    matrix: FloatArray
    start: FloatArray
    dim: int

    def __post_init__(self) -> None:
        check_fields(self)
        b = len(self.start) if self.start.ndim == 2 else 0
        rows, columns = self.matrix.shape if self.matrix.ndim == 2 else (0, 0)
        if b == 0 or self.start.shape != (b, b) or columns == 0 or columns % b or rows != columns + b:
            raise ValueError(
                "matrix must be ((m+1)·b, m·b) and start (b, b), for b probes and m steps, got "
                f"{self.matrix.shape} and {self.start.shape}."
            )

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
        weights: 1 for each converged node; those of the others are rescaled so that all sum to ``n``.
        converged: Whether each node is a converged eigenvalue.
        plain_weights: Weights of the stochastic Lanczos quadrature without this deflation; they also sum to ``n``.
    """

    nodes: FloatArray
    weights: FloatArray
    converged: NDArray[np.bool_]
    plain_weights: FloatArray

    def __post_init__(self) -> None:
        check_fields(self)
        check_vectors(self, "nodes", "weights", "converged", "plain_weights")


def block_lanczos(
    operator: LinearOperator, num_probes: int, num_steps: int, seed: int, on_step: Callable[[], object]
) -> BlockTridiagonal:
    """Run ``num_steps`` block steps from ``num_probes`` Gaussian probes with full re-orthogonalization.

    Where the Krylov space is exhausted, the run goes on in the direction that rounding left over or, where there is
    none, in a new random one: it finds further copies of repeated eigenvalues.

    Args:
        operator: Symmetric operator with ``n`` rows.
        num_probes: Block size ``b``, at most ``n``.
        num_steps: Number ``m`` of block steps, at most ``n / b``; ``m·b`` products are spent.
        seed: Random seed for the probes.
        on_step: Called after each step, for a progress bar.

    Raises:
        TypeError: An argument of another type.
        ValueError: A number out of range, or a product that is not finite.
    """
    check_instance("operator", operator, LinearOperator, "such as as_operator(matrix)")
    b = check_int("num_probes", num_probes, 1, operator.dim)
    total = b * check_int("num_steps", num_steps, 1, operator.dim // b)
    generator = torch.Generator().manual_seed(check_int("seed", seed, 0))
    check_closure("on_step", on_step, ", called after each step.")

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
        with one_thread():  # as in orthogonal_to()
            diagonal = _numpy(rows.to(accumulator(rows)) @ products.to(accumulator(products)).T)
            matrix[here, here] = (diagonal + diagonal.T) / 2
            scale = max(scale, check_product(float(products.to(accumulator(products)).norm())))
            rows, coupling = _next_rows(orthogonal_to(products, known), known, scale, random_rows)
        matrix[below, here] = coupling
        if step + 1 < num_steps:
            matrix[here, below] = coupling.T
        on_step()
    return BlockTridiagonal(matrix, start.T, operator.dim)


def _next_rows(
    residual: Tensor, known: Tensor, scale: float, random_rows: Callable[[int], Tensor]
) -> tuple[Tensor, FloatArray]:
    """Orthonormal rows that span the residual, and ``B`` with ``residual = Bᵀ rows``.

    A coupling is never declared zero because it is small: on steep spectra it still means something. Only where nothing
    at all is left does a random direction replace the missing one.
    """
    rows, triangular = _orthonormal_rows(residual)
    rounding = torch.finfo(residual.dtype).eps * scale
    # Singular vectors instead of plain QR identify the exhausted directions one by one.
    left, singular, right = np.linalg.svd(triangular)
    if singular.min() > 10 * rounding:
        return rows, triangular
    rows = torch.from_numpy(left.T).to(rows) @ rows
    exhausted = singular <= 0.01 * rounding
    if exhausted.any():
        rows[torch.from_numpy(exhausted)] = random_rows(int(exhausted.sum()))
        singular = np.where(exhausted, 0.0, singular)
    # What remains after cancellation down to rounding errors is no longer orthogonal to the others.
    for _ in range(2):
        rows, _ = _orthonormal_rows(orthogonal_to(rows, known))
    return rows, singular[:, None] * right


def _orthonormal_rows(rows: Tensor) -> tuple[Tensor, FloatArray]:
    """Orthonormal ``Q`` and ``R`` with ``rows = Rᵀ Q``, ``R`` with a positive diagonal."""
    orthogonal, triangular = torch.linalg.qr(rows.T.to(accumulator(rows)))
    signs = triangular.diagonal().sign()
    return (orthogonal * signs).T.to(rows).contiguous(), _numpy(signs[:, None] * triangular)


def gauss_rule(run: BlockTridiagonal, num_steps: int) -> GaussRule:
    """The Gauss rule of the first ``num_steps`` block steps.

    Args:
        run: Result of `block_lanczos`.
        num_steps: Number of steps, at most ``run.num_steps``.

    Raises:
        TypeError: ``run`` is not a `BlockTridiagonal`.
        ValueError: More steps than it has, or none.
    """
    check_instance("run", run, BlockTridiagonal, "as block_lanczos returns it")
    b, size = run.num_probes, check_int("num_steps", num_steps, 1, run.num_steps) * run.num_probes
    nodes, vectors = np.linalg.eigh(run.matrix[:size, :size])
    squared = (run.start @ vectors[:b]) ** 2
    residuals = np.linalg.norm(run.matrix[size : size + b, size - b : size] @ vectors[-b:], axis=0)
    converged = (residuals <= CONVERGED * np.abs(nodes)) & (np.abs(nodes) > _NEGLIGIBLE * np.abs(nodes).max())
    converged &= ~_possibly_repeated(nodes, squared, converged)
    left_over = squared[:, ~converged].sum(1)
    if left_over.size == 0 or converged.all() or left_over.min() < 1e-12 * run.dim:
        converged = np.zeros(size, dtype=bool)  # no weight would remain for the other dimensions
        left_over = squared.sum(1)
    rest = (squared * ((run.dim - converged.sum()) / left_over)[:, None]).mean(0)
    plain = (squared * (run.dim / squared.sum(1))[:, None]).mean(0)
    return GaussRule(nodes, np.where(converged, 1.0, rest), converged, plain)


def _possibly_repeated(nodes: FloatArray, squared: FloatArray, converged: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which converged values may have a higher multiplicity than the Krylov space shows.

    The Krylov space of ``b`` probes holds at most ``b`` copies of an eigenvalue. If these are all, their total weight
    is χ²-distributed with copies × b degrees of freedom; a larger weight is left to the quadrature.
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
