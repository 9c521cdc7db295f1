"""Many short Lanczos runs at once, from independent random probes: their products are made in batches.

Probes of very long vectors run in groups, so that all of them need not be in memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from renyi_lab._utils.fields import check_fields
from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_instance, check_int, check_tensor, is_iterable, shown
from renyi_lab.krylov._basis import Subspace, orthogonal_to
from renyi_lab.krylov._jacobi import JacobiMatrix
from renyi_lab.krylov._lanczos import accumulator, check_product, gaussian_rows
from renyi_lab.operators import LinearOperator

# Entries of the probes of one group, of which about twice as many vectors as steps are in memory (heuristic: models of
# up to 700,000 parameters have one group of the usual 23), and those held in double precision at a time, 32 MB.
_ENTRIES, _WIDE_ENTRIES = 2**24, 2**22


@dataclass(frozen=True, eq=False)
class ShallowProbes:
    """Result of `shallow_probes`: for each probe the Jacobi matrix of its short run.

    Attributes:
        runs: One `JacobiMatrix` per probe, those with more steps first.
    """

    runs: tuple[JacobiMatrix, ...]

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.runs:
            raise ValueError("runs must hold the Jacobi matrix of at least one probe.")

    @property
    def depth(self) -> int:
        """Largest number of steps."""
        return max(map(len, self.runs))

    def counts(self) -> NDArray[np.intp]:
        """Number of probes whose runs are exact to degree ``j``, for ``j = 0, 1, …, 2·depth``."""
        lengths = np.array([len(run) for run in self.runs])
        return np.asarray((2 * lengths[:, None] >= np.arange(2 * self.depth + 1)).sum(axis=0))

    def moments(self, measure: JacobiMatrix, degree: int, power: int = 1) -> FloatArray:
        """``uᵀ p_j(A)^power u`` of each probe ``u`` for ``j`` up to twice its steps; NaN beyond.

        Args:
            measure: Its orthonormal polynomials are the ``p_j``.
            degree: Highest ``j``.
            power: 1: exact; 2: approximate where ``j`` exceeds the number of steps.

        Returns:
            One row per probe, ``(probes, degree+1)``.

        Raises:
            TypeError: ``measure`` is not a `JacobiMatrix`.
            ValueError: A degree or power out of range.
        """
        check_instance("measure", measure, JacobiMatrix)
        check_int("degree", degree, 0, len(measure))
        check_int("power", power, 1, 2)
        moments = np.full((len(self.runs), degree + 1), np.nan)
        for row, run in zip(moments, self.runs, strict=True):
            nodes, weights = run.extended().gauss_rule(len(run) + 1)
            reached = min(degree, 2 * len(run)) + 1
            row[:reached] = (measure.polynomials(degree, nodes) ** power @ weights)[:reached]
        return moments

    def ritz_interval(self) -> tuple[float, float]:
        """The smallest and the largest Ritz value of all probes."""
        values = np.concatenate([run.gauss_rule(len(run))[0] for run in self.runs])
        return float(values.min()), float(values.max())


def shallow_probes(
    operator: LinearOperator,
    counts: Sequence[int],
    kept_out: Tensor | Subspace | None,
    num_eigenvectors: int,
    generator: torch.Generator,
    on_products: Callable[[int], object] = lambda count: None,
) -> ShallowProbes:
    """Lanczos runs of a few steps from independent probes, uniform on the sphere in the complement of some rows.

    Args:
        operator: Symmetric operator with ``n`` rows.
        counts: ``counts[j]`` probes make step ``j + 1``, not increasing; their sum is the number of products.
        kept_out: Orthonormal rows ``(k, n)``, or a `Subspace`; the probes are orthogonal to it. ``None``: nothing.
        num_eigenvectors: That many first rows are eigenvectors: the runs are kept orthogonal to them, so that they do
            not grow back out of rounding errors.
        generator: Random numbers for the probes.
        on_products: Called after each step with the number of its products.

    Raises:
        TypeError: An argument of another type.
        ValueError: A product that is not finite, counts that increase, or rows of another length.
    """
    check_instance("operator", operator, LinearOperator, "such as as_operator(matrix)")
    check_instance("generator", generator, torch.Generator, "such as torch.Generator().manual_seed(0)")
    counts = _checked_counts(counts)
    check_int("num_eigenvectors", num_eigenvectors, 0)
    if not callable(on_products):
        raise TypeError(f"on_products must be a function of a number, got {shown(on_products)}.")
    if isinstance(kept_out, Tensor):
        rows = check_tensor("kept_out", kept_out, operator.device)
        if rows.ndim != 2 or rows.shape[1] != operator.dim or rows.dtype != operator.dtype:
            raise ValueError(
                f"kept_out must be rows (k, {operator.dim}) of {operator.dtype}, got {tuple(rows.shape)} {rows.dtype}."
            )
    elif kept_out is not None:
        check_instance("kept_out", kept_out, Subspace, "or rows as a tensor, or None")
    size = max(1, _ENTRIES // operator.dim)
    known = [] if kept_out is None else [kept_out]
    eigenvectors = [] if kept_out is None else [_leading(kept_out, num_eigenvectors)]
    runs: list[JacobiMatrix] = []
    for first in range(0, counts[0], size):
        group = [min(count - first, size) for count in counts if count > first]
        probes = orthogonal_to(gaussian_rows(operator, group[0], generator), *known)
        runs += _run(operator, probes / probes.norm(dim=1, keepdim=True), group, eigenvectors, on_products)
    return ShallowProbes(tuple(runs))


def _checked_counts(counts: Any) -> list[int]:
    """The numbers of probes of all steps."""
    if not is_iterable(counts) or isinstance(counts, str):
        raise TypeError(f"counts must be a sequence of integers, got {shown(counts)}.")
    found = [check_int("each of counts", count) for count in counts]
    if not found or any(after > before for before, after in itertools.pairwise(found)):
        raise ValueError(f"counts must hold at least one number and not increase, got {found}.")
    return found


def _leading(rows: Tensor | Subspace, count: int) -> Tensor | Subspace:
    return rows[:count] if isinstance(rows, Tensor) else rows.leading(count)


def _run(
    operator: LinearOperator,
    rows: Tensor,
    counts: Sequence[int],
    eigenvectors: Sequence[Tensor | Subspace],
    on_products: Callable[[int], object],
) -> list[JacobiMatrix]:
    """The runs of one group of probes, given as unit rows."""
    diagonal, off_diagonal = np.zeros((2, counts[0], len(counts)))
    own: list[Tensor] = []  # the Lanczos vectors of all probes, one tensor per step
    for step, count in enumerate(counts):
        own = [vectors[:count] for vectors in [*own, rows]]
        products = (operator @ own[-1].T).T
        size, forms = _dots(products, products).sum().sqrt(), _dots(own[-1], products)
        for _ in range(2):
            products = orthogonal_to(products, *eigenvectors)
            for vectors in own:
                products = products - _dots(vectors, products).to(products)[:, None] * vectors
        norms = _dots(products, products).sqrt()
        numbers = torch.cat([size[None], forms, norms]).cpu().numpy()  # the host waits once
        check_product(float(numbers[0]))
        diagonal[:count, step], off_diagonal[:count, step] = numbers[1 : count + 1], numbers[count + 1 :]
        rows = products / norms.clamp_min(torch.finfo(products.dtype).tiny).to(products)[:, None]
        on_products(count)
    steps = (np.arange(counts[0])[:, None] < np.asarray(counts)).sum(axis=1)
    return [JacobiMatrix(a[:size], b[:size]) for a, b, size in zip(diagonal, off_diagonal, steps, strict=True)]


def _dots(rows: Tensor, others: Tensor) -> Tensor:
    """Inner products of the rows; a part of the columns at a time is held in the wider precision."""
    wide, width = accumulator(rows), max(1, _WIDE_ENTRIES // len(rows))
    pairs = zip(rows.split(width, dim=1), others.split(width, dim=1), strict=True)
    parts = [(one.to(wide) * other.to(wide)).sum(dim=1) for one, other in pairs]
    return torch.stack(parts).sum(dim=0)
