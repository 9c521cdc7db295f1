"""`run_study`: trainings and measures, in parallel and resumed, and its errors."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from small_study import DATA, GRID, Pair, norms, small_study, without_time
from torch import Tensor, nn

import renyi_lab
from renyi_lab._utils.threads import one_thread
from renyi_lab.study import Measurement, Record, Setting, Study, run_study
from renyi_lab.study import _run as run_module


def test_a_record_is_the_result_of_training_by_hand(finished: tuple[Study, Path]) -> None:
    record = finished[0].records[4]
    assert asdict(record.setting) | {"lr": 0.1, "width": 32, "seed": 1} == asdict(record.setting)
    model = renyi_lab.models.mlp(5, 32, 32, 2, seed=1)
    start = [p.detach().clone() for p in model.parameters()]
    with one_thread():
        renyi_lab.train(model, DATA[0], lr=0.1, seed=1, epochs=20, batch_size=10)
        on_train, on_test = renyi_lab.evaluate(model, DATA[0]), renyi_lab.evaluate(model, DATA[1])
    assert record.train_loss == pytest.approx(on_train.loss, rel=1e-5)
    assert record.loss_gap == pytest.approx(on_test.loss - on_train.loss, rel=1e-4)
    assert record.error_gap == pytest.approx(on_train.accuracy - on_test.accuracy, abs=1e-5)
    moved = sum(float((p.detach() - s).square().sum()) for p, s in zip(model.parameters(), start, strict=True)) ** 0.5
    assert record.measurement.values["moved"] == pytest.approx(moved, rel=1e-4)


def test_tensors_are_recorded_as_numbers() -> None:
    def measure(*_: Any, **__: Any) -> Measurement:
        return Measurement({"a": torch.tensor(1.5)}, {"c": {2: torch.tensor(0.5)}}, {"c": torch.tensor(2.0)})

    result = run_study({"epochs": 1, "width": 4}, data=DATA, measure=measure, min_accuracy=0.0)
    assert result.records[0].measurement == Measurement({"a": 1.5}, {"c": {2.0: 0.5}}, {"c": 2.0})


def test_custom_models_and_measures_are_used() -> None:
    def linear(width: int, seed: int) -> nn.Module:
        return renyi_lab.models.mlp(5, 2, seed=seed)

    def size(model: nn.Module, loss_fn: Any, data: Pair, initial_parameters: dict[str, Tensor]) -> dict[str, float]:
        return {"num_parameters": sum(p.numel() for p in model.parameters())}

    result = run_study({"architecture": "linear"}, data=DATA, models={"linear": linear}, measure=size, min_accuracy=0.0)
    assert result.kept[0].measurement.values == {"num_parameters": 12}


def test_processes_give_the_same_records_in_the_order_of_the_grid(finished: tuple[Study, Path]) -> None:
    with joblib.parallel_config("loky", n_jobs=2):
        parallel = small_study({**GRID, "seed": 0})
    assert without_time(parallel) == without_time(finished[0].select(seed=0))


def test_threads_give_the_same_records_and_global_state_is_restored(finished: tuple[Study, Path]) -> None:
    before = torch.get_rng_state(), torch.get_num_threads(), np.random.get_state()[1].tolist()
    with joblib.parallel_config("threading", n_jobs=3):
        parallel = small_study(GRID)
    assert without_time(parallel) == without_time(finished[0])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]


def test_a_diverged_model_is_recorded_and_does_not_affect_correlations(finished: tuple[Study, Path]) -> None:
    result = small_study([GRID, {**GRID, "lr": 1e9, "width": 24, "seed": 0}, {"epochs": 1, "lr": 1e-4}])
    assert len(result.records) == 14
    assert (result.num_diverged, result.num_dropped) == (1, 1 + finished[0].num_dropped)
    frame = result.to_frame()
    assert frame["status"].tolist()[-2:] == ["diverged", "under-trained"]
    assert np.isnan(frame["loss_gap"].iloc[-2])
    pd.testing.assert_frame_equal(result.kendall(), finished[0].kendall())


def test_without_a_minimum_run_study_warns_and_correlations_raise() -> None:
    with pytest.warns(UserWarning, match="no model is at a minimum"):
        result = small_study({"epochs": 1, "lr": [1e-4, 1e9], "batch_size": 10})
    best = result.records[0].train_accuracy
    with pytest.raises(ValueError, match=rf"none of 2 trainings.*1 diverged.*reached {best:.3f}.*more epochs"):
        result.kendall()
    with pytest.raises(ValueError, match="none of 2 trainings"):
        result.tau_against_alpha()
    assert len(result.with_minimum(0).kept) == 1


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


def test_an_interrupted_study_is_resumed(
    finished: tuple[Study, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, before = tmp_path / "records", (torch.get_rng_state(), torch.get_num_threads())
    with monkeypatch.context() as patch:
        count_trainings(patch, stop_after=5)
        with pytest.raises(KeyboardInterrupt):
            small_study(GRID, path=path)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]
    assert len(Study.read(path).records) == 5
    done = count_trainings(monkeypatch)
    result = small_study(GRID, path=path)
    assert len(done) == 7
    assert without_time(result) == without_time(finished[0])
    assert small_study(GRID, path=path).records == result.records
    assert len(done) == 7


def test_a_larger_grid_trains_only_the_new_settings(
    finished: tuple[Study, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "records"
    path.write_bytes(finished[1].read_bytes())
    assert len(small_study({**GRID, "lr": 0.1, "seed": 1}, path=path).records) == 2
    done = count_trainings(monkeypatch)
    result = small_study([GRID, {**GRID, "lr": 0.2, "width": 24, "seed": 0}], path=path)
    assert [setting.lr for setting in done] == [0.2]
    assert result.records[:12] == finished[0].records


def test_an_error_of_the_measure_names_the_setting_and_keeps_finished_records(tmp_path: Path) -> None:
    def fragile(model: nn.Module, loss_fn: Any, data: Pair, initial_parameters: Any) -> dict[str, float]:
        if model.layer1.out_features == 32:
            raise ZeroDivisionError("by design")
        return {"a": 1.0}

    path = tmp_path / "records"
    with pytest.raises(RuntimeError, match=r"width=32, .*ZeroDivisionError: by design"):
        run_study({"width": [24, 32], "epochs": 2}, data=DATA, measure=fragile, path=path)
    assert [record.setting.width for record in Study.read(path).records] == [24]


@pytest.mark.parametrize(
    ("grid", "options", "error", "message"),
    [
        ({"learning_rate": 0.1}, {}, ValueError, "'learning_rate' is not an axis.*Axes: architecture, width"),
        ({"batchsize": 32}, {}, ValueError, "did you mean 'batch_size'"),
        ({"lr": []}, {}, ValueError, "axis 'lr' has no values"),
        ({"lr": [0.1, -1]}, {}, ValueError, "lr must lie in"),
        ({"lr": [float("nan")]}, {}, ValueError, "lr must be finite"),
        ({"lr": ["fast"]}, {}, TypeError, "lr must be a real number"),
        ({"width": 3.5}, {}, TypeError, "width must be an integer"),
        ({"seed": -1}, {}, ValueError, "seed must be at least 0"),
        ({"optimizer": "lion"}, {}, ValueError, "optimizer must be one of 'sgd'"),
        ({"architecture": "vit"}, {}, ValueError, "architecture must be one of 'mlp', 'cnn1d'"),
        ([], {}, ValueError, "grid is empty"),
        ("lr", {}, TypeError, "grid must be a mapping"),
        ([{"lr": 0.1}, 3], {}, TypeError, "grid must be a mapping"),
        ({}, {"min_accuracy": 1.5}, ValueError, "min_accuracy must lie in"),
        ({}, {"n_jobs": 0}, ValueError, "n_jobs must not be 0"),
        ({}, {"n_jobs": 1.5}, TypeError, "n_jobs must be an integer"),
        ({}, {"data": DATA[0][0]}, TypeError, r"data must be \(train_set, test_set\)"),
        ({}, {"data": (DATA[0], 3)}, TypeError, "test_set must be a TensorDataset"),
        ({}, {"data": (DATA[0], (DATA[1][0], DATA[1][0]))}, ValueError, "test_set must hold .* class labels"),
        ({}, {"measure": "trace"}, TypeError, "measure must be callable"),
        ({}, {"measure": lambda *a, **k: 3.0}, TypeError, "measure must return a mapping"),
        ({}, {"measure": lambda *a, **k: {"a": None}}, TypeError, "must return numbers, got None for 'a'"),
        ({}, {"measure": lambda *a, **k: Measurement({"a": None})}, TypeError, "must return numbers, got None for 'a'"),
        ({}, {"models": {}}, TypeError, "models must map names to functions"),
        ({}, {"models": {"mlp": 5}}, TypeError, "models must map names to functions"),
        ({}, {"models": {"mlp": lambda width, seed: 3}}, TypeError, "models\\['mlp'\\] must return a torch.nn.Module"),
    ],
)
def test_messages(grid: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    grid = {"epochs": 1} if grid == {} else grid
    with pytest.raises(error, match=message):
        run_study(grid, **({"data": DATA, "measure": norms} | options))
