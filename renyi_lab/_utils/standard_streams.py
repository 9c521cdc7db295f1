"""Standard output and error as they are found: missing, closed, replaced, or in an encoding without Greek letters."""

from __future__ import annotations

import codecs
import sys
from typing import Any

_SPELLED = {"α": "alpha", "λ": "lambda", "ρ": "rho", "σ": "sigma", "τ": "tau", "θ": "theta", "ε": "eps", "Δ": "Delta"}
_SPELLED |= {"∞": "inf", "≥": ">=", "≤": "<=", "±": "+-", "×": "x", "−": "-", "–": "-", "—": "-", "…": "...", "→": "->"}
_SPELLED |= {"Σ": "sum", "·": "*", "é": "e", "²": "^2", "³": "^3", "√": "sqrt", "∇": "grad", "’": "'", "‖": "||"}


def is_open(stream: Any) -> bool:
    """Whether a standard stream, which may be ``None`` or any object, can be written to."""
    return stream is not None and not getattr(stream, "closed", False)


def is_terminal(stream: Any) -> bool:
    """Whether a standard stream is open and is a terminal."""
    try:
        return is_open(stream) and bool(stream.isatty())
    except (AttributeError, OSError, ValueError):  # objects that only have write(), and files closed underneath
        return False


def spell_out_what_cannot_be_encoded() -> None:
    """For a command: let the standard streams write ``alpha`` where their encoding has no α, instead of raising.

    Redirected output on Windows is in the code page of the system, such as cp1252.
    """
    codecs.register_error("renyi_lab.spelled", _spelled)
    for stream in (sys.stdout, sys.stderr):
        if is_open(stream) and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="renyi_lab.spelled")


def _spelled(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    return "".join(_SPELLED.get(character, "?") for character in characters), error.end
