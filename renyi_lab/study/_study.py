"""`Study`: the records of a grid of trainings, and the correlations of measures with generalization gaps."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_hashable

from renyi_lab._utils.fields import check_fields
from renyi_lab._utils.validation import check_choice, check_real, printed
from renyi_lab.study._correlations import ALPHAS, Correlations
from renyi_lab.study._frame import GAPS, FrameRecord, frame_records, frame_row
from renyi_lab.study._grid import AXES, check_axis
from renyi_lab.study._record_file import read_records
from renyi_lab.study._records import Record
from renyi_lab.study._standard import shipped_path
from renyi_lab.study._tables import Models, setting_of, sorting_key

# Heuristic: in pilot studies, models below this accuracy were still far from a minimum.
MIN_ACCURACY = 0.97


@dataclass(frozen=True, repr=False)
class Study(Correlations):
    """Trainings of a grid with their gaps and measures; correlations use only the models at a minimum.

    A *setting* is what trainings share that differ only in the seed. Models of a setting are similar, so intervals,
    shuffles and splits treat settings, not models, as independent.

    Attributes:
        records: One record per training, including diverged and under-trained ones; or one per row of a frame.
        min_accuracy: Training accuracy, in [0, 1], from which a model counts as at a minimum.
    """

    records: tuple[Record | FrameRecord, ...]
    min_accuracy: float = MIN_ACCURACY

    def __post_init__(self) -> None:
        check_fields(self)
        check_real("min_accuracy", self.min_accuracy, 0, 1)

    @classmethod
    def read(cls, path: str | os.PathLike[str], *, min_accuracy: float = MIN_ACCURACY) -> Study:
        """Read a file that `run_study` wrote, finished or not.

        Args:
            path: File with the records.
            min_accuracy: Training accuracy, in [0, 1], from which a model counts as at a minimum.

        Raises:
            TypeError: ``path`` is not a path.
            ValueError: The file is not a study file, or has another version.
        """
        return cls(tuple(read_records(path)[1]), min_accuracy)

    @classmethod
    def standard(cls, *, data_set: str = "mnist1d") -> Study:
        """The study that ships with the package: MLPs, CNNs and CNNs with batch norm, trained on one of two data sets.

        ``python -m renyi_lab.study --data-set DATA_SET --out FILE`` repeats it.

        Args:
            data_set: ``"mnist1d"`` (default), or ``"mnist1d_noisy"``, the same with less translation and more noise;
                see `standard_data`.

        Raises:
            ValueError: There is no such data set.

        Example:
            >>> len(Study.standard().kept) >= 60
            True
        """
        with shipped_path(data_set) as path:
            return cls.read(path)

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        *,
        measures: Sequence[str],
        gaps: Mapping[str, str] | Sequence[str],
        settings: Sequence[str],
    ) -> Study:
        """A study of networks that were trained and measured elsewhere: one row of a frame per network.

        Every row counts as a model at a minimum: leave other rows out of the frame. A measure or gap that is not finite
        is left out of its correlations, with a remark.

        Args:
            frame: The networks.
            measures: Columns with measures.
            gaps: ``{"loss": column, "error": column}`` or one of the two: test − training loss, test − training error.
                Or the names of columns, if these are ``"loss_gap"`` and ``"error_gap"``.
            settings: Columns that define the setting, such as hyperparameters: rows with equal values are repeats of
                one setting. A column named ``"seed"`` among them does not; it tells which repeats share a seed.

        Raises:
            TypeError: ``frame`` is not a data frame, an argument is not a list of names, or a column is not numeric.
            ValueError: The frame is empty or has several levels of column names, ``settings`` is empty or has missing
                values, a column does not exist or is named twice, a gap is neither ``"loss"`` nor ``"error"``, a
                measure or setting has the name of a gap, or two rows share settings and seed.

        Example:
            >>> rows = [{"lr": lr, "seed": s, "flatness": lr + s, "gap": lr} for lr in range(6) for s in range(2)]
            >>> Study.from_frame(
            ...     pd.DataFrame(rows), measures=["flatness"], gaps={"loss": "gap"}, settings=["lr", "seed"]
            ... )
            Study(12 models from a frame, in 6 settings)
        """
        return cls(frame_records(frame, measures, gaps, settings))

    @property
    def kept(self) -> tuple[Record | FrameRecord, ...]:
        """The records at a minimum, sorted by setting, so that intervals do not depend on the order of records."""
        found = (r for r in self.records if self._status(r) == "minimum")
        return tuple(sorted(found, key=lambda record: list(map(sorting_key, record.axes.values()))))

    @property
    def num_settings(self) -> int:
        """Number of settings with a model at a minimum."""
        return len({setting_of(record.axes) for record in self.kept})

    @property
    def num_diverged(self) -> int:
        """Number of trainings that diverged."""
        return sum(self._status(record) == "diverged" for record in self.records)

    @property
    def num_dropped(self) -> int:
        """Number of trainings that did not reach a minimum, not counting those that diverged."""
        return sum(self._status(record) == "under-trained" for record in self.records)

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all trainings and measurements, in seconds; those of a frame count nothing."""
        return math.fsum(record.cpu_seconds for record in self.records if isinstance(record, Record))

    def with_minimum(self, min_accuracy: float) -> Study:
        """The same records with another ``min_accuracy``; 0 keeps every model that did not diverge.

        Raises:
            ValueError: ``min_accuracy`` is outside [0, 1], or the study is from a frame.
        """
        if any(isinstance(record, FrameRecord) for record in self.records):
            raise ValueError("models from a frame have no training accuracy; leave rows out of the frame instead.")
        return replace(self, min_accuracy=min_accuracy)

    def select(self, **axes: Any) -> Study:
        """The trainings with the given values, as in ``select(architecture="mlp", seed=0)``.

        Args:
            **axes: Required value per axis.

        Raises:
            ValueError: An axis is unknown, or no training has the value.
        """
        known = self.records[0].axes if self.records and isinstance(self.records[0], FrameRecord) else AXES
        for name, value in axes.items():
            check_axis(name, known)
            values = {record.axes[name] for record in self.records}
            if not is_hashable(value) or value not in values:
                present = sorted(values, key=sorting_key)
                raise ValueError(
                    f"no training has {name}={printed(value)}; available: {', '.join(map(repr, present))}."
                )
        chosen = (r for r in self.records if all(r.axes[name] == value for name, value in axes.items()))
        return replace(self, records=tuple(chosen))

    def to_frame(self, *, alphas: Sequence[float] = ALPHAS) -> pd.DataFrame:
        """One row per training: setting, status, losses, accuracies, gaps (test − train), measures and chosen orders.

        Args:
            alphas: Orders at which a curve becomes a column, such as ``renyi_sharpness_0.5``.

        Raises:
            ValueError: A curve was not recorded at one of ``alphas``.
        """
        return pd.DataFrame([frame_row(record, self._status(record), alphas) for record in self.records])

    def _models(self, gap: str, alphas: Sequence[float]) -> Models:
        """The models at a minimum with one gap; raises if there is no such model."""
        check_choice("gap", gap, GAPS)
        if gap not in self._gaps:
            raise ValueError(
                f"this study has no {gap} gap, only {self._gaps[0]!r}; name it in from_frame(..., gaps=...)."
            )
        kept = self.kept
        if not kept:
            trained = (r for r in self.records if isinstance(r, Record) and not r.diverged)
            best = max((record.train_accuracy for record in trained), default=math.nan)
            raise ValueError(
                f"none of {len(self.records)} trainings is at a minimum (training accuracy ≥ {self.min_accuracy:g}): "
                f"{self.num_diverged} diverged, the best of the others reached {best:.3f}. Train for more epochs, "
                "with other learning rates, or lower the threshold with study.with_minimum(...)."
            )
        return Models(
            [record.axes for record in kept],
            gap,
            np.array([record.loss_gap if gap == "loss" else record.error_gap for record in kept]),
            pd.DataFrame([record.measurement.at(alphas) for record in kept]),
        )

    @property
    def _gaps(self) -> list[str]:
        """The gaps that were recorded."""
        rows = [record for record in self.records if isinstance(record, FrameRecord)]
        return [gap for gap in GAPS if not rows or gap in rows[0].gaps]

    def _status(self, record: Record | FrameRecord) -> str:
        if isinstance(record, FrameRecord):
            return "minimum"
        if record.diverged:
            return "diverged"
        return "minimum" if record.train_accuracy >= self.min_accuracy else "under-trained"

    def __repr__(self) -> str:
        if any(isinstance(record, FrameRecord) for record in self.records):
            return f"Study({len(self.records)} models from a frame, in {self.num_settings} settings)"
        return (
            f"Study({len(self.records)} trainings: {len(self.kept)} at a minimum (training accuracy ≥ "
            f"{self.min_accuracy:g}), {self.num_dropped} dropped, {self.num_diverged} diverged)"
        )
