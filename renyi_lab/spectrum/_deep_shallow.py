from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
import torch

from renyi_lab._utils.typing import FloatArray
from renyi_lab.krylov import CONVERGED, JacobiMatrix, ShallowProbes, Tridiagonal, jacobi_matrix
from renyi_lab.spectrum._errors import NEGLIGIBLE, Sampling
from renyi_lab.spectrum._rule import QuadratureRule

SHALLOW_SHARE = 0.25  # of the budget. Heuristic: with half of it, errors at α ≤ 1 grew by up to a half.
FEWEST_PROBES = 6  # per step. Heuristic: fewer calibrate a moment hardly better than the deep run itself.
FEWEST_REST = 8  # Ritz pairs of the deep run that are never counted, so that there is a measure of the rest.
# Heuristics for repeated eigenvalues: mean square of the standardized moments (1 if all are simple), and how far Ritz
# values of fresh probes may lie outside the deep run's interval, relative to its length.
LARGE_MOMENTS, MARGIN = 16.0, 0.1
# Relative to what is expected: the deep probe then is inside the eigenspaces that it found.
NOTHING_LEFT = 1e-6
SMALL_SAMPLE = 1.2  # Heuristic: inflates a covariance that few probes estimate.
CLIP = True


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


@dataclass(frozen=True, eq=False)
class Deep:
    """What the deep run tells: eigenvalues found, and the measure of its start vector on the others.

    Attributes:
        run: Lanczos run.
        found: Which Ritz pairs count as eigenpairs.
        rest: Jacobi matrix of the start vector's part outside these pairs; ``None`` where nothing of it is left.
        rows: Coefficients of the found pairs and of the basis of ``rest`` in the Lanczos basis, orthonormal rows.
        negligible: Absolute size of eigenvalues that are rounding errors.
    """

    run: Tridiagonal
    found: NDArray[np.bool_]
    rest: JacobiMatrix | None
    rows: FloatArray
    eps: float

    @property
    def negligible(self) -> float:
        return NEGLIGIBLE * self.eps * float(np.abs(self.run.ritz_values).max())

    @property
    def eigenvalues(self) -> FloatArray:
        return self.run.ritz_values[self.found]


def split_deep(run: Tridiagonal, eps: float, dim: int, count: bool = True) -> Deep:
    size = np.abs(run.ritz_values)
    negligible = NEGLIGIBLE * eps * size.max()
    found = (run.residuals <= CONVERGED * size) & (size > negligible)
    if not count:
        found[:] = False
    excess = int(found.sum()) - (run.num_steps - FEWEST_REST)
    if excess > 0 and np.any(size[~found] > negligible):
        found[np.flatnonzero(found)[np.argsort(size[found])[:excess]]] = False
    vectors = run.eigenvectors[:, found].T
    start = np.zeros(run.num_steps)
    start[0] = 1.0
    rest = start - vectors.T @ vectors[:, 0]
    rest -= vectors.T @ (vectors @ rest)
    if rest @ rest < NOTHING_LEFT * (1 - len(vectors) / dim):
        return Deep(run, found, None, vectors, eps)
    jacobi, rows = jacobi_matrix(run.matrix(), rest, run.num_steps - len(vectors), vectors, 1e-3 * negligible)
    return Deep(run, found, jacobi, rows, eps)


@dataclass(frozen=True, eq=False)
class Parts:
    nodes: FloatArray
    weights: FloatArray
    guess: FloatArray
    polynomials: FloatArray


@dataclass(frozen=True, eq=False)
class Weighting:
    counted: FloatArray
    measure: JacobiMatrix
    size: int
    where: tuple[FloatArray,FloatArray]|None
    basis: JacobiMatrix
    correction: FloatArray
    clip: bool

    def at(self, steps: Sequence[int]) -> Parts:
        nodes, shares, guess = guessed_rule(self.measure, steps, self.size)
        if self.where is not None:
            where, mass = self.where
            nodes,shares,guess=np.append(where,nodes),np.append(0*mass,shares),np.append(mass,0*guess)
        polynomials = self.basis.polynomials(len(self.correction) - 1, nodes)
        weights = shares + guess * (self.correction @ polynomials)
        if self.clip:
            weights = np.maximum(weights, 0.0)
        none = np.zeros(len(self.counted))
        return Parts(
            np.append(self.counted, nodes),
            np.append(none + 1, self.size * weights / weights.sum()),
            np.append(none, guess),
            np.hstack([np.zeros((len(polynomials), len(none))), polynomials]),
        )


