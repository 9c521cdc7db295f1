"""Checks on the stored notebooks: complete outputs, working links and the structure of a lesson."""

from __future__ import annotations

import ast
import base64
import itertools
import re
import statistics
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import navigation
import nbformat
import pytest
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from traitlets.config import Config

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.rglob("[!.]*.ipynb"))
LESSONS = [path for path in NOTEBOOKS if path.parent == FOLDER and path.name[0].isdigit()]
SOLUTIONS = [path for path in NOTEBOOKS if path.parent.name == "solutions"]
MAX_LINES = 20  # per code cell: half a screen
MAX_TYPICAL_LINES = 8  # median per lesson: one idea per cell
MAX_WORDS = 200  # per text cell, formulas included: about a minute
QUESTIONS = 5  # of the quiz
MAX_BYTES = 8_000_000  # in total: the notebooks are part of the wheel
NAVIGATION = (navigation.TOP, navigation.BOTTOM)
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
PICTURE_TEXT = re.compile(r"<\w*Figure size|Explorer\(")
PICTURE_CODE = re.compile(r"^(\w*figure|\w*explorer)$|\.plot\w*\([^()]*\)$|Explorer\(.*\)$")
# A home, temporary or drive folder, which exists on one machine only.
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/])(/(home|root|Users|tmp|usr|opt|mnt|work|var|private)/\w|[A-Z]:\\\w)")

of_notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.relative_to(FOLDER).as_posix())
of_lessons = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.name)


@cache
def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(path: Path) -> list[NotebookNode]:
    return [cell for cell in read(path).cells if cell.cell_type == "code" and cell.source.strip()]


def tagged(path: Path, tag: str) -> list[NotebookNode]:
    return [cell for cell in code_cells(path) if tag in cell.metadata.get("tags", ())]


def is_folded(cell: NotebookNode) -> bool:
    """Whether the reader sees the code only after a click."""
    return bool(cell.metadata.get("jupyter", {}).get("source_hidden"))


def visible_cells(path: Path) -> list[NotebookNode]:
    return [cell for cell in code_cells(path) if not is_folded(cell)]


def texts(path: Path) -> list[str]:
    """The text cells, without the generated navigation."""
    return [cell.source for cell in read(path).cells if cell.cell_type == "markdown" and cell.id not in NAVIGATION]


def headings(path: Path) -> list[str]:
    lines = [line for text in texts(path) for line in text.splitlines()]
    return [line.lstrip("# ") for line in lines if re.match(r"#+ ", line)]


def nodes(path: Path) -> Iterator[ast.AST]:
    for cell in code_cells(path):
        yield from ast.walk(ast.parse(cell.source))


def outputs(path: Path) -> list[NotebookNode]:
    return [output for cell in code_cells(path) for output in cell.outputs]


def pictures(path: Path) -> list[dict[str, str]]:
    """The data of outputs that a reader sees as a picture: figures and explorers."""
    found = [output.data for output in outputs(path) if "data" in output]
    return [data for data in found if WIDGET_VIEW in data or PICTURE_TEXT.search(data.get("text/plain", ""))]


def ends_with_a_picture(cell: NotebookNode) -> bool:
    last = ast.parse(cell.source).body[-1:]
    return bool(last) and isinstance(last[0], ast.Expr) and bool(PICTURE_CODE.search(ast.unparse(last[0].value)))


def checkers(cells: Iterable[NotebookNode]) -> set[str]:
    """The names of the checkers that are called."""
    parts = [node for cell in cells for node in ast.walk(ast.parse(cell.source))]
    calls = [ast.unparse(node.func) for node in parts if isinstance(node, ast.Call)]
    return {name.rpartition(".")[2] for name in calls if name.rpartition(".")[2].startswith("check_")}


