"""Record of one training, and its line of JSON in a file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from renyi_lab._utils.validation import check_real, printed, shown
from renyi_lab.study._grid import Setting
from renyi_lab.study._measurement import Measurement

# Significant digits of stored numbers. Heuristic: finer than any standard error here, and 100 trainings stay small.
_DIGITS = 6
# The results of a training that has not diverged, with the largest value that each can have.
_Key = TypeVar("_Key", str, float)
_LARGEST = {"train_loss": math.inf, "train_accuracy": 1.0, "test_loss": math.inf, "test_accuracy": 1.0}


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

    Raises:
        TypeError: A field has the wrong type.
        ValueError: A loss is negative, an accuracy is outside [0, 1], a result of a training that has not diverged is
            not finite, or a diverged training has results.
    """

    setting: Setting
    diverged: bool
    train_loss: float = math.nan
    train_accuracy: float = math.nan
    test_loss: float = math.nan
    test_accuracy: float = math.nan
    measurement: Measurement = field(default_factory=Measurement)
    cpu_seconds: float = math.nan

    def __post_init__(self) -> None:
        for name, kind in (("setting", Setting), ("diverged", bool), ("measurement", Measurement)):
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise TypeError(f"{name} must be a {kind.__name__}, got {shown(value)}.")
        if not _is_nan(self.cpu_seconds):
            check_real("cpu_seconds", self.cpu_seconds, 0)
        for name, largest in _LARGEST.items():
            value = getattr(self, name)
            if not self.diverged:
                check_real(name, value, 0, largest)
            elif not _is_nan(value):
                raise ValueError(f"{name} must be NaN where diverged is true, got {printed(value)}.")
        if self.diverged and self.measurement != Measurement():
            raise ValueError(f"measurement must be empty where diverged is true, got {printed(self.measurement)}.")

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
        results = _rounded(results)
        # Orders as exact as the keys of the curves, in which they must be found.
        results["measurement"]["chosen_alphas"] = {n: float(a) for n, a in self.measurement.chosen_alphas.items()}
        return json.dumps({"setting": self.setting.stated} | results, separators=(",", ":"))

    def as_stored(self) -> Record:
        """The record as it is read back from a file, with rounded numbers."""
        return Record.from_line(self.to_line())

    @classmethod
    def from_line(cls, line: str | bytes) -> Record:
        """The record in a line (bytes: in UTF-8); raises ``ValueError`` if there is none."""
        try:
            text = line.decode("utf-8") if isinstance(line, bytes) else line
            raw = _with_names(
                "the record", json.loads(text, object_pairs_hook=_without_repeats), cls.__dataclass_fields__
            )
            return cls(**raw | {"setting": _setting(raw["setting"]), "measurement": _measurement(raw["measurement"])})
        except RecursionError as error:  # whose words change from one Python to the next
            raise ValueError("not a training record (nested too deeply)") from error
        except (ValueError, TypeError) as error:
            raise ValueError(f"not a training record ({error})") from error


def _setting(raw: Any) -> Setting:
    if not isinstance(raw, dict) or not isinstance(raw.get("architecture"), str):
        raise TypeError("setting must be a mapping with the name of an architecture")
    setting = Setting.checked(raw, [raw["architecture"]])
    _with_names("setting", raw, setting.stated)
    return setting


def _measurement(raw: Any) -> Measurement:
    measured = Measurement(**_with_names("measurement", raw, Measurement.__dataclass_fields__))
    result = Measurement(
        _numbers(measured.values),
        {
            name: _without_repeats([(_order(order), _number(name, value)) for order, value in curve.items()])
            for name, curve in measured.curves.items()
        },
        {name: check_real("an order", order) for name, order in measured.chosen_alphas.items()},
    )
    result.check_chosen_alphas()
    return result


def _with_names(what: str, raw: Any, names: Iterable[str]) -> dict[str, Any]:
    """``raw`` if it is a mapping with exactly these names."""
    if not isinstance(raw, dict):
        raise TypeError(f"{what} must be a mapping, got {type(raw).__name__}")
    if wrong := set(raw) ^ set(names):
        raise ValueError(f"{what}: missing or unexpected: {', '.join(sorted(wrong))}")
    return raw


def _without_repeats(pairs: list[tuple[_Key, Any]]) -> dict[_Key, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = {str(name) for name in names if names.count(name) > 1}
        raise ValueError(f"twice in one mapping: {', '.join(sorted(repeated))}")
    return found


def _order(text: Any) -> float:
    return check_real("an order", float(text))


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: _number(name, value) for name, value in values.items()}


def _number(name: str, value: Any) -> float:
    return math.nan if _is_nan(value) else check_real(name, value, allow_infinite=True)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _rounded(value: Any) -> Any:
    if isinstance(value, bool | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _rounded(item) for key, item in value.items()}
    if isinstance(value, Iterable):
        return [_rounded(item) for item in value]
    return float(f"{value:.{_DIGITS}g}")
