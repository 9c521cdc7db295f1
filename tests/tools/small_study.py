"""A study that trains in milliseconds, and studies made of records without a training."""

from __future__ import annotations

import functools
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from renyi_lab.study import AXES, Measurement, Record, Setting, Study, run_study

Pair = tuple[Tensor, Tensor]


def make_data(num_samples: int = 40, seed: int = 0) -> tuple[Pair, Pair]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2 * num_samples, 5, generator=generator)
    y = (x[:, 0] * x[:, 1] > 0).long()
    return (x[:num_samples], y[:num_samples]), (x[num_samples:], y[num_samples:])


def norms(model: nn.Module, loss_fn: Any, data: Pair, initial_parameters: dict[str, Tensor]) -> dict[str, float]:
    now = dict(model.named_parameters())
    moved = sum(float((now[name].detach() - start).square().sum()) for name, start in initial_parameters.items())
    return {"norm": sum(float(p.detach().square().sum()) for p in now.values()) ** 0.5, "moved": moved**0.5}


DATA = make_data()
GRID = {"lr": [0.1, 0.3], "width": [24, 32], "seed": range(3), "epochs": 20, "batch_size": 10}
small_study = functools.partial(run_study, data=DATA, measure=norms)


def without_time(study: Study) -> list[dict[str, Any]]:
    return [asdict(record) | {"cpu_seconds": None} for record in study.records]


def made_up_record(**changes: Any) -> Record:
    setting = {name: changes.pop(name) for name in AXES if name in changes}
    values = {"diverged": False, "train_loss": 0.1, "train_accuracy": 1.0, "test_loss": 0.5, "test_accuracy": 0.8}
    return Record(Setting(**setting), **(values | changes))


def made_up_study(sharpness: list[float], loss_gaps: list[float], error_gaps: list[float]) -> Study:
    """Models with the measure ``sharp`` and a ``curve`` that equals it up to α = 2, where it changes its sign."""
    return Study(
        tuple(
            made_up_record(
                seed=k,
                test_loss=0.1 + loss,
                test_accuracy=1.0 - error,
                measurement=Measurement(
                    {"sharp": sharp}, {"curve": {0.5: sharp, 1.0: sharp, 1.5: sharp, 2.0: -sharp}}, {"curve": 2.0}
                ),
            )
            for k, (sharp, loss, error) in enumerate(zip(sharpness, loss_gaps, error_gaps, strict=True))
        )
    )
