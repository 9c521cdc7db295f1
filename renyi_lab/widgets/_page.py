"""One self-contained HTML page: a picture, a slider that changes it, and nothing from the network."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from renyi_lab._utils.whole_file import whole_file
from renyi_lab.widgets._stops import thinned

MAX_BYTES = 1_500_000
_COLORS = 128  # of the changes: lines keep their colours, and those of a colour map change by less than is visible
_TEMPLATE = Path(__file__).with_name("_page.html")

Pixels = NDArray[np.uint8]  # (height, width, 4), opaque and contiguous


@dataclass(frozen=True)
class Frame:
    """What the page shows at one value of the slider; ``changes`` is drawn over the first picture."""

    text: str
    changes: str
    alt: str
    caption: str


def description(shows: str, caption: str) -> str:
    """Alternative text: what the picture shows, then the caption without tags."""
    plain = re.sub(r"<[^>]*>", "", re.sub(r"<br\s*/?>", " · ", caption))
    return " ".join(f"{shows} {html.unescape(plain)}".split())


def page(title: str, label: str, note: str, first: Pixels, frames: Sequence[Frame], start: int) -> str:
    """The page, with fewer frames if all of them take too many bytes; ``first`` is the picture at ``start``.

    Raises:
        ValueError: Three frames are too large.
    """
    shown = list(frames)
    while True:
        text = _filled(title, label, note, first, shown, start)
        size = len(text.encode())
        if size <= MAX_BYTES:
            return text
        keep = thinned(len(shown), start)
        if len(keep) == len(shown):
            raise ValueError(f"the page takes {size:,} bytes, more than {MAX_BYTES:,}; make the figure smaller.")
        shown, start = [shown[index] for index in keep], keep.index(start)


def _filled(title: str, label: str, note: str, first: Pixels, frames: Sequence[Frame], start: int) -> str:
    stops = json.dumps([asdict(frame) for frame in frames], ensure_ascii=False, separators=(",", ":"))
    for character in "<>&":  # nothing in the data may end the script
        stops = stops.replace(character, f"\\u{ord(character):04x}")
    frame, (height, width, _) = frames[start], first.shape
    texts = {"title": title, "label": label, "text": frame.text, "alt": frame.alt}
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        {name: html.escape(text) for name, text in texts.items()},
        width=width,
        height=height,
        last=len(frames) - 1,
        start=start,
        disabled=" disabled" if len(frames) == 1 else "",
        picture=picture(first),
        caption=frame.caption,
        note=f'<p class="note">{html.escape(note)}</p>' if note else "",
        stops=stops,
    )


def picture(pixels: Pixels, before: Pixels | None = None) -> str:
    """An image as a data URL; with ``before`` only what differs from it, which is opaque."""
    if before is None:
        image = Image.fromarray(pixels).convert("RGB")
    else:
        changed = (pixels.view(np.uint32) != before.view(np.uint32))[..., 0]
        image = Image.fromarray(np.where(changed[..., None], _reduced(pixels, changed), np.uint8(0)))
    kind: Any = "webp" if features.check("webp") else "png"
    options: dict[str, Any] = {"lossless": True} if kind == "webp" else {"optimize": True}
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _reduced(pixels: Pixels, changed: NDArray[np.bool_]) -> Pixels:
    """A copy with few different colours among the changed pixels."""
    found = pixels.copy()
    if changed.any():
        row = Image.fromarray(pixels[changed][None]).convert("RGB").quantize(_COLORS, dither=Image.Dither.NONE)
        found[changed] = np.asarray(row.convert("RGBA"))[0]
    return found


def write(target: Path, text: str) -> None:
    """Write the file as a whole or not at all."""
    with whole_file(target) as partial:
        partial.write_text(text, encoding="utf-8")
