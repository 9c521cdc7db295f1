"""Eigenvalue density: the spectrum's point masses smoothed by a Gaussian."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_choice, check_real

# One hundredth of the range: about one pixel column in a hundred, sharp peaks stay apart. Our choice.
LINEAR_BANDWIDTH_SHARE = 0.01
# A tenth of a decade, so that eigenvalues a factor 2 apart (0.3 decades) are seen apart. Our choice.
LOG_BANDWIDTH_DECADES = 0.1


def spectral_density(
    nodes: ArrayLike, weights: ArrayLike, grid: ArrayLike, bandwidth: float | None = None, *, scale: str = "linear"
) -> FloatArray:
    r"""Density ``(1/n) Σ_k w_k N(x; x_k, σ²)`` of the eigenvalues at the points of ``grid``.

    Args:
        nodes: Eigenvalues or quadrature nodes, ``(k,)``.
        weights: How many eigenvalues each stands for, ``(k,)``.
        grid: Points ``(g,)``: eigenvalues for ``scale="linear"``; magnitudes ``> 0`` for ``"log"``.
        bandwidth: ``σ`` in the axis's unit. ``None``: 1 % of the nodes' range on the linear axis, 0.1 decades
            on the logarithmic one.
        scale: ``"linear"``: density in ``λ``. ``"log"``: density in ``log10 |λ|``, per decade; zeros are left out of
            the picture, not of the normalisation.

    Returns:
        Density ``(g,)``; over the whole axis it integrates to 1 (to the non-zero share for ``"log"``).

    Example:
        >>> grid = np.linspace(-5.0, 5.0, 1001)
        >>> density = spectral_density([-1.0, 1.0], [1.0, 1.0], grid, bandwidth=0.3)
        >>> round(float(density.sum() * 0.01), 6)
        1.0
    """
    x, w, points = (np.asarray(part, dtype=np.float64) for part in (nodes, weights, grid))
    if points.ndim != 1:
        raise ValueError(f"grid must be a vector, got shape {points.shape}.")
    if not np.isfinite(points).all():
        raise ValueError("grid must be finite, but holds NaN or infinity.")
    total = w.sum()
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
    kernel = np.exp(-0.5 * ((points[:, None] - x[None, :]) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    return np.asarray(kernel @ w / total)
