"""The page of an explorer, opened as a file without a network: keyboard, mouse, small windows, and inside the site."""

from __future__ import annotations

import importlib.util
import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from explorer_view import ExplorerPage
from PIL import Image

from renyi_lab.widgets import AlphaExplorer, LanczosExplorer

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

DOCS = Path(__file__).resolve().parents[2] / "docs"
EIGENVALUES = [4.0, 2.0, 1.0, 1.0, 0.3, 0.1]
SCREENSHOTS = DOCS.parent / "build" / "browser"


@dataclass
class OpenPage:
    """A page in a window without a network, with the addresses that it requested and the errors of its script."""

    page: Any
    slider: Any
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def shown(self) -> tuple[str, str, str, np.ndarray]:
        """The value, the alternative text, the caption, and the pixels of the picture."""
        image, caption = self.page.locator("#picture"), self.page.locator("#caption")
        self.page.wait_for_function("document.images[0].complete")
        pixels = np.asarray(Image.open(io.BytesIO(image.screenshot())).convert("RGB")).astype(int)
        value = self.slider.get_attribute("aria-valuetext")
        assert value == self.page.locator("output").inner_text()
        return value, image.get_attribute("alt"), caption.inner_text(), pixels

    def source(self) -> str:
        return self.page.locator("#picture").get_attribute("src")

    def press(self, key: str) -> None:
        """Press a key on the slider, and wait for the next picture."""
        before = self.source()
        self.slider.press(key)
        self.changed(before)

    def changed(self, before: str) -> None:
        self.page.wait_for_function("before => document.images[0].src !== before", arg=before)


def opened(browser: Any, address: str, **options: Any) -> Iterator[OpenPage]:
    context = browser.new_context(**{"viewport": {"width": 900, "height": 700}, "offline": True, **options})
    page = context.new_page()
    page.set_default_timeout(60_000)
    view = OpenPage(page, page.locator("#slider"))
    page.on("request", lambda request: view.requests.append(request.url))
    page.on("pageerror", lambda error: view.errors.append(str(error)))
    page.on("console", lambda message: view.errors.append(message.text))
    page.goto(address)
    yield view
    assert view.errors == []
    assert [url for url in view.requests if not url.startswith(("file:", "data:"))] == []
    context.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return AlphaExplorer(EIGENVALUES, alpha=1.0).to_html(tmp_path_factory.mktemp("pages") / "alpha.html")


@pytest.fixture(scope="module")
def end(file: Path) -> Path:
    """The page of the same explorer at the end of its slider."""
    return AlphaExplorer(EIGENVALUES, alpha=4.0).to_html(file.with_name("end.html"))


@pytest.fixture
def view(browser: Any, file: Path) -> Iterator[OpenPage]:
    yield from opened(browser, file.as_uri())


def differs(one: np.ndarray, other: np.ndarray) -> bool:
    return np.abs(one - other).max() > 50


def contains(screenshot: np.ndarray, picture: np.ndarray) -> bool:
    """Whether the picture is there; the screenshot may have another row at its top or bottom."""
    height = len(picture)
    crops = [screenshot[row : row + height] for row in range(len(screenshot) - height + 1)]
    return any(np.abs(crop - picture).max() < 3 for crop in crops)


def test_keys_move_picture_caption_and_alternative_text(view: OpenPage, file: Path) -> None:
    stored = ExplorerPage(file.read_text(encoding="utf-8"))
    value, alt, caption, start = view.shown()
    assert (value, alt) == ("1.00", stored.image["alt"])
    view.page.keyboard.press("Tab")  # the first thing on the page is the slider
    assert view.page.evaluate("document.activeElement.id") == "slider"
    previous = caption
    for key, expected in (("ArrowRight", "1.10"), ("ArrowLeft", "1.00"), ("Home", "0.00"), ("End", "4.00")):
        view.press(key)
        value, alt, caption, pixels = view.shown()
        index = stored.values.index(expected)
        assert (value, alt) == (expected, stored.stops[index]["alt"])
        assert caption != previous
        assert differs(pixels, start) == (expected != "1.00")
        assert contains(pixels, stored.picture(index))  # at its own size
        previous = caption
    view.press("PageDown")
    assert 0.0 < float(view.shown()[0]) < 4.0


