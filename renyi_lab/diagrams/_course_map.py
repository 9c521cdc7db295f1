"""The map of the course: its notebooks, what each builds on, and three paths through them."""

from __future__ import annotations

from typing import NamedTuple

from matplotlib.axes import Axes

from renyi_lab._utils.figure import BLUE, GREEN, GREY, ORANGE, NotebookFigure
from renyi_lab.diagrams._drawing import INK, SMALL, arrow, box, canvas, label


class _Notebook(NamedTuple):
    title: str
    needs: tuple[str, ...] = ()
    helped_by: tuple[str, ...] = ()


# In their order. Everything needs the first; a new notebook is a new row here.
NOTEBOOKS = {
    "00_start_here": _Notebook("Start here"),
    "01_renyi_entropy": _Notebook("Rényi entropy", needs=("00_start_here",)),
    "02_hessian_vector_products": _Notebook("Hessian-vector products", needs=("00_start_here",)),
    "03_lanczos_and_slq": _Notebook("Lanczos and stochastic quadrature", helped_by=("02_hessian_vector_products",)),
    "03b_the_estimator": _Notebook("The estimator behind every ±", needs=("03_lanczos_and_slq",)),
    "04_renyi_sharpness": _Notebook("Rényi sharpness", needs=("01_renyi_entropy",), helped_by=("03_lanczos_and_slq",)),
    "05_perturbations": _Notebook("Perturbations: other data, other weights", needs=("04_renyi_sharpness",)),
    "05b_landscapes": _Notebook("Balls and landscapes", helped_by=("05_perturbations",)),
    "06_generalization_bounds": _Notebook("Generalization bounds", helped_by=("01_renyi_entropy",)),
    "07_does_it_correlate": _Notebook("Does it correlate?", needs=("04_renyi_sharpness",)),
    "08_rsam": _Notebook("RSAM", helped_by=("01_renyi_entropy", "05b_landscapes")),
    "08b_sam_family": _Notebook("The neighbours of RSAM", needs=("08_rsam",)),
    "09_when_sharpness_fails": _Notebook("When sharpness fails", needs=("04_renyi_sharpness",), helped_by=("08_rsam",)),
    "10_your_own_model": _Notebook("Your own model", helped_by=("03b_the_estimator",)),
}
PATHS: dict[str, tuple[str, ...]] = {
    "90 minutes": ("00_start_here", "01_renyi_entropy", "04_renyi_sharpness"),
    "practitioner": (
        "00_start_here",
        "02_hessian_vector_products",
        "03_lanczos_and_slq",
        "03b_the_estimator",
        "05b_landscapes",
        "08_rsam",
        "08b_sam_family",
        "10_your_own_model",
    ),
    "theory": (
        "00_start_here",
        "01_renyi_entropy",
        "03_lanczos_and_slq",
        "03b_the_estimator",
        "04_renyi_sharpness",
        "05_perturbations",
        "06_generalization_bounds",
        "07_does_it_correlate",
        "09_when_sharpness_fails",
    ),
}
STYLES = ((BLUE, "-", "o"), (ORANGE, "--", "s"), (GREEN, ":", "^"))
ROW, BOX_HEIGHT, LEFT, RIGHT = 0.47, 0.33, 3.3, 6.8


def course_map() -> NotebookFigure:
    """Draw the notebooks of the course, what each builds on, and the paths of `PATHS` as three lines with stops.

    Returns:
        The figure; its ``alt`` describes it.

    Example:
        >>> course_map().alt.split(". ")[1]
        'Path "90 minutes": 00, 01, 04'
    """
    paths = " ".join(f'Path "{name}": {", ".join(map(_number, stops))}.' for name, stops in PATHS.items())
    needs = "; ".join(
        f"{_number(stem)} {verb} {', '.join(map(_number, others))}"
        for stem, book in NOTEBOOKS.items()
        for verb, others in (("needs", book.needs), ("is helped by", book.helped_by))
        if others
    )
    height = len(NOTEBOOKS) * ROW + 0.92
    alt = f"Map of the course, one row for each of {len(NOTEBOOKS)} notebooks. {paths} Arrows: {needs}."
    figure, ax = canvas(8.2, height, alt)
    heights = {stem: height - 0.62 - index * ROW for index, stem in enumerate(NOTEBOOKS)}
    for stem, book in NOTEBOOKS.items():
        _draw_box(ax, heights[stem], _number(stem), book.title)
        ax.plot((0.3, LEFT), (heights[stem], heights[stem]), color=GREY, lw=0.5, alpha=0.5, zorder=0)
    for index, (name, stops) in enumerate(PATHS.items()):
        color, line, marker = STYLES[index]
        x = 0.6 + 1.05 * index
        ax.plot([x] * len(stops), [heights[stop] for stop in stops], line, color=color, marker=marker, ms=9, lw=2.4)
        label(ax, (x, height - 0.25), name, color=color, weight="bold")
    _draw_arrows(ax, heights)
    return figure


def _number(stem: str) -> str:
    return stem.partition("_")[0]


def _draw_box(ax: Axes, y: float, number: str, title: str) -> None:
    box(ax, (LEFT, y - BOX_HEIGHT / 2), RIGHT - LEFT, BOX_HEIGHT, color=GREY)
    label(ax, (LEFT + 0.12, y), number, ha="left", va="center_baseline", weight="bold")
    label(ax, (LEFT + 0.48, y), title, ha="left", va="center_baseline")


def _draw_arrows(ax: Axes, heights: dict[str, float]) -> None:
    """What a notebook needs or is helped by, as arcs at the right of the boxes."""
    for stem, book in NOTEBOOKS.items():
        for others, style in ((book.needs, "-"), (book.helped_by, "--")):
            for other in others:
                start, end = (RIGHT + 0.02, heights[other] - 0.07), (RIGHT + 0.02, heights[stem] + 0.07)
                arrow(ax, start, end, bend=-0.6, linestyle=style)
    for y, style, text in ((0.3, "-", "needed first"), (0.12, "--", "helps")):
        arrow(ax, (RIGHT - 0.15, y), (RIGHT + 0.3, y), linestyle=style)
        label(ax, (RIGHT + 0.38, y), text, size=SMALL, ha="left", color=INK)
