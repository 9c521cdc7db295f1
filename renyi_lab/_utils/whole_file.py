"""Files that are written completely or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from renyi_lab._utils.interrupts import restoring
from renyi_lab._utils.validation import shown


@restoring
def whole_file(path: Path) -> Iterator[Path]:
    """The path of a partial file; it replaces the file at ``path`` at the end, or is removed after an exception.

    A link stays a link: the partial file is beside the file that it leads to.

    Raises:
        OSError: The file cannot be written, on a full disk for example; the error names ``path``, which is unchanged.
    """
    file = without_links(path)
    partial = file.with_name(f".{secrets.token_hex(8)}.part")  # of this call alone: others may write at once
    try:
        yield partial
        os.replace(partial, file)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
    finally:
        partial.unlink(missing_ok=True)


def without_links(path: Path) -> Path:
    """The absolute path that is reached from ``path`` through all links; ``OSError`` if there can be none."""
    try:
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):  # there can be a file
            path.stat()  # what it refuses, pathlib refuses in some releases of Python and ignores in others
        return path.resolve()
    except (OSError, ValueError) as error:  # a long name, a link to itself; a character that no name may have
        reason = getattr(error, "strerror", None) or error
        raise OSError(
            f"path is not a file name that this system knows ({reason}): {str(path)!r}; choose another one."
        ) from None


def as_path(path: str | os.PathLike[str], example: str) -> Path:
    """The path, or ``TypeError`` with ``example``, a good name, if it is none."""
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        raise TypeError(f"path must be a file name, such as {example}, got {shown(path)}.")
    return Path(path)


def writable(path: str | os.PathLike[str], example: str) -> Path:
    """The path, if a file can be written there.

    Args:
        path: Name of the file.
        example: A good name, for messages.

    Raises:
        TypeError: ``path`` is not a path.
        OSError: The folder does not exist, ``path`` is a folder, a device or no possible name, or may not be written.
    """
    target = as_path(path, example)
    folder = without_links(target).parent
    if target.is_dir():
        raise IsADirectoryError(f"path is a folder: {str(target)!r}; add the name of a file, such as {example}.")
    if not folder.is_dir():
        kind = NotADirectoryError if folder.exists() else FileNotFoundError
        raise kind(f"path needs an existing folder, got {str(target)!r}; create {str(folder)!r} first.")
    if target.exists() and not target.is_file():
        raise OSError(f"path is not an ordinary file: {str(target)!r}; choose another file name.")
    if not os.access(folder, os.W_OK) or (target.exists() and not os.access(target, os.W_OK)):
        raise PermissionError(f"path may not be written: {str(target)!r}; choose another folder or file name.")
    return target
