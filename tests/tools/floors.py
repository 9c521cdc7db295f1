"""Print the lowest releases that pyproject.toml admits, one requirement a line: ``make test-floors`` installs them.

The argument is the Python that they are for, such as ``3.10``; without it they are for the one that runs this.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = ("lab", "test")


def floors(project: dict[str, Any], python: str, extras: tuple[str, ...] = EXTRAS) -> Iterator[str]:
    """``name==version`` of the lower end of each range of the dependencies and of ``extras``, for a ``python``."""
    todo = [*project["dependencies"], f"{project['name']}[{','.join(extras)}]"]
    seen: set[str] = set()
    while todo:
        requirement = Requirement(todo.pop(0))
        if requirement.name == project["name"]:
            todo += [text for extra in sorted(requirement.extras) for text in project["optional-dependencies"][extra]]
            continue
        if requirement.name in seen or (
            requirement.marker and not requirement.marker.evaluate({"python_version": python})
        ):
            continue
        seen.add(requirement.name)
        (lowest,) = (part.version for part in requirement.specifier if part.operator == ">=")
        yield f"{requirement.name}=={lowest}"


if __name__ == "__main__":
    chosen = sys.argv[1] if len(sys.argv) > 1 else ".".join(map(str, sys.version_info[:2]))
    print("\n".join(floors(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"], chosen)))
