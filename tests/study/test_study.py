"""A study's trainings, its file, and its refusals, on a data set that trains in milliseconds."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import kendalltau
from torch import Tensor, nn

import renyi_lab
from renyi_lab.study import AXES, Measurement, Record, Setting, Study, run_study
from renyi_lab.study import _run as run_module

Pair = tuple[Tensor, Tensor]


def norms(model: nn.Module, loss_fn: Any, data: Pair, initial_parameters: dict[str, Tensor]) -> dict[str, float]:
    now = dict(model.named_parameters())
    moved = sum(float((now[name].detach() - start).square().sum()) for name, start in initial_parameters.items())
    return {"norm": sum(float(p.detach().square().sum()) for p in now.values()) ** 0.5, "moved": moved**0.5}


def make_data(num_samples: int = 40, seed: int = 0) -> tuple[Pair, Pair]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2 * num_samples, 5, generator=generator)
    y = (x[:, 0] * x[:, 1] > 0).long()
    return (x[:num_samples], y[:num_samples]), (x[num_samples:], y[num_samples:])


DATA = make_data()
GRID = {"lr": [0.1, 0.3], "width": [24, 32], "seed": range(3), "epochs": 20, "batch_size": 10}
study = functools.partial(run_study, data=DATA, measure=norms)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    path = tmp_path_factory.mktemp("study") / "records.jsonl"
    return study(GRID, path=path), path


def made_up(**changes: Any) -> Record:
    """A record without a training behind it."""
    setting = {name: changes.pop(name) for name in AXES if name in changes}
    values = {"diverged": False, "train_loss": 0.1, "train_accuracy": 1.0, "test_loss": 0.5, "test_accuracy": 0.8}
    return Record(Setting(**setting), **(values | changes))


def curve_of(sharp: float) -> dict[float, float]:
    return {0.5: sharp, 1.0: sharp, 1.5: sharp, 2.0: -sharp}


def made_up_study(sharpness: list[float], loss_gaps: list[float], error_gaps: list[float]) -> Study:
    return Study(
        tuple(
            made_up(
                seed=k,
                test_loss=0.1 + loss,
                test_accuracy=1.0 - error,
                measurement=Measurement({"sharp": sharp}, {"curve": curve_of(sharp)}, {"curve": 2.0}),
            )
            for k, (sharp, loss, error) in enumerate(zip(sharpness, loss_gaps, error_gaps, strict=True))
        )
    )


# Trainings


def test_a_measurement_of_tensors_is_recorded_as_numbers() -> None:
    def measure(*_: Any, **__: Any) -> Measurement:
        return Measurement({"a": torch.tensor(1.5)}, {"c": {2: torch.tensor(0.5)}}, {"c": torch.tensor(2.0)})

    result = run_study({"epochs": 1, "width": 4}, data=DATA, measure=measure, min_accuracy=0.0)
    assert result.records[0].measurement == Measurement({"a": 1.5}, {"c": {2.0: 0.5}}, {"c": 2.0})


def test_a_single_order_is_refused_with_what_to_write_instead() -> None:
    with pytest.raises(TypeError, match=r"alphas must be a sequence of numbers, got 0\.5; write \[0\.5\]"):
        made_up_study([1.0] * 5, [1.0] * 5, [1.0] * 5).kendall(alphas=0.5)  # type: ignore[arg-type]


def test_a_record_is_what_training_by_hand_gives(finished: tuple[Study, Path]) -> None:
    record = finished[0].records[4]
    assert asdict(record.setting) | {"lr": 0.1, "width": 32, "seed": 1} == asdict(record.setting)
    model = renyi_lab.models.mlp(5, 32, 32, 2, seed=1)
    start = [p.detach().clone() for p in model.parameters()]
    renyi_lab.train(model, DATA[0], lr=0.1, seed=1, epochs=20, batch_size=10)
    on_train, on_test = renyi_lab.evaluate(model, DATA[0]), renyi_lab.evaluate(model, DATA[1])
    assert record.train_loss == pytest.approx(on_train.loss, rel=1e-5)
    assert record.loss_gap == pytest.approx(on_test.loss - on_train.loss, rel=1e-4)
    assert record.error_gap == pytest.approx(on_train.accuracy - on_test.accuracy, abs=1e-5)
    moved = sum(float((p.detach() - s).square().sum()) for p, s in zip(model.parameters(), start, strict=True)) ** 0.5
    assert record.measurement.values["moved"] == pytest.approx(moved, rel=1e-4)


def test_records_come_in_the_grid_s_order_whatever_the_workers(finished: tuple[Study, Path]) -> None:
    with joblib.parallel_config("loky", n_jobs=2):
        parallel = study({**GRID, "seed": 0})
    assert [unhurried(r) for r in parallel.records] == [unhurried(r) for r in finished[0].select(seed=0).records]


def other_mlp(width: int, seed: int) -> nn.Module:
    return renyi_lab.models.mlp(5, width, 2, seed=seed)


def test_a_file_tells_other_models_and_refuses_what_has_no_name(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    grid = {"width": 4, "epochs": 1}
    study(grid, path=path, min_accuracy=0.0)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"holds a study with models None, not .*other_mlp"):
        study(grid, path=path, models={"mlp": other_mlp})
    with pytest.raises(ValueError, match="a lambda has none"):
        study(grid, path=tmp_path / "new.jsonl", models={"mlp": lambda width, seed: other_mlp(width, seed)})
    assert path.read_bytes() == before
    assert not (tmp_path / "new.jsonl").exists()


def test_correlations_do_not_depend_on_the_order_of_the_records() -> None:
    study = made_up_study(
        [1.0, 3.0, 2.0, 5.0, 4.0, 6.0], [1.0, 2.0, 3.0, 5.0, 6.0, 4.0], [0.1, 0.3, 0.2, 0.4, 0.6, 0.5]
    )
    turned = replace(study, records=study.records[::-1])
    pd.testing.assert_frame_equal(turned.kendall("error"), study.kendall("error"))


def test_threads_give_the_same_records_and_leave_torch_as_it_was(finished: tuple[Study, Path]) -> None:
    before = torch.get_rng_state(), torch.get_num_threads(), np.random.get_state()[1].tolist()
    with joblib.parallel_config("threading", n_jobs=3):
        parallel = study(GRID)
    assert [unhurried(r) for r in parallel.records] == [unhurried(r) for r in finished[0].records]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]


def unhurried(record: Record) -> dict[str, Any]:
    return asdict(record) | {"cpu_seconds": None}


def test_a_diverged_model_stays_on_record_and_out_of_every_tau(finished: tuple[Study, Path]) -> None:
    result = study([GRID, {**GRID, "lr": 1e9, "width": 24, "seed": 0}, {"epochs": 1, "lr": 1e-4}])
    assert len(result.records) == 14
    assert (result.num_diverged, result.num_dropped) == (1, 1 + finished[0].num_dropped)
    frame = result.to_frame()
    assert frame["status"].tolist()[-2:] == ["diverged", "under-trained"]
    assert np.isnan(frame["loss_gap"].iloc[-2])
    pd.testing.assert_frame_equal(result.kendall(), finished[0].kendall())


def test_other_models_and_measures_can_be_brought() -> None:
    def linear(width: int, seed: int) -> nn.Module:
        return renyi_lab.models.mlp(5, 2, seed=seed)

    def bias(model: nn.Module, loss_fn: Any, data: Pair, initial_parameters: dict[str, Tensor]) -> dict[str, float]:
        return {"num_parameters": sum(p.numel() for p in model.parameters())}

    result = run_study({"architecture": "linear"}, data=DATA, models={"linear": linear}, measure=bias, min_accuracy=0.5)
    assert result.kept[0].measurement.values == {"num_parameters": 12}


def test_nothing_at_a_minimum_is_a_warning_and_then_an_error_that_says_how_far_it_got() -> None:
    with pytest.warns(UserWarning, match="no model is at a minimum"):
        result = study({"epochs": 1, "lr": [1e-4, 1e9], "batch_size": 10})
    best = result.records[0].train_accuracy
    with pytest.raises(ValueError, match=rf"none of 2 trainings.*1 diverged.*reached {best:.3f}.*more epochs"):
        result.kendall()
    with pytest.raises(ValueError, match="none of 2 trainings"):
        result.tau_against_alpha()
    assert len(result.with_minimum(0).kept) == 1


# The file


def test_reading_gives_back_the_study(finished: tuple[Study, Path]) -> None:
    assert Study.read(finished[1]).records == finished[0].records
    lines = finished[1].read_text().splitlines()
    assert len(lines) == 13
    assert json.loads(lines[0])["version"] == 1


def count_trainings(monkeypatch: pytest.MonkeyPatch, stop_after: int | None = None) -> list[Setting]:
    done: list[Setting] = []
    original = run_module.train_and_measure

    def counted(setting: Setting, *arguments: Any) -> Record:
        if len(done) == stop_after:
            raise KeyboardInterrupt
        done.append(setting)
        return original(setting, *arguments)

    monkeypatch.setattr(run_module, "train_and_measure", counted)
    return done


def test_an_interrupted_study_goes_on_where_it_stopped(
    finished: tuple[Study, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, before = tmp_path / "records", (torch.get_rng_state(), torch.get_num_threads())
    with monkeypatch.context() as patch:
        count_trainings(patch, stop_after=5)
        with pytest.raises(KeyboardInterrupt):
            study(GRID, path=path)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]
    assert len(Study.read(path).records) == 5
    done = count_trainings(monkeypatch)
    result = study(GRID, path=path)
    assert len(done) == 7
    assert [unhurried(r) for r in result.records] == [unhurried(r) for r in finished[0].records]
    assert study(GRID, path=path).records == result.records
    assert len(done) == 7


def test_a_larger_grid_trains_only_what_is_new(
    finished: tuple[Study, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "records"
    path.write_bytes(finished[1].read_bytes())
    smaller = {**GRID, "lr": 0.1, "seed": 1}
    assert len(study(smaller, path=path).records) == 2
    done = count_trainings(monkeypatch)
    result = study([GRID, {**GRID, "lr": 0.2, "width": 24, "seed": 0}], path=path)
    assert [setting.lr for setting in done] == [0.2]
    assert result.records[:12] == finished[0].records


def test_half_a_line_is_named_left_alone_and_done_again(finished: tuple[Study, Path], tmp_path: Path) -> None:
    path, content = tmp_path / "records", finished[1].read_bytes()
    path.write_bytes(content[:-40])
    with pytest.warns(UserWarning, match=r"records, line 13: half-written\. It is passed over"):
        assert len(Study.read(path).records) == 11
    with pytest.warns(UserWarning, match="line 13"):
        result = study(GRID, path=path)
    assert [unhurried(r) for r in result.records] == [unhurried(r) for r in finished[0].records]
    assert path.read_bytes().startswith(content[:-40] + b"\n{")
    with pytest.warns(UserWarning, match="line 13: no record"):
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
def test_a_damaged_line_is_named_and_passed_over(
    damage: Callable[[Any], Any], finished: tuple[Study, Path], tmp_path: Path
) -> None:
    path, lines = tmp_path / "records", finished[1].read_text().splitlines()
    lines[3] = json.dumps(damage(json.loads(lines[3])))
    path.write_text("\n".join(lines) + "\n")
    with pytest.warns(UserWarning, match="line 4: no record of a training"):
        assert len(Study.read(path).records) == 11


def foreign_files() -> dict[str, tuple[bytes, str]]:
    head = {"format": "renyi_lab study", "version": 99, "renyi_lab": "9.9", "data": "", "measure": ""}
    return {
        "prose": (b"Dear diary\n", "no file of a study.*'Dear diary'"),
        "other_json": (b'{"version": 1}\n', "no file of a study"),
        "list": (b"[1, 2]\n", "no file of a study"),
        "brackets": (b"[" * 100_000 + b"\n", "no file of a study"),
        "picture": (b"\x89PNG\xff\xfe", "cannot be read as a study"),
        "version": (json.dumps(head).encode() + b"\n", r"written by renyi_lab 9\.9 in version 99.*reads version 1"),
        "bare_head": (b'{"format": "renyi_lab study", "version": 1}\n', "run the study again into another file"),
    }


@pytest.mark.parametrize("kind", foreign_files())
def test_a_foreign_file_or_one_of_another_version_is_refused_and_left_alone(kind: str, tmp_path: Path) -> None:
    content, message = foreign_files()[kind]
    path = tmp_path / "mine.txt"
    path.write_bytes(content)
    for attempt in (lambda: Study.read(path), lambda: study(GRID, path=path)):
        with pytest.raises(ValueError, match=message) as error:
            attempt()
        assert "mine.txt" in str(error.value)
    assert path.read_bytes() == content


def test_records_of_other_data_or_another_measure_are_not_mixed_in(finished: tuple[Study, Path]) -> None:
    content = finished[1].read_bytes()
    with pytest.raises(ValueError, match=r"holds a study with data '\w+', not"):
        run_study(GRID, path=finished[1], data=make_data(seed=1), measure=norms)

    def other(*_: Any, **__: Any) -> dict[str, float]:
        return {"a": 1.0}

    with pytest.raises(ValueError, match=r"holds a study with measure '.*norms', not '.*other'"):
        run_study(GRID, path=finished[1], data=DATA, measure=other)
    assert finished[1].read_bytes() == content


def test_a_place_that_cannot_be_written_is_refused_before_any_training(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere" / "records"):
        with pytest.raises(ValueError, match="cannot be written"):
            study(GRID, path=path)
    with pytest.raises(ValueError, match="there is no file"):
        Study.read(tmp_path / "absent")


def test_a_measure_that_fails_names_the_training_and_keeps_what_is_done(tmp_path: Path) -> None:
    def fragile(model: nn.Module, loss_fn: Any, data: Pair, initial_parameters: Any) -> dict[str, float]:
        if model.layer1.out_features == 32:
            raise ZeroDivisionError("no luck")
        return {"a": 1.0}

    path = tmp_path / "records"
    with pytest.raises(RuntimeError, match=r"width=32, .*ZeroDivisionError: no luck"):
        run_study({"width": [24, 32], "epochs": 2}, data=DATA, measure=fragile, path=path)
    assert [record.setting.width for record in Study.read(path).records] == [24]


# Bad input


@pytest.mark.parametrize(
    ("grid", "error", "message"),
    [
        ({"learning_rate": 0.1}, ValueError, "'learning_rate' is no axis.*Axes: architecture, width"),
        ({"batchsize": 32}, ValueError, "did you mean 'batch_size'"),
        ({"lr": []}, ValueError, "axis 'lr' has no values"),
        ({"lr": [0.1, -1]}, ValueError, "lr must lie in"),
        ({"lr": [float("nan")]}, ValueError, "lr must be finite"),
        ({"lr": ["fast"]}, TypeError, "lr must be a real number"),
        ({"width": 3.5}, TypeError, "width must be an integer"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"optimizer": "lion"}, ValueError, "optimizer must be one of 'sgd'"),
        ({"architecture": "vit"}, ValueError, "architecture must be one of 'mlp', 'cnn1d'"),
        ([], ValueError, "grid is empty"),
        ("lr", TypeError, "grid must be a mapping"),
        ([{"lr": 0.1}, 3], TypeError, "grid must be a mapping"),
    ],
)
def test_a_wrong_grid_is_refused_by_name(grid: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        study(grid)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"min_accuracy": 1.5}, ValueError, "min_accuracy must lie in"),
        ({"n_jobs": 0}, ValueError, "n_jobs must not be 0"),
        ({"n_jobs": 1.5}, TypeError, "n_jobs must be an integer"),
        ({"data": DATA[0][0]}, TypeError, r"data must be \(train_set, test_set\)"),
        ({"data": (DATA[0], 3)}, TypeError, "test_set must be a TensorDataset"),
        ({"data": (DATA[0], (DATA[1][0], DATA[1][0]))}, ValueError, "test_set must hold .* class labels"),
        ({"measure": "trace"}, TypeError, "measure must be callable"),
        ({"measure": lambda *a, **k: 3.0}, TypeError, "measure must return a mapping"),
        ({"measure": lambda *a, **k: {"a": None}}, TypeError, "measure must return numbers, got None for 'a'"),
        ({"measure": lambda *a, **k: Measurement({"a": None})}, TypeError, "must return numbers, got None for 'a'"),
        ({"models": {}}, TypeError, "models must map names to functions"),
        ({"models": {"mlp": 5}}, TypeError, "models must map names to functions"),
        ({"models": {"mlp": lambda width, seed: 3}}, TypeError, "models\\['mlp'\\] must return a torch.nn.Module"),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run_study({"epochs": 1}, **({"data": DATA, "measure": norms} | arguments))


# Correlations


def test_kendall_is_over_the_models_at_a_minimum_on_the_gap_asked_for() -> None:
    rng = np.random.default_rng(0)
    sharp, loss, error = rng.normal(size=(3, 12)).round(3).tolist()
    result = made_up_study(sharp, loss, error)
    bad = made_up(seed=99, train_accuracy=0.9, test_loss=50.0, measurement=result.records[0].measurement)
    result = Study((*result.records, bad))
    assert repr(result).startswith("Study(13 trainings: 12 at a minimum (training accuracy ≥ 0.97), 1 dropped, 0 div")
    for gap, values in (("loss", loss), ("error", error)):
        table = result.kendall(gap, alphas=(0.5,))
        assert table["tau"].to_dict() == {
            "curve_0.5": pytest.approx(kendalltau(sharp, values).statistic),
            "curve_by_rule": pytest.approx(-kendalltau(sharp, values).statistic),
            "sharp": pytest.approx(kendalltau(sharp, values).statistic),
        }
        assert table["num_models"].tolist() == [12] * 3
    assert result.with_minimum(0.5).kendall()["num_models"].tolist() == [13] * 6


def test_a_constant_measure_is_named_in_the_table_and_left_out_of_the_picture() -> None:
    result = made_up_study([1.0] * 8, list(range(8)), list(np.linspace(0, 0.5, 8)))
    assert "constant" in result.kendall().loc["sharp", "remark"]
    assert len(result.plot().axes[0].get_yticklabels()) == 6


def test_tau_against_alpha_is_the_whole_curve() -> None:
    gaps = [0.0, 0.3, 0.1, 0.5, 0.4, 0.9]
    curve = made_up_study(list(range(6)), gaps, gaps[::-1]).tau_against_alpha(measure="curve")
    assert curve.index.tolist() == [0.5, 1.0, 1.5, 2.0]
    expected = kendalltau(range(6), gaps).statistic
    assert curve["tau"].tolist() == pytest.approx([expected, expected, expected, -expected])
    with pytest.raises(ValueError, match="no curve 'renyi_sharpness' was recorded; there are 'curve'"):
        made_up_study([1.0], [1.0], [1.0]).tau_against_alpha()
    with pytest.raises(ValueError, match=r"alphas holds 3, where curve was not recorded; there are 0\.5, 1, 1\.5, 2"):
        made_up_study([1.0], [1.0], [1.0]).kendall(alphas=[3])


def test_within_takes_the_seed_for_no_hyperparameter(finished: tuple[Study, Path]) -> None:
    table = finished[0].with_minimum(0).kendall_within("error")
    assert table.columns.tolist() == ["width", "lr", "mean"]
    assert table["mean"].tolist() == pytest.approx(table[["width", "lr"]].mean(axis=1).tolist())


def test_select_keeps_what_was_asked_for(finished: tuple[Study, Path]) -> None:
    part = finished[0].select(lr=0.3, seed=2)
    assert [(r.setting.lr, r.setting.seed, r.setting.width) for r in part.records] == [(0.3, 2, 24), (0.3, 2, 32)]
    with pytest.raises(ValueError, match=r"no training has lr=0\.7; there are 0\.1, 0\.3"):
        finished[0].select(lr=0.7)
    with pytest.raises(ValueError, match="'depth' is no axis"):
        finished[0].select(depth=3)
    with pytest.raises(ValueError, match="gap must be one of 'loss', 'error'"):
        finished[0].kendall("test")


def test_pictures_show_the_numbers_of_the_tables() -> None:
    rng = np.random.default_rng(3)
    result = made_up_study(*rng.normal(size=(3, 9)).round(3).tolist())
    loss, error = result.plot().axes[0].containers
    np.testing.assert_array_equal(loss.lines[0].get_xdata(), result.kendall("loss")["tau"])
    np.testing.assert_array_equal(error.lines[0].get_xdata(), result.kendall("error")["tau"])
    left, right = result.plot_measure("sharp").axes
    np.testing.assert_array_equal(left.get_lines()[0].get_ydata(), result.to_frame(alphas=())["loss_gap"])
    np.testing.assert_array_equal(right.get_lines()[0].get_ydata(), result.to_frame(alphas=())["error_gap"])
    curve = result.plot_alpha("curve").axes[0].get_lines()[0]
    np.testing.assert_array_equal(curve.get_ydata(), result.tau_against_alpha(measure="curve")["tau"])
    with pytest.raises(ValueError, match="there is no measure 'blunt'"):
        result.plot_measure("blunt")


def test_a_record_written_by_hand_survives_a_round_trip_with_what_is_not_finite() -> None:
    record = made_up(
        lr=1 / 3, measurement=Measurement({"a": float("inf")}, {"c": {0.25: 1.5}}, {"c": 0.25}), cpu_seconds=1.0
    )
    again = record.as_stored()
    assert again == record
    assert again.setting.lr == 1 / 3
    assert os.linesep not in record.to_line()