def test_the_mouse_moves_the_picture_while_it_drags(view: OpenPage) -> None:
    _, _, caption, start = view.shown()
    bar = view.slider.bounding_box()
    middle = bar["y"] + bar["height"] / 2
    before = view.source()
    view.page.mouse.click(bar["x"] + 0.75 * bar["width"], middle)
    view.changed(before)
    value, _, clicked, pixels = view.shown()
    assert float(value) == pytest.approx(3.0, abs=0.2)
    assert clicked != caption
    assert differs(pixels, start)
    view.page.mouse.down()
    view.page.mouse.move(bar["x"] + 0.25 * bar["width"], middle, steps=10)
    value, _, dragged, pixels = view.shown()  # before the release
    view.page.mouse.up()
    assert float(value) == pytest.approx(1.0, abs=0.2)
    assert dragged != clicked
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    view.page.screenshot(path=SCREENSHOTS / "explorer-page.png")


@pytest.mark.parametrize("width", [900, 400, 250])
def test_a_page_fits_into_a_narrow_window(browser: Any, file: Path, end: Path, width: int) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    size = {"width": width, "height": 600}
    for view in opened(browser, end.as_uri(), viewport=size):
        expected = view.shown()
    for view in opened(browser, file.as_uri(), viewport=size, color_scheme="dark"):
        view.press("End")
        shown = view.shown()
        assert shown[:3] == expected[:3]
        assert np.abs(shown[3] - expected[3]).max() < 3, "the first picture shines through"
        assert view.page.evaluate("document.documentElement.scrollWidth") <= width
        box = view.page.locator("#picture").bounding_box()
        assert box["width"] / box["height"] == pytest.approx(860 / 310, rel=0.01)
        view.page.screenshot(path=SCREENSHOTS / f"explorer-page-{width}.png", full_page=True)


def test_without_scripts_a_page_shows_the_picture_and_its_value(browser: Any, file: Path) -> None:
    for view in opened(browser, file.as_uri(), java_script_enabled=False):
        assert view.page.locator("#picture").is_visible()
        assert view.page.locator("#caption").is_visible()
        assert view.page.locator("output").inner_text() == "1.00"
        assert not view.slider.is_visible()


def test_an_explorer_with_one_value_has_a_still_page(browser: Any, tmp_path: Path) -> None:
    file = LanczosExplorer(torch.eye(1)).to_html(tmp_path / "one.html")
    for view in opened(browser, file.as_uri()):
        assert view.slider.is_disabled()
        assert view.shown()[0] == "1"


def test_a_page_of_the_site_shows_an_explorer_that_moves(browser: Any, file: Path, tmp_path: Path) -> None:
    pages = explorer_pages()
    for folder in ("notebooks", pages.PAGES.name):
        (tmp_path / folder).mkdir()
    shutil.copy(file, tmp_path / pages.PAGES.name / "lesson-cell.html")
    shutil.copy(DOCS / "explorer_frames.js", tmp_path)
    frame = pages.explorer_frame(tmp_path / pages.PAGES.name / "lesson-cell.html", "notebooks")
    style = (DOCS / "style.css").read_text(encoding="utf-8")
    lesson = tmp_path / "notebooks" / "lesson.html"
    lesson.write_text(
        f"<!DOCTYPE html><style>{style}</style><body>{frame}<script src='../explorer_frames.js'></script></body>"
    )
    for view in opened(browser, lesson.as_uri(), viewport={"width": 600, "height": 900}):
        outer = view.page.locator("iframe[title='AlphaExplorer: α']")
        inner = view.page.frame_locator("iframe")
        inner.locator("#slider").press("End")
        assert inner.locator("output").inner_text() == "4.00"
        height = inner.locator("html").evaluate("html => html.offsetHeight")
        view.page.wait_for_function("height => document.querySelector('iframe').clientHeight === height", arg=height)
        assert outer.bounding_box()["height"] < 430  # the height before the script knows better
        view.page.locator("a").click()
        view.press("Home")
        assert view.shown()[0] == "0.00"


def explorer_pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("explorer_pages", DOCS / "explorer_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
