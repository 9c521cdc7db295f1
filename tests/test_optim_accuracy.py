"""The accuracy benchmark's bookkeeping: what makes it resumable, and that no test set takes part in tuning."""

from __future__ import annotations

import dataclasses
import importlib
import json
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parent / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    threads = torch.get_num_threads()
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("optim_accuracy")
    torch.set_num_threads(threads)


def test_a_stopped_run_goes_on_and_lines_of_others_are_named_and_left_alone(
    benchmark, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
):
    trained = []
    monkeypatch.setattr(benchmark, "train_once", lambda run: trained.append(run) or {"accuracy": run.seed / 10})
    runs = [benchmark.Run("digits-mlp", "SAM", 0.1, seed, "tune", 3) for seed in range(4)]
    path = tmp_path / "results.jsonl"
    done = json.dumps({"run": dataclasses.asdict(runs[2]), "result": {"accuracy": 0.9}})
    before = f'not json\n{{"other": 1}}\n{done}\n{done[:30]}'  # the last line was being written when all stopped
    path.write_text(before, encoding="utf-8")
    results = benchmark.Results(path)
    results.compute(runs, jobs=1, title="")
    assert trained == [runs[0], runs[1], runs[3]]
    assert results.accuracies(runs) == [0.0, 0.1, 0.9, 0.3]
    named = capsys.readouterr().err
    assert [number for number in range(1, 6) if f"line {number} " in named] == [1, 2, 4]
    text = path.read_text(encoding="utf-8")
    assert text.startswith(before + "\n")
    assert len(text.splitlines()) == 4 + 3
    again = benchmark.Results(path)
    again.compute(runs, jobs=1, title="")
    assert len(trained) == 3
    assert again.accuracies(runs) == results.accuracies(runs)


@pytest.mark.parametrize(("peak", "expected"), [(0.35, 0.35), (1.3, 1.43), (0.1, 0.0854), (1e9, 24.1)])
def test_the_search_for_rho_walks_on_until_the_best_is_inside(
    benchmark, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, peak: float, expected: float, capsys
):
    monkeypatch.setattr(benchmark, "train_once", lambda run: {"accuracy": 1 / (1 + abs(run.rho / peak - 1))})
    results = benchmark.Results(tmp_path / "results.jsonl")
    rhos = benchmark.tuned_rhos(results, "digits-mlp", ["SGD", "SAM"], splits=2, jobs=1)
    assert rhos["SGD"] is None
    assert rhos["SAM"] == pytest.approx(expected, rel=1e-2)
    assert ("still at an edge of its grid: SAM" in capsys.readouterr().err) == (peak == 1e9)


def test_a_validation_split_is_cut_from_the_training_data(benchmark):
    train_set = torch.utils.data.TensorDataset(torch.arange(50.0), torch.arange(50))
    parts = [benchmark.split(train_set, seed) for seed in (0, 1)]
    for kept, held_out in parts:
        assert (len(kept), len(held_out)) == (40, 10)
        assert sorted([*kept.tensors[1].tolist(), *held_out.tensors[1].tolist()]) == list(range(50))
    assert parts[0][1].tensors[1].tolist() != parts[1][1].tensors[1].tolist()


def test_all_two_pass_methods_take_equally_many_gradients(benchmark, monkeypatch: pytest.MonkeyPatch):
    data = torch.utils.data.TensorDataset(torch.linspace(-1, 1, 8000).reshape(200, 40), torch.arange(200) % 10)
    task = dataclasses.replace(benchmark.TASKS["mnist1d-mlp"], data=lambda: (data, data))
    monkeypatch.setitem(benchmark.TASKS, "mnist1d-mlp", task)
    steps, epochs = 2, benchmark.WARMUP_EPOCHS + 1
    for name, method in benchmark.METHODS.items():
        result = benchmark.train_once(benchmark.Run("mnist1d-mlp", name, method.rho, 0, "test", epochs))
        expected = epochs if method.make is None else benchmark.WARMUP_EPOCHS + 2
        assert result["gradients"] == steps * expected
