"""The axes ``rho``, ``alpha`` and ``form`` of a grid: which optimizer has which, and what `train` makes of them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from renyi_lab._utils.validation import check_real, printed
from renyi_lab.optim import BY_NAME, SharpnessAware

_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "rho": check_real,
    "alpha": check_real,
    "form": lambda _, value: value,  # checked by the class
}


def sharpness_aware_axes(optimizer: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """``rho``, ``alpha`` and ``form`` for an optimizer, with the defaults of its class; ``None`` where it has none.

    Args:
        optimizer: A checked name.
        values: Mapping with the three axes.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: The optimizer does not have the axis, or refuses the value.
    """
    defaults = _defaults(optimizer)
    axes: dict[str, Any] = dict.fromkeys(_CHECKS)
    for name, check in _CHECKS.items():
        value = values[name]
        if value is not None and name not in defaults:
            having = [known for known in BY_NAME if name in _defaults(known)]
            raise ValueError(
                f"{name}={printed(value)} has no meaning for optimizer={optimizer!r}; it is an axis of "
                f"{', '.join(map(repr, having))} only. Give each optimizer a mapping of its own: "
                f"[{{'optimizer': {optimizer!r}}}, {{'optimizer': {having[-1]!r}, {name!r}: [{printed(value)}]}}]."
            )
        if name in defaults:
            axes[name] = check(name, defaults[name] if value is None else value)
    if optimizer in BY_NAME:  # which values go together is for the class to say
        BY_NAME[optimizer]([torch.zeros(1, requires_grad=True)], **_present(axes))
    return axes


def optimizer_argument(optimizer: str, axes: Mapping[str, Any]) -> str | Callable[..., SharpnessAware]:
    """The argument ``optimizer`` of `train` for the axes of a setting."""
    if optimizer not in BY_NAME:
        return optimizer
    return functools.partial(BY_NAME[optimizer], **_present({name: axes[name] for name in _CHECKS}))


def _defaults(optimizer: str) -> dict[str, Any]:
    """The axes that an optimizer has, with the defaults of its class."""
    if optimizer not in BY_NAME:
        return {}
    parameters = inspect.signature(BY_NAME[optimizer]).parameters
    return {name: parameters[name].default for name in _CHECKS if name in parameters}


def _present(axes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in axes.items() if value is not None}
