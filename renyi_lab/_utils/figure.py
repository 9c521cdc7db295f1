"""Figures that a notebook displays without pyplot and its global state."""

from __future__ import annotations

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe & Ito's palette, distinguishable with colour-vision deficiencies.
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#777777"


class NotebookFigure(Figure):
    """A figure that a notebook displays as a cell's value; matplotlib's own needs pyplot for that."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def new_figure(width: float = 9.0, height: float = 3.2) -> NotebookFigure:
    """An empty figure of the given size in inches, drawn by Agg whatever backend is selected."""
    figure = NotebookFigure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
