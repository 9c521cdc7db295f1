"""The pieces that all diagrams share: a canvas in inches, boxes, arrows, labels, and matrices as grids of cells."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from numpy.typing import NDArray

from renyi_lab._utils.figure import GREY, NotebookFigure, new_figure

INK = "#222222"
TITLE, TEXT, SMALL = 11.0, 9.5, 8.5  # sizes in points
LINE, CHANGED = 1.2, 2.6  # widths in points; the second marks what differs
Point = tuple[float, float]


def canvas(width: float, height: float, alt: str) -> tuple[NotebookFigure, Axes]:
    """A figure with axes that fill it, without frame or ticks, whose coordinates are inches from the lower left."""
    figure = new_figure(width, height, alt=alt)
    figure.set_layout_engine("none")
    ax = figure.add_axes((0.0, 0.0, 1.0, 1.0), xlim=(0.0, width), ylim=(0.0, height))
    ax.set_axis_off()
    return figure, ax


def tint(color: str, strength: float = 0.18) -> tuple[float, float, float]:
    """A light, opaque shade of a colour: what lies below does not shine through."""
    red, green, blue = (1 - strength * (1 - channel) for channel in to_rgb(color))
    return red, green, blue


def label(ax: Axes, at: Point, text: str, *, size: float = TEXT, code: bool = False, **style: Any) -> None:
    """Text around a point, centred unless ``style`` says otherwise; code in a fixed-width font."""
    style = {"ha": "center", "va": "center", "color": INK, "linespacing": 1.15, **style}
    ax.text(*at, text, fontsize=size, family="monospace" if code else "sans-serif", **style)


def box(ax: Axes, corner: Point, width: float, height: float, *, color: str = GREY, **style: Any) -> None:
    """A rounded box from its lower left corner."""
    style = {"facecolor": tint(color, 0.1), "edgecolor": color, "linewidth": LINE, "zorder": 1, **style}
    shape = "round,pad=0,rounding_size=0.08"
    ax.add_patch(FancyBboxPatch(corner, width, height, boxstyle=shape, mutation_aspect=1, **style))


def arrow(ax: Axes, start: Point, end: Point, *, color: str = INK, bend: float = 0.0, **style: Any) -> None:
    """An arrow from ``start`` to ``end``, bent to the side by ``bend`` times its length."""
    style = {"arrowstyle": "-|>", "linewidth": LINE, "mutation_scale": 11, "zorder": 2, **style}
    connection = f"arc3,rad={bend}"
    ax.add_patch(FancyArrowPatch(start, end, color=color, connectionstyle=connection, shrinkA=0, shrinkB=0, **style))


def matrix(ax: Axes, corner: Point, cell: float, filled: NDArray[np.bool_], *, color: str, name: str) -> None:
    """A matrix as a grid of cells from its upper left corner, those that are not zero filled.

    A filled cell's ``gid`` is ``name[row,column]``.
    """
    rows, columns = filled.shape
    for row, column in zip(*np.nonzero(filled), strict=True):
        at = (corner[0] + column * cell, corner[1] - (row + 1) * cell)
        patch = Rectangle(at, cell, cell, gid=f"{name}[{row},{column}]", zorder=2)
        patch.set(facecolor=tint(color, 0.55), edgecolor="white", linewidth=0.8)
        ax.add_patch(patch)
    outline = Rectangle((corner[0], corner[1] - rows * cell), columns * cell, rows * cell, fill=False, zorder=3)
    outline.set(edgecolor=color, linewidth=LINE)
    ax.add_patch(outline)
