"""The study that ships with the package: its data sets, its grid and the paths of its records."""

from __future__ import annotations

import functools
import importlib.resources
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from torch.utils.data import TensorDataset

from renyi_lab._utils.validation import check_choice
from renyi_lab.datasets import mnist1d

# Heuristic: with these learning rates and epochs most networks fit the training set (found by training accuracy alone).
STANDARD_GRID: list[dict[str, Any]] = [
    {
        "architecture": "mlp",
        "width": (80, 120),
        "lr": (0.1, 0.15),
        "batch_size": (128, 256),
        "weight_decay": (0.0, 1e-3),
        "epochs": 80,
        "seed": (0, 1, 2),
    },
    {  # slower, therefore with small batches only
        "architecture": "mlp",
        "width": (80, 120),
        "lr": 0.05,
        "batch_size": 128,
        "weight_decay": (0.0, 1e-3),
        "epochs": 80,
        "seed": (0, 1, 2),
    },
    {
        "architecture": "mlp",
        "width": 120,
        "optimizer": "adam",
        "lr": (0.003, 0.005),
        "batch_size": 64,
        "weight_decay": (0.0, 1e-3),
        "epochs": 80,
        "seed": (0, 1),
    },
    {
        "architecture": "cnn1d",
        "width": 25,
        "lr": (0.08, 0.16),
        "batch_size": (128, 256),
        "weight_decay": (0.0, 1e-3),
        "epochs": 50,
        "seed": (0, 1),
    },
    {
        "architecture": "cnn1d",
        "width": 25,
        "lr": 0.12,
        "batch_size": 256,
        "weight_decay": (0.0, 1e-3),
        "epochs": 50,
        "seed": (0, 1),
    },
    {
        "architecture": "cnn1d",
        "width": 32,
        "lr": 0.08,
        "batch_size": 128,
        "weight_decay": (0.0, 1e-3),
        "epochs": 50,
        "seed": (0, 1),
    },
    {
        "architecture": "cnn1d_bn",
        "width": (20, 28),
        "lr": 0.05,
        "batch_size": (128, 256),
        "weight_decay": (0.0, 1e-3),
        "epochs": 30,
        "seed": (0, 1),
    },
    {
        "architecture": "cnn1d_bn",
        "width": (20, 28),
        "lr": 0.1,
        "batch_size": 128,
        "weight_decay": (0.0, 1e-3),
        "epochs": 30,
        "seed": (0, 1),
    },
]
# A subset that takes two minutes on two cores.
QUICK_GRID: list[dict[str, Any]] = [
    {**STANDARD_GRID[0], "width": 120, "weight_decay": 0.0},
    {**STANDARD_GRID[3], "weight_decay": 0.0, "batch_size": 256, "seed": 0},
]

# Less translation and more noise than published. Heuristic: all three families of the grid still fit the training set,
# and their gaps differ.
_DATA_SETS: dict[str, Callable[[], tuple[TensorDataset, TensorDataset]]] = {
    "mnist1d": mnist1d,
    "mnist1d_noisy": functools.partial(mnist1d, max_translation=12, corr_noise_scale=0.4),
}
# The data sets of `Study.standard`.
DATA_SETS = tuple(_DATA_SETS)


def standard_data(data_set: str) -> tuple[TensorDataset, TensorDataset]:
    """The data of a standard study.

    Args:
        data_set: A name in `DATA_SETS`: ``"mnist1d"`` as published, or ``"mnist1d_noisy"`` with ``max_translation`` 12
            instead of 48 and ``corr_noise_scale`` 0.4 instead of 0.25.

    Returns:
        ``(train_set, test_set)``, as `datasets.mnist1d` returns them.

    Raises:
        ValueError: There is no such data set.
        ModuleNotFoundError: The package ``mnist1d`` is not installed.
    """
    return _DATA_SETS[check_choice("data_set", data_set, DATA_SETS)]()


def shipped_path(data_set: str) -> AbstractContextManager[Path]:
    """The file with the records of the standard study on that data set."""
    check_choice("data_set", data_set, DATA_SETS)
    return importlib.resources.as_file(importlib.resources.files("renyi_lab.study") / f"standard_{data_set}.jsonl")