def broken_links(path: Path) -> list[str]:
    """Links and names of notebooks that lead nowhere; of external addresses only the form is checked."""
    text, broken = "\n".join(texts(path)), []
    for target in re.findall(r"\]\(<?([^)>\s]*)[^)]*\)", text):
        parts = urlsplit(target)
        if parts.scheme or parts.netloc:
            valid = parts.scheme == "https" and re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.netloc)
        else:
            file = path.parent / unquote(parts.path) if parts.path else path
            valid = file.is_file() and FOLDER in file.resolve().parents
            if valid and parts.fragment:  # Jupyter replaces the spaces of a heading by hyphens
                valid = unquote(parts.fragment) in {heading.strip().replace(" ", "-") for heading in headings(file)}
        broken += [] if valid else [target]
    mentioned = re.findall(r"[\w./-]+\.ipynb", text)
    return broken + [name for name in mentioned if "://" not in name and not (path.parent / name).is_file()]


@of_notebooks
def test_all_cells_ran_in_order_without_errors_or_warnings(path: Path) -> None:
    counts = [cell.execution_count for cell in code_cells(path)]
    assert counts == list(range(1, len(counts) + 1))  # nbval does not compare a cell that never ran
    assert [output for output in outputs(path) if output.output_type == "error"] == []
    assert [output.text for output in outputs(path) if output.get("name") == "stderr"] == []


@of_notebooks
def test_every_figure_and_explorer_has_a_stored_picture(path: Path) -> None:
    for data in pictures(path):
        assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    for cell in filter(ends_with_a_picture, code_cells(path)):
        assert any("image/png" in output.get("data", {}) for output in cell.outputs), cell.source


@of_notebooks
def test_nothing_depends_on_the_machine_or_the_run(path: Path) -> None:
    assert "widgets" not in read(path).metadata, (
        "GitHub refuses incomplete widget state; complete state takes megabytes"
    )
    plain = [output.data.get("text/plain", "") for output in outputs(path) if "data" in output]
    assert [text for text in plain if re.search(r"0x[0-9a-f]{6,}", text)] == []
    stored = [cell.source for cell in read(path).cells]
    for output in outputs(path):
        stored += [output.get("text", ""), *output.get("data", {}).values()]
    assert [text for text in stored if isinstance(text, str) and ABSOLUTE_PATH.search(text)] == []
    ids = [cell.id for cell in read(path).cells]
    assert len(set(ids)) == len(ids)


@of_notebooks
def test_links_work(path: Path) -> None:
    assert broken_links(path) == []


@of_notebooks
def test_no_cell_is_long(path: Path) -> None:
    assert [cell.source for cell in code_cells(path) if len(cell.source.splitlines()) > MAX_LINES] == []
    assert [text for text in texts(path) if len(text.split()) > MAX_WORDS] == []


@of_lessons
def test_a_lesson_has_title_summary_goals_and_time(path: Path) -> None:
    title, _, summary = texts(path)[0].partition("\n")
    assert re.fullmatch(r"# \S.*", title)
    assert len(summary.split()) >= 8, "one sentence on what the reader learns"
    opening = "\n".join(texts(path)[:2])
    assert 3 <= len(re.findall(r"^- ", opening, flags=re.MULTILINE)) <= 5, "goals"
    assert re.search(r"\*\*Time:\*\*[^.]*minutes of reading[^.]*on two cores", opening)
    assert "**You need:**" in opening


@of_lessons
def test_a_lesson_states_its_limits_and_has_a_summary_and_references(path: Path) -> None:
    found = [heading.lower() for heading in headings(path)]
    assert any("does not show" in heading for heading in found)
    assert any("summary" in heading for heading in found)
    assert re.search(r"\*\*References|^#+ References", "\n".join(texts(path)), flags=re.MULTILINE)


@of_lessons
def test_a_lesson_has_short_cells_text_assertions_and_an_explorer(path: Path) -> None:
    cells = visible_cells(path)
    assert statistics.median(len(cell.source.splitlines()) for cell in cells) <= MAX_TYPICAL_LINES
    assert len(texts(path)) >= len(cells)
    assert sum(isinstance(node, ast.Assert) for node in nodes(path)) >= 3, "nbval compares text only, not pictures"
    assert any(WIDGET_VIEW in data for data in pictures(path))


