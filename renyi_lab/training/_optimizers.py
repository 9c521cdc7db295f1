"""What `train` accepts as its optimizer, and how it is made."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from renyi_lab._utils.validation import check_choice, printed
from renyi_lab.optim import BY_NAME, SharpnessAware, base_defaults

OptimizerFactory = Callable[[list[nn.Parameter]], Optimizer]

_CLASSES: dict[str, Callable[..., Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}
_NAMES = (*_CLASSES, *BY_NAME)


def check_optimizer(optimizer: Any) -> None:
    """Raise an error if ``optimizer`` is neither a known name nor a factory."""
    if isinstance(optimizer, str):
        if optimizer.lower() not in _NAMES:
            check_choice("optimizer", optimizer, _NAMES)
    elif not callable(optimizer) or (isinstance(optimizer, type) and not issubclass(optimizer, SharpnessAware)):
        # A class of torch would silently train at its own default learning rate.
        raise TypeError(
            f"optimizer must be one of {', '.join(map(repr, _NAMES))}, a sharpness-aware class such as "
            "renyi_lab.RSAM, or a function from parameters to an optimizer, as in "
            f"functools.partial(torch.optim.SGD, lr=0.1); got {printed(optimizer)}."
        )


def make_optimizer(
    optimizer: Any,
    parameters: list[nn.Parameter],
    lr: float,
    momentum: float,
    weight_decay: float,
    warmup_steps: int,
) -> Optimizer:
    """Return the requested optimizer on ``parameters``."""
    settings = {"lr": lr, "weight_decay": weight_decay}
    made: Any
    if isinstance(optimizer, str):
        optimizer = BY_NAME.get(optimizer.lower(), optimizer.lower())
    if isinstance(optimizer, str):
        made = _CLASSES[optimizer](parameters, **settings, **({"momentum": momentum} if optimizer == "sgd" else {}))
    elif isinstance(optimizer, (type, functools.partial)):
        with base_defaults(**settings, momentum=momentum):
            made = optimizer(parameters)
    else:  # a function states all settings itself
        made = optimizer(parameters)
    if not isinstance(made, Optimizer):
        raise TypeError(f"optimizer(parameters) must return a torch.optim.Optimizer, got {type(made).__name__}.")
    if isinstance(made, SharpnessAware):
        made.warmup_steps = warmup_steps or made.warmup_steps
    elif warmup_steps:
        raise ValueError(
            f"warmup_epochs is for sharpness-aware optimizers such as RSAM, but this one is {type(made).__name__}: "
            "leave it out."
        )
    return made
