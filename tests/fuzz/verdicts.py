"""Whether an exception is an answer to the caller: of a documented type, raised on purpose, and naming an argument."""

from __future__ import annotations

import functools
import linecache
import re
import traceback
from collections.abc import Iterator
from pathlib import Path

import renyi_lab
from fuzz.surface import Target, targets

PACKAGE = str(Path(renyi_lab.__file__).parent)
# Types that an argument's error may have without being listed under `Raises:`.
ALWAYS = (ValueError, TypeError)
# What messages call arguments that have no single name, such as the batches in ``data``.
OTHER_WORDS = frozenset(
    (
        "attribute", "batch", "batches", "column", "columns", "eigenvalues", "element", "file", "operand", "grid",
        "gradient", "inputs", "label", "labels", "loss", "model", "order", "output", "outputs", "parameter",
        "parameters", "path", "point", "product", "record", "row", "rows", "sample", "samples", "targets",
        "tensor",
    )
)  # fmt: skip


def verdict(error: Exception, target: Target) -> tuple[str, str, str] | None:
    """``(kind, message, place)`` of what is wrong with an exception; ``None`` for a good one."""
    text = f"{type(error).__name__}: {str(error)[:300]}"
    frames = traceback.extract_tb(error.__traceback__)
    place = _place(frames)
    if not isinstance(error, ALWAYS) and not documented(error, target):
        return "undocumented type", f"{text} ({place})", place
    if _user_code(frames):
        return None
    if isinstance(error, ALWAYS) and any(len(p.name) > 2 and p.name in str(error) for p in target.parameters):
        return None
    if not raised_on_purpose(frames):
        return "raw message", f"{text} ({place})", place
    if not names_an_argument(str(error)):
        return "names no argument", f"{text} ({place})", place
    return None


def documented(error: Exception, target: Target) -> bool:
    """Whether the docstring's ``Raises:`` lists the type or a base of it other than ``Exception``."""
    listed = re.findall(r"^ +([\w., ]+):", target.documentation.partition("Raises:")[2], re.M)
    names = {name.strip() for group in listed for name in group.split(",")}
    if target.name.endswith("__getitem__") and isinstance(error, LookupError):
        return True
    return bool(names & {kind.__name__ for kind in type(error).__mro__[:-3]})


def raised_on_purpose(frames: traceback.StackSummary) -> bool:
    """Whether the innermost frame is a ``raise`` statement of the package."""
    frame = frames[-1]
    inside = frame.filename.startswith(PACKAGE) and linecache.getline(frame.filename, frame.lineno or 0).strip()
    return bool(inside) and str(inside).startswith("raise ")


def _user_code(frames: traceback.StackSummary) -> bool:
    """Whether the error comes from a function that the caller passed."""
    return any(frame.filename == "<string>" and frame.name != "<module>" for frame in frames)


def names_an_argument(message: str) -> bool:
    """Whether some word of the message is the name of a parameter of something public."""
    words = set(re.findall(r"[a-z_]\w*", message.lower()))
    return bool(words & parameter_names())


@functools.cache
def parameter_names() -> frozenset[str]:
    """Names of all parameters, as they are and in words."""

    def spellings() -> Iterator[str]:
        for parameter in (parameter for target in targets() for parameter in target.parameters):
            yield from (parameter.name, *(part for part in parameter.name.split("_") if len(part) > 3))

    return frozenset(spellings()) | OTHER_WORDS


def _place(frames: traceback.StackSummary) -> str:
    """The innermost line of the package."""
    inside = [frame for frame in frames if frame.filename.startswith(PACKAGE)]
    frame = (inside or frames)[-1]
    return f"{Path(frame.filename).relative_to(PACKAGE) if inside else ''}:{frame.lineno}"
