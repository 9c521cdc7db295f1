"""The base of all explorers: controls above a picture that is redrawn as PNG bytes, with errors shown in place.

The picture is drawn without pyplot. Its static parts are drawn once; a control redraws only the moving artists on top
of them, which takes a few milliseconds.
"""

from __future__ import annotations

import base64
import html
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, overload

import ipywidgets
import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image as PillowImage

from renyi_lab._utils.exclusive import exclusive
from renyi_lab._utils.interrupts import restoring
from renyi_lab._utils.whole_file import writable
from renyi_lab.widgets._page import Frame, Pixels, description, page, picture, write
from renyi_lab.widgets._stops import current_stop, silent, stops

_DPI = 100
_MAX_FRAMES = 61  # of a page. Heuristic: a slider of 300 pixels moves by five of them


class Explorer(ipywidgets.VBox):
    """Controls, a picture and a caption; subclasses define how the controls move the artists.

    A subclass creates its controls and figure, calls ``super().__init__`` and implements `_update`. A notebook shows
    the live widget, or the current picture where widgets cannot run (GitHub, static HTML). `to_html` makes a page with
    a slider that needs neither Python nor a network.

    Args:
        controls: Widgets with a ``value``; every change redraws the picture, and Reset restores all of them. The first
            is the main one, which `to_html` varies.
        figure: Figure whose static parts are drawn once; its axes keep their limits.
        moving: Artists that `_update` moves.
        beside: Widgets shown before the controls that cause no redraw, such as a play button linked to a slider.
        shows: What the picture shows, in one or two sentences, for readers who cannot see it.
    """

    def __init__(
        self,
        controls: Sequence[ipywidgets.ValueWidget],
        figure: Figure,
        moving: Sequence[Artist],
        beside: Sequence[ipywidgets.Widget] = (),
        shows: str = "",
    ) -> None:
        self._controls = tuple(controls)
        self._shows = shows or f"Picture of {type(self).__name__}."
        self._defaults = [control.value for control in controls]
        self._held = False
        self._moving = tuple(moving)
        for artist in self._moving:
            artist.set_animated(True)
            # The layout must not depend on data: an empty line counts as a point in the corner of the figure.
            artist.set_in_layout(isinstance(artist, Text))
        figure.set_dpi(_DPI)
        self.figure = figure
        self._canvas = FigureCanvasAgg(figure)
        self._static: Any = None
        # At its own size: stretched over a wide page, text is blurred.
        self.picture = ipywidgets.Image(format="png", layout=ipywidgets.Layout(align_self="flex-start"))
        self.caption = ipywidgets.HTML()
        self.status = ipywidgets.HTML()
        reset = ipywidgets.Button(description="Reset", tooltip="Restore the initial values", icon="undo")
        reset.on_click(lambda _: self.reset())
        row = ipywidgets.HBox([*beside, *controls, reset], layout=ipywidgets.Layout(flex_flow="row wrap"))
        # Text is below the picture, so that the number of lines does not move the picture.
        super().__init__([row, self.picture, self.caption, self.status])
        for control in self._controls:
            control.observe(self._on_change, names="value")
        self._redraw()

    def reset(self) -> None:
        """Restore the initial value of every control, and redraw once."""
        with self._without_redraws():
            for control, value in zip(self._controls, self._defaults, strict=True):
                control.value = value
        self._on_change()

    @property
    def alt(self) -> str:
        """Alternative text of the current picture: what it shows, and the caption without tags."""
        return description(self._shows, self.caption.value)

    @overload
    def to_html(self, path: None = None) -> str: ...

    @overload
    def to_html(self, path: str | os.PathLike[str]) -> Path: ...

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str | Path:
        """Make one self-contained HTML page with a slider: it needs neither Python nor a network.

        The picture is drawn beforehand for at most about 61 evenly spaced values of the main control, the first one,
        its present value included, and for fewer if the page would exceed 1.5 MB. All other controls keep their present
        values, which the page names. The explorer itself does not change, and no observer of a control is called.

        Args:
            path: File to write or replace. Default: the page is returned as a string.

        Returns:
            The path, or the page as a string.

        Raises:
            TypeError: ``path`` is not a path, or the main control is neither a slider nor a selection of one value.
            OSError: The folder does not exist, ``path`` is a folder, a device or no possible name, or it may not be
                written.
            ValueError: There is no control, its range is not finite, nothing is selected, or the figure is too large
                for a page.
        """
        target = None if path is None else writable(path, "explorer.html")
        text = self._page()
        if target is None:
            return text
        write(target, text)
        return target

    def _page(self) -> str:
        if not self._controls:
            raise ValueError(f"{type(self).__name__} has no control, so its page would have no slider.")
        main, others = self._controls[0], self._controls[1:]
        found, start = stops(main, _MAX_FRAMES)
        frames, settings = [], []
        with self._still() as restore:
            first = self._frame_pixels()[0]
            for stop in found:
                restore()  # an update may have set another control
                stop.apply(main)
                pixels, caption = self._frame_pixels()
                frames.append(Frame(stop.text, picture(pixels, first), description(self._shows, caption), caption))
                settings.append([current_stop(control).text for control in others])
        fixed = [
            f"{control.description} {texts[0]}".strip()
            for control, texts in zip(others, zip(*settings, strict=True), strict=True)
            if len(set(texts)) == 1
        ]
        label = main.description or "setting"
        note = f"Other settings: {', '.join(fixed)}." if fixed else ""
        if len(found) == 1:
            note = f"{label} has only this value. {note}".strip()
        return page(f"{type(self).__name__}: {label}", label, note, first, frames, start)

    def _frame_pixels(self) -> tuple[Pixels, str]:
        """Picture and caption, with the warnings, for the values of the controls."""
        caption, status = self._moved()
        self._draw()
        return np.array(self._canvas.buffer_rgba()), "<br>".join(filter(None, (caption, status)))

    @restoring
    def _still(self) -> Iterator[Any]:
        """Controls may be set without any effect on the explorer; the yielded function restores their values."""
        before = [current_stop(control) for control in self._controls]

        def restore() -> None:
            for control, stop in zip(self._controls, before, strict=True):
                stop.apply(control)

        with self._without_redraws(), silent(self._controls):
            try:
                yield restore
            finally:
                restore()
                with suppress(Exception):  # only that of an explorer that shows an error already
                    self._moved()

    def _update(self) -> str:
        """Move the artists according to the controls and return the caption (HTML).

        It may set other controls; that does not redraw again.
        """
        raise NotImplementedError

    @restoring
    def _without_redraws(self) -> Iterator[None]:
        before, self._held = self._held, True
        try:
            yield
        finally:
            self._held = before

    def _on_change(self, _: Any = None) -> None:
        if self._held:
            return
        try:
            self._redraw()
        except Exception as error:
            # A notebook hides exceptions of callbacks: show this one in the explorer, then raise it.
            self.status.value = f"<b>{type(error).__name__}:</b> {html.escape(str(error))}"
            raise

    def _redraw(self) -> None:
        self.caption.value, self.status.value = self._moved()
        self._draw()
        self.picture.value = _png(self._canvas)

    def _moved(self) -> tuple[str, str]:
        """Move the artists; return the caption and the warnings, which a notebook hides in callbacks."""
        for control in self._controls:
            if isinstance(control.value, float) and not np.isfinite(control.value):  # a slider accepts NaN
                raise ValueError(
                    f"{control.description or 'the value of a slider'} must be finite, got {control.value}."
                )
        with exclusive(), warnings.catch_warnings(record=True) as caught, self._without_redraws():
            warnings.simplefilter("always")
            caption = self._update()
        return caption, "<br>".join(html.escape(str(warning.message)) for warning in caught)

    def _draw(self) -> None:
        if self._static is None:
            self._canvas.draw()
            self._static = self._canvas.copy_from_bbox(self.figure.bbox)
        self._canvas.restore_region(self._static)
        for artist in self._moving:
            self.figure.draw_artist(artist)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        bundle = super()._repr_mimebundle_(**kwargs) or {}
        stored = {"image/png": base64.b64encode(self.picture.value).decode(), "text/plain": repr(self)}
        return {**bundle, **stored}, {"image/png": {"alt": self.alt}}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def _png(canvas: FigureCanvasAgg) -> bytes:
    buffer = io.BytesIO()
    # Fast compression and no alpha channel: a third of the default time, a few kilobytes more.
    PillowImage.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").save(buffer, format="png", compress_level=1)
    return buffer.getvalue()
