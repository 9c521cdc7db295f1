"""What a reader sees of an explorer or of its page: the caption as plain text and the picture as pixels."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

import numpy as np
from PIL import Image

from renyi_lab.widgets import Explorer


def caption(explorer: Explorer) -> str:
    return html.unescape(re.sub("<[^>]*>", "", explorer.caption.value))


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


@dataclass
class ExplorerPage:
    """The page that `Explorer.to_html` makes, read without a browser."""

    text: str

    def __post_init__(self) -> None:
        self.tags: list[tuple[str, dict[str, str]]] = []
        parser = HTMLParser()
        parser.handle_starttag = lambda tag, attributes: self.tags.append((tag, {k: v or "" for k, v in attributes}))
        parser.feed(self.text)
        self.image, self.slider = self.tag("img"), self.tag("input")
        self.start = int(self.slider["value"])
        data = re.search(r'<script id="stops" type="application/json">(.*?)</script>', self.text, re.DOTALL)
        assert data is not None
        self.stops: list[dict[str, Any]] = json.loads(data[1])
        assert int(self.slider["max"]) == len(self.stops) - 1

    def tag(self, name: str) -> dict[str, str]:
        """The attributes of the only element of this name."""
        (found,) = (attributes for tag, attributes in self.tags if tag == name)
        return found

    @property
    def values(self) -> list[str]:
        """What the reader sees of the slider's values."""
        return [stop["text"] for stop in self.stops]

    def picture(self, index: int) -> np.ndarray:
        """The pixels that the page shows at one stop: the changes over the first picture."""
        first, changes = (_decoded(address).convert("RGBA") for address in self._addresses(index))
        return np.asarray(Image.alpha_composite(first, changes).convert("RGB")).astype(int)

    def _addresses(self, index: int) -> tuple[str, str]:
        return self.image["src"], self.stops[index]["changes"]


def _decoded(address: str) -> Image.Image:
    kind, _, data = address.partition(";base64,")
    assert kind in ("data:image/webp", "data:image/png")
    return Image.open(io.BytesIO(base64.b64decode(data)))
