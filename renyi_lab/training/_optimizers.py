"""What `train` accepts as its optimizer, and how it is built."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from renyi_lab._utils.validation import check_choice
from renyi_lab.optim import SharpnessAware

OptimizerFactory = Callable[[list[nn.Parameter]], Optimizer]

_NAMES = ("sgd", "adam", "adamw")


def check_optimizer(optimizer: Any) -> None:
    """Raise an error if ``optimizer`` is neither a known name, nor a two-pass class, nor a function."""
    if isinstance(optimizer, str):
        check_choice("optimizer", optimizer, _NAMES)
    elif _two_pass_settings(optimizer) is None and (isinstance(optimizer, type) or not callable(optimizer)):
        # A class would quietly train at its own default learning rate.
        raise TypeError(
            f"optimizer must be one of {', '.join(map(repr, _NAMES))}, a sharpness-aware class such as "
            "renyi_lab.RSAM, or a function from parameters to an optimizer, as in "
            f"functools.partial(torch.optim.SGD, lr=0.1); got {optimizer!r}."
        )


def make_optimizer(
    optimizer: Any,
    parameters: list[nn.Parameter],
    lr: float,
    momentum: float,
    weight_decay: float,
    warmup_steps: int,
) -> Optimizer:
    """Return the optimizer that is asked for, on ``parameters``."""
    made: Any
    if optimizer == "sgd":
        made = torch.optim.SGD(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay)
    elif isinstance(optimizer, str):
        kind = torch.optim.Adam if optimizer == "adam" else torch.optim.AdamW
        made = kind(parameters, lr=lr, weight_decay=weight_decay)
    elif (given := _two_pass_settings(optimizer)) is not None:
        made = optimizer(parameters, **_base_settings(given, lr, momentum, weight_decay))
    else:
        made = optimizer(parameters)
    if not isinstance(made, Optimizer):
        raise TypeError(f"optimizer(parameters) must return a torch.optim.Optimizer, got {type(made).__name__}.")
    if warmup_steps:
        _set_warmup(made, warmup_steps)
    return made


def _two_pass_settings(optimizer: Any) -> dict[str, Any] | None:
    """What a sharpness-aware class, or a partial of one, is already given; ``None`` for anything else."""
    is_partial = isinstance(optimizer, functools.partial)
    kind = optimizer.func if is_partial else optimizer
    if not (isinstance(kind, type) and issubclass(kind, SharpnessAware)):
        return None
    return dict(optimizer.keywords) if is_partial else {}


def _base_settings(given: dict[str, Any], lr: float, momentum: float, weight_decay: float) -> dict[str, float]:
    """The numbers that the base optimizer of a two-pass one still needs; those given win."""
    base = given.get("base", torch.optim.SGD)
    if not isinstance(base, type):
        return {}
    settings = {"lr": lr, "weight_decay": weight_decay}
    if issubclass(base, torch.optim.SGD):
        settings["momentum"] = momentum
    return {name: value for name, value in settings.items() if name not in given}


def _set_warmup(made: Optimizer, warmup_steps: int) -> None:
    if not isinstance(made, SharpnessAware):
        raise ValueError(
            f"warmup_epochs is for sharpness-aware optimizers such as RSAM, but this one is {type(made).__name__}: "
            "leave it out."
        )
    made.warmup_steps = warmup_steps
