"""The answer of an exercise checker: solved, not attempted yet, or a hint at the mistake; and how checkers find it."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from renyi_lab._utils.fields import check_fields
from renyi_lab.exercises._attempts import (
    Hint,
    NotAttempted,
    answer_of,
    error_text,
    is_blank,
    number_of,
    require_function,
    tensor_of,
)

__all__ = [
    "TOLERANCE",
    "Check",
    "Feedback",
    "Hint",
    "NotAttempted",
    "answer_of",
    "close",
    "explain",
    "first_hint",
    "number_of",
    "tensor_of",
]

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

    def __post_init__(self) -> None:
        check_fields(self)

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


Check = Callable[[Any], str | None]
"""Maps an attempt to a hint, or to ``None`` if the attempt passes."""


def first_hint(attempt: Any, checks: Iterable[Check], success: str, *, signature: str = "") -> Feedback:
    """Run the checks in order, simplest mistake first, and return the first hint.

    An attempt counts as not made if it is ``None`` or ``...``, contains one of these, or is a function that returns one
    of them. An exception raised by the attempt becomes part of a hint: an exercise never ends with a traceback.

    Args:
        attempt: The reader's answer, or function.
        checks: Functions from the attempt to a hint, or to ``None`` if it passes.
        success: What a correct solution shows.
        signature: For functions, the expected parameters, such as ``"(theta, v)"``: a hint names them if the attempt
            cannot be called in this way.
    """
    try:
        if is_blank(attempt):
            return Feedback("not attempted yet", "fill in the stub and run the cell again.")
        if signature:
            require_function(attempt, signature)
        hint = next((found for found in (check(attempt) for check in checks) if found is not None), None)
    except NotAttempted:
        return Feedback("not attempted yet", "the function returns nothing so far.")
    except Hint as found:
        hint = str(found)
    except Exception as error:
        hint = f"checking your answer raised {error_text(error)}. Does it have the expected type and shape?"
    return Feedback("solved", success) if hint is None else Feedback("not yet", hint)


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
    hint = next((hint for hint, wrong in mistakes.items() if close(answer, wrong)), otherwise)
    return hint if hint in mistakes or _is_finite(answer) else f"your answer is NaN or infinite: {hint}"


def close(answer: Any, expected: Any) -> bool:
    """Whether two numbers or arrays have the same shape and the same entries up to `TOLERANCE`."""
    if np.asarray(answer).dtype.kind not in "biufO":  # text and complex numbers
        return False
    found, wanted = (np.asarray(values, dtype=np.float64) for values in (answer, expected))
    scale = max(1.0, float(np.abs(wanted).max(initial=0.0, where=np.isfinite(wanted))))
    return found.shape == wanted.shape and np.allclose(found, wanted, rtol=0, atol=TOLERANCE * scale, equal_nan=True)


def _is_finite(answer: Any) -> bool:
    values = np.asarray(answer)
    return values.dtype.kind not in "fc" or bool(np.isfinite(values).all())
