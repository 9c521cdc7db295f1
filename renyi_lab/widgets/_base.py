"""The base of all explorers: controls above a picture that is redrawn as PNG bytes, with errors shown in place.

The picture is drawn without pyplot. Its static parts are drawn once; a control redraws only the moving artists on top
of them, which takes a few milliseconds.
"""

from __future__ import annotations

import base64
import html
import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ipywidgets
import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image as PillowImage

_DPI = 100


class Explorer(ipywidgets.VBox):
    """Controls, a picture and a caption; subclasses define how the controls move the artists.

    A subclass creates its controls and figure, calls ``super().__init__`` and implements `_update`. A notebook shows
    the live widget, or the current picture where widgets cannot run (GitHub, static HTML).

    Args:
        controls: Widgets with a ``value``; every change redraws the picture, and Reset restores all of them.
        figure: Figure whose static parts are drawn once; its axes keep their limits.
        moving: Artists that `_update` moves.
        beside: Widgets shown before the controls that cause no redraw, such as a play button linked to a slider.
    """

    def __init__(
        self,
        controls: Sequence[ipywidgets.ValueWidget],
        figure: Figure,
        moving: Sequence[Artist],
        beside: Sequence[ipywidgets.Widget] = (),
    ) -> None:
        self._controls = tuple(controls)
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

    def _update(self) -> str:
        """Move the artists according to the controls and return the caption (HTML).

        It may set other controls; that does not redraw again.
        """
        raise NotImplementedError

    @contextmanager
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
        with warnings.catch_warnings(record=True) as caught, self._without_redraws():
            # A notebook also hides warnings of callbacks.
            warnings.simplefilter("always")
            self.caption.value = self._update()
        self.status.value = "<br>".join(html.escape(str(warning.message)) for warning in caught)
        if self._static is None:
            self._canvas.draw()
            self._static = self._canvas.copy_from_bbox(self.figure.bbox)
        self._canvas.restore_region(self._static)
        for artist in self._moving:
            self.figure.draw_artist(artist)
        self.picture.value = _png(self._canvas)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        bundle = super()._repr_mimebundle_(**kwargs) or {}
        return {**bundle, "image/png": base64.b64encode(self.picture.value).decode(), "text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def _png(canvas: FigureCanvasAgg) -> bytes:
    buffer = io.BytesIO()
    # Fast compression and no alpha channel: a third of the default time, a few kilobytes more.
    PillowImage.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").save(buffer, format="png", compress_level=1)
    return buffer.getvalue()
