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
from renyi_lab.study import Measurement, Record, Setting, Study, run_study


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


def with_setting(**changes: Any) -> Callable[[Any], Any]:
    return lambda raw: raw | {"setting": raw["setting"] | changes}


def with_measures(**changes: Any) -> Callable[[Any], Any]:
    return lambda raw: raw | {"measurement": raw["measurement"] | changes}


def without(name: str) -> Callable[[Any], Any]:
    return lambda raw: {key: value for key, value in raw.items() if key != name}


def replaced(**changes: Any) -> Callable[[Any], Any]:
    return lambda raw: raw | changes


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: [raw], "the record must be a mapping, got list"),
        (replaced(remark="by hand"), "the record: missing or unexpected: remark"),
        (without("measurement"), "the record: missing or unexpected: measurement"),
        (without("test_loss"), "the record: missing or unexpected: test_loss"),
        (without("diverged"), "the record: missing or unexpected: diverged"),
        (replaced(diverged="false"), "diverged must be a bool, got 'false'"),
        (replaced(diverged=0), "diverged must be a bool, got 0"),
        (replaced(diverged=None), "diverged must be a bool, got None"),
        (replaced(diverged=True), "train_loss must be NaN where diverged is true"),
        (replaced(train_accuracy=7.0), r"train_accuracy must lie in \[0, 1\], got 7"),
        (replaced(test_accuracy=-0.1), r"test_accuracy must lie in \[0, 1\], got -0.1"),
        (replaced(test_accuracy=True), "test_accuracy must be a real number, got True"),
        (replaced(test_accuracy=float("nan")), "test_accuracy must be finite, got nan"),
        (replaced(train_loss="low"), "train_loss must be a real number, got 'low'"),
        (replaced(train_loss="0.5"), "train_loss must be a real number, got '0.5'"),
        (replaced(train_loss=-1.0), "train_loss must lie in"),
        (replaced(test_loss=float("inf")), "test_loss must be finite, got inf"),
        (replaced(test_loss=10**400), "test_loss must be finite"),
        (replaced(test_loss=None), "test_loss must be a real number, got None"),
        (replaced(cpu_seconds=-1), "cpu_seconds must lie in"),
        (replaced(cpu_seconds=[1]), r"cpu_seconds must be a real number, got \[1\]"),
        (replaced(setting={"lr": 0.1}), "setting must be a mapping with the name of an architecture"),
        (replaced(setting=3), "setting must be a mapping"),
        (with_setting(lr=-1), "lr must lie in"),
        (with_setting(lr="0.1"), "lr must be a real number"),
        (with_setting(width=2.0), "width must be an integer"),
        (with_setting(seed=True), "seed must be an integer"),
        (with_setting(architecture=5), "setting must be a mapping with the name of an architecture"),
        (with_setting(optimizer=["sgd"]), "optimizer must be one of"),
        (with_setting(rho=0.1), "rho=0.1 has no meaning"),
        (with_setting(rho=None), "setting: missing or unexpected: rho"),
        (with_setting(momentum=0.9), "setting: missing or unexpected: momentum"),
        (replaced(measurement=[1]), "measurement must be a mapping, got list"),
        (replaced(measurement={}), "measurement: missing or unexpected: chosen_alphas, curves, values"),
        (with_measures(values=3), "values must be a mapping"),
        (with_measures(values={"norm": "1"}), "norm must be a real number, got '1'"),
        (with_measures(values={"norm": False}), "norm must be a real number, got False"),
        (with_measures(values={"norm": 10**400}), "norm must be finite"),
        (with_measures(curves={"c": 1}), r"curves\['c'\] must be a mapping"),
        (with_measures(curves={"c": {"half": 1.0}}), "could not convert string to float"),
        (with_measures(curves={"c": {"nan": 1.0}}), "an order must be finite"),
        (with_measures(curves={"c": {"1.0": None}}), "c must be a real number, got None"),
        (with_measures(chosen_alphas={"c": 1.0}), "no such curve"),
        (with_measures(curves={"c": {"1": 0}}, chosen_alphas={"c": 2}), "2, where c was not recorded; available: 1"),
        (with_measures(curves={"c": {"1": 0}}, chosen_alphas={"c": "1"}), "an order must be a real number"),
    ],
)
def test_a_damaged_line_causes_a_warning_and_is_skipped(
    damage: Callable[[Any], Any], message: str, finished: tuple[Study, Path], tmp_path: Path
) -> None:
    path, lines = tmp_path / "records", finished[1].read_text().splitlines()
    lines[3] = json.dumps(damage(json.loads(lines[3])))
    path.write_text("\n".join(lines) + "\n")
    with pytest.warns(UserWarning, match=f"line 4: not a training record .*{message}"):
        assert len(Study.read(path).records) == 11


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda line: line.replace(b'"diverged":', b'"diverged":true,"diverged":'), "twice in one mapping: diverged"),
        (lambda line: line.replace(b"sgd", b"s\xffd"), "can't decode byte 0xff"),
        (lambda line: bytes(len(line)), "Expecting value"),
        (lambda line: b"[" * 100_000, "nested too deeply"),
    ],
    ids=["a name twice", "damaged byte", "zeros", "deep nesting"],
)
def test_damaged_bytes_cost_only_their_line(
    damage: Callable[[bytes], bytes], message: str, finished: tuple[Study, Path], tmp_path: Path
) -> None:
    path, lines = tmp_path / "records", finished[1].read_bytes().splitlines()
    lines[3] = damage(lines[3])
    path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.warns(UserWarning, match=f"line 4: not a training record .*{message}"):
        assert len(Study.read(path).records) == 11


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"setting": {"lr": 0.1}}, TypeError, "setting must be a Setting, got {'lr': 0.1} of type dict"),
        ({"diverged": "no"}, TypeError, "diverged must be a bool"),
        ({"diverged": False}, ValueError, "train_loss must be finite, got nan"),
        ({"measurement": {"trace": 1.0}}, TypeError, "measurement must be a Measurement"),
        ({"measurement": Measurement({"trace": 1.0})}, ValueError, "measurement must be empty where diverged is true"),
        ({"test_loss": 1.0}, ValueError, "test_loss must be NaN where diverged is true, got 1.0"),
    ],
)
def test_a_record_checks_its_fields(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Record(**({"setting": Setting(), "diverged": True} | changes))


def test_an_order_of_many_digits_is_found_again() -> None:
    measurement = Measurement({}, {"curve": {1 / 3: 2.0, 1.0: 3.0}}, {"curve": 1 / 3})
    assert made_up_record(measurement=measurement).as_stored().measurement.at([1.0])["curve_by_rule"] == 2.0


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
        (json.dumps(NEWER | {"version": True}).encode() + b"\n", "in version True"),
        (b'{"format": "renyi_lab study", "version": 1}\n', "write the study to another file"),
    ],
    ids=[
        "prose",
        "other JSON",
        "list",
        "deep nesting",
        "binary",
        "newer version",
        "boolean version",
        "incomplete header",
    ],
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


