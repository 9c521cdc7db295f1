"""Run notebooks again: `python tests/tools/execute_notebooks.py NOTEBOOK...`.

Outputs are stored and cleaned. For each cell that shows an explorer of the course, `docs/explorers` gets a page with a
slider, made in the same kernel right after the cell. A notebook that fails leaves its files as they were.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from clean_notebooks import WIDGET_VIEW, clean
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS, PAGES = ROOT / "notebooks", ROOT / "docs" / "explorers"
TIMEOUT = 600  # seconds per cell


def shows_explorer(cell: dict[str, Any]) -> bool:
    """Whether the stored output of a cell is an explorer: a widget with a picture, unlike a progress bar."""
    outputs = [output.get("data", {}) for output in cell.get("outputs", ())]
    return any(WIDGET_VIEW in data and "image/png" in data for data in outputs)


def page_prefix(path: Path) -> str:
    """What the names of a notebook's pages start with, solutions included."""
    return "-".join(path.resolve().relative_to(NOTEBOOKS).with_suffix("").parts) + "-"


def source_tag(cell: dict[str, Any]) -> str:
    """The element by which a page says which cell it was made from."""
    source = "".join(cell["source"])
    return f'<meta name="source" content="{hashlib.sha256(source.encode()).hexdigest()}">'


class Client(NotebookClient):
    """Runs a notebook, and writes the page of each explorer into a folder, with the id of its cell as the name.

    An explorer must be the value of its cell's last line.
    """

    def __init__(self, notebook: NotebookNode, folder: Path, **options: Any) -> None:
        super().__init__(notebook, **options)
        self.folder = folder

    async def async_execute_cell(self, cell: NotebookNode, cell_index: int, **options: Any) -> NotebookNode:
        """Run a cell, and write the page of the explorer that it shows."""
        done = await super().async_execute_cell(cell, cell_index, **options)
        if shows_explorer(done):
            page = self.folder / f"{done.id}.html"
            await self._run_silently(f"get_ipython().user_ns['Out'][{done.execution_count}].to_html({str(page)!r})")
            text = page.read_text(encoding="utf-8")
            page.write_text(text.replace("<head>", f"<head>\n{source_tag(done)}", 1), encoding="utf-8")
        return done

    async def _run_silently(self, code: str) -> None:
        """Run code that leaves no trace: no output, no history, and no number of an execution."""
        assert self.kc is not None
        reply = await self.async_wait_for_reply(self.kc.execute(code, silent=True))
        if reply is None or reply["content"]["status"] != "ok":
            raise RuntimeError(f"{code} failed: {reply and reply['content'].get('evalue')}")


def execute(path: Path, pages: Path | None = PAGES) -> None:
    """Run a notebook and store it, cleaned; replace its pages in a folder if one is given."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        options = {"kernel_name": "python3", "timeout": TIMEOUT, "resources": {"metadata": {"path": str(path.parent)}}}
        Client(notebook, Path(folder), **options).execute()
        nbformat.write(clean(notebook), path)
        if pages is None:
            return
        for old in pages.glob(f"{page_prefix(path)}*.html"):
            old.unlink()
        pages.mkdir(exist_ok=True)
        for new in Path(folder).iterdir():
            shutil.copyfile(new, pages / f"{page_prefix(path)}{new.name}")


def main(paths: list[str]) -> None:
    """Run the named notebooks; those outside the course get no pages."""
    for path in map(Path, paths):
        print(path, flush=True)
        execute(path, PAGES if NOTEBOOKS in path.resolve().parents else None)


if __name__ == "__main__":
    main(sys.argv[1:])
