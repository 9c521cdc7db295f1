"""What the diagrams show is read back from their artists; texts are measured with the renderer."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from matplotlib.transforms import Bbox

import renyi_lab
from renyi_lab import Spectrum, diagrams
from renyi_lab._utils.figure import NotebookFigure
from renyi_lab.diagrams import _course_map

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
STAGES = ("network", "products", "spectrum", "entropy", "bound")
DIAGRAMS: dict[str, Callable[[], NotebookFigure]] = {
    "pipeline": diagrams.pipeline,
    **{f"pipeline at {stage}": functools.partial(diagrams.pipeline, stage) for stage in STAGES},
    "course_map": diagrams.course_map,
    "two_readings": diagrams.two_readings,
    "rescaling": diagrams.rescaling,
    "krylov": diagrams.krylov,
    "deflation": diagrams.deflation,
    "gauss_rule": diagrams.gauss_rule,
    "gauss_rule of many nodes": lambda: diagrams.gauss_rule(np.geomspace(1e-4, 10, 300), num_nodes=12),
    "gauss_rule of one node": lambda: diagrams.gauss_rule([3.0], num_nodes=1),
}


@pytest.fixture(params=DIAGRAMS)
def figure(request: pytest.FixtureRequest) -> NotebookFigure:
    return DIAGRAMS[request.param]()


def texts_of(figure: NotebookFigure) -> Iterator[tuple[Text, Bbox]]:
    """Every text that is drawn, with its place in pixels."""
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.draw()
    limits = {axis: axis.get_view_interval() for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)}
    hidden = {
        label
        for axis, (low, high) in limits.items()
        for tick, place in zip(axis.get_major_ticks(), axis.get_majorticklocs(), strict=False)
        for label in (tick.label1, tick.label2)
        if not low <= place <= high
    }
    for text in figure.findobj(Text):
        of_an_axis = text.axes is not None and text not in text.axes.texts
        drawn = text.get_visible() and text not in hidden and not (of_an_axis and not text.axes.axison)
        if text.get_text().strip() and drawn:
            yield text, text.get_window_extent(canvas.get_renderer())


def test_texts_lie_inside_the_figure(figure: NotebookFigure) -> None:
    inside = figure.bbox.padded(-1)
    outside = [text.get_text() for text, place in texts_of(figure) if not _contains(inside, place)]
    assert not outside


def test_no_text_overlaps_another(figure: NotebookFigure) -> None:
    pairs = itertools.combinations(texts_of(figure), 2)
    overlapping = [(a.get_text(), b.get_text()) for (a, first), (b, second) in pairs if first.overlaps(second)]
    assert not overlapping


def test_texts_can_be_read_at_the_width_of_a_notebook(figure: NotebookFigure) -> None:
    assert figure.get_figwidth() * figure.dpi <= 900
    assert min(text.get_fontsize() for text, _ in texts_of(figure)) >= 8


def _contains(outer: Bbox, inner: Bbox) -> bool:
    return bool((outer.min <= inner.min).all() and (inner.max <= outer.max).all())


def test_alternative_texts_are_specific() -> None:
    alts = [draw().alt for draw in DIAGRAMS.values()]
    assert len(set(alts)) == len(alts)
    for alt in alts:
        assert 80 <= len(alt) <= 600
        assert alt.endswith(".")
        assert re.search(r"left|right|above|below|row|box", alt, re.IGNORECASE), alt


def test_matplotlib_is_left_as_it_was() -> None:
    before, backend = dict(matplotlib.rcParams), matplotlib.get_backend()
    state = np.random.get_state()[1].copy()
    for draw in DIAGRAMS.values():
        draw()._repr_png_()
    assert dict(matplotlib.rcParams) == before
    assert matplotlib.get_backend() == backend
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def filled_cells(figure: NotebookFigure, name: str) -> set[tuple[int, int]]:
    pattern = re.compile(rf"{name}\[(\d+),(\d+)\]")
    found = (pattern.fullmatch(patch.get_gid() or "") for patch in figure.axes[0].patches)
    return {(int(match[1]), int(match[2])) for match in found if match}


def test_tridiagonal_matrix_is_filled_on_its_three_diagonals() -> None:
    figure = diagrams.krylov()
    assert filled_cells(figure, "T") == {(i, j) for i in range(5) for j in range(5) if abs(i - j) <= 1}
    assert len(filled_cells(figure, "A")) == 100
    assert len(filled_cells(figure, "Q")) == len(filled_cells(figure, "QT")) == 50


@pytest.mark.parametrize("num_nodes", [1, 3, 6])
def test_drawn_gauss_rule_integrates_polynomials_exactly(num_nodes: int) -> None:
    eigenvalues = np.concatenate([np.linspace(-0.5, 1, 30) ** 3, [1.7, 2.0]])
    above, _ = diagrams.gauss_rule(eigenvalues, num_nodes).axes
    (stems,) = (line for line in above.get_lines() if line.get_marker() == "o")
    nodes, weights = map(np.asarray, stems.get_data())
    assert len(nodes) == num_nodes
    for degree in range(2 * num_nodes):
        np.testing.assert_allclose(weights @ nodes**degree, np.sum(eigenvalues**degree), rtol=1e-9)
    degree = 2 * num_nodes
    assert weights @ nodes**degree < np.sum(eigenvalues**degree) * (1 - 1e-6)


def test_staircases_are_those_of_the_eigenvalues_and_of_the_rule() -> None:
    spectrum = Spectrum.from_eigenvalues([1.0, 1.0, 2.0, 5.0])
    _, below = diagrams.gauss_rule(spectrum, num_nodes=2).axes
    exact, rule = below.get_lines()
    np.testing.assert_array_equal(exact.get_xdata()[1:-1], spectrum.nodes)
    assert exact.get_ydata()[-1] == pytest.approx(4)
    assert rule.get_ydata()[-1] == pytest.approx(4)
    assert exact.get_linestyle() != rule.get_linestyle()


def test_outliers_are_scattered_before_deflation_and_counted_once_after() -> None:
    before, after, spread, tight = diagrams.deflation().axes
    circles = next(line for line in before.get_lines() if line.get_marker() == "o").get_ydata()
    assert np.std(circles) > 0.5
    (exact,) = (line for line in after.get_lines() if line.get_marker() == "D")
    assert set(exact.get_ydata()) == {1.0}
    wide, narrow = (next(iter(ax.get_lines()[1:])).get_xdata() for ax in (spread, tight))
    assert np.std(narrow) < np.std(wide) / 3


def written(figure: NotebookFigure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize("stage", STAGES)
def test_highlighted_stage_differs_in_more_than_colour(stage: str) -> None:
    plain, marked = diagrams.pipeline(), diagrams.pipeline(highlight=stage)
    assert set(written(marked)) - set(written(plain)) == {"▼ you are here"}
    (bold,) = (text for text in marked.axes[0].texts if text.get_weight() == "bold" and "here" not in text.get_text())
    assert stage[:5] in bold.get_text()
    assert stage in marked.alt


def test_functions_of_the_pipeline_exist() -> None:
    names = [text for text in written(diagrams.pipeline()) if re.fullmatch(r"(rl|spectrum)\.\w+", text)]
    assert len(names) == 5
    for name in names:
        owner, function = name.split(".")
        assert hasattr({"rl": renyi_lab, "spectrum": Spectrum}[owner], function), name


def test_paths_lead_through_notebooks_that_exist() -> None:
    existing = {path.stem for path in NOTEBOOKS.glob("*.ipynb")}
    assert set(diagrams.PATHS) == {"90 minutes", "practitioner", "theory"}
    assert {stop for stops in diagrams.PATHS.values() for stop in stops} <= existing
    assert set(_course_map.NOTEBOOKS) <= existing


def test_paths_run_forward_and_leave_nothing_out_that_a_stop_needs() -> None:
    order = list(_course_map.NOTEBOOKS)
    for stops in diagrams.PATHS.values():
        assert list(stops) == sorted(stops, key=order.index)
        assert stops[0] == order[0]
        for stop in stops:
            assert set(_course_map.NOTEBOOKS[stop].needs) <= set(stops), stop


def test_map_names_the_notebooks_by_their_titles() -> None:
    text = written(diagrams.course_map())
    for stem, notebook in _course_map.NOTEBOOKS.items():
        assert stem.partition("_")[0] in text
        assert notebook.title in text


def test_paths_differ_in_style_and_marker_and_stop_at_their_notebooks() -> None:
    figure = diagrams.course_map()
    lines = [line for line in figure.axes[0].get_lines() if line.get_marker() != "None"]
    assert len({line.get_linestyle() for line in lines}) == len({line.get_marker() for line in lines}) == 3
    rows = {text.get_text(): text.get_position()[1] for text in figure.axes[0].texts}
    for line, stops in zip(lines, diagrams.PATHS.values(), strict=True):
        assert list(line.get_ydata()) == [rows[stop.partition("_")[0]] for stop in stops]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: diagrams.pipeline(highlight="hessian"),
            ValueError,
            "highlight must be one of 'network', 'products', 'spectrum', 'entropy', 'bound', got 'hessian'",
        ),
        (lambda: diagrams.gauss_rule([1.0, 1.0, 2.0], 3), ValueError, "num_nodes must be at most 2, .* got 3"),
        (lambda: diagrams.gauss_rule(num_nodes=0), ValueError, "num_nodes must be at least 1, got 0"),
        (lambda: diagrams.gauss_rule(num_nodes=2.5), TypeError, "num_nodes must be an integer"),
    ],
)
def test_errors_name_the_cause(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
