r"""One set of weights from one deep and many shallow Lanczos runs: the last step of `estimate_spectrum`.

The eigenvalues are those that the deep run has found, counted once each, and ``d`` others. On these the deep run's
start vector gives Gauss rules ``(x_i, w_i)``; rules of the last half of the steps are averaged with weights ``sin²``,
since their errors at the cusp alternate. A probe is one random vector, so each ``w_i`` is noisy. The shallow probes
measure the moments of a few polynomials much better, and the rule is calibrated with them:

    weight_i = d·[w_i + g_i Σ_j s_j (c_j − Σ_i w_i p_j(x_i)) p_j(x_i)] ,      s_j = K_j/(K_j + ρ)

``g`` is a guess of the spectrum, the rule itself with at least one eigenvalue per node; ``p_j`` are its orthonormal
polynomials (in those of the noisy rule, an eigenvalue of tiny weight would dominate). ``c_j = tr p_j(A)/d`` is exact
on the deep run's space, and outside it the mean of the ``K_j`` probes that reach degree ``j``; ``ρ`` is the ratio of
its variance to that of probes without this split. Negative weights are set to 0.

*Repeated eigenvalues* are noticed and treated by `renyi_lab.spectrum._repeated`: then nothing is counted, the same
formula applies to all ``n`` eigenvalues, and weights may be negative.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from renyi_lab._utils.typing import FloatArray
from renyi_lab.krylov import JacobiMatrix, ShallowProbes, jacobi_matrix
from renyi_lab.spectrum._deep_shallow import Deep
from renyi_lab.spectrum._errors import Sampling
from renyi_lab.spectrum._repeated import guess_copies, own_jacobi, shows_repeated
from renyi_lab.spectrum._rule import QuadratureRule

# Rules that are averaged; from twice as many on, every third, fifth, …: an odd stride keeps alternating errors
# alternating.
MOST_RULES = 64
# A measure on fewer points is known exactly, and nothing is averaged. Heuristic: with more, the average is as good, and
# its many nodes make a smoother guess.
FEW_NODES = 16
# A polynomial whose mean square is larger on the shallow probes than in the guess, where it is 1, is not used: between
# the nodes of the guess it is large. The lowest degrees are kept, since repeated eigenvalues show in them.
LARGE_SQUARES, LOW_DEGREE = 10.0, 2
SMALL_SAMPLE = 2.0  # Heuristic: inflates a covariance that few probes estimate.
LEAST_RATIO, LARGEST_RATIO = 0.2, 1.5  # of ρ. Heuristic: few probes estimate it, and 1 is the value without the split.


@dataclass(frozen=True, eq=False)
class Population:
    """The eigenvalues that are counted, and what is known about the ``size`` others.

    Attributes:
        counted: Eigenvalues of weight 1.
        jacobi: Jacobi matrix of the deep run's start vector on the others.
        size: Number of the others.
        guess: Nodes and masses, with sum 1, of a guess of the others; ``None``: the averaged rule itself.
    """

    counted: FloatArray
    jacobi: JacobiMatrix
    size: int
    guess: tuple[FloatArray, FloatArray] | None = None

    @cached_property
    def averaged(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """`averaged_rule` up to all steps."""
        return averaged_rule(self.jacobi, 1, self.size)

    def rule(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Nodes, shares of the averaged rule, and masses of the guess."""
        nodes, shares, mass = self.averaged
        if self.guess is None:
            return nodes, shares, mass
        others, guessed = self.guess
        return np.append(others, nodes), np.append(0 * guessed, shares), np.append(guessed, 0 * mass)


@dataclass(frozen=True, eq=False)
class Calibration:
    """Moments of a population, in the orthonormal polynomials of its guess.

    Attributes:
        basis: Jacobi matrix of the guess.
        correction: ``s_j`` times how much the deep run's moment is too small, ``(degree+1,)``.
        shrink: ``s_j``, ``(degree+1,)``.
        covariance: Covariance of the totals ``s_j tr p_j(A)``, ``(degree+1, degree+1)``.
        excess: Mean square of the standardized moments.
    """

    basis: JacobiMatrix
    correction: FloatArray
    shrink: FloatArray
    covariance: FloatArray
    excess: float


