"""The pages of the notebooks' explorers: there is one for each, up to date, small, and shown by the site."""

from __future__ import annotations

import base64
import html
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import execute_notebooks
import nbformat
import numpy as np
import pytest
from execute_notebooks import PAGES, page_prefix, shows_explorer, source_tag
from explorer_view import ExplorerPage, pixels

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("[!.]*.ipynb"))
MAX_BYTES = 4_000_000  # of all pages
# The main control has no more choices: four noise levels whose networks were measured, four base optimizers.
FEW_STOPS = {"06_generalization_bounds-bound-explorer.html": 4, "08b_sam_family-explorer.html": 4}


def explorers() -> Iterator[tuple[str, dict[str, Any], str]]:
    """Address of the notebook on the site, cell, and name of the page of every explorer."""
    for path in NOTEBOOKS:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if shows_explorer(cell):
                yield path.relative_to(ROOT).as_posix(), cell, f"{page_prefix(path)}{cell['id']}.html"


@pytest.fixture(scope="module")
def site() -> Any:
    spec = importlib.util.spec_from_file_location("explorer_pages", ROOT / "docs" / "explorer_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_explorer_has_a_page_and_every_page_an_explorer() -> None:
    assert {path.name for path in PAGES.iterdir()} == {name for _, _, name in explorers()}, "run `make notebooks`"
    assert sum(path.stat().st_size for path in PAGES.iterdir()) < MAX_BYTES


@pytest.mark.parametrize(("uri", "cell", "name"), [pytest.param(*found, id=found[2]) for found in explorers()])
def test_a_page_was_made_by_the_stored_run_of_its_cell(uri: str, cell: dict[str, Any], name: str, site: Any) -> None:
    text = (PAGES / name).read_text(encoding="utf-8")
    outdated = f"run `python tests/tools/execute_notebooks.py {uri}`"
    assert source_tag(cell) in text, outdated
    page = ExplorerPage(text)
    (stored,) = (output["data"]["image/png"] for output in cell["outputs"] if "image/png" in output.get("data", {}))
    picture = pixels(base64.b64decode("".join(stored)))
    same = np.array_equal(page.picture(page.start), picture)
    assert same, outdated
    assert len(page.image["alt"]) > 100
    assert len(page.stops) >= FEW_STOPS.get(name, 20)
    assert not site.may_use_network(text)


def test_the_site_shows_every_page_in_a_frame(site: Any) -> None:
    for uri, cell, name in explorers():
        page = site.explorer_page(uri, cell["id"])
        assert page == PAGES / name
        place = uri.rpartition("/")[0]
        frame = site.explorer_frame(page, place)
        address = f"{'../' * (place.count('/') + 1)}explorers/{name}"
        assert f'<iframe class="explorer" src="{html.escape(address)}" title="' in frame
        assert 'loading="lazy"' in frame
        assert f'<a href="{html.escape(address)}">' in frame


def test_only_pages_of_explorers_are_shown_and_addresses_are_noticed(site: Any, tmp_path: Path) -> None:
    (tmp_path / "other.html").write_text("<title>no explorer</title>")
    with pytest.raises(ValueError, match=r"other\.html is not the page of an explorer"):
        site.explorer_frame(tmp_path / "other.html", "notebooks")
    assert site.may_use_network("<title>no policy</title>")
    assert site.may_use_network(site.POLICY + "https://example.org")
    assert not site.may_use_network(site.POLICY)


CELLS = ["import renyi_lab as rl", "rl.widgets.AlphaExplorer([4.0, 1.0])", "_.alpha.value"]


@pytest.mark.slow
def test_a_run_makes_the_pages_and_leaves_no_trace_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, pages = tmp_path / "notebooks", tmp_path / "explorers"
    folder.mkdir()
    pages.mkdir()
    monkeypatch.setattr(execute_notebooks, "NOTEBOOKS", folder)
    monkeypatch.setattr(execute_notebooks, "PAGES", pages)
    cells = [nbformat.v4.new_code_cell(source, id=f"cell-{i}") for i, source in enumerate(CELLS)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "01_lesson.ipynb")
    for name in ("01_lesson-gone.html", "02_other-cell.html"):
        (pages / name).write_text("old")
    execute_notebooks.main([str(folder / "01_lesson.ipynb")])
    assert {path.name for path in pages.iterdir()} == {"01_lesson-cell-1.html", "02_other-cell.html"}
    notebook = nbformat.read(folder / "01_lesson.ipynb", as_version=4)
    assert [cell.execution_count for cell in notebook.cells] == [1, 2, 3]
    assert notebook.cells[2].outputs[0].data["text/plain"] == "1.0"
    (output,) = notebook.cells[1].outputs
    page = ExplorerPage((pages / "01_lesson-cell-1.html").read_text(encoding="utf-8"))
    assert source_tag(notebook.cells[1]) in page.text
    assert output.metadata["image/png"]["alt"] == page.image["alt"]
    notebook.cells = [nbformat.v4.new_code_cell("raise ValueError('no')", id="fails")]
    nbformat.write(notebook, folder / "01_lesson.ipynb")
    failing = (folder / "01_lesson.ipynb").read_text()
    with pytest.raises(Exception, match="no"):
        execute_notebooks.main([str(folder / "01_lesson.ipynb")])
    assert (folder / "01_lesson.ipynb").read_text() == failing
    assert (pages / "01_lesson-cell-1.html").read_text(encoding="utf-8") == page.text
