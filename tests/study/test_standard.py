"""The study that comes with the package: what it holds, and that training a part of it again gives the same."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from renyi_lab import models
from renyi_lab.sharpness import MEASURES
from renyi_lab.study import (
    ALPHA_GRID,
    ALPHAS,
    QUICK_GRID,
    STANDARD_GRID,
    Measurement,
    Study,
    run_study,
    standard_measure,
)
from renyi_lab.study._grid import expand_grid
from renyi_lab.study._standard import shipped_path
from renyi_lab.study._table import markdown_table


@pytest.fixture(scope="module")
def study() -> Study:
    return Study.standard()


def test_it_holds_the_whole_grid_and_sixty_models_at_a_minimum_of_both_kinds(study: Study) -> None:
    grid = expand_grid(STANDARD_GRID, ["mlp", "cnn1d"])
    assert len(study.records) == len(grid)
    assert {record.setting for record in study.records} == set(grid)
    assert len(study.kept) >= 60
    kinds = [record.setting.architecture for record in study.kept]
    assert min(kinds.count("mlp"), kinds.count("cnn1d")) >= 8
    assert set(expand_grid(QUICK_GRID, ["mlp", "cnn1d"])) <= set(grid)


def test_it_is_small_and_text() -> None:
    with shipped_path() as path:
        assert len(path.read_text(encoding="utf-8")) < 300_000


def test_every_model_at_a_minimum_has_every_measure_the_package_knows(study: Study) -> None:
    expected = set(MEASURES) - {"renyi_sharpness"}
    for record in study.kept:
        measured = record.measurement
        assert {name for name in measured.values if " [" not in name} == expected
        assert set(measured.curves) == {"renyi_sharpness", "renyi_sharpness [first]", "renyi_sharpness [last]"}
        assert set(measured.chosen_alphas.values()) <= {0.5, 1.5}
        for curve in measured.curves.values():
            assert tuple(curve) == ALPHA_GRID
            assert list(curve.values()) == sorted(curve.values()), "entropy does not increase with the order"


def test_its_table_has_an_interval_for_every_measure_on_both_gaps(study: Study) -> None:
    for gap in ("loss", "error"):
        table = study.kendall(gap)
        assert {f"renyi_sharpness_{alpha:g}" for alpha in ALPHAS} <= set(table.index)
        defined = table[table["remark"] == ""]
        assert len(defined) > 30
        assert ((defined["low"] <= defined["tau"]) & (defined["tau"] <= defined["high"])).all()
        assert (defined["num_models"] == len(study.kept)).all()
        assert (defined["high"] - defined["low"]).between(0.05, 0.6).all()
    assert markdown_table(study).count("\n") == len(table) + 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "axes",
    [
        {"architecture": "mlp", "optimizer": "sgd", "width": 80, "lr": 0.1, "batch_size": 256, "weight_decay": 0.0},
        {"architecture": "mlp", "optimizer": "sgd", "width": 80, "lr": 0.1, "batch_size": 256, "weight_decay": 1e-3},
    ],
    ids=["no decay", "decay"],
)
def test_training_again_gives_the_shipped_record(study: Study, axes: dict[str, float | str]) -> None:
    """Another processor rounds otherwise, and training amplifies that until the result is as if of another seed.

    So the tolerance is what seeds do: every number within four times the spread among the shipped seeds, and at least
    a twentieth, of the shipped one.
    """
    shipped = study.select(**axes)
    (again,) = run_study({**axes, "epochs": 80, "seed": 0}).records
    (record,) = shipped.select(seed=0).records
    before, after = numbers(record.measurement), numbers(again.measurement)
    before |= {"test_loss": record.test_loss, "loss_gap": record.loss_gap, "error_gap": record.error_gap}
    after |= {"test_loss": again.test_loss, "loss_gap": again.loss_gap, "error_gap": again.error_gap}
    seeds = [numbers(other.measurement) for other in shipped.records]
    assert again.train_accuracy == pytest.approx(record.train_accuracy, abs=0.02)
    assert before.keys() == after.keys()
    for name, value in before.items():
        spread = float(np.std([other[name] for other in seeds], ddof=1)) if name in seeds[0] else 0.0
        assert after[name] == pytest.approx(value, abs=4 * spread, rel=0.05), name


def numbers(measurement: Measurement) -> dict[str, float]:
    curves = {f"{name} {a:g}": value for name, curve in measurement.curves.items() for a, value in curve.items()}
    return {**measurement.values, **curves}


def test_the_standard_measure_of_a_network_that_is_dead_is_undefined_not_an_error() -> None:
    model = models.mlp(4, 6, 6, 3)
    with torch.no_grad():
        model.layer1.bias.fill_(-100.0)
    x, y = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3
    initial = {name: p.detach().clone() for name, p in model.named_parameters()}
    measured = standard_measure(model, torch.nn.functional.cross_entropy, (x, y), initial_parameters=initial)
    assert all(map(math.isnan, measured.curves["renyi_sharpness [first]"].values()))
    assert "renyi_sharpness [first]" not in measured.chosen_alphas
    assert measured.values["trace"] > 0


def test_the_command_refuses_a_foreign_file_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("buy milk\n")
    command = [sys.executable, "-m", "renyi_lab.study", "--quick", "--out", str(path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "is no file of a study" in run.stderr
    assert "Traceback" not in run.stderr
    assert path.read_text() == "buy milk\n"


def test_the_readme_shows_the_table_of_the_shipped_records(study: Study) -> None:
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    assert markdown_table(study) in readme
