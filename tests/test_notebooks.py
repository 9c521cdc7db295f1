"""What every notebook of the course owes its readers, read off the stored file; `make test` runs them."""

from __future__ import annotations

import ast
import base64
import re
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("[!.]*.ipynb"))
LESSONS = [path for path in NOTEBOOKS if path.parent.name != "solutions"]
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
# A home, a temporary or a drive's folder: what is true on one machine only.
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/])(/(home|root|Users|tmp|usr|opt|mnt|work|var|private)/\w|[A-Z]:\\\w)")
MAX_BYTES = 8_000_000  # of all together: they travel in the wheel
PICTURE_TEXT = re.compile(r"<\w*Figure size|Explorer\(")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.relative_to(ROOT / "notebooks").as_posix())
def notebook(request: pytest.FixtureRequest) -> NotebookNode:
    return nbformat.read(request.param, as_version=4)


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


def test_all_together_are_small_enough_to_travel() -> None:
    sizes = {path.name: path.stat().st_size for path in NOTEBOOKS}
    assert sizes, "no notebooks found"
    assert sum(sizes.values()) < MAX_BYTES, sizes


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("/home/jo/x.ipynb", True),
        ("see /tmp/a", True),
        (r"C:\Users\jo", True),
        ("https://example.org/home/jo", False),
        ("tr f(H)/work", False),
        ("and/or/var", False),
        ("a / b", False),
    ],
)
def test_places_are_told_from_links_and_fractions(text: str, found: bool) -> None:
    assert (ABSOLUTE_PATH.search(text) is not None) == found
