"""The student edition of a notebook: no reference solutions, no links to them, no stored outputs."""

from __future__ import annotations

import copy
import re
from typing import Any

# What a folded reference cell begins with: the call of the checker on the function that the reader writes.
_CHECK = re.compile(r"exercises\.check_\w+\((?P<name>\w+)\)")
_SOLUTIONS = "solutions/"
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_NAVIGATION = ("navigation-top", "navigation-bottom")


def student_edition(notebook: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a notebook for students.

    A cell tagged ``reference`` becomes one line that uses the student's function once its checker accepts it and the
    library's until then, so every notebook runs with its stubs unfilled. Sentences that point to the solutions and all
    outputs are removed.

    Args:
        notebook: A notebook as parsed from its JSON, format 4.

    Raises:
        ValueError: A reference cell calls no checker.
    """
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
    paragraphs = []
    for paragraph in text.split("\n\n"):
        if _SOLUTIONS in paragraph:
            sentences = _SENTENCE_END.split(paragraph)
            paragraph = " ".join(sentence for sentence in sentences if _SOLUTIONS not in sentence)
        paragraphs.append(paragraph)
    return "\n\n".join(filter(None, paragraphs))
