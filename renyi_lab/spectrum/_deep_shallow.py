r"""The estimator behind `estimate_spectrum`: one deep Lanczos run, and many shallow ones from fresh probes.

*Depth* removes the error that the cusp of ``|λ|^α`` at 0 causes; *many probes* remove the noise, which is mostly that of
polynomials of low degree. So three quarters of the products go into one deep run, and the rest into independent probes
of a few steps.

1. `probe_plan` splits the budget.
2. `renyi_lab.krylov.lanczos` makes the deep run; `converged_pairs` selects the Ritz pairs ``U`` that are eigenpairs.
3. `rest_measure`: the part of the start vector outside ``U`` is a random direction in the complement, and its Jacobi
   matrix is that of the remaining ``d = n − k`` eigenvalues.
4. `renyi_lab.krylov.shallow_probes` makes the shallow runs in the complement of ``U``. They measure the moments
   ``c_j = tr p_j(A)/d`` of the rest in its own orthonormal polynomials.
5. `Counted` counts ``U`` once and calibrates the rest: weights ``w·max(0, 1 + Σ_j K_j/(K_j+1)·c_j p_j(x))``, the
   regression estimator of survey sampling. Gauss rules of the last half of the steps are averaged with weights
   ``sin²``: their errors at the cusp alternate.
6. Moments that are too large for simple eigenvalues, or Ritz values where the deep run has none, show that some
   eigenvalues occur more often than the deep run can see. `Repeated` then counts nothing: moments of low degree come
   from the shallow probes, over a smooth guess of the spectrum, and the deep run adds what they leave. Some weights may
   be negative there.

Sources: Ubaru, Chen & Saad 2017 (stochastic Lanczos quadrature); Chen & Hallman 2023, arXiv:2205.01736 (deflation from
the Krylov space itself); Deville & Särndal 1992 (calibration of sampling weights). The combination, the plan and the
averaging have no published source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import numpy as np
from numpy.typing import NDArray

from renyi_lab._utils.typing import FloatArray
from renyi_lab.krylov import CONVERGED, JacobiMatrix, ShallowProbes, Tridiagonal, jacobi_matrix
from renyi_lab.spectrum._errors import NEGLIGIBLE, Sampling
from renyi_lab.spectrum._rule import QuadratureRule

SHALLOW_SHARE = 0.25  # of the budget. Heuristic: with half of it, errors at α ≤ 1 grew by up to a half.
FEWEST_PROBES = 6  # per step. Heuristic: fewer calibrate a moment hardly better than the deep run itself.
FEWEST_REST = 8  # nodes of the deep run that are never counted, so that there is a measure of the rest.
# Numbers of steps whose rules are averaged, at most. Heuristic: more changes errors by less than 2 %.
MOST_RULES = 24
# Heuristics for repeated eigenvalues: mean square of the standardized moments (1 if all are simple), and how far Ritz
# values of fresh probes may lie outside the deep run's interval, relative to its length.
LARGE_MOMENTS, MARGIN = 16.0, 0.1
# Relative to what is expected: the deep probe then is inside the eigenspaces that it found.
NOTHING_LEFT = 1e-6
SMALL_SAMPLE = 1.2  # Heuristic: inflates a covariance that few probes estimate.


@dataclass(frozen=True, eq=False)
class Nodes:
    """Nodes ``(k,)`` with weights, and the arrays that `Sampling` describes."""

    nodes: FloatArray
    weights: FloatArray
    fit: FloatArray
    spread: FloatArray
    polynomials: FloatArray


def probe_plan(num_matvecs: int) -> tuple[int, ...]:
    """How many shallow probes make each step: ``⌊c/j⌋ ≥ 6`` at step ``j``, for the largest ``c`` within the share.

    Args:
        num_matvecs: Budget; the products that are not in the plan are for the deep run.

    Returns:
        Numbers of probes, not increasing; empty for budgets below 24.

    Example:
        >>> probe_plan(200)
        (24, 12, 8, 6)
    """
    plan: tuple[int, ...] = ()
    for first in range(FEWEST_PROBES, num_matvecs + 1):
        longer = tuple(first // step for step in range(1, first // FEWEST_PROBES + 1))
        if sum(longer) > SHALLOW_SHARE * num_matvecs:
            break
        plan = longer
    return plan


def converged_pairs(run: Tridiagonal, eps: float) -> NDArray[np.bool_]:
    """Which Ritz pairs count as eigenpairs: residual at most ``1e-3·|θ|``, and ``|θ| > 30·eps·max|θ|``.

    At least 8 pairs are left out, unless what is left is negligible.
    """
    size = np.abs(run.ritz_values)
    negligible = NEGLIGIBLE * eps * size.max()
    found = (run.residuals <= CONVERGED * size) & (size > negligible)
    excess = int(found.sum()) - (run.num_steps - FEWEST_REST)
    if excess > 0 and np.any(size[~found] > negligible):
        found[np.flatnonzero(found)[np.argsort(size[found])[:excess]]] = False
    return found


def rest_measure(run: Tridiagonal, found: NDArray[np.bool_], negligible: float) -> tuple[JacobiMatrix | None, float]:
    """Jacobi matrix of the start vector's part outside the converged pairs, and that part's squared length.

    The matrix is ``None`` where (almost) nothing is left.
    """
    vectors = run.eigenvectors[:, found].T
    start = np.zeros(run.num_steps)
    start[0] = 1.0
    rest = start - vectors.T @ vectors[:, 0]
    rest -= vectors.T @ (vectors @ rest)
    share = float(rest @ rest)
    if share < 1e-24:
        return None, share
    return jacobi_matrix(run.matrix(), rest, run.num_steps - len(vectors), vectors, 1e-3 * negligible), share


@dataclass(frozen=True, eq=False)
class Counted:
    """Converged eigenvalues once each, and calibrated Gauss rules for the ``size`` other ones."""

    eigenvalues: FloatArray
    measure: JacobiMatrix
    size: int
    moments: FloatArray
    counts: FloatArray

    def at(self, steps: Sequence[int]) -> Nodes:
        nodes, shares = averaged_rule(self.measure, steps)
        degree = min(len(self.moments), steps[0]) - 1
        polynomials = self.measure.polynomials(degree, nodes)
        shrunk = (self.counts / (self.counts + 1) * self.moments)[1 : degree + 1]
        weights = shares * np.maximum(1 + shrunk @ polynomials[1:], 0.0)
        weights *= self.size / weights.sum()
        none = np.zeros(len(self.eigenvalues))
        return Nodes(
            np.append(self.eigenvalues, nodes),
            np.append(none + 1, weights),
            np.append(none, shares),
            np.append(none, _variance(self.size) * weights / self.size),
            np.hstack([np.zeros((degree + 1, len(none))), polynomials]),
        )

    def last(self) -> tuple[FloatArray, FloatArray]:
        """Nodes and non-negative weights of the last step alone."""
        parts = self.at([len(self.measure)])
        return parts.nodes, parts.weights

    def covariance(self) -> FloatArray:
        """Covariance of the total of each polynomial, ``(degree+1, degree+1)``: probes are uniform on the sphere."""
        variances = _variance(self.size) / (self.counts + 1)
        variances[0] = 0.0
        return np.diag(variances)

    def excess(self) -> float:
        """Mean square of the standardized moments: 1 on average if the deep run's measure is that of the rest."""
        variances = 2 / (self.size + 2) * (1 + 1 / self.counts[1:])
        return float(np.mean(self.moments[1:] ** 2 / variances)) if len(variances) else 0.0


