"""The file of a study: a header, then one line of JSON per training, written as soon as it finishes.

Lines are only appended, never changed or deleted. A line that cannot be read causes a warning and stays in the file.
"""

from __future__ import annotations

import json
import os
import stat
import warnings
from pathlib import Path
from typing import Any

from renyi_lab._utils.interrupts import uninterrupted
from renyi_lab._utils.whole_file import as_path
from renyi_lab._version import __version__
from renyi_lab.study._records import Record

FORMAT = "renyi_lab study"
# Increase it when the fields of a record, or the meaning of a standard measure, change.
VERSION = 1
_EXAMPLE = "'study.jsonl'"


def read_records(path: str | os.PathLike[str]) -> tuple[dict[str, Any], list[Record]]:
    """Header and records of a file.

    Raises:
        TypeError: ``path`` is not a path.
        ValueError: The file is not a study file, or has another version.

    Warns:
        UserWarning: A line is not a complete record; it is skipped.
    """
    path = as_path(path, _EXAMPLE)
    if not _is_file(path):
        raise ValueError(f"file {path} does not exist; run_study(..., path=...) writes one.")
    try:
        lines = path.read_bytes().split(b"\n")
        first = lines[0].decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as a study ({error}); the file was not changed.") from error
    head = _checked_head(path, first)
    records: dict[str, Record] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        try:
            record = Record.from_line(line)
        except ValueError as error:
            what = "incomplete" if number == len(lines) else str(error)
            warnings.warn(
                f"{path}, line {number}: {what}. The line is skipped and stays in the file; run_study repeats its "
                "training if it is in the grid.",
                stacklevel=3,
            )
            continue
        records.setdefault(record.setting.key, record)
    return head, list(records.values())


class RecordFile:
    """A file to which records are appended, each in a single write; without a path, nothing is written."""

    def __init__(
        self, path: str | os.PathLike[str] | None, data: str, measure: str, models: dict[str, str] | None = None
    ) -> None:
        """Read existing records and check that they belong to the same study; nothing is written yet."""
        self.path = None if path is None else as_path(path, _EXAMPLE)
        self.records: list[Record] = []
        head = {"format": FORMAT, "version": VERSION, "renyi_lab": __version__, "data": data, "measure": measure}
        self._head = json.dumps(head if models is None else {**head, "models": models}).encode() + b"\n"
        if self.path is None or not _is_file(self.path) or self._lacks_head(self.path):
            return
        found, self.records = read_records(self.path)
        for what, ours in (("data", data), ("measure", measure), ("models", models)):
            if found.get(what) != ours:
                raise ValueError(
                    f"{self.path} holds a study with {what} {found.get(what)!r}, not {ours!r}; the file was not "
                    "changed. Pass another file, or the same data, models and measure."
                )

    def check_writable(self) -> None:
        """Raise ``ValueError`` if records cannot be appended."""
        if self.path is None:
            return
        target = Path(os.path.realpath(self.path))
        if target.exists():
            writable = os.access(target, os.W_OK)
        else:
            writable = target.parent.is_dir() and os.access(target.parent, os.W_OK | os.X_OK)
        if not writable:
            raise ValueError(f"path {self.path} cannot be written; pass a file in an existing folder.")

    @uninterrupted
    def append(self, record: Record) -> None:
        """Write a record and flush it to the disk; after an ``OSError`` the file is as before."""
        if self.path is None:
            return
        line = record.to_line().encode() + b"\n"
        try:
            with open(self.path, "ab+", buffering=0) as file:
                if self._lacks_head(self.path):
                    file.truncate(0)
                    line = self._head + line
                else:
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":  # an incomplete line stays, on a line of its own
                        line = b"\n" + line
                _write_whole(file, line)
        except OSError as error:
            raise OSError(
                error.errno,
                f"a record cannot be written to path {str(self.path)!r}: {error.strerror}. The records before it are "
                "in the file. When this is fixed, call run_study again: it trains only what is missing",
            ) from error

    def _lacks_head(self, path: Path) -> bool:
        """Whether the file is empty, or ends within our header, as after a crash during the very first write."""
        try:
            with open(path, "rb") as file:
                start = file.read(len(self._head))
        except OSError as error:
            raise ValueError(f"{path} cannot be read as a study ({error}); the file was not changed.") from error
        return start != self._head and self._head.startswith(start)


def _write_whole(file: Any, content: bytes) -> None:
    size, left = file.seek(0, os.SEEK_END), memoryview(content)
    try:
        while left:
            left = left[file.write(left) :]
        os.fsync(file.fileno())
    except OSError:  # a full disk takes a part of the line
        file.truncate(size)
        raise


def _is_file(path: Path) -> bool:
    """Whether there is an ordinary file; raises ``ValueError`` for anything else that cannot become one."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:  # such as a name that is too long, or a character that no name may have
        raise ValueError(f"path {str(path)!r} cannot be used ({error}); pass a file in an existing folder.") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "not an ordinary file"
        raise ValueError(f"path {str(path)!r} is {kind}, so it cannot be written or read; pass a file.")
    return True


def _plain(value: Any) -> str:
    """A value of a foreign header for a message, short and without characters that a terminal takes as commands."""
    return ascii(value).strip("'")[:40]


def _checked_head(path: Path, line: str) -> dict[str, Any]:
    try:
        head = json.loads(line)
        valid = isinstance(head, dict) and head.get("format") == FORMAT
    except (ValueError, RecursionError):
        valid = False
    if not valid:
        raise ValueError(f"{path} is not a study file: its first line is {line[:60]!r}. The file was not changed.")
    version = head.get("version")
    if version != VERSION or isinstance(version, bool) or not {"data", "measure"} <= head.keys():
        raise ValueError(
            f"{path} was written by renyi_lab {_plain(head.get('renyi_lab'))} in version {_plain(version)} of the "
            f"format; this release ({__version__}) reads version {VERSION}. The file was not changed: read it with "
            "that release, or write the study to another file."
        )
    return dict(head)
