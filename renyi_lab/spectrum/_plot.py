"""The picture of a spectrum, from arrays: `Spectrum.plot` fills it."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from renyi_lab._utils.figure import BLUE, ORANGE
from renyi_lab._utils.typing import FloatArray

# Magnitudes this far below the largest are below what single precision resolves.
_SMALLEST_SHARE = 1e-8


def logarithmic_grid(magnitudes: FloatArray, num_points: int) -> FloatArray:
    """Logarithmic grid that covers the magnitudes above zero, at most eight decades."""
    positive = magnitudes[magnitudes > 0]
    if positive.size == 0:
        raise ValueError("the spectrum is all zero; there is nothing to show on a logarithmic axis.")
    largest = positive.max()
    return np.geomspace(max(positive.min(), _SMALLEST_SHARE * largest) / 2, 2 * largest, num_points)


def draw_density(ax: Axes, grid: FloatArray, per_decade: FloatArray, largest: FloatArray) -> None:
    """Eigenvalues per decade as a filled curve over the grid, and a tick for each of the ``largest``."""
    ax.fill_between(grid, per_decade, color=BLUE, alpha=0.35, lw=0)
    ax.plot(largest, np.full(len(largest), 0.5), "|", color=ORANGE, markersize=9, label="largest |λ|")
    ax.set(xscale="log", yscale="log", xlabel="|λ|", ylabel="eigenvalues per decade", ylim=(0.3, None))
    ax.legend(loc="upper right", frameon=False)
