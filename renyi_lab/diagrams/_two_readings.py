"""A change of a layer's input, read as a change of its weight."""

from __future__ import annotations

import numpy as np

from renyi_lab._utils.figure import BLUE, GREEN, GREY, ORANGE, NotebookFigure
from renyi_lab.diagrams._drawing import CHANGED, SMALL, TEXT, TITLE, arrow, box, canvas, label, matrix

ALT = (
    "Two rows that end in the same box, W(h + ρAh) = (W + ρWA)h. Above, other data: the layer's input h is changed to "
    "h + ρAh and passes through the weight W. Below, another weight: the same h passes through the weight W + ρWA. "
    "The changed box has a thick outline in each row."
)


def two_readings() -> NotebookFigure:
    """Draw why ``W(h + ρAh) = (W + ρWA)h``: a linear change of a layer's input is a change of its weight.

    Returns:
        The figure; its ``alt`` describes it.

    Example:
        >>> len(two_readings().axes[0].texts) > 5
        True
    """
    figure, ax = canvas(8.6, 2.75, ALT)
    for y, title in ((2.05, "other data"), (0.95, "another weight")):
        label(ax, (0.15, y), title, size=TITLE, ha="left")
        matrix(ax, (1.7, y + 0.35), 0.14, np.ones((5, 1), bool), color=GREEN, name="h")
        label(ax, (1.77, y + 0.47), "$h$")
        arrow(ax, (4.05 if y > 1.5 else 1.9, y), (4.45, y))
        arrow(ax, (5.75, y), (6.3, y))
    arrow(ax, (1.9, 2.05), (2.7, 2.05))
    box(ax, (2.75, 1.75), 1.3, 0.6, color=ORANGE, linewidth=CHANGED)
    label(ax, (3.4, 2.05), r"$h + \rho\,A h$", size=TITLE)
    box(ax, (4.5, 1.75), 1.25, 0.6, color=BLUE)
    label(ax, (5.125, 2.05), "$W$", size=TITLE)
    box(ax, (4.5, 0.65), 1.25, 0.6, color=ORANGE, linewidth=CHANGED)
    label(ax, (5.125, 0.95), r"$W + \rho\,W\!A$", size=TITLE)
    box(ax, (6.35, 0.65), 2.05, 1.7, color=GREY)
    label(ax, (7.375, 2.08), "the same output", size=TEXT)
    label(ax, (7.375, 1.72), r"$W(h + \rho\,A h)$", size=TITLE)
    label(ax, (7.375, 1.36), "=", size=TITLE)
    label(ax, (7.375, 1.0), r"$(W + \rho\,W\!A)\,h$", size=TITLE)
    label(ax, (4.3, 0.25), "exact for every input $h$, if one linear $A$ is shared by all samples", size=SMALL)
    return figure
