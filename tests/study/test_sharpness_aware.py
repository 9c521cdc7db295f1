"""Sharpness-aware optimizers as axes of a grid: what they mean, what is refused, and what stands in a file."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_study import DATA, made_up_record, norms

import renyi_lab
from renyi_lab._utils.threads import one_thread
from renyi_lab.optim import BY_NAME
from renyi_lab.study import Record, Setting, Study, run_study
from renyi_lab.study import _run as run_module
from renyi_lab.study._grid import OPTIMIZERS, expand_grid

SHORT = {"epochs": 3, "width": 8, "batch_size": 20}
GRID = [{**SHORT, "optimizer": "sgd"}, {**SHORT, "optimizer": "sam", "rho": [0.05, 0.2]}]


def axes(setting: Setting) -> tuple[float | None, float | None, str | None]:
    return setting.rho, setting.alpha, setting.form


def test_each_optimizer_has_its_own_axes_with_the_defaults_of_its_class() -> None:
    found = {setting.optimizer: axes(setting) for setting in expand_grid({"optimizer": OPTIMIZERS}, ["mlp"])}
    nothing = (None, None, None)
    assert found == {
        **dict.fromkeys(("sgd", "adam", "adamw"), nothing),
        "sam": (0.05, None, None),
        "asam": (0.5, None, None),
        "fishersam": (0.1, None, None),
        "sagm": (0.05, 0.001, None),
        "rsam": (0.65, 1.2, "paper"),
    }


def test_a_default_that_is_given_explicitly_is_the_same_training() -> None:
    parts = [{"optimizer": "rsam"}, {"optimizer": "rsam", "rho": [None, 0.65], "alpha": 1.2, "form": "paper"}]
    assert len(expand_grid(parts, ["mlp"])) == 1
    assert len(expand_grid({"optimizer": "sam", "rho": [1, 1.0]}, ["mlp"])) == 1


@pytest.mark.parametrize(
    ("optimizer", "given"),
    [
        ("sam", {"rho": 0.2}),
        ("sagm", {"rho": 0.5, "alpha": 0.1}),
        ("rsam", {"rho": 0.1, "alpha": 1.0, "form": "divergence"}),
        ("rsam", {"rho": 0.01, "alpha": 2.0, "form": "exact"}),
    ],
)
def test_a_training_is_that_of_the_class_with_these_arguments(optimizer: str, given: dict[str, Any]) -> None:
    record = run_study({**SHORT, "optimizer": optimizer, **given}, data=DATA, measure=norms, min_accuracy=0).records[0]
    model = renyi_lab.models.mlp(5, 8, 8, 2)
    factory = functools.partial(BY_NAME[optimizer], **given)
    with one_thread():
        renyi_lab.train(model, DATA[0], optimizer=factory, epochs=3, lr=0.1, batch_size=20)
        expected = renyi_lab.evaluate(model, DATA[0]).loss
    assert record.train_loss == pytest.approx(expected, rel=1e-5)
    others = run_study({**SHORT, "optimizer": ["sgd", optimizer]}, data=DATA, measure=norms, min_accuracy=0)
    assert min(abs(record.train_loss - other.train_loss) for other in others.records) > 1e-4 * expected


@pytest.mark.parametrize("name", BY_NAME)
def test_train_takes_the_name_for_the_class(name: str) -> None:
    weights = []
    for optimizer in (name, BY_NAME[name]):
        model = renyi_lab.models.mlp(5, 8, 2)
        history = renyi_lab.train(model, DATA[0], optimizer=optimizer, epochs=2, warmup_epochs=1)
        assert len(history.perturbation_norm) == 2
        weights.append(torch.nn.utils.parameters_to_vector(model.parameters()))
    assert torch.equal(*weights)


def test_a_study_with_these_axes_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, done = tmp_path / "records", []
    original = run_module.train_and_measure
    monkeypatch.setattr(
        run_module, "train_and_measure", lambda setting, *rest: done.append(setting) or original(setting, *rest)
    )
    run_study(GRID[1] | {"rho": 0.05}, path=path, data=DATA, measure=norms, min_accuracy=0)
    study = run_study(GRID, path=path, data=DATA, measure=norms, min_accuracy=0)
    assert [setting.rho for setting in done] == [0.05, None, 0.2]
    assert {record.setting.key for record in Study.read(path).records} == {r.setting.key for r in study.records}
    assert study.to_frame()["rho"].tolist()[1:] == [0.05, 0.2]
    assert [record.setting.optimizer for record in study.kept] == ["sam", "sam", "sgd"]
    assert [record.setting.rho for record in study.select(rho=None).records] == [None]
    with pytest.raises(ValueError, match=r"no training has rho=0\.3; available: None, 0\.05, 0\.2"):
        study.select(rho=0.3)


def test_lines_of_other_optimizers_are_those_of_files_written_before_these_axes() -> None:
    line = made_up_record().to_line()
    assert list(json.loads(line)["setting"]) == [
        *("architecture", "width", "optimizer", "lr", "batch_size", "weight_decay", "epochs", "seed")
    ]
    assert Record.from_line(line).to_line() == line


def rsam_line(**changed: Any) -> str:
    raw = json.loads(made_up_record(optimizer="rsam", rho=0.65, alpha=1.2, form="paper").to_line())
    raw["setting"] = {k: v for k, v in (raw["setting"] | changed).items() if v != "left out"}
    return json.dumps(raw)


def test_a_line_states_the_axes_that_its_optimizer_has() -> None:
    assert axes(Record.from_line(rsam_line()).setting) == (0.65, 1.2, "paper")
    for changed in ({"rho": "left out"}, {"form": "x"}, {"optimizer": "sam"}, {"optimizer": "sgd"}, {"alpha": 1.0}):
        with pytest.raises(ValueError, match="not a training record"):
            Record.from_line(rsam_line(**changed))


@pytest.mark.parametrize(
    ("grid", "error", "message"),
    [
        ({"rho": 0.1}, ValueError, r"rho=0\.1 has no meaning for optimizer='sgd'.*\[\{'optimizer': 'sgd'\}, \{'opti"),
        ({"optimizer": ["sam", "adam"], "rho": 0.1}, ValueError, "no meaning for optimizer='adam'"),
        ({"optimizer": "sam", "alpha": 1.2}, ValueError, "alpha=1.2 .*'sam'; it is an axis of 'sagm', 'rsam' only"),
        ({"optimizer": "sagm", "form": "exact"}, ValueError, "form='exact' .*; it is an axis of 'rsam' only"),
        ({"optimizer": "sam", "rho": 0}, ValueError, "rho must lie in"),
        ({"optimizer": "sam", "rho": "wide"}, TypeError, "rho must be a real number"),
        ({"optimizer": "sagm", "alpha": -1}, ValueError, "alpha must"),
        ({"optimizer": "rsam", "alpha": 1}, ValueError, "alpha = 1 is refused in the paper form"),
        ({"optimizer": "rsam", "alpha": 0.3, "form": "exact"}, ValueError, "alpha = 0.3 is refused in the exact form"),
        ({"optimizer": "rsam", "form": "squared"}, ValueError, "form must be one of 'paper'"),
        ({"optimizer": "rsam", "form": 3}, ValueError, "form must be one of 'paper'"),
    ],
)
def test_messages(grid: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run_study(grid, data=DATA, measure=norms)
