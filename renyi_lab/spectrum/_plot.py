"""The plot of a spectrum, from arrays; `Spectrum.plot` calls it."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase

from renyi_lab._utils.figure import BLUE, ORANGE, check_axes, new_figure
from renyi_lab._utils.typing import FloatArray


def draw_density(ax: Axes | None, grid: FloatArray, per_decade: FloatArray, largest: FloatArray) -> FigureBase:
    """Draw the eigenvalues per decade over the grid as a filled curve, and a tick for each of the ``largest``."""
    if ax is None:
        peak = grid[np.argmax(per_decade)]
        ax = new_figure(
            5.5,
            3.2,
            alt=f"Density of the eigenvalues over log10 |λ|, on logarithmic axes from {grid[0]:.0e} to "
            f"{grid[-1]:.0e}: the most per decade are near {peak:.0e}, the largest is {largest[-1]:.2g}.",
        ).subplots()
    check_axes(ax)
    ax.fill_between(grid, per_decade, color=BLUE, alpha=0.35, lw=0)
    ax.plot(largest, np.full(len(largest), 0.5), "|", color=ORANGE, markersize=9, label="largest |λ|")
    ax.set(xscale="log", yscale="log", xlabel="|λ|", ylabel="eigenvalues per decade", ylim=(0.3, None))
    ax.legend(loc="upper right", frameon=False)
    return ax.figure
