"""Pictures of results: each function takes axes and a result and draws; nothing is computed that the result lacks."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from renyi_lab._figure import new_figure as new_figure
from renyi_lab.history import History
from renyi_lab.spectrum import Spectrum

# Okabe & Ito's palette: told apart by readers with colour-vision deficiencies.
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#777777"

# Magnitudes this far below the largest are below what single precision resolves. Our choice.
_SMALLEST_SHARE = 1e-8


def magnitude_grid(spectrum: Spectrum, num_points: int = 400) -> NDArray[np.float64]:
    """Logarithmic grid of magnitudes that covers the spectrum (at most eight decades)."""
    magnitudes = spectrum.magnitudes[spectrum.magnitudes > 0]
    if magnitudes.size == 0:
        raise ValueError("the spectrum is all zero; there is nothing to show on a logarithmic axis.")
    largest = magnitudes.max()
    return np.geomspace(max(magnitudes.min(), _SMALLEST_SHARE * largest) / 2, 2 * largest, num_points)


def plot_spectrum(ax: Axes, spectrum: Spectrum, *, bandwidth: float | None = None) -> None:
    """Density of ``log10 |λ|`` per decade, times ``n``, and a tick for each eigenvalue of the largest ones."""
    grid = magnitude_grid(spectrum)
    ax.fill_between(grid, spectrum.dim * spectrum.density(grid, bandwidth, scale="log"), color=BLUE, alpha=0.35, lw=0)
    top = np.sort(spectrum.last_rule.magnitudes)[-20:]
    ax.plot(top, np.full(len(top), 0.5), "|", color=ORANGE, markersize=9, label="largest |λ|")
    ax.set(xscale="log", yscale="log", xlabel="|λ|", ylabel="eigenvalues per decade", ylim=(0.3, None))
    ax.legend(loc="upper right", frameon=False)


def plot_entropy_curve(ax: Axes, spectrum: Spectrum, alphas: NDArray[np.float64], chosen: float | None = None) -> None:
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


def spectrum_figure(spectrum: Spectrum, **options: Any) -> Figure:
    """A figure of its own with `plot_spectrum` in it."""
    figure = new_figure(5.5, 3.2)
    plot_spectrum(figure.subplots(), spectrum, **options)
    return figure
