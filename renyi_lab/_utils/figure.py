"""Figures that a notebook displays without pyplot and its global state."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from renyi_lab._utils.validation import check_instance, check_real

# Okabe & Ito's palette, distinguishable with colour-vision deficiencies.
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#777777"


class NotebookFigure(Figure):
    """A figure that a notebook displays as a cell's value; matplotlib's own needs pyplot for that.

    Attributes:
        alt: What the picture shows, in words, for readers who do not see it; if empty, the titles and axis labels.
    """

    alt: str = ""

    def _repr_png_(self) -> tuple[bytes, dict[str, str]]:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue(), {"alt": self.alt or described(self)}


def check_axes(ax: Any) -> Any:
    """Return ``ax`` when it is one panel of a figure of matplotlib, or raise."""
    return check_instance("ax", ax, Axes, "such as new_figure().subplots() returns")


def new_figure(width: float = 9.0, height: float = 3.2, *, alt: str = "") -> NotebookFigure:
    """An empty figure of the given size in inches, drawn by Agg whatever backend is selected.

    Args:
        width: Width in inches.
        height: Height in inches.
        alt: What the picture shows, in one or two sentences, for readers who do not see it.

    Raises:
        TypeError: A size that is not a number.
        ValueError: A size that is not positive, or above 100 inches.
    """
    width, height = (
        check_real(name, value, 0.0, 100.0, open_minimum=True) for name, value in (("width", width), ("height", height))
    )
    figure = NotebookFigure(figsize=(width, height), layout="constrained")
    figure.alt = alt
    FigureCanvasAgg(figure)
    return figure


def described(figure: Figure) -> str:
    """Titles, axis labels and legend entries of a figure as one sentence: the alternative text if none was given."""
    panels = []
    for axes in figure.axes:
        lines = [str(text) for text in axes.get_legend_handles_labels()[1]]
        across = " against ".join(filter(None, (axes.get_ylabel(), axes.get_xlabel())))
        panels.append(": ".join(filter(None, (axes.get_title(), across, ", ".join(lines)))))
    return "Figure. " + "; ".join(filter(None, panels))
