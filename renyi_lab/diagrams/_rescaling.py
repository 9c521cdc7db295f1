"""Two layers rescaled: the same function, another Hessian."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from renyi_lab._utils.figure import BLUE, GREY, ORANGE, NotebookFigure
from renyi_lab.diagrams._drawing import CHANGED, LINE, SMALL, TITLE, Point, arrow, box, canvas, label, tint

ALT = (
    "Two rows. Above, a network x, weight W1, ReLU, weight W2, f(x), and its Hessian as a square of blocks H11, H12, "
    "H21 and H22. Below, the weights are cW1 and W2/c with c above 0: the output f(x) is the same, the block H11 is "
    "divided by c², H22 is multiplied by c², and the blocks H12 and H21 between the layers stay."
)
BLOCKS = (0.74, 0.56)  # sizes of the two layers' blocks


def rescaling() -> NotebookFigure:
    """Draw what weights ``cW₁`` and ``W₂/c`` change: not the function, but the Hessian's blocks.

    They become ``H₁₁/c²`` and ``c²H₂₂``: every eigenvalue of a block gets the same factor, so that its shares
    ``|λ_i| / Σ|λ_j|`` and its Rényi sharpness stay. Those of the whole Hessian change.

    Returns:
        The figure; its ``alt`` describes it.

    Source:
        Dinh et al. 2017, *Sharp minima can generalize for deep nets*.

    Example:
        >>> "the same function" in [text.get_text() for text in rescaling().axes[0].texts]
        True
    """
    figure, ax = canvas(8.8, 3.75, ALT)
    label(ax, (2.7, 3.52), "network", size=TITLE)
    label(ax, (7.4, 3.52), "its Hessian", size=TITLE)
    _layers(ax, 2.62, ("$W_1$", "$W_2$"), BLUE)
    _layers(ax, 1.02, ("$c\\,W_1$", "$W_2 / c$"), ORANGE)
    label(ax, (5.05, 1.82), "the same function", size=SMALL)
    for start, end in ((2.44, 1.94), (1.7, 1.2)):
        arrow(ax, (5.05, start), (5.05, end), arrowstyle="-")
    label(ax, (2.2, 1.82), "$c > 0$:  relu$(c z) = c\\,$relu$(z)$", size=SMALL)
    _hessian(ax, (6.75, 3.27), (("$H_{11}$", "$H_{12}$"), ("$H_{21}$", "$H_{22}$")), BLUE)
    _hessian(ax, (6.75, 1.67), (("$c^{-2} H_{11}$", "$H_{12}$"), ("$H_{21}$", "$c^2 H_{22}$")), ORANGE)
    note = "each block keeps its shares $p_i$ and its Rényi sharpness; the whole Hessian does not"
    label(ax, (4.4, 0.15), note, size=SMALL)
    return figure


def _layers(ax: Axes, y: float, weights: tuple[str, str], color: str) -> None:
    label(ax, (0.25, y), "$x$", size=TITLE)
    for left, text, edge in ((0.7, weights[0], color), (2.1, "ReLU", GREY), (3.3, weights[1], color)):
        width = 0.8 if text == "ReLU" else 1.0
        box(ax, (left, y - 0.3), width, 0.6, color=edge, linewidth=CHANGED if edge == ORANGE else LINE)
        label(ax, (left + width / 2, y), text, size=TITLE)
    for start, end in ((0.38, 0.66), (1.7, 2.06), (2.9, 3.26), (4.3, 4.66)):
        arrow(ax, (start, y), (end, y))
    label(ax, (5.05, y), "$f(x)$", size=TITLE)
    arrow(ax, (5.45, y), (6.65, y), linestyle=":")


def _hessian(ax: Axes, corner: Point, names: tuple[tuple[str, str], ...], color: str) -> None:
    """A square of four blocks from its upper left corner; those of one layer are filled."""
    top = corner[1]
    for row, height in enumerate(BLOCKS):
        left = corner[0]
        for column, width in enumerate(BLOCKS):
            patch = Rectangle((left, top - height), width, height, edgecolor=GREY, lw=LINE)
            patch.set_facecolor(tint(color, 0.3) if row == column else "white")
            ax.add_patch(patch)
            label(ax, (left + width / 2, top - height / 2), names[row][column])
            left += width
        top -= height
