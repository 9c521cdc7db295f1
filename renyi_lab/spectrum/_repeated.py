"""Repeated eigenvalues: how an estimate notices them, and the guess of the spectrum that it uses then.

One run sees each eigenspace through one vector, and counting it once is wrong if it has more dimensions. It shows in
moments that are too large for simple eigenvalues, in Ritz values of fresh probes where the deep run has none, in a
start vector that is inside the eigenspaces found, or in components along these that are too large. The guess then holds
the eigenvalues found with a common number of copies.
"""

from __future__ import annotations

import numpy as np

from renyi_lab._utils.typing import FloatArray
from renyi_lab.krylov import JacobiMatrix, ShallowProbes
from renyi_lab.spectrum._deep_shallow import Deep

# Heuristics for repeated eigenvalues: mean square of the standardized moments (1 on average if all are simple), and how
# far Ritz values of fresh probes may lie outside the deep run's interval, relative to its length.
LARGE_MOMENTS, MARGIN = 16.0, 0.1
# Probability below which a start vector is not one of simple eigenvalues. Heuristic: the smallest over a thousand runs
# on simple spectra was 1e-5; with ten copies of each eigenvalue it is mostly below 1e-10.
UNLIKELY = 1e-8


def shows_repeated(deep: Deep, rest: JacobiMatrix, shallow: ShallowProbes | None, excess: float) -> bool:
    """Whether some eigenvalues occur more often than the deep run has counted them.

    Args:
        deep: What the deep run knows.
        rest: The measure of the eigenvalues that are not counted.
        shallow: The shallow runs; ``None``: too few products for them, and nothing is counted.
        excess: Mean square of the standardized moments.
    """
    if excess > LARGE_MOMENTS or _found_is_heavy(deep):
        return True
    return shallow is not None and _finds_more(rest, shallow, deep.negligible)


def _finds_more(rest: JacobiMatrix, shallow: ShallowProbes, negligible: float) -> bool:
    """Whether the shallow probes have Ritz values where the deep run has none left."""
    nodes, _ = rest.gauss_rule(len(rest))
    low, high = min(nodes[0], 0.0), max(nodes[-1], 0.0)
    margin = MARGIN * (high - low) + negligible
    smallest, largest = shallow.ritz_interval()
    return bool(smallest < low - margin or largest > high + margin)


def _found_is_heavy(deep: Deep) -> bool:
    """Whether neighbours among the eigenvalues found have more of the start vector than as many simple ones can.

    Its squared components along ``k`` eigenvectors sum to χ² with ``k`` degrees of freedom, over ``n``.
    """
    from scipy.special import gammaincc

    totals = np.append(0.0, np.cumsum(deep.dim * deep.run.weights[deep.found]))
    first, last = np.triu_indices(len(totals), 1)
    probabilities = gammaincc((last - first) / 2, (totals[last] - totals[first]) / 2)
    return bool(np.any(probabilities < UNLIKELY))


def own_jacobi(deep: Deep) -> JacobiMatrix:
    """That of the whole start vector, up to where the run went on in a new direction."""
    run = deep.run
    return JacobiMatrix(run.diagonal, run.off_diagonal).coupled()


def guess_copies(deep: Deep) -> tuple[FloatArray, FloatArray]:
    """The eigenvalues found with a common number of copies, as their weight in the run suggests, and the others."""
    num_found = len(deep.eigenvalues)
    copies = max(1.0, deep.dim * float(deep.run.weights[deep.found].sum()) / max(num_found, 1))
    nodes, mass = deep.eigenvalues, np.full(num_found, copies)
    if deep.rest is not None:
        others, weights = deep.rest.gauss_rule(len(deep.rest))
        left = max(deep.dim - num_found * copies, 0.1 * deep.dim)
        nodes, mass = np.append(nodes, others), np.append(mass, np.maximum(left * weights, 1.0))
    return nodes, mass / mass.sum()
