"""A notebook in JupyterLab, driven through Chromium by mouse and keyboard.

The state of the page is read from the objects of JupyterLab where its markup is unreliable: the markup shows an idle
kernel before the kernel is connected, and contains only the cells that were scrolled into view.
"""

from __future__ import annotations

import base64
import io
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from lab_server import START_SECONDS
from PIL import Image as PillowImage
from PIL import ImageStat

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
RUN_SECONDS = 600  # on a busy machine; at most 90 on two free cores
FILM_WIDTH = 700  # pixels: half the size is enough to detect a blank picture

_READY = """() => {
    const panel = window.jupyterapp?.shell.currentWidget;
    if (!panel?.context?.isReady || !panel.sessionContext.isReady) return false;
    const kernel = panel.sessionContext.session?.kernel;
    return kernel?.connectionStatus === 'connected' && kernel.status === 'idle';
}"""

_STATE = """() => {
    const panel = window.jupyterapp.shell.currentWidget;
    const cells = Array.from(panel.content.model.cells).filter(
        cell => cell.type === 'code' && cell.sharedModel.source.trim());
    const outputs = cells.flatMap(cell => cell.outputs.toJSON().map(o => ({source: cell.sharedModel.source, ...o})));
    const text = o => [].concat(o.text ?? [o.ename, o.evalue].join(': ')).join('');
    return {
        done: cells.every(cell => cell.executionCount !== null && cell.executionState !== 'running')
            && panel.sessionContext.session?.kernel?.status === 'idle',
        remaining: cells.filter(cell => cell.executionCount === null).map(cell => cell.sharedModel.source),
        errors: outputs.filter(o => o.output_type === 'error').map(o => text(o) + ' in: ' + o.source),
        warnings: outputs.filter(o => o.name === 'stderr').map(o => text(o) + ' from: ' + o.source),
        hints: outputs.filter(o => o.source.includes('check_') && !o.source.includes('.function') && o.data)
            .map(o => [].concat(o.data['text/plain']).join('')),
    };
}"""

# Records when the source of the picture changes, and every height of it.
_WATCH = """explorer => {
    const image = explorer.querySelector('img.widget-image');
    const watch = window.watch = {changes: [], heights: [image.clientHeight]};
    watch.observer = new MutationObserver(() => {
        watch.changes.push(performance.now());
        if (!watch.heights.includes(image.clientHeight)) watch.heights.push(image.clientHeight);
    });
    watch.observer.observe(image, {attributes: true, attributeFilter: ['src']});
}"""
_SEEN = "() => { window.watch.observer.disconnect(); return window.watch; }"


def chromium() -> str | None:
    """Return the path of an installed Chromium or Chrome."""
    return next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)


@dataclass
class OpenNotebook:
    """A notebook that is open in JupyterLab."""

    page: Any  # playwright.sync_api.Page
    name: str
    requests: list[str] = field(default_factory=list)  # addresses requested by the page
    # `errors`, `warnings` (standard error), `hints` of the exercises' checkers, `remaining` cells
    state: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def run_all(self) -> None:
        """Run all cells and store the resulting state."""
        deadline = time.monotonic() + START_SECONDS
        while not self.page.evaluate(_READY):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the kernel of {self.name} is not ready after {START_SECONDS} s")
            time.sleep(0.2)
        start = time.monotonic()
        self.page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
        while True:
            self.state = self.page.evaluate(_STATE)
            self.seconds = time.monotonic() - start
            if self.state["done"] or self.state["errors"] or self.seconds > RUN_SECONDS:
                return
            time.sleep(0.2)

    def explorers(self) -> list[int]:
        """Indices of the cells that show an explorer: a widget with a picture, unlike a progress bar."""
        return self.page.evaluate(
            """mimes => Array.from(window.jupyterapp.shell.currentWidget.content.model.cells).flatMap((cell, index) =>
                cell.type === 'code' && cell.outputs.toJSON().some(o => mimes.every(mime => mime in (o.data ?? {})))
                    ? [index] : [])""",
            [WIDGET_VIEW, "image/png"],
        )

    def explorer(self, index: int) -> Explorer:
        """Scroll to the cell ``index`` and return the explorer in it."""
        self.page.evaluate(
            """async index => {
                const notebook = window.jupyterapp.shell.currentWidget.content;
                notebook.widgets[index].node.dataset.index = index;
                await notebook.scrollToItem(index, 'center');
            }""",
            index,
        )
        box = self.page.locator(f".jp-Cell[data-index='{index}'] .widget-vbox:has(> img.widget-image)")
        box.wait_for()
        explorer = Explorer(self.page, box)
        explorer.picture.scroll_into_view_if_needed()
        explorer.settled()
        return explorer


