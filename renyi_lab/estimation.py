r"""A `Spectrum` from a limited number of matrix-vector products.

One long Lanczos run from a Gaussian probe serves twice. Its converged Ritz pairs are eigenpairs: each is counted once,
exactly (deflation). What the probe has outside their span is a random direction in the complement, and the remaining Gauss
nodes with their weights, rescaled to the complement's dimension, are a stochastic Lanczos quadrature for it.

Sources: Ubaru, Chen & Saad 2017 (stochastic Lanczos quadrature); Chen & Hallman 2023, arXiv:2205.01736 (deflation from
the Krylov space itself); Epperly, Tropp & Webber 2024 (rescaling to the sphere).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from renyi_lab._progress import progress_bar
from renyi_lab._validation import check_int
from renyi_lab.lanczos import FloatArray, Tridiagonal, lanczos_steps
from renyi_lab.operators import as_operator
from renyi_lab.spectrum import Sampling, Spectrum

# A Ritz pair counts as an eigenpair when its residual is below this share of its own magnitude. Our choice: at 1 % the
# eigenvalue is right to about 0.01 % (its error is quadratic in the residual), far below the sampling error.
CONVERGED = 0.01


def exact_spectrum(operator: Any) -> Spectrum:
    """All eigenvalues of ``operator`` by a dense eigendecomposition in double precision; for small ``n``.

    Costs ``n`` products and ``n²`` memory; refused above 20,000 rows.

    Example:
        >>> import torch
        >>> exact_spectrum(torch.diag(torch.tensor([2.0, 1.0]))).nodes.tolist()
        [1.0, 2.0]
    """
    import torch

    matrix = as_operator(operator)
    dense = matrix.to_dense().cpu().double()
    return Spectrum.from_eigenvalues(torch.linalg.eigvalsh((dense + dense.T) / 2), num_matvecs=matrix.dim)


def estimate_spectrum(operator: Any, *, num_matvecs: int = 200, seed: int = 0, progress: bool | None = None) -> Spectrum:
    """Estimate the spectrum of a symmetric operator from at most ``num_matvecs`` products.

    Args:
        operator: A `HessianOperator`, a matrix, or anything with ``.shape`` and ``@`` (SciPy, curvlinops).
        num_matvecs: Budget. From ``n`` on the spectrum is computed exactly instead. 200 is our choice: a few
            hundredths of a nat on networks of some thousand parameters.
        seed: Fixes the probe.
        progress: ``True``/``False`` force the bar on or off; ``None``: on in a terminal or notebook.

    Returns:
        A `Spectrum` whose quantities carry standard errors.

    Raises:
        ValueError: ``num_matvecs < 1``, or a product that is not finite.
    """
    matrix = as_operator(operator)
    budget = check_int("num_matvecs", num_matvecs)
    if budget >= matrix.dim:
        return exact_spectrum(matrix)
    result: Tridiagonal | None = None
    with progress_bar(budget, "Hessian products", progress) as bar:
        for result in lanczos_steps(matrix, num_steps=budget, seed=seed):
            bar.update()
    assert result is not None
    coarse = _spectrum(result.leading(max(1, 2 * result.num_steps // 3)), matrix.dim, None)
    return _spectrum(result, matrix.dim, coarse)


def _spectrum(run: Tridiagonal, dim: int, coarse: Spectrum | None) -> Spectrum:
    """Converged Ritz pairs once each, the other nodes rescaled to what is left of the dimension."""
    exact = _converged(run)
    weights = np.where(exact, 1.0, 0.0)
    sampled_mass = run.weights[~exact].sum()
    if sampled_mass > 0:
        weights[~exact] = run.weights[~exact] / sampled_mass * (dim - exact.sum())
    return Spectrum(run.ritz_values, weights, dim, run.num_steps, Sampling(~exact, 1, coarse))


def _converged(run: Tridiagonal) -> FloatArray:
    exact = run.residuals <= CONVERGED * np.abs(run.ritz_values)
    return exact if not exact.all() else np.zeros_like(exact)
