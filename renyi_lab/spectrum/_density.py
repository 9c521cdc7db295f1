"""Eigenvalue density: the spectrum's point masses smoothed by a Gaussian, and the grid to show it on."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from renyi_lab._utils.arrays import real_array
from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_choice, check_int, check_real

# Heuristic: about one pixel column in a hundred, so that sharp peaks stay separate.
LINEAR_BANDWIDTH_SHARE = 0.01
# Heuristic: eigenvalues a factor 2 apart (0.3 decades) stay separate.
LOG_BANDWIDTH_DECADES = 0.1
# Magnitudes this far below the largest are below what single precision resolves.
_SMALLEST_SHARE = 1e-8


def spectral_density(
    nodes: ArrayLike, weights: ArrayLike, grid: ArrayLike, bandwidth: float | None = None, *, scale: str = "linear"
) -> FloatArray:
    r"""Density ``(1/n) Σ_k w_k N(x; x_k, σ²)`` of the eigenvalues at the points of ``grid``.

    Args:
        nodes: Eigenvalues or quadrature nodes, ``(k,)``.
        weights: Number of eigenvalues that each node represents, ``(k,)``.
        grid: Points of evaluation, ``(g,)``: eigenvalues for ``scale="linear"``, magnitudes ``> 0`` for ``"log"``.
        bandwidth: Standard deviation ``σ`` in the unit of the axis, positive. Default: 1 % of the nodes' range on the
            linear axis, 0.1 decades on the logarithmic one (heuristic: sharp peaks stay separate).
        scale: ``"linear"`` for the density in ``λ``, ``"log"`` for that in ``log10 |λ|``, per decade. Zeros have no
            place on the logarithmic axis, but count in the normalisation.

    Returns:
        Density ``(g,)``; over the whole axis it integrates to 1 (to the share of non-zero eigenvalues for ``"log"``).

    Raises:
        ValueError: ``grid`` is not a finite vector, is not positive for ``"log"``, or an option is out of range.

    Example:
        >>> grid = np.linspace(-5.0, 5.0, 1001)
        >>> density = spectral_density([-1.0, 1.0], [1.0, 1.0], grid, bandwidth=0.3)
        >>> round(float(density.sum() * 0.01), 6)
        1.0
    """
    x, w, points = (real_array(name, part) for name, part in (("nodes", nodes), ("weights", weights), ("grid", grid)))
    if x.ndim != 1 or x.shape != w.shape or not len(x):
        raise ValueError(f"nodes and weights must be vectors of one length, got shapes {x.shape} and {w.shape}.")
    if points.ndim != 1:
        raise ValueError(f"grid must be a vector, got shape {points.shape}.")
    if not np.isfinite(points).all():
        raise ValueError("grid must be finite, but holds NaN or infinity.")
    if not (np.isfinite(x).all() and np.isfinite(w).all()):
        raise ValueError("nodes and weights must be finite, but some are NaN or infinite.")
    with np.errstate(over="ignore"):
        total = w.sum()
    if not np.isfinite(total):
        raise ValueError("weights must have a finite sum; they are numbers of eigenvalues.")
    if check_choice("scale", scale, ("linear", "log")) == "log":
        if points.size and points.min() <= 0:
            raise ValueError(f'grid must be positive for scale="log", got {points.min():g}; it holds magnitudes |λ|.')
        positive = np.abs(x) > 0
        x, w, points = np.log10(np.abs(x[positive])), w[positive], np.log10(points)
        sigma = LOG_BANDWIDTH_DECADES
    else:
        spread = float(np.ptp(x))
        sigma = LINEAR_BANDWIDTH_SHARE * (spread or abs(float(x[0])) or 1.0)
    if bandwidth is not None:
        sigma = check_real("bandwidth", bandwidth, 0.0, open_minimum=True)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        # A distance of infinitely many widths is far outside the kernel; its density there is exactly 0.
        kernel = np.exp(-0.5 * ((points[:, None] - x[None, :]) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    density = np.asarray(kernel @ w / total)
    if not np.isfinite(density).all():
        raise ValueError(f"bandwidth must be larger, got {sigma:g}: the density overflows.")
    return density


def logarithmic_grid(magnitudes: FloatArray, num_points: int) -> FloatArray:
    """Logarithmic grid that covers the positive ones of the magnitudes, at most eight decades of them."""
    num_points = check_int("num_points", num_points)
    positive = magnitudes[magnitudes > 0]
    if positive.size == 0:
        raise ValueError("the spectrum is all zero; there is nothing to show on a logarithmic axis.")
    limits = np.finfo(np.float64)
    largest = min(positive.max(), limits.max / 2)
    smallest = max(positive.min(), _SMALLEST_SHARE * largest, 2 * limits.smallest_subnormal)
    with np.errstate(all="ignore"):  # products of the smallest and the largest numbers, inside NumPy
        return np.geomspace(smallest / 2, 2 * largest, num_points)