def weigh(deep: Deep, shallow: ShallowProbes | None) -> tuple[QuadratureRule, Sampling]:
    """The spectrum and the model of its errors from the two kinds of runs.

    Args:
        deep: What the deep run knows.
        shallow: The shallow runs; ``None`` for budgets that are too small for them.
    """
    if deep.rest is not None:
        noise = float(np.abs(deep.rest.gauss_rule(len(deep.rest))[0]).max())
        rounding = noise <= deep.negligible
        rest = JacobiMatrix(np.zeros(1), np.zeros(1)) if rounding else deep.rest
        simple = Population(deep.eigenvalues, rest, deep.dim - len(deep.eigenvalues))
        calibration = _calibrate(simple, deep, None if rounding else shallow)
        if not shows_repeated(deep, rest, shallow, calibration.excess):
            return _assemble(simple, calibration, deep, noise=noise if rounding else 0.0)
    assert shallow is not None  # without shallow runs nothing counts as found
    repeated = Population(np.zeros(0), own_jacobi(deep), deep.dim, guess_copies(deep))
    return _assemble(repeated, _calibrate(repeated, deep, shallow), deep, repeated=True)


def averaged_rule(jacobi: JacobiMatrix, share: int, size: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Gauss rules of the last half of ``len(jacobi)/share`` steps as one: nodes, shares, and the guess they give."""
    few = jacobi.exhausted and len(jacobi) < FEW_NODES
    steps = [len(jacobi)] if few else last_half(max(1, len(jacobi) // share))
    taper = np.sin(np.pi * (np.arange(len(steps)) + 0.5) / len(steps)) ** 2
    rules = [jacobi.gauss_rule(step) for step in steps]
    taper /= taper.sum()
    guesses = [np.maximum(weights, 1 / size) for _, weights in rules]
    return (
        np.concatenate([nodes for nodes, _ in rules]),
        np.concatenate([part * weights for part, (_, weights) in zip(taper, rules, strict=True)]),
        np.concatenate([part * guess / guess.sum() for part, guess in zip(taper, guesses, strict=True)]),
    )


def last_half(num_steps: int) -> list[int]:
    """Numbers of steps in ``(num_steps/2, num_steps]``, fewer than 128 of them."""
    count = max(1, num_steps // 2)
    stride = 1 + 2 * (count // (2 * MOST_RULES))
    return list(range(num_steps, num_steps - count, -stride))[::-1]


def _calibrate(population: Population, deep: Deep, shallow: ShallowProbes | None) -> Calibration:
    if shallow is None:
        one = np.ones(1)
        return Calibration(population.jacobi, 0 * one, one, np.zeros((1, 1)), 0.0)
    nodes, shares, mass = population.rule()
    reached = shallow.counts()
    in_guess = mass > 0
    basis, degree = _orthonormal(nodes[in_guess], mass[in_guess], len(reached) - 1)
    sizes = np.nanmean(shallow.moments(basis, degree, power=2), axis=0)
    fitting = np.cumprod((sizes <= LARGE_SQUARES) | (np.arange(degree + 1) <= LOW_DEGREE))
    degree = int(fitting.sum()) - 1
    reached = reached[: degree + 1]
    fresh = shallow.moments(basis, degree)
    known, num_known = _known_traces(population, deep, shallow.depth, basis, degree)
    others = population.size - num_known
    total = known + others * np.nanmean(fresh, axis=0)
    gap = total / population.size - basis.polynomials(degree, nodes) @ shares
    covariance = others**2 * _covariance_of_means(fresh, reached)
    variance = sphere_variance(population.size)
    standardized = (gap[1:] * population.size) ** 2 / (variance * (1 + 1 / reached[1:]))
    excess = float(standardized.mean()) if degree else 0.0
    if population.guess is not None:
        return Calibration(basis, gap, np.ones(degree + 1), SMALL_SAMPLE * covariance, excess)
    ratios = np.diag(covariance)[1:] * reached[1:] / variance
    ratio = np.clip(np.maximum(ratios, ratios.mean() if degree else 1.0), LEAST_RATIO, LARGEST_RATIO)
    shrink = np.append(1.0, reached[1:] / (reached[1:] + ratio))
    variances = np.append(0.0, shrink[1:] ** 2 * ratio * variance / reached[1:])
    return Calibration(basis, shrink * gap, shrink, np.diag(variances), excess)


def _orthonormal(nodes: FloatArray, mass: FloatArray, degree: int) -> tuple[JacobiMatrix, int]:
    """Jacobi matrix of a discrete measure, and the highest degree up to which the recurrence is stable on it."""
    basis, _ = jacobi_matrix(nodes, np.sqrt(mass), min(len(nodes), degree + 1), np.zeros((0, len(nodes))))
    degree = min(degree, len(basis) - 1)
    values = basis.polynomials(degree, nodes)
    errors = np.abs((values * mass) @ values.T - np.eye(degree + 1))
    stable = [errors[: j + 1, : j + 1].max() < 1e-6 for j in range(degree + 1)]
    return basis, int(np.cumprod(stable).sum()) - 1


def _known_traces(
    population: Population, deep: Deep, depth: int, basis: JacobiMatrix, degree: int
) -> tuple[FloatArray, int]:
    """``tr p_j`` on the deep run's space as far as it is known exactly and not counted, and that space's dimension."""
    uncounted = deep.eigenvalues if len(population.counted) == 0 else np.zeros(0)
    traces = basis.polynomials(degree, uncounted).sum(axis=1)
    num_rest = deep.num_known(depth)
    if deep.rest is not None and num_rest:
        nodes, vectors = deep.rest.extended().eigenpairs()
        traces = traces + basis.polynomials(degree, nodes) @ (vectors[:num_rest] ** 2).sum(axis=0)
    return traces, len(uncounted) + num_rest


def _covariance_of_means(moments: FloatArray, reached: NDArray[np.intp]) -> FloatArray:
    """Covariance of the columns' means, each over the first ``reached`` rows."""
    covariance = np.zeros((len(reached), len(reached)))
    for i in range(len(reached)):
        for j in range(len(reached)):
            few, many = sorted((reached[i], reached[j]))
            covariance[i, j] = np.cov(moments[:few, i], moments[:few, j])[0, 1] / many
    return covariance


def sphere_variance(size: int) -> float:
    """``Var(size·uᵀφu) / mean φ²`` of a probe ``u`` uniform on the sphere, where ``Σφ = 0``."""
    return 2 * size**2 / (size + 2)


def _assemble(
    population: Population, calibration: Calibration, deep: Deep, *, noise: float = 0.0, repeated: bool = False
) -> tuple[QuadratureRule, Sampling]:
    nodes, shares, mass = population.rule()
    order = np.argsort(nodes, kind="stable")
    nodes, shares, mass = nodes[order], shares[order], mass[order]
    polynomials = calibration.basis.polynomials(len(calibration.correction) - 1, nodes)
    corrections = population.size * mass * (calibration.correction @ polynomials)
    weights = population.size * shares + corrections
    if not repeated:
        weights = np.maximum(weights, 0.0)
        weights *= population.size / weights.sum()
    counted = population.counted

    averages = [population.averaged]
    averages += [averaged_rule(population.jacobi, share, population.size) for share in (2, 4, 8)]
    uncalibrated = [(x, population.size * w) for x, w, _ in averages]
    levels = [_rule(counted, np.append(nodes, x), np.append(corrections, w), deep.dim) for x, w in uncalibrated]
    where = np.searchsorted(nodes, counted)
    last, last_shares = population.jacobi.gauss_rule(len(population.jacobi))
    sampling = Sampling(
        polynomials=np.insert(polynomials, where, 0.0, axis=1),
        fit=np.insert(mass, where, 0.0),
        shrink=calibration.shrink,
        spread=np.insert(sphere_variance(population.size) * mass, where, 0.0),
        covariance=calibration.covariance,
        levels=tuple(levels),
        half=_rule(counted, *uncalibrated[1], deep.dim),
        last=_rule(counted, last, population.size * last_shares, deep.dim),
        eps=deep.eps,
        noise=noise,
        repeated=repeated,
        num_steps=deep.run.num_steps,
        top_error=deep.top_error(),
    )
    return _rule(counted, nodes, weights, deep.dim), sampling


def _rule(counted: FloatArray, nodes: FloatArray, weights: FloatArray, dim: int) -> QuadratureRule:
    """The counted eigenvalues and the nodes, ascending."""
    x, w = np.append(counted, nodes), np.append(np.ones(len(counted)), weights)
    order = np.argsort(x, kind="stable")
    return QuadratureRule(x[order], w[order], dim)
