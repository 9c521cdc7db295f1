"""Whether an exception is an answer to the caller: of a documented type, raised on purpose, and naming an argument."""

from __future__ import annotations

import linecache
import re
import traceback
from pathlib import Path

import renyi_lab
from fuzz.surface import Target, targets

PACKAGE = str(Path(renyi_lab.__file__).parent)
# Types that an argument's error may have without being listed under `Raises:`.
ALWAYS = (ValueError, TypeError)
# What messages call (parts of) an argument, by the argument's name.
ALSO_CALLED = {
    "data|data_set|train_set|test_set|test_data|batches": "batch batches inputs targets sample samples label labels",
    "model|a|b|operator|hessian|source|optimizer|posterior|classifier": "model parameter parameters loss",
    "operator|hessian|source": "matrix operator product",
    "closure": "gradient gradients loss backward",
    "loss_fn|loss": "loss output outputs",
    "other": "operand",
    "line": "record",
    "spectrum": "eigenvalues",
    "frame": "column",
    "pattern_or_modules": "blocks",
    "options|settings|axes|terms|base_kwargs": "lr extra architecture",
}


def verdict(error: Exception, target: Target) -> tuple[str, str, str] | None:
    """``(kind, message, place)`` of what is wrong with an exception; ``None`` for a good one."""
    text = f"{type(error).__name__}: {str(error)[:300]}"
    frames = traceback.extract_tb(error.__traceback__)
    place = _place(frames)
    if _is_user_code(frames[-1]):
        return None  # an error of the caller's own function or object, as it is
    if not isinstance(error, ALWAYS) and not documented(error, target):
        return "undocumented type", f"{text} ({place})", place
    if any(map(_is_user_code, frames)):
        return None
    if not raised_on_purpose(frames):
        return "raw message", f"{text} ({place})", place
    if isinstance(error, ALWAYS) and not names_an_argument(str(error), target):
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


def _is_user_code(frame: traceback.FrameSummary) -> bool:
    """Whether it is one of a function or an object that the caller passed."""
    return frame.filename == "<string>" and frame.name != "<module>"


def names_an_argument(message: str, target: Target) -> bool:
    """Whether some word of the message is the name of one of the target's parameters, or of its object's."""
    return bool(set(re.findall(r"[^\W\d]\w*", message)) & names_of(target)) or bool(
        re.match(r"a(=| must| is )", message)
    )


def names_of(target: Target) -> frozenset[str]:
    """Names of the parameters, as they are, in words and as `ALSO_CALLED`; of a method also those of its object."""
    owners = [found.parameters for found in targets() if found.name in target.owners]
    found = {parameter.name for parameters in (target.parameters, *owners) for parameter in parameters}
    found |= {word for name in found for word in name.split("_") if len(word) > 3}
    found |= {word[:-1] for word in found if word.endswith("s")}
    for names, words in ALSO_CALLED.items():
        found |= set(words.split()) if found & set(names.split("|")) else set()
    return frozenset(found - {"a"})


def _place(frames: traceback.StackSummary) -> str:
    """The innermost line of the package."""
    inside = [frame for frame in frames if frame.filename.startswith(PACKAGE)]
    frame = (inside or frames)[-1]
    return f"{Path(frame.filename).relative_to(PACKAGE) if inside else ''}:{frame.lineno}"
