"""Models from a data frame, and the data frame of a study."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from renyi_lab._utils.fields import check_fields
from renyi_lab._utils.validation import printed
from renyi_lab.study._measurement import Measurement
from renyi_lab.study._records import Record
from renyi_lab.study._tables import REPEAT

GAPS = ("loss", "error")
_RESULTS = ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "loss_gap", "error_gap")


@dataclass(frozen=True)
class FrameRecord:
    """A model from a row of a data frame: what was recorded of its training is up to the frame.

    Attributes:
        axes: Mapping from column to value: what defines the setting, and the seed if there is such a column.
        gaps: ``"loss"`` or ``"error"`` → generalization gap.
        measurement: Measures of the model.
    """

    axes: Mapping[str, Hashable]
    gaps: Mapping[str, float]
    measurement: Measurement

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def loss_gap(self) -> float:
        """Test loss − training loss; NaN if the frame has none."""
        return self.gaps.get("loss", np.nan)

    @property
    def error_gap(self) -> float:
        """Test error − training error; NaN if the frame has none."""
        return self.gaps.get("error", np.nan)


def frame_row(record: Record | FrameRecord, status: str, alphas: Sequence[float]) -> dict[str, Any]:
    """A record as a row of `Study.to_frame`."""
    measures = record.measurement.at(alphas)
    if isinstance(record, FrameRecord):
        return {**record.axes, **{f"{gap}_gap": value for gap, value in record.gaps.items()}, **measures}
    chosen = {f"alpha of {name}": alpha for name, alpha in record.measurement.chosen_alphas.items()}
    results = {name: getattr(record, name) for name in _RESULTS}
    return {**record.axes, "status": status, **results, **measures, **chosen, "cpu_seconds": record.cpu_seconds}


def frame_records(frame: Any, measures: Any, gaps: Any, settings: Any) -> tuple[FrameRecord, ...]:
    """One record per row of a frame; see `Study.from_frame`."""
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(f"frame must be a pandas DataFrame, got {type(frame).__name__}; pd.DataFrame(...) makes one.")
    if frame.empty:
        raise ValueError(f"frame has {len(frame)} rows and {frame.shape[1]} columns; give it one row per model.")
    columns = {
        "measures": _names("measures", measures),
        "gaps": list(_gap_columns(gaps).values()),
        "settings": _names("settings", settings),
    }
    _check_columns(frame, columns)
    for name in (f"{gap}_gap" for gap in _gap_columns(gaps)):
        if name in (*columns["measures"], *columns["settings"]):
            raise ValueError(f"{name!r} is the name of a gap; give the measure or setting of that name another one.")
    axes = _setting_rows(frame, columns["settings"])
    measured = {name: _numbers(frame, "measures", name) for name in columns["measures"]}
    gap_values = {gap: _numbers(frame, "gaps", name) for gap, name in _gap_columns(gaps).items()}
    return tuple(
        FrameRecord(
            axes[row],
            {gap: float(values[row]) for gap, values in gap_values.items()},
            Measurement({name: float(values[row]) for name, values in measured.items()}),
        )
        for row in range(len(frame))
    )


def _names(what: str, names: Any) -> list[str]:
    if isinstance(names, str) or not isinstance(names, Sequence | pd.Index):
        fix = f"write {what}=[{printed(names)}]" if isinstance(names, str) else f"got a {type(names).__name__}"
        raise TypeError(f"{what} must be a list of column names, not {printed(names)}; {fix}.")
    found = list(names)
    if not found:
        fix = (
            " Rows with equal settings are repeats of one setting, so without settings no rows can be told apart. If "
            "every row is an independent model, name a column that numbers the rows."
            if what == "settings"
            else ""
        )
        raise ValueError(f"{what} is empty; name at least one column.{fix}")
    for name in found:
        if not isinstance(name, str):
            raise TypeError(f"{what} must hold names of columns as strings, got {printed(name)}; rename the column.")
    return found


def _gap_columns(gaps: Any) -> dict[str, str]:
    """Gap → column."""
    explain = "a gap is 'loss' (test − training loss) or 'error' (test − training error)"
    if isinstance(gaps, str):
        raise TypeError(
            f"gaps must say which gap a column holds, got {printed(gaps)}; {explain}: gaps={{'loss': {printed(gaps)}}}."
        )
    if not isinstance(gaps, Mapping):
        names = _names("gaps", gaps)
        known = {f"{gap}{suffix}": gap for gap in GAPS for suffix in ("", "_gap")}
        for name in names:
            if name not in known:
                raise ValueError(f"gaps names {name!r}; {explain}. Say which one it is: gaps={{'loss': {name!r}}}.")
        if len({known[name] for name in names}) < len(names):
            raise ValueError(f"gaps names one gap twice: {', '.join(map(repr, names))}; name one column for each.")
        return {known[name]: name for name in names}
    _names("gaps", list(gaps.values()))
    for gap in gaps:
        if gap not in GAPS:
            raise ValueError(f"gaps has the key {printed(gap)}; {explain}.")
    return dict(gaps)


def _check_columns(frame: pd.DataFrame, columns: Mapping[str, list[str]]) -> None:
    """Every name is one column of the frame, and has one role."""
    if frame.columns.nlevels > 1:
        raise ValueError(
            f"frame has {frame.columns.nlevels} levels of column names; make one name of each, for example with "
            "frame.columns = ['_'.join(names) for names in frame.columns]."
        )
    repeated = frame.columns[frame.columns.duplicated()]
    if len(repeated):
        raise ValueError(f"frame has several columns named {repeated[0]!r}; give each column a name of its own.")
    seen: dict[str, str] = {}
    for what, names in columns.items():
        for name in names:
            if name not in frame.columns:
                near = difflib.get_close_matches(name, [c for c in frame.columns if isinstance(c, str)], 1, 0.5)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise ValueError(
                    f"{what} names {name!r}, which is not a column of the frame; {hint}"
                    f"Columns: {', '.join(map(repr, frame.columns))}."
                )
            if name in seen:
                where = "twice" if seen[name] == what else f"and so does {seen[name]}"
                raise ValueError(f"{what} names {name!r} {where}; a column has one role: copy it under another name.")
            seen[name] = what


def _numbers(frame: pd.DataFrame, what: str, name: str) -> np.ndarray:
    column = frame[name]
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_complex_dtype(column):
        example = next((value for value in column if not isinstance(value, float)), column.iloc[0])
        raise TypeError(
            f"{what} names {name!r}, which must hold real numbers, but has {column.dtype} values such as "
            f"{printed(example)}; convert it, for example with pd.to_numeric(frame[{name!r}], errors='coerce')."
        )
    return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))


def _setting_rows(frame: pd.DataFrame, names: list[str]) -> list[dict[str, Hashable]]:
    """Axis → value of every row."""
    if names == [REPEAT]:
        raise ValueError(f"settings names only {REPEAT!r}, which tells repeats apart; name what defines a setting too.")
    for name in names:
        missing = np.flatnonzero(frame[name].isna())
        if len(missing):
            raise ValueError(
                f"settings names {name!r}, which has no value in row {missing[0]} (of {len(missing)}); fill them, for "
                f"example with frame[{name!r}].fillna('none')."
            )
        unhashable = [value for value in frame[name] if not pd.api.types.is_hashable(value)]
        if unhashable:
            raise TypeError(
                f"settings names {name!r}, which holds {printed(unhashable[0])}; use numbers, strings or tuples."
            )
    rows = [dict(zip(names, values, strict=True)) for values in zip(*(frame[n].tolist() for n in names), strict=True)]
    if REPEAT in names:
        first: dict[Hashable, int] = {}
        for number, row in enumerate(rows):
            earlier = first.setdefault(tuple(row.values()), number)
            if earlier != number:
                raise ValueError(
                    f"rows {earlier} and {number} have equal settings and the same seed; name the column that tells "
                    f"them apart in settings, or leave {REPEAT!r} out of it."
                )
    return rows
