"""Notes for teachers, glossary and paths agree with the notebooks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest

import renyi_lab as rl

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
NOTES = (FOLDER / "README.md").read_text(encoding="utf-8")
LESSONS = sorted(FOLDER.glob("[0-9]*.ipynb"))


def texts(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def section(title: str) -> str:
    return next(part for part in re.split(r"^## ", NOTES, flags=re.MULTILINE) if part.startswith(title))


def rows(title: str) -> Iterator[list[str]]:
    """The cells of the rows of a section's table, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    for line in lines[2:]:
        yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def links(text: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", text)


@pytest.mark.parametrize("target", sorted({link for link in links(NOTES) if "://" not in link}))
def test_links_of_the_notes_lead_to_notebooks_and_their_headings(target: str) -> None:
    name, _, anchor = target.partition("#")
    assert (FOLDER / name).is_file()
    headings = re.findall(r"^#+ (.+)$", texts(FOLDER / name), flags=re.MULTILINE)
    assert not anchor or unquote(anchor) in {heading.strip().replace(" ", "-") for heading in headings}


def test_every_lesson_is_in_the_table_of_times_and_every_checker_in_that_of_exercises() -> None:
    listed = {(links(cells[0])[0], cells[1].strip("`"), cells[2]) for cells in rows("Exercises")}
    expected = set()
    for path in LESSONS:
        assert f"]({path.name})" in section("Notebooks and times")
        cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        cores = {name for cell in cells if "stub" in cell.metadata.get("tags", ()) for name in called(cell.source)}
        names = {name for cell in cells for name in called(cell.source)}
        expected |= {(path.name, name, "core" if name in cores else "exercise") for name in names}
    assert listed == expected
    assert all(len(cells[3].split()) > 5 for cells in rows("Exercises"))


def called(source: str) -> list[str]:
    return re.findall(r"exercises\.(check_\w+)\(", source)


@pytest.mark.parametrize(("title", "total"), [("Lecture of 90 minutes", 90), ("Half a day", 240)])
def test_a_plan_adds_up_to_its_time(title: str, total: int) -> None:
    assert sum(int(minutes) for minutes, *_ in rows(title)) == total


def test_a_rubric_adds_up_to_its_total() -> None:
    *criteria, (_, _, total) = rows("Mini-project")
    assert sum(int(points) for *_, points in criteria) == int(total)


def test_each_misconception_has_a_section_of_a_notebook_that_cures_it() -> None:
    misconceptions = list(rows("Common misconceptions"))
    assert len(misconceptions) >= 10
    assert all(any("#" in target for target in links(cure)) for _, cure in misconceptions)


def test_the_grading_script_appends_an_assertion_to_every_exercise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (script,) = re.findall(r"```python\n(.+?)```", NOTES, flags=re.DOTALL)
    (tmp_path / "handed_in").mkdir()
    solved = nbformat.v4.new_notebook()
    for source in ("x = 1", "def f():\n    return 2\n\n\nexercises.check_some(f)", "exercises.check_other(x, (1, 2))"):
        solved.cells.append(nbformat.v4.new_code_cell(source))
    path = tmp_path / "handed_in" / "a.ipynb"
    nbformat.write(solved, path)
    monkeypatch.chdir(tmp_path)
    exec(compile(script, "notebooks/README.md", "exec"), {})
    graded = [cell.source for cell in nbformat.read(path, as_version=4).cells]
    assert graded[2] == "assert exercises.check_some(f).solved"
    assert graded[4:] == ["assert exercises.check_other(x, (1, 2)).solved"]


def test_the_paths_of_the_first_notebook_are_those_of_the_map() -> None:
    lines = texts(LESSONS[0]).splitlines()
    for name, stops in rl.diagrams.PATHS.items():
        (row,) = [line for line in lines if line.startswith(f"| **{name}** |")]
        others = [f"{stop}.ipynb" for stop in stops if stop != LESSONS[0].stem]
        assert links(row) == others
        assert re.search(r"\| 00\b", row)


def test_the_glossary_leads_to_every_lesson_and_spells_out_acronyms() -> None:
    text = texts(FOLDER / "glossary.ipynb")
    assert {path.name for path in LESSONS} <= set(links(text))
    terms = re.findall(r"^- \*\*(.+?)\*\*", text, flags=re.MULTILINE)
    assert len(terms) >= 35
    for acronym in ("HVP", "GGN", "SLQ", "RMSE", "KL", "PAC", "SAM", "ASAM", "SAGM", "RSAM", "ReLU"):
        assert re.search(rf"\({acronym}\)|{acronym} \(|PAC-Bayes bound \(", text), acronym


def test_code_names_of_the_notation_exist() -> None:
    text = texts(FOLDER / "glossary.ipynb")
    for name in set(re.findall(r"`rl\.([\w.]+)`", text)):
        found = rl
        for part in name.split("."):
            found = getattr(found, part)
    for name in set(re.findall(r"`spectrum\.(\w+)`", text)):
        assert hasattr(rl.Spectrum.from_eigenvalues([1.0]), name)
