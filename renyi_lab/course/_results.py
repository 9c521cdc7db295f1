"""Results of long experiments, stored beside the notebooks that show them."""

from __future__ import annotations

import json
from typing import Any

from renyi_lab.course._files import course_directory


def load_results(name: str) -> dict[str, Any]:
    """Return the stored results of a benchmark that takes too long for a notebook.

    The files are those that the scripts in ``tests/benchmarks`` of the repository write: what was measured, and under
    ``"circumstances"`` when, where and with which versions.

    Args:
        name: Name of the benchmark, such as ``"base_optimizers"``.

    Returns:
        The content of ``results/<name>.json`` in the folder of the course, a new dictionary in every call.

    Raises:
        TypeError: ``name`` is not a string.
        ValueError: There are no results of this name, or their file is damaged.
        FileNotFoundError: The course is not installed.
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a string such as 'base_optimizers', got {type(name).__name__}.")
    folder = course_directory() / "results"
    known = sorted(path.stem for path in folder.glob("*.json"))
    if name not in known:
        raise ValueError(f"name={name!r}: there are no such results in {folder}; known: {', '.join(known) or 'none'}.")
    path = folder / f"{name}.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or bytes that are no text
        raise ValueError(f"name={name!r}: {path} is damaged ({error}); install the package again.") from None
    if not isinstance(content, dict):
        raise ValueError(f"name={name!r}: {path} holds no results; install the package again.")
    return content
