"""Grids of trainings: which axes there are, and the settings that a grid stands for."""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from renyi_lab._utils.validation import check_choice, check_int, check_real

Grid = Mapping[str, Any] | Sequence[Mapping[str, Any]]

# Those of `train` that need a name only, so that a record can say which it was.
OPTIMIZERS = ("sgd", "adam", "adamw")


@dataclass(frozen=True)
class Setting:
    """What one training is made of; the fields are the axes of a grid. Defaults are those of `train`.

    Attributes:
        architecture: A key of ``models``.
        width: Of the hidden layers (MLP), or channels (CNN). Default 100, the MLP of the tour.
        optimizer: ``"sgd"``, ``"adam"`` or ``"adamw"``.
        lr: Learning rate, > 0.
        batch_size: Samples a step.
        weight_decay: ≥ 0.
        epochs: Passes over the data.
        seed: Of the initial weights and of the batch order.
    """

    architecture: str = "mlp"
    width: int = 100
    optimizer: str = "sgd"
    lr: float = 0.1
    batch_size: int = 128
    weight_decay: float = 5e-4
    epochs: int = 60
    seed: int = 0

    @classmethod
    def checked(cls, values: Mapping[str, Any], architectures: Iterable[str]) -> Setting:
        """A setting from raw values: numbers of the right kind and in range, names that exist."""
        raw = {**asdict(cls()), **values}
        return cls(
            architecture=check_choice("architecture", raw["architecture"], architectures),
            width=check_int("width", raw["width"]),
            optimizer=check_choice("optimizer", raw["optimizer"], OPTIMIZERS),
            lr=check_real("lr", raw["lr"], 0, open_minimum=True),
            batch_size=check_int("batch_size", raw["batch_size"]),
            weight_decay=check_real("weight_decay", raw["weight_decay"], 0),
            epochs=check_int("epochs", raw["epochs"]),
            seed=check_int("seed", raw["seed"], 0),
        )

    @property
    def key(self) -> str:
        """One text a setting, the same in every process: what a record is found by."""
        return json.dumps(asdict(self), sort_keys=True)

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in asdict(self).items())


AXES = tuple(field.name for field in fields(Setting))


def expand_grid(grid: Grid, architectures: Iterable[str]) -> list[Setting]:
    """The settings of a grid: all combinations of one mapping, or the union of those of several.

    Args:
        grid: Axis name → values (or one value); axes left out keep `Setting`'s default. Several mappings allow what a
            product cannot, such as other learning rates for Adam than for SGD.
        architectures: Names that the axis ``architecture`` may take.

    Raises:
        TypeError: The grid is no mapping and no sequence of mappings, or a value has the wrong type.
        ValueError: Nothing in it, an unknown axis or name, an axis without values, or a number out of range.

    Example:
        >>> len(expand_grid([{"lr": [0.03, 0.1], "seed": range(3)}, {"optimizer": "adam", "lr": 0.001}], ["mlp"]))
        7
    """
    architectures = tuple(architectures)
    parts = [grid] if isinstance(grid, Mapping) else grid
    if not isinstance(parts, Sequence) or isinstance(parts, str) or not all(isinstance(p, Mapping) for p in parts):
        raise TypeError(
            f"grid must be a mapping from axis names to values, or a list of such, got {grid!r}; "
            "try {'lr': [0.03, 0.1], 'seed': range(3)}."
        )
    if not parts:
        raise ValueError("grid is empty; give it at least one mapping, as in [{'lr': [0.03, 0.1]}].")
    settings: dict[str, Setting] = {}
    for part in parts:
        values = [_axis_values(name, part[name]) for name in part]
        for combination in itertools.product(*values):
            setting = Setting.checked(dict(zip(part, combination, strict=True)), architectures)
            settings.setdefault(setting.key, setting)
    return list(settings.values())


def check_axis(name: Any) -> str:
    """Return ``name`` if it is an axis; else raise, with the nearest one."""
    if name in AXES:
        return str(name)
    near = difflib.get_close_matches(str(name), AXES, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"{name!r} is no axis of a grid; {hint}Axes: {', '.join(AXES)}.")


def _axis_values(name: Any, values: Any) -> list[Any]:
    check_axis(name)
    several = list(values) if isinstance(values, Iterable) and not isinstance(values, str) else [values]
    if not several:
        raise ValueError(f"axis {name!r} has no values; give it some, or leave it out for the default.")
    return several
