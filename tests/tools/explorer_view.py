"""What a reader sees of an explorer: the caption as plain text and the picture as pixels."""

from __future__ import annotations

import html
import io
import re

import numpy as np
from PIL import Image

from renyi_lab.widgets import Explorer


def caption(explorer: Explorer) -> str:
    return html.unescape(re.sub("<[^>]*>", "", explorer.caption.value))


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
