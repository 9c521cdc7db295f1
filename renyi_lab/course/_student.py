"""The student edition of a notebook: no reference solutions, no links to them, no stored outputs."""

from __future__ import annotations

import copy
import re
from typing import Any

# What a folded reference cell begins with: the call of the checker on the function that the reader writes.
_CHECK = re.compile(r"exercises\.check_\w+\((?P<name>\w+)\)")
_SOLUTIONS = "solutions/"
_SENTENCE_END = re.compile(r"(?<=[.!?])(?<!\b\w\.\w\.)\s+")  # not after an abbreviation such as "e.g."
_ITEM = re.compile(r"\s*(?:[-*+]|\d+[.)])\s+")
_FENCE = "```"
_NAVIGATION = ("navigation-top", "navigation-bottom")


def student_edition(notebook: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a notebook for students.

    A cell tagged ``reference`` becomes one line that uses the student's function once its checker accepts it and the
    library's until then, so every notebook runs with its stubs unfilled. Sentences that point to the solutions and all
    outputs are removed.

    Args:
        notebook: A notebook as parsed from its JSON, format 4.

    Raises:
        ValueError: The notebook has no cells, or a reference cell calls no checker.
    """
    if not isinstance(notebook, dict) or "cells" not in notebook:
        raise ValueError("notebook must be a dictionary with the key 'cells', as of a notebook of format 4.")
    made = copy.deepcopy(notebook)
    for cell in made["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            cell["source"] = _without_solutions(source, is_navigation=cell.get("id") in _NAVIGATION)
            continue
        if cell["cell_type"] != "code":
            continue
        cell["outputs"], cell["execution_count"] = [], None
        if "reference" in cell["metadata"].get("tags", ()):
            cell["source"] = _fallback(source)
    return made


def _fallback(source: str) -> str:
    match = _CHECK.search(source)
    if match is None:
        raise ValueError(f"a cell tagged reference must call its checker, exercises.check_…(function); got: {source!r}")
    return f"{match['name']} = {match[0]}.function  # yours once it passes, the library's until then"


def _without_solutions(text: str, is_navigation: bool) -> str:
    if _SOLUTIONS not in text:
        return text
    if is_navigation:
        return " · ".join(part for part in text.split(" · ") if _SOLUTIONS not in part)
    kept = [block if _SOLUTIONS not in block else _without_sentences(block) for block in _blocks(text)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(block for block in kept if block is not None)).strip("\n")


def _blocks(text: str) -> list[str]:
    """Paragraphs, headings, items of lists, fenced code and empty lines, in their order."""
    blocks: list[str] = []
    is_code = False
    for line in text.splitlines():
        is_fence = line.startswith(_FENCE)
        starts = is_fence or not line.strip() or line.startswith("#") or _ITEM.match(line)
        ended = not blocks or not blocks[-1].strip() or blocks[-1].startswith(("#", _FENCE))
        if not is_code and (starts or ended):
            blocks.append(line)
        else:
            blocks[-1] += f"\n{line}"
        is_code ^= is_fence
    return blocks


def _without_sentences(block: str) -> str | None:
    """A block less its sentences that point to the solutions; ``None`` if nothing remains."""
    marker = match[0] if (match := _ITEM.match(block)) else ""
    sentences = [] if block.startswith(_FENCE) else _SENTENCE_END.split(block[len(marker) :])
    kept = " ".join(sentence for sentence in sentences if _SOLUTIONS not in sentence)
    return marker + kept if kept else None
