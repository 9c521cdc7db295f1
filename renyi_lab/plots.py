"""Pictures of results: each function takes axes and a result and draws; nothing is computed that the result lacks."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase

from renyi_lab._utils.figure import BLUE, GREEN, GREY, ORANGE, PURPLE, new_figure
from renyi_lab._utils.typing import FloatArray
from renyi_lab.spectrum import Spectrum
from renyi_lab.training import History

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "ORANGE",
    "PURPLE",
    "magnitude_grid",
    "new_figure",
    "plot_entropy_curve",
    "plot_histories",
    "plot_spectrum",
    "spectrum_figure",
]


def magnitude_grid(spectrum: Spectrum, num_points: int = 400) -> FloatArray:
    """Logarithmic grid of magnitudes that covers the spectrum (at most eight decades)."""
    return spectrum.magnitude_grid(num_points)


def plot_spectrum(ax: Axes, spectrum: Spectrum, *, bandwidth: float | None = None) -> None:
    """Density of ``log10 |λ|`` per decade, times ``n``, and a tick for each eigenvalue of the largest ones."""
    spectrum.plot(ax, bandwidth=bandwidth)


def spectrum_figure(spectrum: Spectrum, **options: Any) -> FigureBase:
    """A figure of its own with `plot_spectrum` in it."""
    return spectrum.plot(**options)


def plot_entropy_curve(ax: Axes, spectrum: Spectrum, alphas: FloatArray, chosen: float | None = None) -> None:
    """``H_α`` against ``α`` with a band of two standard errors, and the chosen order marked."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimates = [spectrum.renyi_entropy(float(alpha)) for alpha in alphas]
    if caught:  # one for the whole curve
        warnings.warn(str(caught[0].message), stacklevel=2)
    values = np.array([estimate.value for estimate in estimates])
    errors = np.array([estimate.standard_error for estimate in estimates])
    ax.plot(alphas, values, color=BLUE)
    ax.fill_between(alphas, values - 2 * errors, values + 2 * errors, color=BLUE, alpha=0.2, lw=0, label="± 2 s.e.")
    ax.axhline(np.log(spectrum.dim), color=GREY, lw=0.8, ls=":")
    ax.annotate("log n", (alphas[-1], np.log(spectrum.dim)), ha="right", va="bottom", color=GREY)
    if chosen is not None:
        ax.axvline(chosen, color=ORANGE, lw=1, ls="--", label=f"rule: α = {chosen:g}")
    ax.set(xlabel="α", ylabel="H_α (nats)", ylim=(0, 1.12 * np.log(spectrum.dim)))
    ax.legend(loc="lower right", frameon=False)


def plot_histories(ax: Axes, histories: Mapping[str, History], quantity: str = "test_accuracy") -> None:
    """One curve per training, all of the same quantity of `History`."""
    for (name, history), color in zip(histories.items(), itertools.cycle((BLUE, ORANGE, GREEN, PURPLE)), strict=False):
        values = getattr(history, quantity)
        ax.plot(range(1, len(values) + 1), values, color=color, label=name)
    ax.set(xlabel="epoch", ylabel=quantity.replace("_", " "))
    ax.legend(loc="lower right", frameon=False)
