"""What a checker of an exercise answers: solved, not attempted yet, or a hint at what goes wrong."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

Status = Literal["solved", "not attempted yet", "not yet"]
_COLORS = {"solved": "#009E73", "not attempted yet": "#777777", "not yet": "#D55E00"}


@dataclass(frozen=True)
class Feedback:
    """The answer of a checker; the last value of a cell shows it.

    Attributes:
        status: ``"solved"``, ``"not attempted yet"`` (the stub stands as it was) or ``"not yet"``.
        message: What to notice next.
    """

    status: Status
    message: str = ""

    @property
    def solved(self) -> bool:
        """Whether the attempt passed every question."""
        return self.status == "solved"

    def __repr__(self) -> str:
        return f"{self.status}: {self.message}" if self.message else self.status

    def _repr_html_(self) -> str:
        return f"<b style='color:{_COLORS[self.status]}'>{self.status}</b> {html.escape(self.message)}"


class NotAttempted(Exception):
    """A function under test returned nothing."""


class Hint(Exception):
    """Ends the questions; the text is the hint."""


Question = Callable[[Any], str | None]
"""Looks at an attempt; returns the hint where it falls short, ``None`` where it does not."""


def first_hint(attempt: Any, questions: Iterable[Question], praise: str) -> Feedback:
    """Ask the questions in order, easiest mistake first, and answer with the first hint.

    An attempt counts as not made when it is ``None`` or ``...``, holds one of these, or is a function that returns one
    of them. What the attempt raises becomes part of a hint: an exercise never fails with a traceback.
    """
    if _is_blank(attempt):
        return Feedback("not attempted yet", "fill in the stub and run the cell again.")
    for question in questions:
        try:
            hint = question(attempt)
        except NotAttempted:
            return Feedback("not attempted yet", "the function returns nothing so far.")
        except Hint as found:
            hint = str(found)
        except Exception as error:
            kind = type(error).__name__
            hint = f"looking at your answer raised {kind}: {error}. Has it the type and shape that was asked for?"
        if hint is not None:
            return Feedback("not yet", hint)
    return Feedback("solved", praise)


def answer_of(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call the attempt; `NotAttempted` where it returns nothing, `Hint` where it raises or is no function."""
    if not callable(function):
        raise Hint(
            f"a function is asked for, this is of type {type(function).__name__}; pass its name, do not call it."
        )
    try:
        result = function(*arguments)
    except Exception as error:
        raise Hint(f"your code raised {type(error).__name__}: {error}") from error
    if _is_blank(result):
        raise NotAttempted
    return result


def number_of(answer: Any) -> float:
    """The answer as a ``float``; `Hint` where it is not one number."""
    try:
        return float(answer.detach() if isinstance(answer, Tensor) else answer)
    except (TypeError, ValueError, RuntimeError):
        shape = f" of shape {tuple(answer.shape)}" if hasattr(answer, "shape") else ""
        raise Hint(f"one number is asked for, this is of type {type(answer).__name__}{shape}.") from None


def _is_blank(attempt: Any) -> bool:
    if isinstance(attempt, Mapping):
        return any(map(_is_blank, attempt.values()))
    if isinstance(attempt, (tuple, list)):
        return any(map(_is_blank, attempt))
    return attempt is None or attempt is Ellipsis
