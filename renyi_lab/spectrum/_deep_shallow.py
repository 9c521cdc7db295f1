r"""The estimator behind `estimate_spectrum`, step by step: one deep Lanczos run, and many shallow ones.

*Depth* removes the error that the cusp of ``|λ|^α`` at 0 causes; *many probes* remove noise, which is mostly that of
polynomials of low degree. So three quarters of the products go into one deep run, and the rest into independent probes
of a few steps.

1. `probe_plan` splits the budget.
2. `renyi_lab.krylov.lanczos_steps` makes the deep run. `split_deep` selects the Ritz pairs ``U`` that are eigenpairs;
   the part of the start vector outside their span is a random direction in the complement, and its Jacobi matrix is
   a measure of the other ``d = n − k`` eigenvalues.
3. `fresh_probes` makes the shallow runs, from probes orthogonal to all that the deep run knows.
4. `renyi_lab.spectrum._calibration` weighs both.

Sources: Ubaru, Chen & Saad 2017 (stochastic Lanczos quadrature); Meyer et al. 2021, Hutch++, and Chen & Hallman 2023,
arXiv:2205.01736 (deflation, from the Krylov space itself); Deville & Särndal 1992 (calibration of sampling weights).
The combination, the plan and the averaging over numbers of steps have no published source.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from renyi_lab._utils.typing import FloatArray
from renyi_lab.krylov import (
    CONVERGED,
    JacobiMatrix,
    ShallowProbes,
    Subspace,
    Tridiagonal,
    jacobi_matrix,
    shallow_probes,
)
from renyi_lab.operators import LinearOperator
from renyi_lab.spectrum._errors import NEGLIGIBLE

SHALLOW_SHARE = 0.25  # of the budget. Heuristic: with .35, errors at α ≤ 1 grew by up to a half on trained networks.
FEWEST_PROBES = 4  # per step. Heuristic: 3 to 6 are equally good.
FEWEST_REST = 8  # Ritz pairs of the deep run that are never counted, so that there is a measure of the others.
# The deep probe is inside the eigenspaces that it found if less than this, relative to what is expected, is outside.
NOTHING_LEFT = 1e-6
# Weights, times n, below which a Ritz value without re-orthogonalization is a ghost, and the power of eps within which
# two are one; see without_ghosts().
LIGHTEST, SAME_POWER = 1e-10, 0.7
# A coupling of this share of the largest coefficient matters: it changes a second moment by its square, 1 %.
COUPLES = 0.1


def probe_plan(num_matvecs: int) -> tuple[int, ...]:
    """How many shallow probes make each step: ``⌊c/j⌋ ≥ 4`` at step ``j``, for the largest ``c`` within the share.

    Args:
        num_matvecs: Budget; the products that are not in the plan are for the deep run.

    Returns:
        Numbers of probes, not increasing; empty for budgets below 16.

    Example:
        >>> probe_plan(200), 200 - sum(probe_plan(200))
        ((23, 11, 7, 5, 4), 150)
    """
    plan: tuple[int, ...] = ()
    for first in range(FEWEST_PROBES, num_matvecs + 1):
        longer = tuple(first // step for step in range(1, first // FEWEST_PROBES + 1))
        if sum(longer) > SHALLOW_SHARE * num_matvecs:
            break
        plan = longer
    return plan


@dataclass(frozen=True, eq=False)
class Deep:
    """What a deep run knows: eigenvalues found, and the measure of its start vector over the others.

    Attributes:
        run: The Lanczos run.
        dim: Number of rows ``n`` of the operator.
        eps: Machine precision of the products.
        found: Which Ritz pairs count as eigenpairs, ``(m,)``.
        rest: Jacobi matrix of the start vector's part outside these pairs; ``None`` where nothing of it is left.
        rows: Orthonormal coefficients in the Lanczos basis, ``(k + len(rest), m)``: of the pairs found, and of the
            basis in which ``rest`` is tridiagonal.
    """

    run: Tridiagonal
    dim: int
    eps: float
    found: NDArray[np.bool_]
    rest: JacobiMatrix | None
    rows: FloatArray

    @cached_property
    def eigenvalues(self) -> FloatArray:
        """The eigenvalues found, ``(k,)``."""
        return np.asarray(self.run.ritz_values[self.found])

    @property
    def negligible(self) -> float:
        """Absolute size of eigenvalues that are not told from rounding errors."""
        return negligible_size(self.run, self.eps)

    def num_known(self, depth: int) -> int:
        """Number of basis vectors of ``rest`` on which polynomials up to degree ``2·depth`` are known exactly.

        That is up to ``depth`` before the first one that couples to what the run has not seen: the last one, unless a
        coupling in between is a rounding error, so that the order of the later ones is arbitrary.
        """
        if self.rest is None or self.run.vectors is None:
            return 0
        last = len(self.rest) - 1
        if np.any(self.rest.off_diagonal[:last] <= self.negligible):
            outside = self.run.off_diagonal[-1] * np.abs(self.rows[len(self.eigenvalues) :, -1])
            last = int(np.argmax(np.append(outside[:last] > COUPLES * np.abs(self.rest.diagonal).max(), True)))
        return max(0, last + 1 - depth)

    def top_error(self) -> float:
        """How far the largest eigenvalue may be from the largest Ritz value ``θ_1``.

        That is the largest of: the residual ``‖A x − θ_1 x‖``, within which there is an eigenvalue; what ``θ_1`` has
        grown by since half the steps; and, where eigenvalues are dense, ``ε/2``, since one up to ``ε`` above may be
        hidden by an almost orthogonal start vector. By Kuczyński & Woźniakowski 1992 the error exceeds ``ε = (θ_1 −
        θ_m)·[log(1.648 √n / 0.05) / (2m − 1)]²`` with a probability of at most 5 %. Dense means ``θ_1 − θ_2 < 5 ε``
        (heuristic).
        """
        run = self.run
        steps, values = run.num_steps, run.ritz_values
        if steps == 1:
            return np.inf
        earlier = run.leading(steps // 2).ritz_values[-1]
        hidden = (values[-1] - values[0]) * (np.log(1.648 * self.dim**0.5 / 0.05) / (2 * steps - 1)) ** 2
        dense = values[-1] - values[-2] < 5 * hidden
        return float(max(run.residuals[-1], values[-1] - earlier, hidden / 2 if dense else 0.0))


def negligible_size(run: Tridiagonal, eps: float) -> float:
    """``30·eps·max|θ|``."""
    return NEGLIGIBLE * eps * float(np.abs(run.ritz_values).max())


def split_deep(run: Tridiagonal, dim: int, eps: float, count: bool = True) -> Deep:
    """Separate what the deep run has found from what it samples.

    A Ritz pair is found if its residual is at most ``1e-3·|θ|`` and ``|θ| > 30·eps·max|θ|``. At least 8 are left out,
    unless all that remains is rounding error.

    Args:
        run: Lanczos run of at least one step.
        dim: Number of rows ``n`` of the operator.
        eps: Machine precision of the products.
        count: ``False``: nothing counts as found, since no shallow probes will check it. Nothing does where the
            vectors were not kept either, since the shallow probes cannot be made orthogonal to it.
    """
    if run.vectors is None:
        return Deep(run, dim, eps, np.zeros(run.num_steps, dtype=bool), without_ghosts(run, dim, eps), np.zeros((0, 0)))
    size, negligible = np.abs(run.ritz_values), negligible_size(run, eps)
    found = (run.residuals <= CONVERGED * size) & (size > negligible) & count
    excess = int(found.sum()) - (run.num_steps - FEWEST_REST)
    if excess > 0 and np.any(size[~found] > negligible):
        found[np.flatnonzero(found)[np.argsort(size[found])[:excess]]] = False
    vectors = run.eigenvectors[:, found].T
    rest = np.zeros(run.num_steps)
    rest[0] = 1.0
    for _ in range(2):
        rest = rest - vectors.T @ (vectors @ rest)
    if rest @ rest < NOTHING_LEFT * (1 - len(vectors) / dim):
        return Deep(run, dim, eps, found, None, vectors)
    num_steps = run.num_steps - len(vectors)
    jacobi, rows = jacobi_matrix(run.matrix(), rest, num_steps, vectors)
    if len(jacobi) == num_steps:  # the last vector couples to what the run has not seen
        jacobi.off_diagonal[-1] = run.off_diagonal[-1] * abs(rows[-1, -1])
    return Deep(run, dim, eps, found, jacobi, rows)


def without_ghosts(run: Tridiagonal, dim: int, eps: float) -> JacobiMatrix:
    """The measure of a run without re-orthogonalization, in which copies of a Ritz value are one node.

    Rounding lets eigenvalues that were found appear again: ghosts, which share the weight of the first, or have hardly
    any yet. Ritz values are joined that differ by less than ``eps^0.7`` of the largest (1e-5 in single precision), and
    left out with weights that no eigenvalue has (a squared component below ``1e-10/n``, probability 1e-5). Both are
    heuristics: with them, errors on spectra of 20,000 eigenvalues are those of a run with re-orthogonalization in which
    nothing is counted.

    Args:
        run: The run.
        dim: Number of rows ``n`` of the operator.
        eps: Relative rounding error of its products.
    """
    visible = run.weights * dim > LIGHTEST
    nodes, weights = run.ritz_values[visible], run.weights[visible]
    starts = np.diff(nodes, prepend=-np.inf) > eps**SAME_POWER * np.abs(run.ritz_values).max()
    groups = np.cumsum(starts) - 1
    mass = np.bincount(groups, weights)
    nodes = np.bincount(groups, weights * nodes) / mass
    jacobi, _ = jacobi_matrix(nodes, np.sqrt(mass), len(nodes), np.zeros((0, len(nodes))))
    jacobi.off_diagonal[-1] = run.off_diagonal[-1]
    return jacobi


def fresh_probes(
    operator: LinearOperator,
    deep: Deep,
    plan: tuple[int, ...],
    generator: torch.Generator,
    on_products: Callable[[int], object] = lambda count: None,
) -> ShallowProbes:
    """The shallow runs, from probes orthogonal to what the deep run knows exactly.

    Args:
        operator: Symmetric operator.
        deep: What the deep run knows.
        plan: Numbers of probes per step.
        generator: Random numbers for the probes.
        on_products: Called after each step with the number of its products.
    """
    known = None
    if deep.run.vectors is not None:
        rows = deep.rows[: len(deep.eigenvalues) + deep.num_known(len(plan))]
        known = Subspace(deep.run.vectors, rows)
    return shallow_probes(operator, plan, known, len(deep.eigenvalues), generator, on_products)
