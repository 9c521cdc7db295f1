"""The study that ships with the package: its grids and the path of its records."""

from __future__ import annotations

import importlib.resources
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

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
]
# A subset that takes two minutes on two cores.
QUICK_GRID: list[dict[str, Any]] = [
    {**STANDARD_GRID[0], "width": 120, "weight_decay": 0.0},
    {**STANDARD_GRID[3], "weight_decay": 0.0, "batch_size": 256, "seed": 0},
]

# The data sets of `Study.standard`.
DATA_SETS = ("mnist1d",)


def shipped_path() -> AbstractContextManager[Path]:
    """The file with the records of the standard study."""
    return importlib.resources.as_file(importlib.resources.files("renyi_lab.study") / "standard.jsonl")
