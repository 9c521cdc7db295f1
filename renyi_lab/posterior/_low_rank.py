"""The leading curvature of an operator as a few orthonormal directions, for a Gaussian that can be sampled exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from renyi_lab._utils.validation import check_instance, check_int
from renyi_lab.krylov import lanczos
from renyi_lab.operators import as_operator
from renyi_lab.spectrum import Spectrum


@dataclass(frozen=True, eq=False)
class LowRankCurvature:
    """C = Σ_k μ_k u_k u_kᵀ with μ_k > 0 and orthonormal u_k: positive semi-definite whatever it approximates.

    Attributes:
        eigenvalues: The μ_k > 0, shape (k,), descending, in double precision.
        directions: The u_k as rows, shape (k, n), orthonormal to rounding in double precision.

    Raises:
        TypeError: Another precision.
        ValueError: Shapes that do not match, eigenvalues that are not positive, or rows that are not orthonormal.
    """

    eigenvalues: Tensor
    directions: Tensor

    def __post_init__(self) -> None:
        values, rows = self.eigenvalues, self.directions
        check_instance("eigenvalues", values, Tensor)
        check_instance("directions", rows, Tensor)
        if rows.ndim != 2 or values.shape != rows.shape[:1]:
            raise ValueError(
                f"directions must be (k, n) with k eigenvalues, got {tuple(rows.shape)} and {tuple(values.shape)}."
            )
        if values.dtype != torch.float64 or rows.dtype != torch.float64:
            raise TypeError("eigenvalues and directions must be in double precision: the divergence rests on them.")
        if not bool(((values > 0) & torch.isfinite(values)).all()):
            raise ValueError("eigenvalues must be positive and finite; leave the others out.")
        defect = (
            float((rows @ rows.T - torch.eye(len(rows), dtype=rows.dtype, device=rows.device)).abs().max())
            if len(rows)
            else 0.0
        )
        if not defect < 1e-9:  # heuristic: a thousandth of a nat would need a defect of about 1e-4
            raise ValueError(f"directions must be orthonormal rows, but miss it by {defect:g}; use torch.linalg.qr.")

    @property
    def dim(self) -> int:
        """Number of parameters ``n``."""
        return int(self.directions.shape[1])

    @property
    def spectrum(self) -> Spectrum:
        """The exact spectrum of C, for `renyi_lab.bounds.laplace_pac_bayes`: μ, and zero for all other directions."""
        values = self.eigenvalues.flip(0).cpu().numpy()
        rest = self.dim - len(values)
        nodes, weights = np.concatenate([[0.0], values]), np.concatenate([[float(rest)], np.ones(len(values))])
        return Spectrum(nodes, weights, self.dim)


def leading_curvature(
    operator: Any, num_directions: int = 30, *, num_matvecs: int | None = None, seed: int = 0
) -> LowRankCurvature:
    """The largest positive Ritz values of an operator and their directions, from one Lanczos run.

    Ritz pairs need not have converged: they are the eigenpairs of the operator's restriction to the Krylov space, so C
    is what it is, and a Gaussian made of it has an exactly known divergence. Negative values are left out.

    Args:
        operator: GGN or Hessian, a matrix, or anything with ``.shape`` and ``@``.
        num_directions: Largest number k of directions. Default 30 (heuristic: three times the ten classes of the
            package's data; the outliers of a classifier's Hessian are about as many as its classes, Papyan 2020).
        num_matvecs: Number of matrix-vector products. Default ``None``: twice ``num_directions`` (heuristic: the
            largest Ritz values converge first).
        seed: Random seed for the start vector.

    Raises:
        ValueError: A number out of range, or fewer products than directions.

    Example:
        >>> curvature = leading_curvature(torch.diag(torch.tensor([3.0, 1.0, 0.0, -2.0])), 4)
        >>> curvature.eigenvalues.numpy().round(6).tolist()
        [3.0, 1.0]
    """
    matrix = as_operator(operator)
    count = check_int("num_directions", num_directions)
    products = 2 * count if num_matvecs is None else check_int("num_matvecs", num_matvecs, minimum=count)
    run = lanczos(matrix, num_steps=min(products, matrix.dim), seed=seed)
    # Values that are rounding beside the largest have no direction worth a dimension.
    floor = 1e-7 * max(float(np.abs(run.ritz_values).max()), np.finfo(float).tiny)
    chosen = np.flatnonzero(run.ritz_values > floor)[::-1][:count]
    rows = run.ritz_vectors(chosen)
    rows = rows.cpu() if rows.device.type == "mps" else rows
    # Ritz vectors are orthonormal only to the operator's precision; QR's are to double precision, and as good.
    directions = torch.linalg.qr(rows.double().T).Q.T.contiguous()
    values = torch.from_numpy(np.ascontiguousarray(run.ritz_values[chosen])).to(directions.device)
    return LowRankCurvature(values, directions)
