"""MkDocs hooks: pages outside `docs`, notebooks with explorers and without the network, and a check of the site."""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from explorer_pages import PAGES, explorer_frame, explorer_page, may_use_network
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
PREPARED = ROOT / "build" / "site_source"
OUTSIDE = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
WIDGET = "application/vnd.jupyter.widget-view+json"
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
NOTEBOOK_LINK = re.compile(r"\.ipynb(?=[)#])")
MATH = re.compile(r"\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^$\n]+)\$", re.DOTALL)
LONG_STYLE = re.compile(r"<style[^>]*>((?:(?!</style>).){5000,}?)</style>", re.DOTALL)
DESCRIBED = {"img": "alt", "iframe": "title"}
# What the notebook template loads from a content delivery network: MathJax (formulas are MathML already) and Mermaid.
NETWORK_SCRIPT = re.compile(r"<script(?:(?!</script>).)*?https?://(?:(?!</script>).)*?</script>", re.DOTALL)


@event_priority(100)  # before mkdocs-jupyter looks for notebooks
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the notebooks and the root's Markdown files."""
    for name, uri in OUTSIDE.items():
        if (ROOT / name).exists():
            files.append(File.generated(config, uri, content=(ROOT / name).read_text(encoding="utf-8")))
    for path in sorted((ROOT / "notebooks").rglob("[!.]*.ipynb")):
        uri = path.relative_to(ROOT).as_posix()
        prepared = PREPARED / uri
        prepared.parent.mkdir(parents=True, exist_ok=True)
        prepared.write_text(json.dumps(prepare_notebook(json.loads(path.read_text(encoding="utf-8")), uri)))
        files.append(File(uri, str(PREPARED), config.site_dir, config.use_directory_urls))
    return files


def prepare_notebook(notebook: dict[str, Any], uri: str) -> dict[str, Any]:
    """Formulas as MathML, explorers as pages in frames, and pictures with an alternative text.

    An explorer without a page becomes a picture, and a picture without a text is described by its section. References
    stay folded, and checks, which only tests need, are left out.
    """
    heading = ""
    notebook["cells"] = [_unfoldable(cell) for cell in notebook["cells"] if "check" not in _tags(cell)]
    for cell in notebook["cells"]:
        cell["metadata"].pop("tags", None)  # the page would show them
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            heading = (re.findall(r"^#+ (.+)$", text, re.MULTILINE) or [heading])[-1]
            cell["source"] = NOTEBOOK_LINK.sub(".html", MATH.sub(_mathml, text))
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if data.pop(WIDGET, None) and "image/png" in data and (page := explorer_page(uri, cell["id"])).exists():
                output["data"] = {"text/html": explorer_frame(page, posixpath.dirname(uri))}
            elif "image/png" in data:
                output["metadata"].setdefault("image/png", {}).setdefault("alt", f"Figure of the section: {heading}")
    return notebook


def _tags(cell: dict[str, Any]) -> list[str]:
    return cell["metadata"].get("tags", [])


def _unfoldable(cell: dict[str, Any]) -> dict[str, Any]:
    """A reference as text that unfolds at a click, as it does in JupyterLab; any other cell unchanged."""
    if "reference" not in _tags(cell):
        return cell
    code = "".join(cell["source"])
    text = f"<details><summary>Reference</summary>\n\n```python\n{code}\n```\n\n</details>"
    return {"cell_type": "markdown", "id": cell["id"], "metadata": {}, "source": text}


def _mathml(match: re.Match[str]) -> str:
    block = match["block"]
    return convert(block or match["inline"], display="block" if block else "inline")


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links that leave `docs` to where the site has the file; links to other files become text."""
    outside = {uri: name for name, uri in OUTSIDE.items()}
    place = posixpath.dirname(outside.get(page.file.src_uri, f"docs/{page.file.src_uri}"))

    def rewritten(match: re.Match[str]) -> str:
        parts = urlsplit(match["target"])
        if parts.scheme or not parts.path:
            return match[0]
        path = posixpath.normpath(posixpath.join(place, parts.path))
        uri = path.removeprefix("docs/") if path.startswith("docs/") else OUTSIDE.get(path, path)
        if files.get_file_from_path(uri) is None:
            return match[0] if path.startswith("docs/") else match["text"]
        target = posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or ".")
        return f"[{match['text']}]({target}{'#' + parts.fragment if parts.fragment else ''})"

    return LINK.sub(rewritten, markdown)


def on_page_content(html: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Remove what a notebook page would load from the network, and share the long style sheets of all notebooks."""
    if not page.file.src_uri.endswith(".ipynb"):
        return html

    def shared(match: re.Match[str]) -> str:
        uri = f"assets/notebook-{hashlib.sha256(match[1].encode()).hexdigest()[:8]}.css"
        if files.get_file_from_path(uri) is None:
            files.append(File.generated(config, uri, content=match[1]))
        return f'<link rel="stylesheet" href="{posixpath.relpath(uri, posixpath.dirname(page.file.src_uri))}">'

    return LONG_STYLE.sub(shared, NETWORK_SCRIPT.sub("", html))


class _References(HTMLParser):
    """Collect what a page loads and what it links to."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.linked: list[str] = []
        self.undescribed = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag in ("script", "img", "iframe") and "src" in found:
            self.loaded.append(found["src"])
        if tag == "link" and found.get("rel") not in ("canonical", "next", "prev"):
            self.loaded.append(found.get("href", ""))
        if tag == "a" and "href" in found:
            self.linked.append(found["href"])
        self.undescribed += tag in DESCRIBED and not found.get(DESCRIBED[tag])


def on_post_build(config: MkDocsConfig) -> None:
    """Raise if a page loads anything from the network, links to a missing file, or shows something undescribed."""
    site, problems = Path(config.site_dir), []
    for path in site.rglob("*.html"):
        page = _References()
        text = path.read_text(encoding="utf-8")
        page.feed(text)
        if path.parent.name == PAGES.name and may_use_network(text):
            problems.append(f"{path.name} may load something from the network")
        problems += [f"{path.name} loads {url}" for url in page.loaded if urlsplit(url).netloc]
        if page.undescribed:
            problems.append(f"{path.name}: {page.undescribed} images or frames without a description")
        for url in {*page.loaded, *page.linked}:
            parts = urlsplit(url)
            if path.name == "404.html" or parts.scheme or parts.netloc or not parts.path:
                continue
            if not os.path.exists(path.parent / unquote(parts.path)):
                problems.append(f"{path.name} links to {url}, which is missing")
    if problems:
        raise PluginError("\n".join(problems))
