"""A quadrature rule: nodes and weights in place of all eigenvalues, and what follows from them alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from renyi_lab._utils.arrays import real_array
from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_int
from renyi_lab.spectrum._density import logarithmic_grid, spectral_density


@dataclass(frozen=True, eq=False)
class QuadratureRule:
    """Nodes and weights that represent the ``dim`` eigenvalues of a symmetric matrix: ``tr f(H) ≈ Σ_k w_k f(x_k)``.

    Attributes:
        nodes: Eigenvalues, or nodes of a quadrature, ascending, ``(k,)``.
        weights: Number of eigenvalues that each node represents, ``(k,)``; they sum to ``dim``. Where an estimate found
            repeated eigenvalues, some are negative: single nodes then mean nothing, sums over all of them do.
        dim: Size ``n`` of the matrix.
    """

    nodes: FloatArray
    weights: FloatArray
    dim: int

    def __post_init__(self) -> None:
        nodes, weights = real_array("nodes", self.nodes), real_array("weights", self.weights)
        object.__setattr__(self, "nodes", nodes)  # copies: nothing that is written into the arguments changes them
        object.__setattr__(self, "weights", weights)
        if nodes.ndim != 1 or nodes.shape != weights.shape or len(nodes) == 0:
            raise ValueError(
                f"nodes and weights must be vectors of one length with at least one entry, got {nodes.shape} and "
                f"{weights.shape}."
            )
        object.__setattr__(self, "dim", check_int("dim", self.dim))
        if not (np.isfinite(nodes).all() and np.isfinite(weights).all()):
            raise ValueError("nodes and weights must be finite, but hold NaN or infinity; did the model diverge?")
        if np.any(np.diff(nodes) < 0):
            raise ValueError("nodes must ascend; sort them and their weights, or use Spectrum.from_eigenvalues.")
        if abs(weights.sum() - self.dim) > 1e-6 * self.dim:
            # A wrong sum is a bug in the code that made the weights; rescaling them would only hide it.
            raise ValueError(f"weights must sum to dim={self.dim}, got {weights.sum():.9g}.")

    @property
    def magnitudes(self) -> FloatArray:
        """``|x_k|`` of every node, ``(k,)``."""
        return np.asarray(np.abs(self.nodes))

    @property
    def max_eigenvalue(self) -> float:
        """``λ_max``, the largest (signed) node; a lower bound if it is estimated."""
        return float(self.nodes[-1])

    @property
    def negative_fraction(self) -> float:
        """Share of ``tr |H|`` that comes from negative eigenvalues, in ``[0, 1]``."""
        total = float(self.weights @ self.magnitudes)
        share = float(self.weights @ np.clip(-self.nodes, 0, None)) / total if total else 0.0
        return min(max(share, 0.0), 1.0)

    def density(self, grid: ArrayLike, bandwidth: float | None = None, *, scale: str = "linear") -> FloatArray:
        """Smoothed eigenvalue density on a grid.

        Args:
            grid: As in `renyi_lab.spectrum.spectral_density`.
            bandwidth: As in `renyi_lab.spectrum.spectral_density`.
            scale: As in `renyi_lab.spectrum.spectral_density`.
        """
        return spectral_density(self.nodes, self.weights, grid, bandwidth, scale=scale)

    def magnitude_grid(self, num_points: int = 400) -> FloatArray:
        """Logarithmic grid of magnitudes that covers the spectrum (at most eight decades).

        Args:
            num_points: Number of grid points.
        """
        return logarithmic_grid(self.magnitudes, num_points)

    def __repr__(self) -> str:
        interval = f"[{self.nodes[0]:.4g}, {self.nodes[-1]:.4g}]"
        return f"QuadratureRule(dim={self.dim}, {len(self.nodes)} nodes in {interval})"
