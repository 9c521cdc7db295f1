"""A Gauss rule: a few nodes and weights that stand for many eigenvalues."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes

from renyi_lab._utils.figure import BLUE, GREY, ORANGE, NotebookFigure, new_figure
from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_int
from renyi_lab.diagrams._drawing import SMALL, TEXT, TITLE
from renyi_lab.krylov import jacobi_matrix
from renyi_lab.spectrum import Spectrum


def gauss_rule(spectrum: Any = None, num_nodes: int = 4) -> NotebookFigure:
    """Draw the eigenvalues of a matrix and the Gauss rule with few nodes that stands for them.

    The rule is computed by Lanczos' method with equal weight on every eigenvalue, so that
    ``Σ_k w_k p(θ_k) = tr p(H)`` for every polynomial ``p`` of degree up to ``2·num_nodes − 1``. Above, the nodes
    ``θ_k`` are drawn with their weights as heights; below, the rule's cumulative sum crosses that of the eigenvalues in
    each of its steps.

    Args:
        spectrum: A `Spectrum` without negative weights, or all eigenvalues in any order. Default: 40 eigenvalues with
            a bulk near zero and three outliers.
        num_nodes: Number ``m`` of nodes, at most the number of different eigenvalues.

    Returns:
        The figure; its ``alt`` describes it.

    Raises:
        ValueError: ``num_nodes`` is below 1 or above the number of different eigenvalues, or weights are negative.
        TypeError: ``num_nodes`` is not an integer.

    Source:
        Golub & Meurant 2010, chapter 6.

    Example:
        >>> figure = gauss_rule([0.0, 1.0, 2.0, 6.0], num_nodes=2)
        >>> figure.alt[:60]
        'Above, 4 eigenvalues as ticks on an axis and 2 nodes of thei'
    """
    spectrum = _example() if spectrum is None else spectrum
    spectrum = spectrum if isinstance(spectrum, Spectrum) else Spectrum.from_eigenvalues(spectrum)
    nodes, weights = _rule(spectrum, check_int("num_nodes", num_nodes))
    alt = (
        f"Above, {spectrum.dim} eigenvalues as ticks on an axis and {num_nodes} nodes of their Gauss rule as stems "
        "with their weights as heights; below, the number of eigenvalues up to λ as a staircase of many steps and the "
        "sum of the rule's weights as one of few, which cross in every step of the rule."
    )
    figure = new_figure(7.5, 4.2, alt=alt)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1.0, 1.2))
    _stems(above, spectrum, nodes, weights)
    _staircases(below, spectrum, nodes, weights)
    return figure


def _example() -> FloatArray:
    return np.concatenate([np.linspace(0.0, 1.3, 37) ** 2 - 0.1, [2.4, 3.1, 4.0]])


def _rule(spectrum: Spectrum, num_nodes: int) -> tuple[FloatArray, FloatArray]:
    if spectrum.weights.min() < 0:
        raise ValueError("spectrum has negative weights, which have no Gauss rule; pass an exact spectrum.")
    count = len(np.unique(spectrum.nodes[spectrum.weights > 0]))
    if num_nodes > count:
        raise ValueError(f"num_nodes must be at most {count}, the number of different eigenvalues, got {num_nodes}.")
    start = np.sqrt(spectrum.weights)
    jacobi, _ = jacobi_matrix(spectrum.nodes, start, num_nodes, np.empty((0, len(start))))
    nodes, weights = jacobi.gauss_rule(num_nodes)
    return nodes, spectrum.dim * weights


def _stems(ax: Axes, spectrum: Spectrum, nodes: FloatArray, weights: FloatArray) -> None:
    height = 1.35 * weights.max()
    ax.plot(spectrum.nodes, np.full(len(spectrum.nodes), -0.1 * height), "|", color=BLUE, ms=9, label="eigenvalues")
    ax.vlines(nodes, 0, weights, color=ORANGE, lw=2)
    ax.plot(nodes, weights, "o", color=ORANGE, ms=6, label=f"{len(nodes)} Gauss nodes, heights: weights")
    room, last = 0.06 * float(np.ptp(spectrum.nodes)), -np.inf
    for node, weight in zip(nodes, weights, strict=True):
        if node - last > room:  # others would be written over each other
            ax.annotate(f"{weight:.1f}", (node, weight), (0, 6), textcoords="offset points", ha="center", size=SMALL)
            last = node
    ax.axhline(0, color=GREY, lw=0.8)
    ax.set(ylim=(-0.2 * height, height))
    ax.set_ylabel("weight", fontsize=TEXT)
    ax.set_title(f"{spectrum.dim} eigenvalues, and {len(nodes)} nodes that stand for them", fontsize=TITLE)
    _finish(ax, "best")


def _staircases(ax: Axes, spectrum: Spectrum, nodes: FloatArray, weights: FloatArray) -> None:
    margin = 0.05 * float(np.ptp(spectrum.nodes) or 1.0)
    ends = spectrum.nodes.min() - margin, spectrum.nodes.max() + margin
    for at, masses, color, style, text in (
        (spectrum.nodes, spectrum.weights, BLUE, "-", "eigenvalues up to λ"),
        (nodes, weights, ORANGE, "--", "sum of the weights up to λ"),
    ):
        steps = np.concatenate([[0.0], np.cumsum(masses), [masses.sum()]])
        ax.step(np.concatenate([[ends[0]], at, [ends[1]]]), steps, where="post", color=color, ls=style, label=text)
    ax.set(xlim=ends)
    ax.set_xlabel("λ", fontsize=TEXT)
    ax.set_ylabel("count", fontsize=TEXT)
    _finish(ax, "lower right")


def _finish(ax: Axes, legend: Literal["best", "lower right"]) -> None:
    ax.tick_params(labelsize=SMALL)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc=legend, frameon=False, fontsize=SMALL)
