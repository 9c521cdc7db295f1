"""JupyterLab on this machine and a notebook in it, driven through Chromium as a reader's hands would.

What is asked of the page goes through JupyterLab's own objects where they know better than its markup: the markup says
"idle" before the kernel is connected, and a notebook's cells enter it only when they are scrolled to.
"""

from __future__ import annotations

import base64
import io
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from PIL import Image as PillowImage
from PIL import ImageStat

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
START_SECONDS = 180  # on a machine busy with other things; three seconds are usual
RUN_SECONDS = 600  # on a busy machine: a notebook must take at most 90 on two free cores
FILM_WIDTH = 700  # pixels: a blank picture is seen at half the size as well

# The news pop-up asks the internet, and covers the notebook.
SETTINGS = {"apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False}}

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
        complaints: outputs.filter(o => o.name === 'stderr').map(o => text(o) + ' from: ' + o.source),
    };
}"""

# Takes down when the picture's source changes, and whether its height does.
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


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab that serves copies of notebooks without their outputs."""

    url: str
    token: str
    folder: Path

    def address(self, notebook: Path) -> str:
        """Return the address of a notebook, in a workspace of its own: Lab would reopen the last ones otherwise."""
        name = notebook.as_posix()
        workspace = name.replace("/", "-").removesuffix(".ipynb")
        return f"{self.url}/lab/workspaces/{workspace}/tree/{name}?token={self.token}"


@contextmanager
def running_lab(notebooks: Path, temporary: Path, import_from: Path) -> Iterator[Lab]:
    """Serve a copy of the folder ``notebooks`` on a free port, with every setting and trace in ``temporary``."""
    folder = temporary / "course"
    for source in sorted(notebooks.rglob("[!.]*.ipynb")):
        copy = folder / source.relative_to(notebooks)
        copy.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(_without_outputs(nbformat.read(source, as_version=4)), copy)
    for name, values in SETTINGS.items():
        file = temporary / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lab = Lab(f"http://127.0.0.1:{port}", secrets.token_hex(16), folder)
    # As a reader sees it: progress bars know CI and pytest by these.
    environment = {k: v for k, v in os.environ.items() if k not in {"CI", "PYTEST_VERSION", "PYTEST_CURRENT_TEST"}}
    environment |= {
        "JUPYTER_TOKEN": lab.token,
        "JUPYTER_CONFIG_DIR": str(temporary / "config"),
        "JUPYTER_DATA_DIR": str(temporary / "data"),
        "JUPYTER_RUNTIME_DIR": str(temporary / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(temporary / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(temporary / "workspaces"),
        "IPYTHONDIR": str(temporary / "ipython"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(import_from), os.environ.get("PYTHONPATH")])),
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    command += ["--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}", "--expose-app-in-browser"]
    log = temporary / "lab.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=subprocess.STDOUT, cwd=folder)
    try:
        _await_server(lab, process, log)
        yield lab
    finally:
        process.terminate()  # shuts its kernels down as well
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _without_outputs(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """So that what is found in the page comes from this run."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def _await_server(lab: Lab, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    request = urllib.request.Request(f"{lab.url}/api/status", headers={"Authorization": f"token {lab.token}"})
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(request, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text(encoding='utf-8', errors='replace')[-2000:]}")


@dataclass
class OpenNotebook:
    """A notebook in JupyterLab, with its kernel."""

    page: Any  # playwright.sync_api.Page
    name: str
    requests: list[str] = field(default_factory=list)  # the addresses that the page asked for
    state: dict[str, Any] = field(default_factory=dict)  # `errors`, `complaints` (standard error), `remaining` cells
    seconds: float = 0.0

    def run_all(self) -> None:
        """Run all cells, and take down how that went."""
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
        """Indices of the cells that show an explorer: a widget with a picture, which a progress bar has not."""
        return self.page.evaluate(
            """mimes => Array.from(window.jupyterapp.shell.currentWidget.content.model.cells).flatMap((cell, index) =>
                cell.type === 'code' && cell.outputs.toJSON().some(o => mimes.every(mime => mime in (o.data ?? {})))
                    ? [index] : [])""",
            [WIDGET_VIEW, "image/png"],
        )

    def explorer(self, index: int) -> Explorer:
        """Scroll to the cell ``index`` and take hold of the explorer in it."""
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
    """One explorer as the reader sees it: sliders, a picture, a caption, a line for errors."""

    page: Any
    box: Any  # playwright.sync_api.Locator

    @property
    def picture(self) -> Any:
        """The image element."""
        return self.box.locator("> img.widget-image")

    @property
    def handles(self) -> list[Any]:
        """The handles of all sliders that can be moved."""
        return self.box.locator(".noUi-target:not([disabled]) .noUi-handle:visible").all()

    def source(self) -> str:
        """Return the picture's address, which is new for each new picture."""
        return self.picture.get_attribute("src") or ""

    def caption(self) -> str:
        """Return the text under the picture."""
        return self.box.locator("> .widget-html").first.inner_text()

    def errors(self) -> list[str]:
        """Return the errors shown under the caption: the kind is in bold there, that of a warning is not."""
        status = self.box.locator("> .widget-html").nth(1)
        return [status.inner_text()] if status.locator("b").count() else []

    def width(self) -> int:
        """Return the picture's own width in pixels, 0 when there is no picture."""
        return self.picture.evaluate("image => image.complete ? image.naturalWidth : 0")

    def settled(self, quiet: float = 0.4, limit: float = 10.0) -> bool:
        """Wait until the picture stays the same for ``quiet`` seconds; false when it never does."""
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
        """Wait until there is another picture than ``before``, and it stays; false when there is none."""
        deadline = time.monotonic() + limit
        while self.source() == before:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return self.settled()

    def press(self, handle: Any, times: int = 1) -> None:
        """Move a slider by arrow keys, towards the end that is farther away."""
        handle.scroll_into_view_if_needed()
        handle.focus()
        low, now, high = (float(handle.get_attribute(f"aria-value{name}")) for name in ("min", "now", "max"))
        for _ in range(times):
            self.page.keyboard.press("ArrowLeft" if now - low > high - now else "ArrowRight")

    def drag(self, handle: Any, moves: int, seconds: float) -> Drag:
        """Drag a handle to and fro over the whole slider, and say what was seen on the way."""
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
            self.page.wait_for_timeout(2000)  # long enough to see a queue that is worked off after the end
        seen = self.page.evaluate(_SEEN)
        settled = (max(seen["changes"], default=released) - released) / 1000
        return Drag(tuple(contrasts), len(seen["changes"]), tuple(seen["heights"]), settled)

    @contextmanager
    def _filmed(self) -> Iterator[list[float]]:
        """Film the window; afterwards the list holds the picture's contrast in each frame that reached the screen.

        (Asking the element for its width would not do: it says 0 while the next picture is decoded, although the last
        one is still on the screen.)
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
    """What was seen of an explorer's picture while its slider was dragged."""

    contrasts: tuple[float, ...]  # standard deviation of the pixels, for each frame on the screen: 0 where blank
    num_pictures: int
    heights: tuple[int, ...]  # all that occurred, in pixels
    seconds_to_settle: float  # from letting go to the last new picture
