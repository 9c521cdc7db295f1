"""Plain stochastic Lanczos quadrature for Rényi entropies, many probes at once.

From independent Rademacher probes, fully re-orthogonalised (Ubaru, Chen & Saad 2017). The method has no standard error
of its own; this is the jackknife over probes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from renyi_lab._utils.progress import progress_bar

FloatArray = NDArray[np.float64]

ALPHAS = (0.5, 1.0, 1.5, 2.0)


def tridiagonals(
    matrix: Tensor, probes: Tensor, num_steps: int, on_step: Callable[[], object]
) -> tuple[Tensor, Tensor]:
    """Lanczos from each row of ``probes`` separately: diagonals and off-diagonals, ``(probes, num_steps)``."""
    count, n = probes.shape
    basis = torch.empty(count, num_steps, n, dtype=matrix.dtype)
    diagonal, off_diagonal = torch.zeros(2, count, num_steps, dtype=torch.float64)
    rows = probes / probes.norm(dim=1, keepdim=True)
    for step in range(num_steps):
        basis[:, step] = rows
        products = rows @ matrix
        diagonal[:, step] = (rows * products).sum(1)
        known = basis[:, : step + 1]
        for _ in range(2):
            overlaps = torch.bmm(known, products.unsqueeze(2))
            products = products - torch.bmm(known.transpose(1, 2), overlaps).squeeze(2)
        norms = products.norm(dim=1, keepdim=True)
        off_diagonal[:, step] = norms.squeeze(1)
        rows = products / norms.clamp_min(torch.finfo(matrix.dtype).tiny)
        on_step()
    return diagonal, off_diagonal


def moments(diagonal: FloatArray, off_diagonal: FloatArray, n: int) -> FloatArray:
    """The quadrature of one probe for ``tr |H|^α`` at each of ``ALPHAS``, then for ``tr |H| log|H|``."""
    nodes, vectors = eigh_tridiagonal(diagonal, off_diagonal[:-1])
    weights, sizes = n * vectors[0] ** 2, np.abs(nodes)
    logarithms = np.log(np.where(sizes > 0, sizes, 1.0))
    return np.array([*(weights @ sizes**alpha for alpha in ALPHAS), weights @ (sizes * logarithms)])


def entropies(mean_moments: FloatArray) -> FloatArray:
    """``H_α`` at each of ``ALPHAS`` from the traces that `moments` estimates, ``(…, len(ALPHAS) + 1)``."""
    trace, weighted_logarithm = mean_moments[..., ALPHAS.index(1.0)], mean_moments[..., -1]
    values = [
        np.log(trace) - weighted_logarithm / trace
        if alpha == 1
        else (np.log(mean_moments[..., index]) - alpha * np.log(trace)) / (1 - alpha)
        for index, alpha in enumerate(ALPHAS)
    ]
    return np.stack(values, axis=-1)


def plain_quadrature(
    matrix: Tensor, num_probes: int, depths: Sequence[int], num_seeds: int
) -> Iterator[tuple[int, FloatArray, FloatArray | None]]:
    """Number of steps, values and standard errors, ``(seeds, alphas)``, for each depth; one run serves all."""
    n = len(matrix)
    signs = [
        torch.randint(2, (num_probes, n), generator=torch.Generator().manual_seed(seed)) * 2 - 1
        for seed in range(num_seeds)
    ]
    with progress_bar(max(depths), f"plain quadrature, {num_probes} probes") as bar:
        diagonal, off_diagonal = tridiagonals(matrix, torch.cat(signs).to(matrix), max(depths), bar.update)
    for depth in depths:
        pairs = zip(diagonal[:, :depth].numpy(), off_diagonal[:, :depth].numpy(), strict=True)
        by_probe = np.stack([moments(a, b, n) for a, b in pairs]).reshape(num_seeds, num_probes, -1)
        errors = None
        if num_probes > 1:
            left_out = entropies((by_probe.sum(1, keepdims=True) - by_probe) / (num_probes - 1))
            errors = np.sqrt((num_probes - 1) * left_out.var(axis=1))
        yield depth, entropies(by_probe.mean(1)), errors
