"""Records of trainings in a file: a header, then one JSON line per training, written as soon as it finishes.

Lines are only appended, never changed or deleted. A line that cannot be read causes a warning and stays in the file.
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
from renyi_lab.study._grid import Setting
from renyi_lab.study._measurement import Measurement

FORMAT = "renyi_lab study"
# Increase it when the fields of a record, or the meaning of a standard measure, change.
VERSION = 1
# Significant digits of stored numbers. Heuristic: finer than any standard error here, and 100 trainings stay small.
_DIGITS = 6
_RESULTS = {"train_loss", "train_accuracy", "test_loss", "test_accuracy", "cpu_seconds"}


@dataclass(frozen=True)
class Record:
    """One training: its setting, its result, and its measures; all results have 6 significant digits.

    Attributes:
        setting: Setting of the training.
        diverged: Whether a loss or weight became non-finite; the other results are then empty or NaN.
        train_loss: Training loss after the training, in loss units.
        train_accuracy: Training accuracy after the training, in [0, 1].
        test_loss: Test loss after the training, in loss units.
        test_accuracy: Test accuracy after the training, in [0, 1].
        measurement: Measures of the trained model.
        cpu_seconds: Processor time of training and measuring, in seconds.
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
    def axes(self) -> dict[str, Any]:
        """Mapping from axis to value."""
        return asdict(self.setting)

    @property
    def loss_gap(self) -> float:
        """Test loss − training loss."""
        return self.test_loss - self.train_loss

    @property
    def error_gap(self) -> float:
        """Test error − training error."""
        return self.train_accuracy - self.test_accuracy

    def to_line(self) -> str:
        """The record as one line of JSON, with NaN and infinity spelled as in Python's ``json``."""
        results = asdict(self)
        del results["setting"]
        return json.dumps({"setting": self.setting.stated} | _rounded(results), separators=(",", ":"))

    def as_stored(self) -> Record:
        """The record as it is read back from a file, with rounded numbers."""
        return Record.from_line(self.to_line())

    @classmethod
    def from_line(cls, line: str) -> Record:
        """The record in a line; raises ``ValueError`` if there is none."""
        try:
            raw = json.loads(line)
            setting, measured, diverged = raw.pop("setting"), raw.pop("measurement"), raw.pop("diverged")
            if set(raw) != _RESULTS:
                raise ValueError(f"missing or unexpected: {', '.join(sorted(set(raw) ^ _RESULTS))}")
            checked = Setting.checked(setting, [setting["architecture"]])
            if set(checked.stated) != set(setting):
                raise ValueError("its setting has other axes")
            return cls(
                setting=checked,
                diverged=bool(diverged),
                measurement=Measurement(
                    _numbers(measured["values"]),
                    {name: {float(a): float(v) for a, v in c.items()} for name, c in measured["curves"].items()},
                    _numbers(measured["chosen_alphas"]),
                ),
                **_numbers(raw),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a training record ({error})") from error


def read_records(path: str | os.PathLike[str]) -> tuple[dict[str, Any], list[Record]]:
    """Header and records of a file.

    Raises:
        ValueError: The file is not a study file, or has another version.

    Warns:
        UserWarning: A line is not a complete record; it is skipped.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise ValueError(f"file {path} does not exist; run_study(..., path=...) writes one.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as a study ({error}); the file was not changed.") from error
    head = _checked_head(path, lines[0])
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
        self.path = None if path is None else Path(path)
        self.records: list[Record] = []
        head = {"format": FORMAT, "version": VERSION, "renyi_lab": __version__, "data": data, "measure": measure}
        self._head = json.dumps(head if models is None else {**head, "models": models})
        if self.path is None:
            return
        place = self.path if self.path.exists() else self.path.parent
        if place.is_dir() == (place is self.path) or not os.access(place, os.W_OK):
            raise ValueError(f"path {self.path} cannot be written; pass a file in an existing folder.")
        if self.path.exists() and self.path.stat().st_size:
            found, self.records = read_records(self.path)
            for what, ours in (("data", data), ("measure", measure), ("models", models)):
                if found.get(what) != ours:
                    raise ValueError(
                        f"{self.path} holds a study with {what} {found.get(what)!r}, not {ours!r}; the file was not "
                        "changed. Pass another file, or the same data, models and measure."
                    )

    def append(self, record: Record) -> None:
        """Write a record and flush it to the disk."""
        if self.path is None:
            return
        with open(self.path, "ab+") as file:
            text = record.to_line() + "\n"
            if file.tell() == 0:
                text = f"{self._head}\n{text}"
            else:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # an incomplete line stays, on a line of its own
                    text = "\n" + text
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())


def _checked_head(path: Path, line: str) -> dict[str, Any]:
    try:
        head = json.loads(line)
        valid = isinstance(head, dict) and head.get("format") == FORMAT
    except (ValueError, RecursionError):
        valid = False
    if not valid:
        raise ValueError(f"{path} is not a study file: its first line is {line[:60]!r}. The file was not changed.")
    if head.get("version") != VERSION or not {"data", "measure"} <= head.keys():
        raise ValueError(
            f"{path} was written by renyi_lab {head.get('renyi_lab')} in version {head.get('version')} of the format; "
            f"this release ({__version__}) reads version {VERSION}. The file was not changed: read it with that "
            "release, or write the study to another file."
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
