"""The study that ships with the package: its contents, and that `run_study` still trains and measures as it did."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from torch import nn

from renyi_lab import datasets, models
from renyi_lab.sharpness import MEASURES
from renyi_lab.study import (
    ALPHA_GRID,
    ALPHAS,
    QUICK_GRID,
    STANDARD_GRID,
    Measurement,
    Record,
    Setting,
    Study,
    run_study,
    standard_measure,
)
from renyi_lab.study.__main__ import main
from renyi_lab.study._grid import expand_grid
from renyi_lab.study._standard import shipped_path
from renyi_lab.study._table import markdown_table

FEW_STEPS = [
    {"optimizer": ["sgd", "adam"], "width": 12, "lr": 0.01, "weight_decay": 1e-2, "epochs": 2, "seed": 3},
    {"architecture": "cnn1d", "width": 4, "lr": 0.1, "batch_size": 64, "epochs": 1, "seed": 3},
]


@pytest.fixture(scope="module")
def study() -> Study:
    return Study.standard()


def test_it_holds_the_full_grid_and_sixty_models_at_a_minimum_of_both_architectures(study: Study) -> None:
    grid = expand_grid(STANDARD_GRID, ["mlp", "cnn1d"])
    assert len(study.records) == len(grid)
    assert {record.setting for record in study.records} == set(grid)
    assert len(study.kept) >= 60
    kinds = [record.setting.architecture for record in study.kept]
    assert min(kinds.count("mlp"), kinds.count("cnn1d")) >= 8
    assert set(expand_grid(QUICK_GRID, ["mlp", "cnn1d"])) <= set(grid)


def test_its_file_is_small_text() -> None:
    with shipped_path() as path:
        assert len(path.read_text(encoding="utf-8")) < 300_000


def test_every_model_at_a_minimum_has_every_measure_of_the_package(study: Study) -> None:
    expected = set(MEASURES) - {"renyi_sharpness"}
    for record in study.kept:
        measured = record.measurement
        assert {name for name in measured.values if " [" not in name} == expected
        assert set(measured.curves) == {"renyi_sharpness", "renyi_sharpness [first]", "renyi_sharpness [last]"}
        assert set(measured.chosen_alphas.values()) <= {0.5, 1.5}
        for curve in measured.curves.values():
            assert tuple(curve) == ALPHA_GRID
            assert list(curve.values()) == sorted(curve.values()), "entropy does not increase with the order"


@pytest.mark.slow
def test_its_table_has_an_interval_for_every_measure_and_both_gaps(study: Study) -> None:
    for gap in ("loss", "error"):
        table = study.kendall(gap)
        assert {f"renyi_sharpness_{alpha:g}" for alpha in ALPHAS} <= set(table.index)
        defined = table[table["remark"] == ""]
        assert len(defined) > 30
        assert ((defined["low"] <= defined["tau"]) & (defined["tau"] <= defined["high"])).all()
        assert (defined["num_models"] == len(study.kept)).all()
        width = defined["high"] - defined["low"]
        assert width.between(0.05, 0.8).all()  # 28 settings, not 69 independent models
    assert markdown_table(study).count("\n") == len(table) + 1


def double_mlp(width: int, seed: int) -> nn.Module:
    return models.mlp(40, width, width, 10, seed=seed).double()


def double_cnn1d(width: int, seed: int) -> nn.Module:
    return models.cnn1d(channels=width, in_features=40, num_classes=10, seed=seed).double()


def few_steps(path: Path | None = None) -> Study:
    data = tuple((x.double(), y) for x, y in (part.tensors for part in datasets.mnist1d()))
    return run_study(
        FEW_STEPS, data=data, models={"mlp": double_mlp, "cnn1d": double_cnn1d}, min_accuracy=0.0, path=path
    )


def numbers(record: Record) -> dict[str, float]:
    measured = record.measurement
    curves = {f"{name} {a:g}": value for name, curve in measured.curves.items() for a, value in curve.items()}
    losses = {"train_loss": record.train_loss, "test_loss": record.test_loss}
    return {**losses, "train_accuracy": record.train_accuracy, **measured.values, **curves}


@pytest.mark.slow
def test_a_few_steps_in_double_precision_give_the_stored_records() -> None:
    """The code that wrote few_steps.jsonl also reproduced records of the standard study, to four digits, with AVX2.

    After few steps, rounding in double precision is below the six stored digits on any processor. If this fails after
    an intended change of training or measures, repeat the standard study and write the file with ``few_steps(path)``.
    """
    stored = Study.read(Path(__file__).with_name("few_steps.jsonl")).records
    for record, again in zip(stored, few_steps().records, strict=True):
        assert again.setting == record.setting
        assert numbers(again) == pytest.approx(numbers(record), rel=2e-5)  # two units of the last digit
        assert again.measurement.chosen_alphas == record.measurement.chosen_alphas


@pytest.mark.slow
def test_full_trainings_with_a_new_seed_are_distributed_as_the_shipped_ones(study: Study) -> None:
    """False-alarm rate 3e-4 on any processor: in a full training, rounding has the effect of another seed.

    The deviation of a training is the largest one over all measures, in units of their spread over seeds, from the mean
    of two shipped seeds. That of a new training exceeds all 60 shipped ones with probability 1/61, and the test fails
    only if those of two trainings do. The largest shipped one is 4.9; with momentum 0.8, the two are 14.6 and 6.2.
    """
    groups: dict[Setting, list[np.ndarray]] = defaultdict(list)
    for record in study.select(architecture="mlp", optimizer="sgd").records:
        groups[replace(record.setting, seed=0)].append(logarithms(record))
    spread = np.sqrt(np.mean([np.var(group, axis=0, ddof=1) for group in groups.values()], axis=0))

    def deviation(values: np.ndarray, *seeds: np.ndarray) -> float:
        return float((np.abs(values - np.mean(seeds, axis=0)) / spread).max())

    shipped = [deviation(group[i], group[i - 1], group[i - 2]) for group in groups.values() for i in range(3)]
    assert len(shipped) == 60
    axes = {"width": 80, "lr": 0.1, "batch_size": 256, "weight_decay": [0.0, 1e-3], "epochs": 80, "seed": 3}
    new = [
        deviation(logarithms(record), *groups[replace(record.setting, seed=0)][:2])
        for record in run_study(axes).records
    ]
    assert min(new) <= max(shipped)


def logarithms(record: Record) -> np.ndarray:
    values = {**record.measurement.values, "test_loss": record.test_loss}
    return np.log(np.abs([value for name, value in sorted(values.items()) if " [" not in name]))


def test_the_standard_measure_of_a_dead_layer_is_undefined() -> None:
    model = models.mlp(4, 6, 6, 3)
    with torch.no_grad():
        model.layer1.bias.fill_(-100.0)
    x, y = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3
    initial = {name: p.detach().clone() for name, p in model.named_parameters()}
    measured: Measurement = standard_measure(
        model, torch.nn.functional.cross_entropy, (x, y), initial_parameters=initial
    )
    assert all(map(math.isnan, measured.curves["renyi_sharpness [first]"].values()))
    assert "renyi_sharpness [first]" not in measured.chosen_alphas
    assert measured.values["trace"] > 0


def test_the_command_refuses_another_file_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("buy milk\n")
    with pytest.raises(typer.Exit) as exit_:
        main(out=path, quick=True, jobs=1)
    assert exit_.value.exit_code == 1
    assert "is not a study file" in capsys.readouterr().err
    assert path.read_text() == "buy milk\n"
