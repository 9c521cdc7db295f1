"""Files that are written completely or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """The path of a partial file beside ``path``; it replaces ``path`` at the end, or is removed after an exception."""
    partial = path.with_name(f".{secrets.token_hex(8)}.part")  # of this call alone: others may write at once
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
