"""Standard output and error as they are found: missing, closed, replaced, or in an encoding without Greek letters."""

from __future__ import annotations

import codecs
import contextlib
import sys
from typing import Any

_SPELLED = {
    "α": "alpha",
    "λ": "lambda",
    "ρ": "rho",
    "σ": "sigma",
    "τ": "tau",
    "θ": "theta",
    "ε": "eps",
    "Δ": "Delta",
}
_SPELLED |= {"∞": "inf", "≥": ">=", "≤": "<=", "±": "+-", "×": "x", "−": "-", "–": "-", "—": "-", "…": "...", "→": "->"}
_SPELLED |= {"Σ": "sum", "·": "*", "é": "e", "²": "^2", "³": "^3", "√": "sqrt", "∇": "grad", "’": "'", "‖": "||"}


def is_open(stream: Any) -> bool:
    """Whether a standard stream, which may be ``None`` or any object, can be written to."""
    try:
        return callable(getattr(stream, "write", None)) and not getattr(stream, "closed", False)
    except Exception:  # a stream whose file was taken from it has no state to ask for
        return False


def is_terminal(stream: Any) -> bool:
    """Whether a standard stream is open and is a terminal."""
    try:
        return is_open(stream) and bool(stream.isatty())
    except Exception:  # objects that only have write(), files closed underneath, and whatever else stands in
        return False


class ForgivingStream:
    """A stream for what may get lost, such as a progress bar, whose failure must not end the work that it is about.

    Letters that ``stream`` cannot encode are spelled out; nothing else that it raises is passed on.

    Args:
        stream: The stream to write to.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.encoding: str | None = None
        with contextlib.suppress(Exception):
            self.encoding = str(stream.encoding)

    def write(self, text: str) -> int:
        """Write what can be written."""
        with contextlib.suppress(Exception):
            try:
                self._stream.write(text)
            except UnicodeError:
                self._stream.write("".join(_SPELLED.get(c, c) for c in text).encode("ascii", "replace").decode())
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        with contextlib.suppress(Exception):
            self._stream.flush()

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return is_terminal(self._stream)

    def fileno(self) -> int:
        """The stream's descriptor, from which the width of a terminal is found."""
        return int(self._stream.fileno())


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
