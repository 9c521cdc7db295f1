"""The answer of an exercise checker: solved, not attempted yet, or a hint at the mistake; and how checkers find it."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from torch import Tensor

Status = Literal["solved", "not attempted yet", "not yet"]
_COLORS = {"solved": "#009E73", "not attempted yet": "#777777", "not yet": "#D55E00"}
# Relative to the largest entry or 1, whichever is larger; answers in single precision pass.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Feedback:
    """The answer of a checker; a notebook shows it as the last value of a cell.

    Attributes:
        status: ``"solved"``, ``"not attempted yet"`` (the stub is unchanged) or ``"not yet"``.
        message: The hint, or what a correct solution shows.
        function: For functions that the rest of a notebook needs: the attempt once it is solved, the library's own
            until then. ``None`` for all other exercises.
    """

    status: Status
    message: str = ""
    function: Callable[..., Any] | None = None

    @property
    def solved(self) -> bool:
        """Whether the attempt passed every check."""
        return self.status == "solved"

    def otherwise(self, attempt: Any, library: Callable[..., Any]) -> Feedback:
        """The same feedback with ``function`` set: the attempt if it is solved, otherwise the library's function."""
        return replace(self, function=attempt if self.solved else library)

    def __repr__(self) -> str:
        return f"{self.status}: {self.message}" if self.message else self.status

    def _repr_html_(self) -> str:
        return f"<b style='color:{_COLORS[self.status]}'>{self.status}</b> {html.escape(self.message)}"


class NotAttempted(Exception):
    """A function under test returned nothing."""


class Hint(Exception):
    """Ends the checks; its text is the hint."""


Check = Callable[[Any], str | None]
"""Maps an attempt to a hint, or to ``None`` if the attempt passes."""


def first_hint(attempt: Any, checks: Iterable[Check], success: str) -> Feedback:
    """Run the checks in order, simplest mistake first, and return the first hint.

    An attempt counts as not made if it is ``None`` or ``...``, contains one of these, or is a function that returns one
    of them. An exception raised by the attempt becomes part of a hint: an exercise never ends with a traceback.
    """
    if _is_blank(attempt):
        return Feedback("not attempted yet", "fill in the stub and run the cell again.")
    for check in checks:
        try:
            hint = check(attempt)
        except NotAttempted:
            return Feedback("not attempted yet", "the function returns nothing so far.")
        except Hint as found:
            hint = str(found)
        except Exception as error:
            kind = type(error).__name__
            hint = f"checking your answer raised {kind}: {error}. Does it have the expected type and shape?"
        if hint is not None:
            return Feedback("not yet", hint)
    return Feedback("solved", success)


def explain(answer: Any, right: Any, mistakes: Mapping[str, Any], otherwise: str) -> str | None:
    """``None`` for the right answer, otherwise the hint of the first mistake that gives the same answer.

    Args:
        answer: Number or array.
        right: The right answer.
        mistakes: Mapping from hint to the answer that it explains; NaN matches NaN.
        otherwise: Hint for any other answer.
    """
    if close(answer, right):
        return None
    return next((hint for hint, wrong in mistakes.items() if close(answer, wrong)), otherwise)


def close(answer: Any, expected: Any) -> bool:
    """Whether two numbers or arrays have the same shape and the same entries up to `TOLERANCE`."""
    found, wanted = (np.asarray(values, dtype=np.float64) for values in (answer, expected))
    scale = max(1.0, float(np.abs(wanted).max(initial=0.0, where=np.isfinite(wanted))))
    return found.shape == wanted.shape and np.allclose(found, wanted, rtol=0, atol=TOLERANCE * scale, equal_nan=True)


def answer_of(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call the attempt; raises `NotAttempted` if it returns nothing, `Hint` if it raises or is not a function."""
    if not callable(function):
        raise Hint(f"a function is expected, got {type(function).__name__}; pass its name, do not call it.")
    try:
        result = function(*arguments)
    except Exception as error:
        raise Hint(f"your code raised {type(error).__name__}: {error}") from error
    if _is_blank(result):
        raise NotAttempted
    return result


def number_of(answer: Any) -> float:
    """The answer as a ``float``; raises `Hint` if it is not one number."""
    try:
        return float(answer.detach() if isinstance(answer, Tensor) else answer)
    except (TypeError, ValueError, RuntimeError):
        raise Hint(f"one number is expected, got {_described(answer)}.") from None


def tensor_of(answer: Any, shape: Iterable[int]) -> Tensor:
    """The answer as a tensor in double precision; raises `Hint` if it is not a tensor of this shape."""
    if not isinstance(answer, Tensor) or answer.shape != tuple(shape):
        raise Hint(f"a tensor of shape {tuple(shape)} is expected, got {_described(answer)}.")
    return answer.detach().cpu().double()


def _described(answer: Any) -> str:
    shape = f" of shape {tuple(answer.shape)}" if hasattr(answer, "shape") else ""
    return f"{type(answer).__name__}{shape}"


def _is_blank(attempt: Any) -> bool:
    if isinstance(attempt, Mapping):
        return any(map(_is_blank, attempt.values()))
    if isinstance(attempt, (tuple, list)):
        return any(map(_is_blank, attempt))
    return attempt is None or attempt is Ellipsis
