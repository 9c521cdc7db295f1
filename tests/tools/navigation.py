"""Write the navigation of the course: `python tests/tools/navigation.py` updates every notebook in place.

Each lesson gets a line below its title and one at its end, in cells with fixed identifiers; solutions and the glossary
get a line that leads back. The order is that of the file names.
"""

from __future__ import annotations

import copy
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
TOP, BOTTOM = "navigation-top", "navigation-bottom"
START, GLOSSARY = "00_start_here.ipynb", "glossary.ipynb"


def lessons(folder: Path = FOLDER) -> list[Path]:
    """The numbered notebooks in their order."""
    return sorted(folder.glob("[0-9]*.ipynb"))


def title(path: Path) -> str:
    """The number and the title of a notebook, without what follows a colon."""
    heading = nbformat.read(path, as_version=4).cells[0].source.splitlines()[0].lstrip("# ")
    return f"{path.stem.split('_')[0]} {heading.partition(':')[0]}"


def link(path: Path) -> str:
    """A link from one lesson to another."""
    return f"[{title(path)}]({path.name})"


def lines(path: Path) -> dict[str, str]:
    """The navigation of a notebook: identifier of the cell → text."""
    if path.parent.name == "solutions":
        return {TOP: f"← [back to the notebook](../{path.name})"}
    if path.name == GLOSSARY:
        return {TOP: f"← [start and map of the course]({START})"}
    order = lessons(path.parent)
    place = order.index(path)
    before, after = (order[i] if 0 <= i < len(order) else None for i in (place - 1, place + 1))
    around = [f"← {link(before)}" if before else "", f"{link(after)} →" if after else ""]
    start = "" if path.name == START else f"[start and map]({START})"
    others = [start, f"[glossary]({GLOSSARY})", f"[solutions](solutions/{path.name})"]
    top = " · ".join(filter(None, [around[0], *others, around[1]]))
    end = "the end of the course so far" if after is None else f"**Next:** {link(after)} →"
    return {TOP: top, BOTTOM: " · ".join(filter(None, [around[0], *others[:2], end]))}


def with_navigation(notebook: NotebookNode, path: Path) -> NotebookNode:
    """A copy of the notebook with its navigation as it should be."""
    made = copy.deepcopy(notebook)
    made.cells = [cell for cell in made.cells if cell.id not in (TOP, BOTTOM)]
    found = lines(path)
    made.cells.insert(1, new_markdown_cell(found[TOP], id=TOP))
    if BOTTOM in found:
        made.cells.append(new_markdown_cell(found[BOTTOM], id=BOTTOM))
    return made


def main() -> None:
    """Update all notebooks."""
    for path in sorted(FOLDER.rglob("[!.]*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        made = with_navigation(notebook, path)
        if made != notebook:
            nbformat.write(made, path)


if __name__ == "__main__":
    main()