@dataclass(frozen=True)
class Explorer:
    """An explorer on the page: sliders, a picture, a caption and a line for errors."""

    page: Any
    box: Any  # playwright.sync_api.Locator

    @property
    def picture(self) -> Any:
        """The image element."""
        return self.box.locator("> img.widget-image")

    @property
    def handles(self) -> list[Any]:
        """The handles of all enabled sliders."""
        return self.box.locator(".noUi-target:not([disabled]) .noUi-handle:visible").all()

    def source(self) -> str:
        """Return the address of the picture, which changes with the picture."""
        return self.picture.get_attribute("src") or ""

    def caption(self) -> str:
        """Return the text under the picture."""
        return self.box.locator("> .widget-html").first.inner_text()

    def errors(self) -> list[str]:
        """Return the errors shown under the caption; unlike warnings, they have a bold type."""
        status = self.box.locator("> .widget-html").nth(1)
        return [status.inner_text()] if status.locator("b").count() else []

    def width(self) -> int:
        """Return the width of the picture in pixels, 0 without a picture."""
        return self.picture.evaluate("image => image.complete ? image.naturalWidth : 0")

    def settled(self, quiet: float = 0.4, limit: float = 10.0) -> bool:
        """Wait until the picture has not changed for ``quiet`` seconds; false if that never happens."""
        deadline = time.monotonic() + limit
        since, last = time.monotonic(), self.source()
        while time.monotonic() < deadline:
            time.sleep(0.05)
            if (now := self.source()) != last:
                since, last = time.monotonic(), now
            elif time.monotonic() - since >= quiet and self.width() > 0:
                return True
        return False

    def moved(self, before: str, limit: float = 10.0) -> bool:
        """Wait until the picture differs from ``before`` and has settled; false if that never happens."""
        deadline = time.monotonic() + limit
        while self.source() == before:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return self.settled()

    def press(self, handle: Any, times: int = 1) -> None:
        """Move a slider by arrow keys towards its farther end."""
        handle.scroll_into_view_if_needed()
        handle.focus()
        low, now, high = (float(handle.get_attribute(f"aria-value{name}")) for name in ("min", "now", "max"))
        for _ in range(times):
            self.page.keyboard.press("ArrowLeft" if now - low > high - now else "ArrowRight")

    def drag(self, handle: Any, moves: int, seconds: float) -> Drag:
        """Drag a handle back and forth over the whole slider and record the picture."""
        handle.scroll_into_view_if_needed()
        knob, track = handle.bounding_box(), handle.locator("xpath=ancestor::*[contains(@class,'noUi-target')]")
        bar, y = track.bounding_box(), knob["y"] + knob["height"] / 2
        self.box.evaluate(_WATCH)
        with self._filmed() as contrasts:
            self.page.mouse.move(knob["x"] + knob["width"] / 2, y)
            self.page.mouse.down()
            for move in range(moves):
                there_and_back = abs(1 - 2 * ((1.5 * move / moves) % 1))  # ends in the middle
                self.page.mouse.move(bar["x"] + there_and_back * bar["width"], y)
                self.page.wait_for_timeout(1000 * seconds / moves)
            self.page.mouse.up()
            released = self.page.evaluate("() => performance.now()")
            self.page.wait_for_timeout(2000)  # long enough to detect queued updates
        seen = self.page.evaluate(_SEEN)
        settled = (max(seen["changes"], default=released) - released) / 1000
        return Drag(tuple(contrasts), len(seen["changes"]), tuple(seen["heights"]), settled)

    @contextmanager
    def _filmed(self) -> Iterator[list[float]]:
        """Record the window; afterwards the list has the contrast of the picture in each frame on the screen.

        The width of the element is no substitute: it is 0 while the next picture is decoded and the last one is shown.
        """
        place = self.picture.bounding_box()
        scale = FILM_WIDTH / self.page.viewport_size["width"]
        left, top, width, height = (scale * place[name] for name in ("x", "y", "width", "height"))
        corners = tuple(map(round, (left, top, left + width, top + height)))
        camera = self.page.context.new_cdp_session(self.page)
        frames: list[str] = []
        contrasts: list[float] = []

        def take(event: dict[str, Any]) -> None:
            frames.append(event["data"])
            camera.send("Page.screencastFrameAck", {"sessionId": event["sessionId"]})

        camera.on("Page.screencastFrame", take)
        camera.send("Page.startScreencast", {"format": "jpeg", "maxWidth": FILM_WIDTH})
        yield contrasts
        camera.send("Page.stopScreencast")
        camera.detach()
        for frame in frames:
            with PillowImage.open(io.BytesIO(base64.b64decode(frame))) as window:
                picture = window.convert("L").crop(corners)
            contrasts.append(ImageStat.Stat(picture).stddev[0])


@dataclass(frozen=True)
class Drag:
    """The picture of an explorer while its slider was dragged."""

    contrasts: tuple[float, ...]  # standard deviation of the pixels per frame; 0 if blank
    num_pictures: int
    heights: tuple[int, ...]  # every height that occurred, in pixels
    seconds_to_settle: float  # from the release to the last new picture
