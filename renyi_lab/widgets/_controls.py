"""Sliders of the explorers."""

from __future__ import annotations

import ipywidgets
import numpy as np

from renyi_lab._utils.typing import FloatArray


def float_slider(
    description: str, value: float, low: float, high: float, step: float = 0.05, digits: str = ".2f", tooltip: str = ""
) -> ipywidgets.FloatSlider:
    """A slider over ``[low, high]``."""
    return ipywidgets.FloatSlider(
        value=value, min=low, max=high, step=step, description=description, readout_format=digits, tooltip=tooltip
    )


def grid_slider(description: str, grid: FloatArray, value: float, digits: str = ".2f") -> ipywidgets.FloatSlider:
    """A slider over an equidistant grid, at the grid point nearest to ``value``."""
    start = grid[nearest(grid, value)]
    return float_slider(description, start, grid[0], grid[-1], grid[1] - grid[0], digits)


def count_slider(description: str, value: int, maximum: int) -> ipywidgets.IntSlider:
    """A slider over 1, …, ``maximum``."""
    return ipywidgets.IntSlider(value=value, min=1, max=maximum, description=description)


def nearest(grid: FloatArray, value: float) -> int:
    """Index of the grid point nearest to ``value``."""
    return int(np.abs(grid - value).argmin())
