"""The way from a network to a bound: five stages, each with an icon, its function and its notebook."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle, Rectangle

from renyi_lab._utils.figure import BLUE, GREEN, GREY, ORANGE, PURPLE, NotebookFigure
from renyi_lab._utils.validation import check_choice
from renyi_lab.diagrams._drawing import CHANGED, INK, LINE, SMALL, TITLE, Point, arrow, box, canvas, label, matrix, tint

WIDTH, HEIGHT, GAP = 1.5, 1.75, 0.3


def pipeline(highlight: str | None = None) -> NotebookFigure:
    """Draw the stages from a network to a bound, each with the function that computes it and its notebook.

    Args:
        highlight: Stage to mark with "you are here": ``"network"``, ``"products"``, ``"spectrum"``, ``"entropy"`` or
            ``"bound"``. Default: none.

    Returns:
        The figure; its ``alt`` describes it.

    Raises:
        ValueError: ``highlight`` is not the name of a stage.

    Example:
        >>> pipeline(highlight="spectrum").alt.endswith("The stage spectrum is marked: you are here.")
        True
    """
    chosen = None if highlight is None else check_choice("highlight", highlight, STAGES)
    alt = (
        "Five boxes joined by arrows from left to right: a network is trained, products of its Hessian with vectors "
        "give the spectrum, the spectrum's shares give the Rényi entropy, and that gives sharpness and a bound. "
        "Each box holds an icon and the name of a library function; above it stands its notebook."
    )
    if chosen is None:
        figure, ax = canvas(9.0, 2.5, alt)
    else:
        figure, ax = canvas(9.0, 2.8, f"{alt} The stage {chosen} is marked: you are here.")
    for index, (name, stage) in enumerate(STAGES.items()):
        left = 0.15 + index * (WIDTH + GAP)
        _draw_stage(ax, (left, 0.42), stage, marked=name == chosen)
        if index:
            arrow(ax, (left - GAP + 0.03, 1.3), (left - 0.03, 1.3))
    return figure


class _Stage(NamedTuple):
    title: str
    function: str
    notebook: str
    color: str
    icon: Callable[[Axes, Point], None]


def _draw_stage(ax: Axes, corner: Point, stage: _Stage, *, marked: bool) -> None:
    left, bottom = corner
    middle = left + WIDTH / 2
    style = {"linewidth": CHANGED, "facecolor": tint(stage.color, 0.2)} if marked else {"facecolor": "white"}
    box(ax, corner, WIDTH, HEIGHT, color=stage.color, **style)
    weight = "bold" if marked else "normal"
    label(ax, (middle, bottom + HEIGHT - 0.25), stage.title, weight=weight, va="baseline")
    stage.icon(ax, (middle, bottom + 0.78))
    label(ax, (middle, bottom - 0.2), stage.function, size=8.0, code=True, va="baseline")
    label(ax, (middle, bottom + HEIGHT + 0.1), stage.notebook, size=SMALL, va="baseline")
    if marked:
        label(ax, (middle, bottom + HEIGHT + 0.42), "▼ you are here", weight="bold")


def _network(ax: Axes, centre: Point) -> None:
    x, y = centre
    layers = [
        [(x + left, y + 0.28 * (unit - (units - 1) / 2)) for unit in range(units)]
        for left, units in ((-0.45, 4), (0.0, 4), (0.45, 3))
    ]
    for before, after in itertools.pairwise(layers):
        for start, end in itertools.product(before, after):
            ax.plot((start[0], end[0]), (start[1], end[1]), color=GREY, lw=0.6, zorder=2)
    for unit in itertools.chain(*layers):
        ax.add_patch(Circle(unit, 0.075, facecolor=tint(BLUE, 0.55), edgecolor=BLUE, lw=LINE, zorder=3))


def _products(ax: Axes, centre: Point) -> None:
    x, y = centre
    cell, size = 0.12, 6
    top = y + cell * size / 2
    matrix(ax, (x - 0.58, top), cell, np.ones((size, size), bool), color=GREEN, name="H")
    matrix(ax, (x + 0.2, top), cell, np.ones((size, 1), bool), color=ORANGE, name="v")
    label(ax, (x + 0.42, y), "=", size=TITLE)
    matrix(ax, (x + 0.52, top), cell, np.ones((size, 1), bool), color=PURPLE, name="Hv")


def _spectrum(ax: Axes, centre: Point) -> None:
    x, y = np.add(centre, (-0.62, -0.4))
    across = np.linspace(0.0, 0.8, 80)
    density = 0.75 * np.exp(-(((across - 0.22) / 0.14) ** 2)) + 0.1 * np.exp(-(((across - 0.5) / 0.12) ** 2))
    ax.fill_between(x + across, y, y + density, facecolor=tint(BLUE, 0.45), edgecolor=BLUE, lw=LINE, zorder=2)
    ax.plot([x - 0.03, x + 1.27], [y, y], color=INK, lw=0.8, zorder=3)
    ax.vlines(x + np.array([0.84, 0.97, 1.2]), y, y + 0.22, color=ORANGE, lw=2, zorder=3)


def _entropy(ax: Axes, centre: Point) -> None:
    x, y = np.add(centre, (-0.6, -0.4))
    shares = np.array([0.72, 0.46, 0.34, 0.24, 0.17, 0.12, 0.08])
    for index, share in enumerate(shares):
        patch = Rectangle((x + 0.175 * index, y), 0.125, share, facecolor=tint(PURPLE, 0.6), edgecolor=PURPLE, lw=0.8)
        ax.add_patch(patch)
    ax.plot([x - 0.05, x + 1.25], [y, y], color=INK, lw=0.8, zorder=3)
    label(ax, (x + 0.85, y + 0.6), r"$p_i^\alpha$", size=TITLE)


def _bound(ax: Axes, centre: Point) -> None:
    x, y = np.add(centre, (-0.6, -0.36))
    for left, bottom, height, color, hatch in (
        (0.0, 0.0, 0.42, GREY, ""),
        (0.55, 0.0, 0.2, BLUE, ""),
        (0.55, 0.2, 0.55, ORANGE, "////"),
    ):
        patch = Rectangle((x + left, y + bottom), 0.3, height, facecolor=tint(color, 0.45), edgecolor=color, lw=LINE)
        patch.set_hatch(hatch)
        ax.add_patch(patch)
    ax.plot([x - 0.1, x + 1.2], [y, y], color=INK, lw=0.8, zorder=3)
    label(ax, (x + 0.425, y + 0.2), r"$\leq$", size=TITLE)
    label(ax, (x + 0.15, y - 0.05), "test", size=8.0, va="top")
    label(ax, (x + 0.75, y - 0.05), "training\n+ complexity", size=8.0, va="top")


# In their order; names of the functions as a reader types them.
STAGES = {
    "network": _Stage("network", "rl.train", "00 Start here", BLUE, _network),
    "products": _Stage("products $H v$", "rl.HessianOperator", "02 Products", GREEN, _products),
    "spectrum": _Stage("spectrum", "rl.estimate_spectrum", "03 Lanczos", BLUE, _spectrum),
    "entropy": _Stage("entropy $H_\\alpha$", "spectrum.renyi_entropy", "01 Rényi entropy", PURPLE, _entropy),
    "bound": _Stage("sharpness, bound", "rl.bounds", "04 Rényi sharpness", ORANGE, _bound),
}