@dataclass(frozen=True, eq=False)
class Repeated:
    """Nothing is counted: moments ``Σ p_j/n`` over a smooth guess, and the deep run's rule for what they leave."""

    guess: tuple[FloatArray, FloatArray]
    basis: JacobiMatrix
    moments: FloatArray
    cov: FloatArray
    measure: JacobiMatrix
    dim: int
    eigenvalues: FloatArray
    copies: float

    def at(self, steps: Sequence[int]) -> Nodes:
        nodes, shares = averaged_rule(self.measure, steps)
        degree = min(len(self.moments), steps[0]) - 1
        where, mass = self.guess
        smooth, rough = (self.basis.polynomials(degree, x) for x in (where, nodes))
        missing = self.moments[: degree + 1] - rough @ shares
        known = (np.abs(nodes[:, None] - self.eigenvalues) <= CONVERGED * np.abs(self.eigenvalues)).any(1)
        copies = np.zeros(len(where))
        copies[: len(self.eigenvalues)] = 2 * self.copies
        return Nodes(
            np.append(where, nodes),
            self.dim * np.append(mass * (missing @ smooth), shares),
            np.append(mass, np.zeros(len(nodes))),
            np.append(copies, np.where(known, 0.0, _variance(self.dim) * shares)),
            np.hstack([smooth, rough]),
        )

    def last(self) -> tuple[FloatArray, FloatArray]:
        """Nodes and non-negative weights of the last step alone."""
        nodes, shares = self.measure.gauss_rule(len(self.measure))
        return nodes, self.dim * shares

    def covariance(self) -> FloatArray:
        """Covariance of the total of each polynomial, from the sample of probes."""
        return self.cov


