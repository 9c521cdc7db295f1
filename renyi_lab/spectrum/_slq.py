r"""A `Spectrum` from a limited number of matrix-vector products: one block Lanczos run, used in three ways.

1. *Deflation.* Converged Ritz pairs are eigenpairs: each is counted once, exactly. The part of the probes outside their
   span is a random direction in the complement, and the remaining Gauss nodes, rescaled to the complement's dimension,
   are a stochastic Lanczos quadrature for it.
2. *Averaging over the last steps.* Every leading block of ``T`` is a Gauss rule. The error due to the cusp of ``|λ|^α``
   at 0 alternates with the position of the nodes around 0, so that it cancels over a few consecutive rules (heuristic,
   without a published source).
3. *Extrapolation.* The remaining error shrinks smoothly with the number of steps: each estimate adds a share of its
   change since half the steps. `renyi_lab.spectrum._errors` has the formula, and the standard error.

Sources: Ubaru, Chen & Saad 2017 (stochastic Lanczos quadrature); Chen & Hallman 2023, arXiv:2205.01736 (deflation from
the Krylov space itself); Epperly, Tropp & Webber 2024 (rescaling to the sphere).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from renyi_lab._utils.progress import progress_bar
from renyi_lab._utils.validation import check_int
from renyi_lab.krylov import lanczos
from renyi_lab.operators import DENSE_LIMIT, as_operator
from renyi_lab.spectrum._calibration import weigh
from renyi_lab.spectrum._deep_shallow import fresh_probes, probe_plan, split_deep
from renyi_lab.spectrum._spectrum import Spectrum

# Steps per probe when the budget is split. Heuristic, by experiment on trained networks of 5,000 to 7,000 parameters:
# with fewer the bulk near zero is not resolved, with more there are too few probes.
STEPS_PER_PROBE = 50
# Number of consecutive rules that are averaged. Heuristic: about one period of the error that is meant to cancel.
WINDOW = 8


def exact_spectrum(operator: Any) -> Spectrum:
    """All eigenvalues of ``operator`` by a dense eigendecomposition in double precision; for small ``n``.

    Args:
        operator: A `HessianOperator`, a symmetric matrix, or any operator with ``.shape`` and ``@`` (SciPy,
            curvlinops). Costs ``n`` products and ``n²`` memory.

    Returns:
        An exact `Spectrum`.

    Raises:
        ValueError: ``n`` is above 20,000.

    Example:
        >>> import torch
        >>> exact_spectrum(torch.diag(torch.tensor([2.0, 1.0]))).nodes.tolist()
        [1.0, 2.0]
    """
    matrix = as_operator(operator)
    dense = matrix.to_dense().cpu().double()
    return Spectrum.from_eigenvalues(torch.linalg.eigvalsh((dense + dense.T) / 2), num_matvecs=matrix.dim)


def estimate_spectrum(
    operator: Any,
    *,
    num_matvecs: int = 200,
    seed: int = 0,
    progress: bool | None = None,
) -> Spectrum:
    """Estimate the spectrum of a symmetric operator from at most ``num_matvecs`` products.

    Args:
        operator: A `HessianOperator`, a symmetric matrix, or any operator with ``.shape`` and ``@`` (SciPy,
            curvlinops).
        num_matvecs: Budget of products; as many vectors are kept in memory. From ``n`` on (up to 20,000) the spectrum
            is computed exactly instead. Default 200 (heuristic: errors of a few hundredths of a nat on networks of a
            few thousand parameters).
        num_probes: Number of random probes that share the budget. Default: one for every 50 products (heuristic, by
            experiment on trained networks of 5,000 to 7,000 parameters).
        seed: Random seed for the probes, at least 0. Results are reproducible to rounding (a relative 1e-7 in single
            precision); bit for bit after ``torch.set_num_threads(1)``.
        progress: Whether to show a progress bar. Default: only in a terminal or notebook.

    Returns:
        A `Spectrum` whose quantities have standard errors.

    Raises:
        ValueError: ``num_matvecs < 1``, more probes than products, or a product that is not finite.

    Example:
        >>> spectrum = estimate_spectrum(torch.diag(torch.linspace(0.0, 1.0, 500)), num_matvecs=60)
        >>> abs(float(spectrum.trace) - 250) < 3 * spectrum.trace.standard_error
        True
    """
    matrix = as_operator(operator)
    budget = check_int("num_matvecs", num_matvecs)
    check_int("seed", seed, 0)
    if matrix.dim <= min(budget, DENSE_LIMIT):
        return exact_spectrum(matrix)
    with progress_bar(budget, "Hessian products", progress) as bar:
        plan = probe_plan(budget)
        run = lanczos(matrix, num_steps=budget - sum(plan), seed=seed, restart=True)
        deep = split_deep(run, matrix.dim, torch.finfo(matrix.dtype).eps, bool(plan))
        shallow = fresh_probes(matrix, deep, plan, torch.Generator().manual_seed(seed + 10**6), bar.update) if plan else None
        rule, sampling = weigh(deep, shallow)
    return Spectrum(rule.nodes, rule.weights, rule.dim, budget, sampling)
