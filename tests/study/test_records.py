"""The file of a study: records survive a round trip; damaged and foreign files cause messages and are not changed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_study import DATA, GRID, made_up_record, make_data, norms, small_study, without_time
from torch import nn

import renyi_lab
from renyi_lab.study import Measurement, Study, run_study


def test_reading_gives_the_study_that_was_written(finished: tuple[Study, Path]) -> None:
    assert Study.read(finished[1]).records == finished[0].records
    lines = finished[1].read_text().splitlines()
    assert len(lines) == 13
    assert json.loads(lines[0])["version"] == 1


def test_non_finite_numbers_survive_a_round_trip() -> None:
    record = made_up_record(
        lr=1 / 3, measurement=Measurement({"a": float("inf")}, {"c": {0.25: 1.5}}, {"c": 0.25}), cpu_seconds=1.0
    )
    again = record.as_stored()
    assert again == record
    assert again.setting.lr == 1 / 3
    assert os.linesep not in record.to_line()


def test_an_incomplete_line_causes_a_warning_and_its_training_is_repeated(
    finished: tuple[Study, Path], tmp_path: Path
) -> None:
    path, content = tmp_path / "records", finished[1].read_bytes()
    path.write_bytes(content[:-40])
    with pytest.warns(UserWarning, match=r"records, line 13: incomplete\. The line is skipped"):
        assert len(Study.read(path).records) == 11
    with pytest.warns(UserWarning, match="line 13"):
        result = small_study(GRID, path=path)
    assert without_time(result) == without_time(finished[0])
    assert path.read_bytes().startswith(content[:-40] + b"\n{")
    with pytest.warns(UserWarning, match="line 13: not a training record"):
        assert len(Study.read(path).records) == 12


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw | {"setting": {"lr": 0.1}},
        lambda raw: raw | {"setting": raw["setting"] | {"lr": -1}},
        lambda raw: raw | {"train_loss": "low"},
        lambda raw: raw | {"remark": "by hand"},
        lambda raw: {key: raw[key] for key in raw if key != "measurement"},
        lambda raw: {key: raw[key] for key in raw if key != "test_loss"},
        lambda raw: [raw],
    ],
)
def test_a_damaged_line_causes_a_warning_and_is_skipped(
    damage: Callable[[Any], Any], finished: tuple[Study, Path], tmp_path: Path
) -> None:
    path, lines = tmp_path / "records", finished[1].read_text().splitlines()
    lines[3] = json.dumps(damage(json.loads(lines[3])))
    path.write_text("\n".join(lines) + "\n")
    with pytest.warns(UserWarning, match="line 4: not a training record"):
        assert len(Study.read(path).records) == 11


NEWER = {"format": "renyi_lab study", "version": 99, "renyi_lab": "9.9", "data": "", "measure": ""}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Dear diary\n", "not a study file.*'Dear diary'"),
        (b'{"version": 1}\n', "not a study file"),
        (b"[1, 2]\n", "not a study file"),
        (b"[" * 100_000 + b"\n", "not a study file"),
        (b"\x89PNG\xff\xfe", "cannot be read as a study"),
        (json.dumps(NEWER).encode() + b"\n", r"written by renyi_lab 9\.9 in version 99.*reads version 1"),
        (b'{"format": "renyi_lab study", "version": 1}\n', "write the study to another file"),
    ],
    ids=["prose", "other JSON", "list", "deep nesting", "binary", "newer version", "incomplete header"],
)
def test_other_files_and_versions_are_refused_and_not_changed(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes(content)
    for attempt in (lambda: Study.read(path), lambda: small_study(GRID, path=path)):
        with pytest.raises(ValueError, match=message) as error:
            attempt()
        assert "mine.txt" in str(error.value)
    assert path.read_bytes() == content


def other_mlp(width: int, seed: int) -> nn.Module:
    return renyi_lab.models.mlp(5, width, 2, seed=seed)


def other_measure(*_: Any, **__: Any) -> dict[str, float]:
    return {"a": 1.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": make_data(seed=1)}, r"holds a study with data '\w+', not"),
        ({"measure": other_measure}, r"holds a study with measure '.*norms', not '.*other_measure'"),
        ({"models": {"mlp": other_mlp}}, r"holds a study with models None, not .*other_mlp"),
        ({"models": {"mlp": lambda width, seed: other_mlp(width, seed)}}, "a lambda has none"),
        ({"path": Path(__file__).parent}, "cannot be written"),
        ({"path": Path(__file__).parent / "nowhere" / "records"}, "cannot be written"),
    ],
)
def test_records_of_different_studies_are_not_mixed(
    options: dict[str, Any], message: str, finished: tuple[Study, Path]
) -> None:
    content = finished[1].read_bytes()
    with pytest.raises(ValueError, match=message):
        run_study(GRID, **({"path": finished[1], "data": DATA, "measure": norms} | options))
    assert finished[1].read_bytes() == content


def test_a_missing_file_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="absent does not exist"):
        Study.read(tmp_path / "absent")