def averaged_rule(measure: JacobiMatrix, steps: Sequence[int]) -> tuple[FloatArray, FloatArray]:
    """The Gauss rules of several numbers of steps as one rule, averaged with weights ``sin²``."""
    taper = np.sin(np.pi * (np.arange(len(steps)) + 0.5) / len(steps)) ** 2
    rules = [measure.gauss_rule(size) for size in steps]
    weights = [share * rule[1] for share, rule in zip(taper / taper.sum(), rules, strict=True)]
    return np.concatenate([rule[0] for rule in rules]), np.concatenate(weights)


def last_half(num_steps: int) -> list[int]:
    """At most 24 numbers of steps, evenly spread over ``(num_steps/2, num_steps]``."""
    count = max(1, min(num_steps // 2, MOST_RULES))
    return sorted({num_steps - round(i * (num_steps // 2) / count) for i in range(count)})


def _variance(size: int) -> float:
    """``Var(size·uᵀφu) / mean φ²`` of a probe ``u`` uniform on the sphere, for ``Σφ = 0``."""
    return 2 * size**2 / (size + 2)


def _mean_and_covariance(moments: FloatArray, counts: NDArray[np.intp]) -> tuple[FloatArray, FloatArray]:
    """Mean of each column over the probes that reach it, and the covariance of these means."""
    means = np.nanmean(moments, axis=0)
    covariance = np.zeros((len(counts), len(counts)))
    for i in range(len(counts)):
        for j in range(len(counts)):
            few, many = sorted((counts[i], counts[j]))
            covariance[i, j] = np.cov(moments[:few, i], moments[:few, j])[0, 1] / many
    return means, covariance


def weigh(
    run: Tridiagonal, found: NDArray[np.bool_], shallow: ShallowProbes | None, dim: int, eps: float
) -> tuple[QuadratureRule, Sampling]:
    """The spectrum and its sampling model from the two kinds of runs.

    Args:
        run: Deep Lanczos run.
        found: Its converged pairs; none where there are no shallow runs to check that they are simple.
        shallow: Shallow runs in the complement of these pairs.
        dim: Number of rows ``n`` of the matrix.
        eps: Machine precision of the products.
    """
    negligible = NEGLIGIBLE * eps * float(np.abs(run.ritz_values).max())
    rest, share = rest_measure(run, found, negligible)
    size = dim - int(found.sum())
    counted = None
    if rest is not None and share >= NOTHING_LEFT * size / dim:
        counted = _counted(run.ritz_values[found], rest, size, shallow, negligible)
    if shallow is not None and (counted is None or _shows_repeated(counted, shallow, negligible)):
        repeated = _repeated(run, found, None if counted is None else rest, shallow, dim, negligible)
        return _assemble(repeated, run.num_steps, dim, eps, repeated=True)
    assert counted is not None
    noise = float(np.abs(counted.measure.gauss_rule(len(counted.measure))[0]).max())
    if noise > negligible:
        return _assemble(counted, run.num_steps, dim, eps)
    zero = JacobiMatrix(np.zeros(1), np.zeros(1))
    counted = Counted(counted.eigenvalues, zero, size, np.ones(1), np.ones(1))
    return _assemble(counted, run.num_steps, dim, eps, noise=noise)


def _counted(
    eigenvalues: FloatArray, rest: JacobiMatrix, size: int, shallow: ShallowProbes | None, negligible: float
) -> Counted:
    if shallow is None:
        return Counted(eigenvalues, rest, size, np.ones(1), np.ones(1))
    counts = shallow.counts()
    counts = counts[: 1 + min(len(counts) - 1, rest.highest_degree(negligible))]
    moments, _ = _mean_and_covariance(shallow.moments(rest, len(counts) - 1), counts)
    return Counted(eigenvalues, rest, size, moments, counts.astype(float))


def _shows_repeated(counted: Counted, shallow: ShallowProbes, negligible: float) -> bool:
    """Whether the shallow probes found in the complement what the deep run has counted already."""
    nodes, _ = counted.measure.gauss_rule(len(counted.measure))
    low, high = min(nodes[0], 0.0), max(nodes[-1], 0.0)
    margin = MARGIN * (high - low) + negligible
    smallest, largest = shallow.ritz_interval()
    return smallest < low - margin or largest > high + margin or counted.excess() > LARGE_MOMENTS


def _repeated(
    run: Tridiagonal,
    found: NDArray[np.bool_],
    rest: JacobiMatrix | None,
    shallow: ShallowProbes,
    dim: int,
    negligible: float,
) -> Repeated:
    eigenvalues = run.ritz_values[found]
    num_found = len(eigenvalues)
    copies = max(1.0, dim * float(run.weights[found].sum()) / max(num_found, 1))
    where, mass = eigenvalues, np.full(num_found, copies)
    if rest is not None:
        nodes, weights = rest.gauss_rule(len(rest))
        where = np.append(where, nodes)
        mass = np.append(mass, weights * max(dim - num_found * copies, 0.1 * dim))
    mass = mass / mass.sum()
    counts = shallow.counts()
    basis = jacobi_matrix(where, np.sqrt(mass), min(len(where), len(counts) + 1), np.zeros((0, len(where))), 0.0)
    counts = counts[: 1 + min(len(counts) - 1, basis.highest_degree(negligible))]
    degree = len(counts) - 1
    exact = basis.polynomials(degree, eigenvalues).sum(1)
    moments = (exact + (dim - num_found) * shallow.moments(basis, degree)) / dim
    means, covariance = _mean_and_covariance(moments, counts)
    steps = int((run.off_diagonal[:-1] > 1e-3 * negligible).cumprod().sum()) + 1
    return Repeated(
        guess=(where, mass),
        basis=basis,
        moments=means,
        cov=SMALL_SAMPLE * dim**2 * covariance,
        measure=JacobiMatrix(run.diagonal[:steps], run.off_diagonal[:steps]),
        dim=dim,
        eigenvalues=eigenvalues,
        copies=copies,
    )


def _assemble(
    weighting: Counted | Repeated, num_steps: int, dim: int, eps: float, *, noise: float = 0.0, repeated: bool = False
) -> tuple[QuadratureRule, Sampling]:
    size = len(weighting.measure)
    parts, *earlier = (weighting.at(last_half(max(1, size // share))) for share in (1, 2, 4))
    order = np.argsort(parts.nodes, kind="stable")
    degree = len(parts.polynomials) - 1
    sampling = Sampling(
        polynomials=parts.polynomials[:, order],
        fit=parts.fit[order],
        spread=parts.spread[order],
        covariance=weighting.covariance()[: degree + 1, : degree + 1],
        earlier=(_rule(earlier[0].nodes, earlier[0].weights, dim), _rule(earlier[1].nodes, earlier[1].weights, dim)),
        last=_rule(*weighting.last(), dim),
        eps=eps,
        noise=noise,
        repeated=repeated,
        num_steps=num_steps,
    )
    return _rule(parts.nodes, parts.weights, dim), sampling


def _rule(nodes: FloatArray, weights: FloatArray, dim: int) -> QuadratureRule:
    order = np.argsort(nodes, kind="stable")
    return QuadratureRule(nodes[order], weights[order], dim)
