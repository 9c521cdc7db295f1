"""The pages of explorers that `make notebooks` writes into `docs/explorers`, and how a notebook's page shows them."""

from __future__ import annotations

import html
import posixpath
import re
from pathlib import Path

PAGES = Path(__file__).resolve().parent / "explorers"
TITLE_AND_HEIGHT = re.compile(
    r'<title>(?P<title>.*?)</title>.*<img id="picture"[^>]* height="(?P<height>\d+)"', re.DOTALL
)
POLICY = "default-src 'none'; img-src data:;"
CONTROLS_HEIGHT = 120  # pixels beside the picture, until `explorer_frames.js` knows better


def explorer_page(uri: str, cell_id: str) -> Path:
    """The page of the explorer that a cell of a notebook shows, whether it exists or not."""
    name = uri.removeprefix("notebooks/").removesuffix(".ipynb").replace("/", "-")
    return PAGES / f"{name}-{cell_id}.html"


def explorer_frame(page: Path, place: str) -> str:
    """HTML that shows a page in a frame, for a page of the site in the folder ``place``."""
    text = page.read_text(encoding="utf-8")
    found = TITLE_AND_HEIGHT.search(text)
    if found is None:
        raise ValueError(f"{page.name} is not the page of an explorer; run `make notebooks`.")
    address = html.escape(posixpath.relpath(f"{PAGES.name}/{page.name}", place))
    height = int(found["height"]) + CONTROLS_HEIGHT
    attributes = f'src="{address}" title="{found["title"]}" height="{height}" loading="lazy"'
    link = f'<p><a href="{address}">This explorer on a page of its own</a></p>'
    return f'<iframe class="explorer" {attributes}></iframe>{link}'


def may_use_network(text: str) -> bool:
    """Whether a page lacks the policy that forbids loading anything, or contains an address."""
    return POLICY not in text or bool(re.search(r"\w://", text))
