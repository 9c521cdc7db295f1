r"""The rescaled Hessian ``D⁻¹ H D⁻¹`` of a larger network, from a matrix of a few hundred rows that is made once.

*Reduction.* ``D`` is constant on each group of rows, so for an orthonormal basis ``V`` whose columns each lie in one
group ``D⁻¹ V = V C⁻¹`` with a diagonal ``C``, and ``C⁻¹ (Vᵀ H V) C⁻¹`` has the Ritz values of the rescaled Hessian for
*every* choice of scales. ``V`` contains, cut into groups, the leading eigenvectors of ``H`` and of each layer's block,
and random probes ``z`` with ``H² z`` and ``H z``, the latter separately for the part of ``z`` in the layer itself and
in all others.

*Quadrature.* Ritz pairs whose residual shows that they are eigenvectors count once. The others share the remaining
dimensions in proportion to ``Σ_z (uᵀz)²``, which makes ``Σ w f(θ)`` an estimate of ``tr f``.

*Entropy.* The quadrature has few nodes per probe, so its entropies are off, by some hundredths of a nat at
``α = 1.5``, and by one or two tenths at ``α = 0.5``. Only the *change* of the entropy is taken from it and added to an
`estimate_spectrum` of ``H``. The standard error contains that of the estimate, the jackknife over the probes, and, at
full size from a scale of 2 on, the offset between both at the initial scales.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from renyi_lab._utils.estimate import Estimate
from renyi_lab._utils.exclusive import exclusive
from renyi_lab._utils.progress import progress_bar
from renyi_lab._utils.typing import FloatArray
from renyi_lab.krylov import lanczos
from renyi_lab.operators import LinearOperator
from renyi_lab.spectrum import QuadratureRule, Spectrum, estimate_spectrum, weighted_renyi_entropy

# Heuristics, tried on the course's network, all 2,698 eigenvalues known: the largest eigenvalues are right to 1e-3.
_WEIGHT_COLUMNS, _BIAS_COLUMNS = 320, 80
_MOST_PER_GROUP, _FEWEST_PER_GROUP = 81, 16
_NUM_MATVECS = 200  # of each estimated spectrum, the default of estimate_spectrum
# Ritz pairs with a smaller relative residual count as eigenpairs. Heuristic: their values are right to a percent.
_CONVERGED = 0.1
_INDEPENDENT = 1e-6  # smaller singular values of a group's columns are rounding errors
# Heuristic: the offset may vanish by chance at one order; it falls faster than this with alpha.
_OFFSET_STEP, _OFFSET_SHARE = 0.5, 1 / 3


class ReducedHessian:
    """Spectra of a rescaled Hessian with more rows than can be diagonalised at every move.

    Args:
        operator: The Hessian ``H``.
        exponents: ``E`` in ``log d = E log c``, ``(n, layers)``.
        blocks: Rows of each layer's weights.
        seed: Random seed for the probes.

    Raises:
        ValueError: There are more layers than a reduced matrix of 400 rows can represent, or ``H`` is zero.
    """

    is_exact = False

    def __init__(
        self, operator: LinearOperator, exponents: FloatArray, blocks: Mapping[str, NDArray[np.int64]], seed: int = 0
    ) -> None:
        if _WEIGHT_COLUMNS // len(blocks) < _FEWEST_PER_GROUP:
            raise ValueError(
                f"hessian has {len(blocks)} layers; above 400 rows at most {_WEIGHT_COLUMNS // _FEWEST_PER_GROUP} are "
                "possible. Use estimate_spectrum for single scales."
            )
        self._dim = operator.dim
        patterns, groups = np.unique(exponents, axis=0, return_inverse=True)
        with progress_bar(None, "Hessian products") as bar, operator.unchanged():
            counted = _Counted(operator, bar.update)
            self.whole = estimate_spectrum(counted, num_matvecs=_NUM_MATVECS, seed=seed, progress=False)
            self.blocks = {
                name: estimate_spectrum(_Rows(counted, rows), num_matvecs=_NUM_MATVECS, seed=seed, progress=False)
                for name, rows in blocks.items()
            }
            if not self.whole.magnitudes.any():
                raise ValueError("hessian is all zero, so it has no entropy.")
            self._reduce(counted, groups.reshape(-1), list(blocks.values()), seed)
        self._exponents = patterns[self._owners]
        self.move(np.zeros(exponents.shape[1]))
        self.before, self._start = self.now, (self._nodes, self._found, self._shares)
        self._alpha = math.nan  # of the entropies that do not depend on the scales

    def move(self, log_scales: FloatArray) -> None:
        """Compute the spectrum at the given logarithms of all scales."""
        # Unlike NumPy's, torch's algebra is done on as many threads as torch is told to use.
        inverse = torch.from_numpy(np.exp(-(self._exponents * log_scales).sum(axis=1)))
        nodes, vectors = torch.linalg.eigh(self._matrix * inverse[:, None] * inverse)
        self._nodes: FloatArray = nodes.numpy()
        self._shares: FloatArray = (vectors.T @ self._probes).square().numpy()
        self._found = self._converged(nodes, vectors * inverse[:, None], inverse)
        self._reach = min(1.0, float(np.abs(log_scales).max()) / math.log(2))
        self.now = QuadratureRule(self._nodes, self._weights(self._found, self._shares), self._dim)

    def entropy(self, alpha: float) -> tuple[Estimate, Estimate]:
        """``H_α`` of the whole before and after rescaling."""
        if alpha != self._alpha:
            self._alpha, self._initial = alpha, self._initial_entropies(alpha)
        before, start, leave_one_out, offset = self._initial
        value, moved_leave_one_out = self._reduced_entropies(self._nodes, self._found, self._shares, alpha)
        changes = moved_leave_one_out - leave_one_out
        sampling, truncation = math.sqrt((len(changes) - 1) * changes.var()), self._reach * offset
        error = math.sqrt(before.standard_error**2 + sampling**2 + truncation**2)
        moved = min(max(before.value + value - start, 0.0), math.log(self._dim))
        return before, Estimate(moved, error, truncation_error=truncation)

    def _initial_entropies(self, alpha: float) -> tuple[Estimate, float, FloatArray, float]:
        """The estimate, the quadrature's value with all probes and with each left out, and their offset."""
        before = quiet_entropy(self.whole, alpha)
        start, leave_one_out = self._reduced_entropies(*self._start, alpha)
        lower = max(alpha - _OFFSET_STEP, 0.5)
        nearby = self._reduced_entropies(*self._start, lower)[0] - quiet_entropy(self.whole, lower).value
        return before, start, leave_one_out, max(abs(start - before.value), _OFFSET_SHARE * abs(nearby))

    def _reduce(
        self, operator: LinearOperator, groups: NDArray[np.int64], blocks: list[NDArray[np.int64]], seed: int
    ) -> None:
        weight_groups = {int(groups[rows[0]]) for rows in blocks}
        per_group = min(_MOST_PER_GROUP, _WEIGHT_COLUMNS // len(blocks))
        num_probes = max(4, per_group * 12 // 81)
        num_shared = (per_group - 4 * num_probes) * 2 // 3
        columns = [_leading(operator, num_shared, seed)]
        for rows in blocks:
            block = _leading(_Rows(operator, rows), per_group - 4 * num_probes - num_shared, seed)
            columns.append(_embedded(block, rows, operator))
        generator = torch.Generator().manual_seed(seed)
        signs = torch.randint(0, 2, (operator.dim, num_probes), generator=generator)
        probes = (2 * signs - 1).to(operator.device, operator.dtype)
        owner = _layer_of_rows(groups, blocks, operator.dim)
        products = [operator @ (probes * (owner == layer)[:, None].to(probes)) for layer in range(len(blocks))]
        total = torch.stack(products).sum(dim=0)
        second = operator @ total
        num_bias_groups = int(groups.max()) + 1 - len(weight_groups)
        bases = []
        for group in range(int(groups.max()) + 1):
            rows = np.flatnonzero(groups == group)
            own = products[int(owner[rows[0]])]
            most = per_group if group in weight_groups else _BIAS_COLUMNS // num_bias_groups
            candidates = [*columns, probes, own, total - own, second]
            bases.append(_embedded(_orthonormal(candidates, rows, most), rows, operator))
        self._owners = np.repeat(np.arange(len(bases)), [basis.shape[1] for basis in bases])
        self._first_columns = [int(np.flatnonzero(self._owners == group)[0]) for group in range(len(bases))]
        basis = torch.cat(bases, dim=1)
        image = operator @ basis
        matrix = _doubles(basis.T @ image)
        self._matrix = (matrix + matrix.T) / 2
        self._probes = _doubles(basis.T @ probes)
        # For the residuals: ‖D⁻¹ H D⁻¹ V y‖² is a sum over groups, each a quadratic form.
        self._images = [_doubles(image[groups == group].T @ image[groups == group]) for group in range(len(bases))]

    def _converged(self, nodes: Tensor, vectors: Tensor, inverse: Tensor) -> NDArray[np.bool_]:
        leading = nodes.abs().argsort(descending=True)[: _MOST_PER_GROUP - 1]  # no other is close to an eigenvector
        chosen, squares = vectors[:, leading], -nodes[leading].square()
        for first, image in zip(self._first_columns, self._images, strict=True):
            squares = squares + inverse[first] ** 2 * (chosen * (image @ chosen)).sum(dim=0)
        found = torch.zeros(len(nodes), dtype=torch.bool)
        found[leading] = squares.clamp_min(0) < (_CONVERGED * nodes[leading]).square()
        return found.numpy()

    def _weights(self, found: NDArray[np.bool_], shares: FloatArray) -> FloatArray:
        weights = np.where(found, 1.0, shares.mean(axis=1))
        rest = weights[~found].sum()
        weights[~found] *= (self._dim - found.sum()) / rest
        return weights

    def _reduced_entropies(
        self, nodes: FloatArray, found: NDArray[np.bool_], shares: FloatArray, alpha: float
    ) -> tuple[float, FloatArray]:
        """``H_α`` of the quadrature with all probes, and with each left out."""

        def entropy(kept: FloatArray) -> float:
            weights = torch.from_numpy(self._weights(found, kept))
            return float(weighted_renyi_entropy(torch.from_numpy(np.abs(nodes)), weights, alpha))

        without = [entropy(np.delete(shares, probe, axis=1)) for probe in range(shares.shape[1])]
        return entropy(shares), np.array(without)


def quiet_entropy(spectrum: Spectrum, alpha: float) -> Estimate:
    """``H_α`` without the warning about a large error, which the picture shows; NaN where all eigenvalues are zero."""
    if not spectrum.magnitudes.any():
        return Estimate(math.nan)
    with exclusive(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return spectrum.renyi_entropy(alpha)


class _Counted(LinearOperator):
    """The same operator, whose products move a progress bar."""

    def __init__(self, operator: LinearOperator, on_products: Callable[[int], object]) -> None:
        super().__init__(operator.dim, operator.dtype, operator.device)
        self._operator, self._on_products = operator, on_products

    def _matvec(self, vector: Tensor) -> Tensor:
        return self._matmat(vector[:, None])[:, 0]

    def _matmat(self, vectors: Tensor) -> Tensor:
        products = self._operator @ vectors
        self._on_products(vectors.shape[1])
        return products


class _Rows(LinearOperator):
    """The diagonal block of the given rows."""

    def __init__(self, operator: LinearOperator, rows: NDArray[np.int64]) -> None:
        super().__init__(len(rows), operator.dtype, operator.device)
        self._operator, self._rows = operator, rows

    def _matvec(self, vector: Tensor) -> Tensor:
        return self._matmat(vector[:, None])[:, 0]

    def _matmat(self, vectors: Tensor) -> Tensor:
        return (self._operator @ _embedded(vectors, self._rows, self._operator))[self._rows]


def _leading(operator: LinearOperator, count: int, seed: int) -> Tensor:
    """Ritz vectors of the largest magnitudes as columns."""
    run = lanczos(operator, num_steps=min(3 * count, operator.dim), seed=seed)
    return run.ritz_vectors(np.argsort(-np.abs(run.ritz_values))[:count]).T


def _embedded(columns: Tensor, rows: NDArray[np.int64], operator: LinearOperator) -> Tensor:
    full = torch.zeros(operator.dim, columns.shape[1], dtype=operator.dtype, device=operator.device)
    full[rows] = columns
    return full


def _orthonormal(candidates: list[Tensor], rows: NDArray[np.int64], most: int) -> Tensor:
    """An orthonormal basis of the candidates' entries in the given rows, of at most ``most`` columns."""
    parts = [c[rows] / c.norm(dim=0).clamp_min(torch.finfo(c.dtype).tiny) for c in candidates]
    vectors, sizes, _ = torch.linalg.svd(torch.cat(parts, dim=1), full_matrices=False)
    basis: Tensor = vectors[:, sizes > _INDEPENDENT * sizes[0]][:, :most]
    return basis


def _layer_of_rows(groups: NDArray[np.int64], blocks: list[NDArray[np.int64]], dim: int) -> Tensor:
    """The layer of each row; biases belong to the weights before them."""
    starts = np.array([rows[0] for rows in blocks])
    order = np.argsort(starts)
    return torch.from_numpy(order[np.maximum(np.searchsorted(starts[order], np.arange(dim), side="right") - 1, 0)])


def _doubles(tensor: Tensor) -> Tensor:
    return tensor.double().cpu()
