"""Deflation: outliers are counted exactly, random probes measure the rest; computed on a small spectrum."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from renyi_lab._utils.figure import BLUE, GREY, ORANGE, NotebookFigure, new_figure
from renyi_lab._utils.typing import FloatArray
from renyi_lab.diagrams._drawing import SMALL, TEXT, TITLE

OUTLIERS = np.array([4.0, 5.5, 8.0])
BULK = 0.9 * np.linspace(0.0, 1.0, 97) ** 5
NUM_PROBES, SEED = 12, 5


def deflation() -> NotebookFigure:
    """Draw how outliers, once found, are counted exactly and random probes measure only the bulk.

    Twelve random probes on 100 eigenvalues. A probe ``u``, uniform on the unit sphere, weighs eigenvector ``k`` with
    ``n (u_kᵀu)²``: 1 on average, but far off for a single probe. Left, such probes weigh everything. Right, the three
    outliers have weight 1 and the probes are uniform in their orthogonal complement. Below are the estimates of the
    trace, with their standard deviations.

    Returns:
        The figure; its ``alt`` describes it.

    Source:
        Chen & Hallman 2023, arXiv:2205.01736.

    Example:
        >>> [axes.get_title(loc="left").split(":")[0] for axes in deflation().axes[:2]]
        ['before', 'after']
    """
    probes = np.random.default_rng(SEED).standard_normal((NUM_PROBES, len(BULK) + len(OUTLIERS)))
    before = _weights(probes)
    rest = _weights(probes[:, : len(BULK)])
    after = np.concatenate([rest, np.ones((NUM_PROBES, len(OUTLIERS)))], axis=1)
    alt = (
        f"Two columns over the same axis of 97 eigenvalues in a bulk near zero and three outliers. Left, {NUM_PROBES} "
        "random probes give each outlier weights scattered widely around 1, and their estimates of the trace scatter, "
        "too. Right, after deflation, each outlier has weight 1 exactly, the probes measure only the bulk, and the "
        "estimates of the trace lie close together at the true value."
    )
    figure = new_figure(9.0, 4.4, alt=alt)
    axes = figure.subplots(2, 2, sharex="row", sharey="row", height_ratios=(3.2, 1.0))
    for column, (weights, title) in enumerate(
        ((before, "before: probes measure everything"), (after, "after: outliers counted, probes for the bulk"))
    ):
        axes[0, column].set_title(title, fontsize=TITLE, loc="left")
        _draw_weights(axes[0, column], weights, found=column == 1)
        _draw_traces(axes[1, column], weights)
    axes[0, 0].set_ylabel("weight", fontsize=TEXT)
    return figure


def _weights(probes: FloatArray) -> FloatArray:
    """Weight of each eigenvector in each probe; the weights of a probe sum to their number."""
    squares = probes**2
    return np.asarray(squares.shape[1] * squares / squares.sum(axis=1, keepdims=True))


def _draw_weights(ax: Axes, weights: FloatArray, *, found: bool) -> None:
    ax.axhline(1, color=GREY, lw=0.8, ls="--")
    for values, color, name in ((BULK, BLUE, f"bulk ({len(BULK)})"), (OUTLIERS, ORANGE, f"outliers ({len(OUTLIERS)})")):
        ax.plot(values, np.full(len(values), -0.35), "|", color=color, ms=9, mew=1.5 if color == ORANGE else 0.8)
        ax.text((values.min() + values.max()) / 2, -1.0, name, ha="center", va="center", size=SMALL)
    drawn, style = weights[:, len(BULK) :], {"ha": "center", "size": SMALL}
    if found:
        ax.plot(OUTLIERS, drawn[0], "D", color=ORANGE, ms=8)
        ax.text(OUTLIERS.mean(), 1.6, "found by Lanczos:\ncounted once each, exactly", style)
        ax.text(-0.5, 4.5, f"the weights of each probe\nsum to {len(BULK)}, all in the bulk", size=SMALL)
    else:
        ax.plot(np.tile(OUTLIERS, NUM_PROBES), drawn.ravel(), "o", mfc="none", color=BLUE, ms=5)
        ax.text(
            OUTLIERS.mean() + 0.3,
            4.5,
            f"{NUM_PROBES} random probes, a circle each:\n1 on average, widely scattered",
            style,
        )
        ax.text(-0.5, 4.5, f"the weights of each\nprobe sum to {weights.shape[1]}", size=SMALL)
    ax.set(xlim=(-0.7, 9.2), ylim=(-1.5, 5.6), yticks=range(5))
    ax.set_xlabel("eigenvalue λ", fontsize=TEXT)
    _finish(ax)


def _draw_traces(ax: Axes, weights: FloatArray) -> None:
    eigenvalues = np.concatenate([BULK, OUTLIERS])
    estimates = weights @ eigenvalues
    ax.axvline(eigenvalues.sum(), color=GREY, lw=1.2, ls="--")
    ax.plot(estimates, np.zeros(NUM_PROBES), "o", mfc="none", color=BLUE, ms=5)
    ax.set(ylim=(-1, 1), yticks=[])
    ax.set_xlabel(f"estimates of the trace, {eigenvalues.sum():.0f}: standard deviation {estimates.std(ddof=1):.1f}")
    ax.xaxis.label.set_fontsize(TEXT)
    _finish(ax)
    ax.spines["left"].set_visible(False)


def _finish(ax: Axes) -> None:
    ax.tick_params(labelsize=SMALL)
    ax.spines[["top", "right"]].set_visible(False)