def made_folder(path: Path) -> None:
    path.mkdir()


def made_loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.skipif(os.name != "posix", reason="pipes, sockets and links of POSIX")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (made_folder, "is a folder, so it cannot"),
        (os.mkfifo, "is not an ordinary file"),
        (lambda path: path.symlink_to("/dev/null"), "is not an ordinary file"),
        (lambda path: path.symlink_to("/dev/zero"), "is not an ordinary file"),
        (made_loop, "cannot be used .*symbolic links"),
    ],
    ids=["folder", "pipe", "null device", "endless device", "loop of links"],
)
def test_what_is_not_a_file_is_refused_at_once(make: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    make(tmp_path / "records")
    for attempt in (Study.read, lambda path: small_study(GRID, path=path)):
        with pytest.raises(ValueError, match=message):
            attempt(tmp_path / "records")


@pytest.mark.parametrize("path", [3, True, b"records", ["records"], 1.5], ids=repr)
def test_a_path_of_another_type_is_refused(path: Any) -> None:
    for attempt in (Study.read, lambda path: small_study(GRID, path=path)):
        with pytest.raises(TypeError, match=r"path must be a file name, such as 'study\.jsonl', got"):
            attempt(path)


@pytest.mark.parametrize(
    "name", ["", "a\0b", "a" * 5000, "nowhere/records", "file/records"], ids=lambda n: n[:9] or "''"
)
def test_an_impossible_path_is_refused_before_any_training(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    with pytest.raises(ValueError, match=r"path .*(cannot be written|cannot be used|is a folder).*; pass a file"):
        small_study(GRID, path=name)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_link_to_a_file_that_is_yet_to_be_written_is_followed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "records")
    small_study({"epochs": 1, "width": 4}, path=tmp_path / "link", min_accuracy=0)
    assert len(Study.read(tmp_path / "folder" / "records").records) == 1
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere" / "records")
    with pytest.raises(ValueError, match="cannot be written"):
        small_study({"epochs": 1, "width": 4}, path=tmp_path / "broken")


def test_a_read_only_file_will_do_when_nothing_is_left_to_write(
    finished: tuple[Study, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "records"
    path.write_bytes(finished[1].read_bytes())
    path.chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "access", lambda path, mode: mode == os.R_OK)  # which root may always do
            assert small_study(GRID, path=path).records == finished[0].records
            with pytest.raises(ValueError, match="records cannot be written"):
                small_study([GRID, {"width": 5, "epochs": 1}], path=path)
    finally:
        tmp_path.chmod(0o755)
    assert path.read_bytes() == finished[1].read_bytes()


@pytest.mark.parametrize("length", [0, 1, 70, -1])
def test_a_header_that_a_crash_cut_off_is_written_again(
    length: int, finished: tuple[Study, Path], tmp_path: Path
) -> None:
    path, head = tmp_path / "records", finished[1].read_bytes().splitlines()[0]
    path.write_bytes(head[:length])
    small_study({"epochs": 1, "width": 4}, path=path, min_accuracy=0)
    assert path.read_bytes().startswith(head + b"\n{")
    assert len(Study.read(path).records) == 1


@pytest.mark.parametrize("name", ["\x1b[31mred", "two\nlines", "\x00", "\ud800", "\x9b2J"])
def test_names_that_a_terminal_would_take_as_commands_are_refused(
    name: str, finished: tuple[Study, Path], tmp_path: Path
) -> None:
    for change in (with_setting(architecture=name), with_measures(values={name: 1.0})):
        path = tmp_path / "records"
        head, line = finished[1].read_text().splitlines()[:2]
        path.write_text(f"{head}\n{json.dumps(change(json.loads(line)))}\n")
        with pytest.warns(UserWarning, match="must be printable") as caught:
            assert Study.read(path).records == ()
        assert name not in str(caught[0].message)
    with pytest.raises(ValueError, match="must be printable"):
        Measurement({name: 1.0})
    (tmp_path / "records").write_text(json.dumps(NEWER | {"version": name}) + "\n")
    with pytest.raises(ValueError, match="in version") as error:
        Study.read(tmp_path / "records")
    assert name not in str(error.value)


def test_an_order_that_is_written_in_two_ways_is_refused(finished: tuple[Study, Path], tmp_path: Path) -> None:
    path = tmp_path / "records"
    head, line = finished[1].read_text().splitlines()[:2]
    changed = with_measures(curves={"c": {"0.5": 1.0, "0.50": 2.0}}, chosen_alphas={})(json.loads(line))
    path.write_text(f"{head}\n{json.dumps(changed)}\n")
    with pytest.warns(UserWarning, match=r"twice in one mapping: 0\.5"):
        assert Study.read(path).records == ()


def test_names_of_a_file_are_drawn_as_they_are_and_never_as_formulas(
    finished: tuple[Study, Path], tmp_path: Path
) -> None:
    name, path = r"$\bad{$", tmp_path / "records"
    head, *lines = finished[1].read_text().splitlines()
    changes = (with_setting(architecture=name), with_measures(values={name: 1.0}, curves={}, chosen_alphas={}))
    raw = [changes[1](changes[0](json.loads(line))) | {"diverged": False} for line in lines]
    path.write_text("\n".join([head, *map(json.dumps, raw)]) + "\n")
    study = Study.read(path)
    for figure in (study.plot(), study.plot_measure(name)):
        figure.savefig(tmp_path / "figure.svg")