@of_lessons
def test_a_static_page_shows_a_picture_for_every_explorer(path: Path) -> None:
    order = ["text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain"]
    page, _ = HTMLExporter(Config(NbConvertBase={"display_data_priority": order})).from_notebook_node(read(path))
    shown = re.findall(r'<img\b[^>]*?src="data:image/png;base64,([^"]*)"', page)
    stored = [data["image/png"] for data in pictures(path) if WIDGET_VIEW in data]
    assert {"".join(png.split()) for png in stored} <= {"".join(png.split()) for png in shown}


@of_lessons
def test_assertions_are_folded_away_and_say_what_they_check(path: Path) -> None:
    for cell in code_cells(path):
        asserts = any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(cell.source)))
        tags = cell.metadata.get("tags", [])
        assert asserts == bool({"check", "reference"} & set(tags)), cell.source
        assert is_folded(cell) == asserts, cell.source
        assert "check" not in tags or re.match(r"# Check: \w", cell.source), cell.source


@of_lessons
def test_prints_show_computed_values(path: Path) -> None:
    """A print of fixed text would claim a result whatever was computed."""
    for node in nodes(path):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
            assert not all(isinstance(argument, ast.Constant) for argument in node.args), ast.unparse(node)


@of_lessons
def test_every_picture_is_described(path: Path) -> None:
    for output in outputs(path):
        if "image/png" in output.get("data", {}):
            alt = output.metadata.get("image/png", {}).get("alt", "")
            assert len(alt.split()) >= 6, f"describe it with new_figure(..., alt=...): {alt!r}"
            assert not alt.startswith("Figure. "), f"only titles and labels so far: {alt!r}"


@of_lessons
def test_a_lesson_ends_with_a_quiz_whose_answers_are_folded(path: Path) -> None:
    text = "\n".join(texts(path))
    quiz = text[text.index("## Quiz") :]
    questions = re.findall(r"<details>\s*<summary>(.+?)</summary>\n\n(.+?)\n\n</details>", quiz, flags=re.DOTALL)
    assert len(questions) == QUESTIONS


@of_lessons
def test_a_lesson_has_exercises_whose_stubs_run(path: Path) -> None:
    cells = [cell for cell in visible_cells(path) if "check_" in cell.source]
    assert cells
    for cell in cells:
        plain = "".join(output.data.get("text/plain", "") for output in cell.outputs if "data" in output)
        assert plain.startswith("not attempted yet:"), cell.source


@of_lessons
def test_every_stub_is_followed_by_its_folded_reference(path: Path) -> None:
    cells = code_cells(path)
    for stub, reference in itertools.pairwise(cells):
        assert ("stub" in stub.metadata.get("tags", ())) == ("reference" in reference.metadata.get("tags", ()))
        if "stub" in stub.metadata.get("tags", ()):
            assert checkers([stub]) == checkers([reference])
            assert len(checkers([stub])) == 1
            assert re.search(r"^assert .*\.solved$", reference.source, flags=re.MULTILINE)


@of_lessons
def test_every_exercise_has_a_solution_that_its_checker_accepts(path: Path) -> None:
    exercises = checkers(code_cells(path)) - checkers(tagged(path, "reference"))
    assert exercises
    solutions = FOLDER / "solutions" / path.name
    assert checkers(code_cells(solutions)) >= exercises
    for cell in code_cells(solutions):
        assert ("check_" in cell.source) == (".solved" in cell.source), f"assert feedback.solved in: {cell.source}"


@of_notebooks
def test_the_navigation_is_up_to_date(path: Path) -> None:
    assert navigation.with_navigation(read(path), path) == read(path), "run `python tests/tools/navigation.py`"
    for text in navigation.lines(path).values():
        targets = re.findall(r"\]\(([^)]+)\)", text)
        assert [target for target in targets if not (path.parent / target).is_file()] == []


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.name)
def test_a_lesson_links_to_its_solutions(path: Path) -> None:
    assert f"(solutions/{path.name})" in navigation.lines(FOLDER / path.name)[navigation.TOP]


def test_the_notebooks_are_small() -> None:
    assert len(LESSONS) > 1
    assert sum(path.stat().st_size for path in NOTEBOOKS) < MAX_BYTES
