"""Records of trainings in a file: a head, then one JSON line a training, written as it finishes.

Nothing in a file is ever changed or deleted: lines are appended, and what cannot be read is named and left alone.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from renyi_lab._version import __version__
from renyi_lab.study._grid import AXES, Setting
from renyi_lab.study._measurement import Measurement

FORMAT = "renyi_lab study"
# Raise it when a record's fields, or the meaning of a standard measure, change.
VERSION = 1
# Of stored numbers. Our choice: finer than any standard error here, and a file of 100 trainings stays small.
_DIGITS = 6
_RESULTS = {"train_loss", "train_accuracy", "test_loss", "test_accuracy", "cpu_seconds"}


@dataclass(frozen=True)
class Record:
    """One training: its setting, how it ended, and what was measured. Numbers but the setting's have 6 digits.

    Attributes:
        setting: What was trained.
        diverged: Whether a loss or weight ceased to be finite; all that follows is then empty or NaN.
        train_loss, train_accuracy, test_loss, test_accuracy: After the training, by `evaluate`.
        measurement: What was measured.
        cpu_seconds: Processor time of training and measuring.
    """

    setting: Setting
    diverged: bool
    train_loss: float = math.nan
    train_accuracy: float = math.nan
    test_loss: float = math.nan
    test_accuracy: float = math.nan
    measurement: Measurement = field(default_factory=Measurement)
    cpu_seconds: float = math.nan

    @property
    def loss_gap(self) -> float:
        """Test loss − training loss."""
        return self.test_loss - self.train_loss

    @property
    def error_gap(self) -> float:
        """Test error − training error."""
        return self.train_accuracy - self.test_accuracy

    def to_line(self) -> str:
        """The record as one line of JSON; NaN and infinity as Python's json spells them."""
        return json.dumps(_rounded(asdict(self)) | {"setting": asdict(self.setting)}, separators=(",", ":"))

    def as_stored(self) -> Record:
        """The record as it comes back from a file: numbers rounded."""
        return Record.from_line(self.to_line())

    @classmethod
    def from_line(cls, line: str) -> Record:
        """The record of a line; ``ValueError`` if it is none."""
        try:
            raw = json.loads(line)
            setting, measured, diverged = raw.pop("setting"), raw.pop("measurement"), raw.pop("diverged")
            if set(setting) != set(AXES):
                raise ValueError("the setting has other axes")
            if set(raw) != _RESULTS:
                raise ValueError(f"it lacks or has too much: {', '.join(sorted(set(raw) ^ _RESULTS))}")
            return cls(
                setting=Setting.checked(setting, [setting["architecture"]]),
                diverged=bool(diverged),
                measurement=Measurement(
                    _numbers(measured["values"]),
                    {name: {float(a): float(v) for a, v in c.items()} for name, c in measured["curves"].items()},
                    _numbers(measured["chosen_alphas"]),
                ),
                **_numbers(raw),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"no record of a training ({error})") from error


def head_line(data: str, measure: str, models: dict[str, str] | None = None) -> str:
    """The first line of a file: what it is, of which version, and on what data what was measured.

    ``models`` are the names of the caller's; the package's own go unmentioned.
    """
    head = {"format": FORMAT, "version": VERSION, "renyi_lab": __version__, "data": data, "measure": measure}
    return json.dumps(head if models is None else {**head, "models": models})


def read_records(path: str | os.PathLike[str]) -> tuple[dict[str, Any], list[Record]]:
    """Head and records of a file.

    Raises:
        ValueError: No file of a study, or one of another version.

    Warns:
        UserWarning: A line is no record, or only half of one; it is passed over.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}; run_study(..., path=...) writes one.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as a study ({error}); it is left as it is.") from error
    head = _checked_head(path, lines[0])
    records: dict[str, Record] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        try:
            record = Record.from_line(line)
        except ValueError as error:
            what = "half-written" if number == len(lines) else str(error)
            warnings.warn(
                f"{path}, line {number}: {what}. It is passed over and left as it is; run_study does its training "
                "again, if the grid has it.",
                stacklevel=3,
            )
            continue
        records.setdefault(record.setting.key, record)
    return head, list(records.values())


class RecordFile:
    """A file that records are appended to, each in a single write; without a path, nothing."""

    def __init__(
        self, path: str | os.PathLike[str] | None, data: str, measure: str, models: dict[str, str] | None = None
    ) -> None:
        """Read what is there already and check that it belongs to the same study; nothing is written yet."""
        self.path = None if path is None else Path(path)
        self.records: list[Record] = []
        self._head = head_line(data, measure, models)
        if self.path is None:
            return
        place = self.path if self.path.exists() else self.path.parent
        if place.is_dir() == (place is self.path) or not os.access(place, os.W_OK):
            raise ValueError(f"path {self.path} cannot be written; name a file in a folder that exists.")
        if self.path.exists() and self.path.stat().st_size:
            head, self.records = read_records(self.path)
            for what, ours in (("data", data), ("measure", measure), ("models", models)):
                if head.get(what) != ours:
                    raise ValueError(
                        f"{self.path} holds a study with {what} {head.get(what)!r}, not {ours!r}; it is left as it is. "
                        "Name another file, or go on with the same data, models and measure."
                    )

    def append(self, record: Record) -> None:
        """Write a record and see to it that it survives a crash."""
        if self.path is None:
            return
        with open(self.path, "ab+") as file:
            text = record.to_line() + "\n"
            if file.tell() == 0:
                text = f"{self._head}\n{text}"
            else:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # half a line is left alone, on a line of its own
                    text = "\n" + text
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())


def _checked_head(path: Path, line: str) -> dict[str, Any]:
    try:
        head = json.loads(line)
        foreign = not isinstance(head, dict) or head.get("format") != FORMAT
    except (ValueError, RecursionError):
        foreign = True
    if foreign:
        raise ValueError(f"{path} is no file of a study: its first line is {line[:60]!r}. It is left as it is.")
    if head.get("version") != VERSION or not {"data", "measure"} <= head.keys():
        raise ValueError(
            f"{path} was written by renyi_lab {head.get('renyi_lab')} in version {head.get('version')} of the format; "
            f"this one ({__version__}) reads version {VERSION}. It is left as it is: read it with that release, or "
            "run the study again into another file."
        )
    return dict(head)


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, bool | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _rounded(item) for key, item in value.items()}
    if isinstance(value, Iterable):
        return [_rounded(item) for item in value]
    return float(f"{value:.{_DIGITS}g}")
