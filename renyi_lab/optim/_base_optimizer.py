"""Building or checking the base optimizer that a sharpness-aware optimizer steps with."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any

from torch.optim import SGD, Optimizer

from renyi_lab._utils.interrupts import restoring
from renyi_lab._utils.validation import check_real, printed
from renyi_lab.optim._entries import parameters_in

_defaults: ContextVar[dict[str, float] | None] = ContextVar("base_defaults", default=None)


@restoring
def base_defaults(**settings: float) -> Iterator[None]:
    """Give the base optimizers that are made inside the block these hyperparameters where they are not given others.

    That is for functions that take a sharpness-aware class as an argument, as `renyi_lab.train` does. A base that is
    passed as an instance keeps its own values.

    Args:
        **settings: Hyperparameters by name. A class that does not take one is made without it, and ``momentum`` is for
            SGD only.
    """
    token = _defaults.set(settings)
    try:
        yield
    finally:
        _defaults.reset(token)


def default_settings(base: Any) -> dict[str, float]:
    """Those of the settings of `base_defaults` that are for ``base``."""
    settings = _defaults.get()
    if settings is None or not (isinstance(base, type) and issubclass(base, Optimizer)):
        return {}
    parameters = inspect.signature(base).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return {
        name: value
        for name, value in settings.items()
        if (takes_all or name in parameters) and (name != "momentum" or issubclass(base, SGD))
    }


def build_base(entries: Any, base: Any, base_kwargs: dict[str, Any], own_settings: Iterable[str]) -> Optimizer:
    """Return ``base`` built on ``entries``, or ``base`` itself when it is an optimizer already built on them.

    Args:
        entries: List of parameters, named parameters or groups, as `check_entries` returns it.
        base: Class or instance of the base optimizer.
        base_kwargs: Hyperparameters for the class.
        own_settings: Settings that the wrapper writes into each group, which ``base`` must not use itself.
    """
    if isinstance(base, type) and issubclass(base, Optimizer):
        built: Optimizer = base(entries, **base_kwargs)
    elif isinstance(base, Optimizer):
        _check_instance(entries, base, base_kwargs, own_settings)
        built = base
    else:
        raise TypeError(
            f"base must be a torch.optim class or an optimizer built on the same params, got {printed(base)}."
        )
    name = type(built).__name__
    closure = inspect.signature(built.step).parameters.get("closure")  # a step without one is fine
    wants_closure = closure is not None and closure.default is inspect.Parameter.empty
    if wants_closure or getattr(built, "requires_closure", False):
        raise TypeError(f"base {name} needs a closure for its own step: choose another, e.g. torch.optim.SGD.")
    for setting in own_settings:
        if setting in built.defaults:
            raise ValueError(
                f"base {name} has a hyperparameter {setting} of its own: choose another, e.g. torch.optim.SGD."
            )
    return built


def optional_limit(name: str, value: float | None) -> float | None:
    """Return a positive number or ``None``, or raise."""
    return None if value is None else check_real(name, value, 0.0, open_minimum=True)


def _check_instance(
    entries: Iterable[Any], base: Optimizer, base_kwargs: dict[str, Any], own_settings: Iterable[str]
) -> None:
    if base_kwargs:
        raise TypeError(f"base is already built, so {sorted(base_kwargs)} cannot reach it: set them where it is built.")
    if _identities(entries) != _identities(base.param_groups):
        raise ValueError("base was built on other parameters: build it on params, or pass its class instead.")
    hidden = [name for name in own_settings if name not in base.defaults and any(name in g for g in base.param_groups)]
    if hidden:
        raise ValueError(
            f"base has groups with a {hidden[0]}, which would hide the {hidden[0]} given here: it is wrapped already. "
            "Build a new one; or, for different values in different groups, pass the groups as params and the "
            "optimizer's class as base."
        )


def _identities(entries: Iterable[Any]) -> set[int]:
    return set(map(id, parameters_in(entries)))
