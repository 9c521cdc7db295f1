"""The student edition in JupyterLab and Chromium: it runs, and its explorers follow the mouse without flicker or delay.

The lessons themselves are executed by nbval; this edition differs in the cells that students fill in.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_in_browser import RUN_SECONDS, Explorer, OpenNotebook
from lab_server import START_SECONDS, Lab, running_lab
from typer.testing import CliRunner

from renyi_lab.cli._app import app

pytestmark = [pytest.mark.browser, pytest.mark.timeout(3 * START_SECONDS + RUN_SECONDS)]

ROOT = Path(__file__).resolve().parent.parent.parent
NOTEBOOKS = [
    Path(path.name) for path in sorted((ROOT / "notebooks").glob("[!.]*.ipynb"))
]  # solutions have no explorers
SCREENSHOTS = ROOT / "build" / "browser"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    temporary = tmp_path_factory.mktemp("lab")
    course = temporary / "course"
    made = CliRunner().invoke(app, ["notebooks", "--student", str(course)])
    assert made.exit_code == 0, made.output
    with running_lab(course, temporary, ROOT) as lab:
        yield lab


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=Path.as_posix)
def notebook(request: pytest.FixtureRequest, lab: Lab, browser: Any) -> Iterator[OpenNotebook]:
    """A notebook whose cells have all run, in a separate window."""
    path: Path = request.param
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(START_SECONDS * 1000)
    opened = OpenNotebook(page, path.as_posix())
    page.on("request", lambda request: opened.requests.append(request.url))
    page.goto(lab.address(path))
    opened.run_all()
    yield opened
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    page.close()


def explorers(notebook: OpenNotebook) -> Iterator[tuple[str, Explorer]]:
    assert notebook.state["done"], "the notebook did not finish"
    for cell in notebook.explorers():
        yield f"cell {cell} of {notebook.name}", notebook.explorer(cell)


def test_every_cell_runs_without_error_or_warning(notebook: OpenNotebook) -> None:
    screenshot(notebook, "end")
    print(f"{notebook.name}: {notebook.seconds:.1f} s")
    assert notebook.state["errors"] == []
    assert notebook.state["remaining"] == []
    assert notebook.state["warnings"] == []


def test_every_exercise_is_recognised_as_not_attempted(notebook: OpenNotebook) -> None:
    hints = notebook.state["hints"]
    assert hints or notebook.name == "glossary.ipynb"
    assert [hint for hint in hints if not hint.startswith("not attempted yet")] == []


def test_every_slider_moves_the_picture_by_keyboard(notebook: OpenNotebook) -> None:
    for number, (place, explorer) in enumerate(explorers(notebook), start=1):
        captions = {explorer.caption()}
        assert explorer.handles, f"no slider in {place}"
        for handle in explorer.handles:
            before = explorer.source()
            explorer.press(handle)
            assert explorer.moved(before), f"one step of a slider does not change the picture of {place}"
            explorer.press(handle, times=4)
            assert explorer.settled()
            captions.add(explorer.caption())
        assert len(captions) > 1, f"no slider changes the caption of {place}"
        assert explorer.errors() == [], place
        screenshot(notebook, f"explorer-{number}")


def test_dragging_never_blanks_the_picture_or_queues_updates(notebook: OpenNotebook) -> None:
    for place, explorer in explorers(notebook):
        drag = explorer.drag(explorer.handles[0], moves=60, seconds=1.5)
        print(f"{place}: {drag.num_pictures} pictures for 60 moves, settled after {drag.seconds_to_settle:.2f} s")
        assert len(drag.contrasts) > 10, "too few frames to detect a blank picture"
        assert min(drag.contrasts) > 0.5 * max(drag.contrasts), f"{place} was blank in a frame"
        assert len(drag.heights) == 1, f"the page moves: the picture of {place} has heights {drag.heights}"
        assert drag.num_pictures >= 5, f"the picture of {place} does not follow the mouse"
        assert drag.seconds_to_settle < 1.0, place
        assert explorer.errors() == [], place


def test_the_page_makes_no_external_requests(notebook: OpenNotebook, lab: Lab) -> None:
    external = {url for url in notebook.requests if url.startswith("http") and not url.startswith(lab.url)}
    assert external == set()


def screenshot(notebook: OpenNotebook, what: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    name = notebook.name.replace("/", "-").removesuffix(".ipynb")
    notebook.page.screenshot(path=SCREENSHOTS / f"{name}-{what}.png")
