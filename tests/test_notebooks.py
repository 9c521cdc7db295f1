"""What every notebook of the course owes its readers, read off the stored file; `make test` runs them."""

from __future__ import annotations

import ast
import base64
import re
import statistics
from collections import Counter
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from traitlets.config import Config

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("[!.]*.ipynb"))
LESSONS = [path for path in NOTEBOOKS if path.parent.name != "solutions"]
EXERCISED = [path for path in LESSONS if not path.name.startswith("00_")]  # the start only shows what there is
MAX_LINES = 20  # of a code cell: half a screen
MAX_TYPICAL_LINES = 8  # the median of a notebook: one idea a cell
MAX_WORDS = 200  # of a text cell, formulas counted in: about a minute
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
# A home, a temporary or a drive's folder: what is true on one machine only.
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/])(/(home|root|Users|tmp|usr|opt|mnt|work|var|private)/\w|[A-Z]:\\\w)")
MAX_BYTES = 8_000_000  # of all together: they travel in the wheel
PICTURE_TEXT = re.compile(r"<\w*Figure size|Explorer\(")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.relative_to(ROOT / "notebooks").as_posix())
def notebook(request: pytest.FixtureRequest) -> NotebookNode:
    return nbformat.read(request.param, as_version=4)


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.relative_to(ROOT / "notebooks").as_posix())
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture(params=EXERCISED, ids=lambda path: path.name)
def exercised(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture(params=LESSONS, ids=lambda path: path.name)
def lesson(request: pytest.FixtureRequest) -> NotebookNode:
    return nbformat.read(request.param, as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def prose(notebook: NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


def headings(notebook: NotebookNode) -> list[str]:
    lines = [line for text in prose(notebook) for line in text.splitlines()]
    return [line.lstrip("# ") for line in lines if re.match(r"#+ ", line)]


def figures(notebook: NotebookNode) -> list[NotebookNode]:
    """Outputs that a reader sees as a picture: figures and explorers."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs if "data" in output]
    return [o for o in outputs if WIDGET_VIEW in o.data or PICTURE_TEXT.search(o.data.get("text/plain", ""))]


def joined(text: str) -> str:
    return "".join(text.split())


def shows_a_picture(cell: NotebookNode) -> bool:
    """Whether a cell ends with what the course calls figures and explorers, or with a call that makes one."""
    body = ast.parse(cell.source).body
    if not body or not isinstance(body[-1], ast.Expr):
        return False
    last = ast.unparse(body[-1].value)
    return re.search(r"^(\w*figure|\w*explorer)$|\.plot\w*\([^()]*\)$|Explorer\(.*\)$", last) is not None


def anchors(path: Path) -> set[str]:
    """What `[text](#anchor)` may name: Jupyter puts hyphens for the spaces of a heading and keeps the rest."""
    return {heading.strip().replace(" ", "-") for heading in headings(nbformat.read(path, as_version=4))}


def broken_links(path: Path, text: str) -> list[str]:
    """Links and names of notebooks in ``text`` that lead nowhere; addresses elsewhere are only read, not asked."""
    broken = []
    for target in re.findall(r"\]\(<?([^)>\s]*)[^)]*\)", text):
        parts = urlsplit(target)
        if parts.scheme or parts.netloc:
            if parts.scheme != "https" or not re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.netloc):
                broken.append(target)
            continue
        file = path.parent / unquote(parts.path) if parts.path else path
        travels = file.is_file() and ROOT / "notebooks" in file.resolve().parents
        if not travels or not (parts.fragment == "" or unquote(parts.fragment) in anchors(file)):
            broken.append(target)
    mentioned = re.findall(r"[\w./-]+\.ipynb", text)
    broken += [name for name in mentioned if "://" not in name and not (path.parent / name).is_file()]
    return broken


def exercises_of(notebook: NotebookNode) -> Counter[str]:
    """The checkers that a notebook calls."""
    nodes = [node for cell in code_cells(notebook) for node in ast.walk(ast.parse(cell.source))]
    names = [ast.unparse(node.func).rpartition(".")[2] for node in nodes if isinstance(node, ast.Call)]
    return Counter(name for name in names if name.startswith("check_"))


def test_every_code_cell_was_run_from_top_to_bottom(notebook: NotebookNode) -> None:
    # nbval does not compare a cell that was never run.
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))


def test_no_cell_failed_or_warned(notebook: NotebookNode) -> None:
    for cell in code_cells(notebook):
        for output in cell.outputs:
            assert output.output_type != "error", f"{output.get('ename')} in: {cell.source}"
            assert output.get("name") != "stderr", f"{output.text} from: {cell.source}"


def test_every_figure_and_explorer_has_a_stored_picture(notebook: NotebookNode) -> None:
    for output in figures(notebook):
        assert "image/png" in output.data, output.data.get("text/plain")
        assert base64.b64decode(output.data["image/png"]).startswith(b"\x89PNG")


def test_every_cell_that_ends_with_a_figure_shows_one(notebook: NotebookNode) -> None:
    for cell in filter(shows_a_picture, code_cells(notebook)):
        assert any("image/png" in output.get("data", {}) for output in cell.outputs), cell.source


def test_no_widget_state_is_stored(notebook: NotebookNode) -> None:
    # GitHub refuses notebooks whose state is incomplete, and a complete one weighs megabytes.
    assert "widgets" not in notebook.metadata


def test_links_lead_somewhere(path: Path) -> None:
    text = "\n".join(prose(nbformat.read(path, as_version=4)))
    assert broken_links(path, text) == []


def test_no_cell_is_long(notebook: NotebookNode) -> None:
    assert [cell.source for cell in code_cells(notebook) if len(cell.source.splitlines()) > MAX_LINES] == []
    assert [text for text in prose(notebook) if len(text.split()) > MAX_WORDS] == []


def test_most_cells_of_a_lesson_are_a_few_lines(lesson: NotebookNode) -> None:
    assert statistics.median(len(cell.source.splitlines()) for cell in code_cells(lesson)) <= MAX_TYPICAL_LINES


def test_a_static_page_shows_a_picture_for_every_explorer(lesson: NotebookNode) -> None:
    wanted = [output.data["image/png"] for output in figures(lesson) if WIDGET_VIEW in output.data]
    order = ["text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain"]
    page, _ = HTMLExporter(Config(NbConvertBase={"display_data_priority": order})).from_notebook_node(lesson)
    shown = [joined(text) for text in re.findall(r'<img\b[^>]*?src="data:image/png;base64,([^"]*)"', page)]
    assert [picture for picture in map(joined, wanted) if picture not in shown] == []


def test_outputs_hold_no_memory_addresses(notebook: NotebookNode) -> None:
    texts = [o.data.get("text/plain", "") for cell in code_cells(notebook) for o in cell.outputs if "data" in o]
    assert [text for text in texts if re.search(r"0x[0-9a-f]{6,}", text)] == []


def test_nothing_names_a_place_on_the_author_s_machine(notebook: NotebookNode) -> None:
    texts = [cell.source for cell in notebook.cells]
    for cell in code_cells(notebook):
        for output in cell.outputs:
            texts += [output.get("text", ""), *output.get("data", {}).values()]
    places = [match.group() for text in texts if isinstance(text, str) for match in ABSOLUTE_PATH.finditer(text)]
    assert places == []


def test_cells_have_ids_and_are_unique(notebook: NotebookNode) -> None:
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)


def test_a_lesson_opens_with_title_promise_goals_and_time(lesson: NotebookNode) -> None:
    title, _, promise = prose(lesson)[0].partition("\n")
    assert re.fullmatch(r"# \S.*", title)
    assert len(promise.split()) >= 8, "one sentence that says what the reader gets"
    opening = "\n".join(prose(lesson)[:2])
    goals = re.findall(r"^- ", opening, flags=re.MULTILINE)
    assert 3 <= len(goals) <= 5
    assert re.search(r"\*\*Time:?\*\*", opening), "how long it takes on two cores"


def test_a_lesson_says_what_it_does_not_show_and_sums_up(lesson: NotebookNode) -> None:
    found = [heading.lower() for heading in headings(lesson)]
    assert any("does not show" in heading for heading in found)
    assert any("summary" in heading for heading in found)
    assert re.search(r"\*\*References|^#+ References", "\n".join(prose(lesson)), flags=re.MULTILINE)


def test_a_lesson_explains_at_least_as_much_as_it_runs(lesson: NotebookNode) -> None:
    assert len(prose(lesson)) >= len(code_cells(lesson))


def test_a_lesson_checks_what_it_claims(lesson: NotebookNode) -> None:
    # nbval compares text only: pictures and numbers are held by assertions in the cells.
    nodes = [node for cell in code_cells(lesson) for node in ast.walk(ast.parse(cell.source))]
    assert sum(isinstance(node, ast.Assert) for node in nodes) >= 3


def test_a_lesson_has_something_to_play_with(lesson: NotebookNode) -> None:
    assert any(WIDGET_VIEW in output.data for output in figures(lesson))


def test_a_lesson_has_exercises_whose_stubs_run(exercised: Path) -> None:
    lesson = nbformat.read(exercised, as_version=4)
    assert len(exercises_of(lesson)) >= 2
    answers = [cell for cell in code_cells(lesson) if "check_" in cell.source]
    texts = ["".join(o.data.get("text/plain", "") for o in cell.outputs if "data" in o) for cell in answers]
    assert [text.partition(":")[0] for text in texts] == ["not attempted yet"] * len(answers)


def test_every_exercise_has_a_solution_that_its_checker_accepts(exercised: Path) -> None:
    solutions = nbformat.read(exercised.parent / "solutions" / exercised.name, as_version=4)
    assert exercises_of(solutions).keys() >= exercises_of(nbformat.read(exercised, as_version=4)).keys()
    for cell in code_cells(solutions):
        assert ("check_" in cell.source) == (".solved" in cell.source), f"assert feedback.solved in: {cell.source}"


def test_solutions_belong_to_a_lesson_that_names_them() -> None:
    for path in (path for path in NOTEBOOKS if path not in LESSONS):
        lesson = path.parent.parent / path.name
        if lesson.is_file():
            text = "\n".join(prose(nbformat.read(lesson, as_version=4)))
            assert f"solutions/{path.name}" in text, f"{path.name} does not say where its solutions are"


def test_all_together_are_small_enough_to_travel() -> None:
    sizes = {path.name: path.stat().st_size for path in NOTEBOOKS}
    assert sizes, "no notebooks found"
    assert sum(sizes.values()) < MAX_BYTES, sizes
