"""Grids of trainings: the axes, and how a grid expands to settings."""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from renyi_lab._utils.validation import (
    check_choice,
    check_instance,
    check_int,
    check_printable,
    check_real,
    is_iterable,
    printed,
    shown,
)
from renyi_lab.optim import BY_NAME
from renyi_lab.study._sharpness_aware import sharpness_aware_axes

Grid = Mapping[str, Any] | Sequence[Mapping[str, Any]]

# The optimizers of `train` that have a name, so that a record can state which was used.
OPTIMIZERS = ("sgd", "adam", "adamw", *BY_NAME)


@dataclass(frozen=True)
class Setting:
    """The settings of one training; the fields are the axes of a grid. Defaults are those of `train`.

    Attributes:
        architecture: A key of ``models``.
        width: Units per hidden layer (MLP), or channels (CNN). Default 100, the MLP of ``renyi-lab tour``.
        optimizer: A name that `train` takes: ``"sgd"``, ``"adam"``, ``"adamw"``; ``"sam"``, ``"asam"``,
            ``"fishersam"``, ``"sagm"``, ``"rsam"``.
        lr: Learning rate, positive.
        batch_size: Samples per step.
        weight_decay: Weight decay, non-negative.
        epochs: Number of passes over the data.
        seed: Random seed for the initial weights and the batch order.
        rho: Radius of a sharpness-aware optimizer. Default: that of its class; always ``None`` for the others.
        alpha: Order of RSAM, or step length of SAGM. Default: that of the class; always ``None`` for the others.
        form: Form of RSAM. Default: that of the class; always ``None`` for the others.
    """

    architecture: str = "mlp"
    width: int = 100
    optimizer: str = "sgd"
    lr: float = 0.1
    batch_size: int = 128
    weight_decay: float = 5e-4
    epochs: int = 60
    seed: int = 0
    rho: float | None = None
    alpha: float | None = None
    form: str | None = None

    @classmethod
    def checked(cls, values: Mapping[str, Any], architectures: Iterable[str]) -> Setting:
        """A setting from raw values, each checked for type and range."""
        check_instance("values", values, Mapping, "from axis to value")
        raw = {**asdict(cls()), **values}
        optimizer = check_choice("optimizer", raw["optimizer"], OPTIMIZERS)
        return cls(
            architecture=check_printable(
                "architecture", check_choice("architecture", raw["architecture"], architectures)
            ),
            width=check_int("width", raw["width"]),
            optimizer=optimizer,
            lr=check_real("lr", raw["lr"], 0, open_minimum=True),
            batch_size=check_int("batch_size", raw["batch_size"]),
            weight_decay=check_real("weight_decay", raw["weight_decay"], 0),
            epochs=check_int("epochs", raw["epochs"]),
            seed=check_int("seed", raw["seed"], 0),
            **sharpness_aware_axes(optimizer, raw),
        )

    @property
    def stated(self) -> dict[str, Any]:
        """The axes that the optimizer has, with their values, as in a file."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def key(self) -> str:
        """A string that identifies the setting, the same in every process.

        Raises:
            TypeError: An axis is neither a number nor text.
        """
        try:
            return json.dumps(self.stated, sort_keys=True)
        except (TypeError, ValueError) as error:
            raise TypeError(f"each axis of a setting must be a number or text, got {shown(self.stated)}.") from error

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.stated.items())


AXES = tuple(field.name for field in fields(Setting))


def expand_grid(grid: Grid, architectures: Iterable[str]) -> list[Setting]:
    """The settings of a grid: all combinations of one mapping, or the union over several mappings.

    Args:
        grid: Mapping from axis name to values (or to one value); axes left out keep the default of `Setting`. Several
            mappings allow what a product cannot, such as different learning rates for Adam and SGD, or ``rho`` for SAM.
        architectures: Values that the axis ``architecture`` may take.

    Returns:
        Every setting once, in the order of the grid.

    Raises:
        TypeError: The grid is neither a mapping nor a sequence of mappings, or a value has the wrong type.
        ValueError: The grid is empty, an axis or name is unknown, an axis has no values, a number is out of range, or
            the optimizer does not have the axis.

    Example:
        >>> len(expand_grid([{"lr": [0.03, 0.1], "seed": range(3)}, {"optimizer": "adam", "lr": 0.001}], ["mlp"]))
        7
    """
    architectures = tuple(architectures)
    parts = [grid] if isinstance(grid, Mapping) else grid
    if not isinstance(parts, Sequence) or isinstance(parts, str) or not all(isinstance(p, Mapping) for p in parts):
        raise TypeError(
            f"grid must be a mapping from axis names to values, or a list of mappings, got {printed(grid)}; "
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


def check_axis(name: Any, axes: Iterable[str] = AXES) -> str:
    """Return ``name`` if it is one of ``axes``; otherwise raise and suggest the closest one."""
    known = tuple(axes)
    if name in known:
        return str(name)
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"{printed(name)} is not an axis of a grid; {hint}Axes: {', '.join(known)}.")


def _axis_values(name: Any, values: Any) -> list[Any]:
    check_axis(name)
    several = list(values) if is_iterable(values) and not isinstance(values, str) else [values]
    if not several:
        raise ValueError(
            f"axis {printed(name)} has no values; give at least one, or leave the axis out for its default."
        )
    return several
