"""Plots of results: each function draws what a result already holds into given axes."""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase

from renyi_lab._utils.exclusive import exclusive
from renyi_lab._utils.figure import BLUE, GREEN, GREY, ORANGE, PURPLE, check_axes, new_figure
from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_choice, check_instance, check_real, check_reals
from renyi_lab.spectrum import AlphaChoice, Spectrum, check_spectrum
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
    """Logarithmic grid of magnitudes that covers the spectrum (at most eight decades).

    Args:
        spectrum: An exact or estimated spectrum.
        num_points: Number of grid points.

    Raises:
        TypeError: ``spectrum`` is not a `Spectrum`.
        ValueError: The spectrum is all zero.
    """
    return check_spectrum(spectrum).magnitude_grid(num_points)


def plot_spectrum(
    ax: Axes, spectrum: Spectrum, *, bandwidth: float | None = None, choice: AlphaChoice | None = None
) -> None:
    """Plot the density of ``log10 |λ|`` per decade, times ``n``, with a tick for each of the 20 largest ``|λ|``.

    Args:
        ax: Axes to draw into.
        spectrum: An exact or estimated spectrum.
        bandwidth: Smoothing in decades, positive. Default 0.1 (heuristic: peaks a factor 2 apart stay separate).
        choice: Result of `choose_alpha` for this spectrum: its dips are shaded, and the groups between them named.

    Raises:
        TypeError: ``spectrum`` is not a `Spectrum`.
        ValueError: The spectrum is all zero, or ``bandwidth`` is not positive.
    """
    check_instance("choice", choice, (AlphaChoice, type(None)), "use choose_alpha(spectrum)")
    check_spectrum(spectrum).plot(check_axes(ax), bandwidth=bandwidth)
    if choice is not None:
        _mark_groups(ax, choice)


def _mark_groups(ax: Axes, choice: AlphaChoice) -> None:
    """Shade the dips of ``choice``, and name the groups above and below each."""
    names = (f"top: {choice.evidence['num_top']:.0f}", f"middle: {choice.evidence['num_middle']:.0f}")
    low, high = ax.get_xlim()
    edges = [high, *(edge for dip in choice.dips for edge in reversed(dip)), low]
    for dip in choice.dips:
        ax.axvspan(*dip, color=GREY, alpha=0.2, lw=0)
    for right, left, name in zip(edges[::2], edges[1::2], (*names[: len(choice.dips)], "bulk"), strict=True):
        ax.text(np.sqrt(left * right), 1.01, name, transform=ax.get_xaxis_transform(), ha="center", va="bottom")
    ax.set_xlim(low, high)


def spectrum_figure(spectrum: Spectrum, *, bandwidth: float | None = None) -> FigureBase:
    """Return a new figure with `plot_spectrum` in it; the same as ``spectrum.plot()``.

    Args:
        spectrum: An exact or estimated spectrum.
        bandwidth: As in `plot_spectrum`.

    Raises:
        TypeError: ``spectrum`` is not a `Spectrum`.
        ValueError: The spectrum is all zero, or ``bandwidth`` is not positive.
    """
    return check_spectrum(spectrum).plot(bandwidth=bandwidth)


def plot_entropy_curve(
    ax: Axes, spectrum: Spectrum, alphas: FloatArray | Sequence[float], chosen: float | None = None
) -> None:
    """Plot ``H_α`` in nats against ``α`` with a band of two standard errors, and the chosen order marked.

    Args:
        ax: Axes to draw into.
        spectrum: An exact or estimated spectrum.
        alphas: Orders at which the entropy is evaluated, ascending, finite and at least 0.
        chosen: Order to mark with a vertical line, such as that of `choose_alpha`. Default: none.

    Raises:
        TypeError: ``spectrum`` is not a `Spectrum`, ``ax`` no axes of matplotlib, or an order is not a number.
        ValueError: A negative order or none at all, or an all-zero spectrum.
    """
    check_axes(ax)
    check_spectrum(spectrum)
    alphas = check_reals("alphas", alphas, 0.0)
    if not alphas:
        raise ValueError("alphas is empty; give at least one order, such as [0.5, 1, 2].")
    chosen = None if chosen is None else check_real("chosen", chosen, 0.0)
    with exclusive(), warnings.catch_warnings(record=True) as caught:
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
    """Plot one curve per training, all of the same quantity, over the epochs.

    Args:
        ax: Axes to draw into.
        histories: Result of `train` for each label in the legend.
        quantity: Attribute of `History` with one value per epoch, such as ``"train_loss"``.

    Raises:
        TypeError: ``ax`` is no axes of matplotlib, or ``histories`` is no mapping of `History`.
        ValueError: ``quantity`` is no curve of a `History`.
    """
    check_axes(ax)
    for history in check_instance("histories", histories, Mapping, 'write {"label": history}').values():
        check_instance("each of histories", history, History, "train() returns one")
    curves = [field.name for field in dataclasses.fields(History) if field.type.startswith("tuple")]
    check_choice("quantity", quantity, curves)
    colors = itertools.cycle((BLUE, ORANGE, GREEN, PURPLE))
    for (name, history), color in zip(histories.items(), colors, strict=False):
        values = getattr(history, quantity)
        ax.plot(range(1, len(values) + 1), values, color=color, label=name)
    ax.set(xlabel="epoch", ylabel=quantity.replace("_", " "))
    ax.legend(loc="lower right", frameon=False)