def guessed_rule(measure, steps, size):
    taper = np.sin(np.pi * (np.arange(len(steps)) + 0.5) / len(steps)) ** 2
    nodes, shares, guesses = [], [], []
    for share, step in zip(taper / taper.sum(), steps, strict=True):
        x, w = measure.gauss_rule(step)
        guess = np.maximum(w, 1 / size)
        nodes.append(x)
        shares.append(share * w)
        guesses.append(share * guess / guess.sum())
    return np.concatenate(nodes), np.concatenate(shares), np.concatenate(guesses)


MOST_RULES=64
def last_half(num_steps: int) -> list[int]:
    count = max(1, num_steps // 2)
    stride = 1 + 2 * (count // (2 * MOST_RULES))
    return list(range(num_steps, num_steps - count, -stride))[::-1]


def _variance(size: int) -> float:
    """``Var(size·uᵀφu) / mean φ²`` of a probe ``u`` uniform on the sphere, for ``Σφ = 0``."""
    return 2 * size**2 / (size + 2)


def krylov_trace(measure: JacobiMatrix, kept: int, basis: JacobiMatrix, degree: int) -> FloatArray:
    """``Σ_{i≤kept} (p_j(J))_ii``"""
    if kept<=0: return np.zeros(degree+1)
    a=np.append(measure.diagonal,measure.diagonal[-1]); b=measure.off_diagonal
    x,V=np.linalg.eigh(np.diag(a)+np.diag(b,1)+np.diag(b,-1))
    return (V[:kept]**2@basis.polynomials(degree,x).T).sum(0)


def weigh(deep: Deep, shallow: ShallowProbes | None, dim: int, kept:int) -> tuple[QuadratureRule, Sampling]:
    steps=deep.run.num_steps
    simple = None
    if deep.rest is not None:
        size=dim-len(deep.eigenvalues)
        simple,cov,excess = _weighting(deep.eigenvalues, deep.rest, size, None, deep.rest, 0, shallow, deep.negligible, kept)
        if shallow is None or not (excess > LARGE_MOMENTS or _outside(deep,shallow)):
            nodes=deep.rest.gauss_rule(len(deep.rest))[0]
            noise = float(np.abs(nodes).max())
            if noise > deep.negligible:
                return _assemble(simple, cov, steps, dim, deep.eps)
            zero = JacobiMatrix(np.zeros(1), np.zeros(1))
            simple,cov,_=_weighting(deep.eigenvalues, zero, size, None, zero,0, None, deep.negligible,0)
            return _assemble(simple, cov, steps, dim, deep.eps, noise=noise)
    run = deep.run
    k=len(deep.eigenvalues)
    copies = max(1.0, dim * float(run.weights[deep.found].sum()) / max(k, 1))
    end = int((run.off_diagonal[:-1] > 1e-3 * deep.negligible).cumprod().sum()) + 1
    raw = JacobiMatrix(run.diagonal[:end], run.off_diagonal[:end])
    where, mass = deep.eigenvalues, np.full(k, copies)
    if deep.rest is not None:
        x, w = deep.rest.gauss_rule(len(deep.rest))
        where = np.append(where, x)
        mass = np.append(mass, np.maximum(w * max(dim - k * copies, 0.1 * dim), 1.0))
    w,cov,_=_weighting(np.zeros(0), raw, dim, (where, mass/mass.sum()), deep.rest, k, shallow, deep.negligible, kept)
    return _assemble(w, cov, steps, dim, deep.eps, repeated=True)


def _outside(deep, shallow):
    nodes,_=deep.rest.gauss_rule(len(deep.rest))
    low, high = min(nodes[0], 0.0), max(nodes[-1], 0.0)
    margin = MARGIN * (high - low) + deep.negligible
    smallest, largest = shallow.ritz_interval()
    return smallest < low - margin or largest > high + margin

def _weighting(counted, measure, size, where, rest, found, shallow, negligible, kept):
    if shallow is None:
        w=Weighting(counted, measure, size, where, measure, np.zeros(1), CLIP)
        return w, np.zeros((1,1)), 0.0
    if where is None: nodes,_,guess=guessed_rule(measure, last_half(len(measure)), size)
    else: nodes,guess=where
    counts=shallow.counts()
    basis,_=jacobi_matrix(nodes, np.sqrt(guess), min(len(nodes),len(counts)+1), np.zeros((0,len(nodes))), 0.0)
    degree=min(len(counts)-1, basis.highest_degree(negligible))
    P=basis.polynomials(degree,nodes)
    G=np.abs((P*guess)@P.T/guess.sum()-np.eye(degree+1))
    ok=[(G[:q+1,:q+1].max()<1e-6) for q in range(degree+1)]
    degree=max(q for q in range(degree+1) if ok[q])
    counts=counts[:degree+1]
    known_trace=basis.polynomials(degree, where[0][:found]).sum(1) if found else 0.0
    if rest is not None: known_trace = known_trace + krylov_trace(rest, kept, basis, degree)
    fresh=shallow.moments(basis, degree)
    means=np.nanmean(fresh,0)
    others=size-found-max(kept,0)
    total=(known_trace+others*means)/size
    x,w=measure.gauss_rule(len(measure))
    gap=total-basis.polynomials(degree,x)@w
    K=counts.astype(float)
    # covariance of totals
    C=np.zeros((degree+1,degree+1))
    for i in range(degree+1):
        for j in range(degree+1):
            few,many=sorted((counts[i],counts[j]))
            C[i,j]=others**2*np.cov(fresh[:few,i],fresh[:few,j])[0,1]/many
    v=_variance(size)
    excess=float(np.mean((gap[1:]*size)**2/(v*(1+1/K[1:])))) if degree else 0.0
    if where is not None:
        cov=SMALL_SAMPLE*C; s=np.ones(degree+1)
    else:
        rho=np.clip(np.mean(np.diag(C)[1:]*K[1:]/v),.2,1.5) if degree else 1.0
        s=K/(K+rho)
        cov=np.diag(s**2*rho*v/K)   # deep part handled by residual with s
        s[0]=0; cov[0]=0
    w=Weighting(counted, measure, size, where, basis, s*gap, CLIP and where is None)
    w.__dict__['s']=s
    return w, cov, excess


def _assemble(weighting, cov, num_steps: int, dim: int, eps: float, *, noise: float = 0.0, repeated: bool = False):
    size = len(weighting.measure)
    parts, *earlier = (weighting.at(last_half(max(1, size // share))) for share in (1, 2, 4))
    order = np.argsort(parts.nodes, kind="stable")
    x,w=weighting.measure.gauss_rule(size)
    spread=_variance(weighting.size)*parts.guess
    sampling = Sampling(
        polynomials=parts.polynomials[:, order],
        fit=parts.guess[order],
        spread=spread[order],
        covariance=cov,
        shrink=weighting.__dict__.get('s',np.ones(len(parts.polynomials))),
        earlier=(_rule(earlier[0].nodes, earlier[0].weights, dim), _rule(earlier[1].nodes, earlier[1].weights, dim)),
        last=_rule(np.append(weighting.counted,x),np.append(np.ones(len(weighting.counted)),weighting.size*w),dim),
        eps=eps,
        noise=noise,
        repeated=repeated,
        num_steps=num_steps,
    )
    return _rule(parts.nodes, parts.weights, dim), sampling


def _rule(nodes: FloatArray, weights: FloatArray, dim: int) -> QuadratureRule:
    order = np.argsort(nodes, kind="stable")
    return QuadratureRule(nodes[order], weights[order], dim)
