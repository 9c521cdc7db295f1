"""Building, or checking, the optimizer that a sharpness-aware one wraps."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer


def build_base(params: Iterable[Any], base: Any, base_kwargs: dict[str, Any]) -> Optimizer:
    """Return ``base`` built on ``params``, or ``base`` itself when it is an optimizer already built on them."""
    entries = params if isinstance(params, Tensor) else list(params)
    if len(entries) == 0:
        raise ValueError("params is empty. A generator can be used only once: pass model.parameters() afresh.")
    if isinstance(base, type) and issubclass(base, Optimizer):
        built: Optimizer = base(entries, **base_kwargs)
    elif isinstance(base, Optimizer):
        _check_instance(entries, base, base_kwargs)
        built = base
    else:
        raise TypeError(f"base must be a torch.optim class or an optimizer built on the same params, got {base!r}.")
    name = type(built).__name__
    wants_closure = inspect.signature(built.step).parameters["closure"].default is inspect.Parameter.empty
    if wants_closure or getattr(built, "requires_closure", False):
        raise TypeError(f"base {name} needs a closure for its own step: choose another, e.g. torch.optim.SGD.")
    if "rho" in built.defaults:
        raise ValueError(f"base {name} has a hyperparameter rho of its own: choose another, e.g. torch.optim.SGD.")
    return built


def _check_instance(entries: Iterable[Any], base: Optimizer, base_kwargs: dict[str, Any]) -> None:
    if base_kwargs:
        raise TypeError(f"base is already built, so {sorted(base_kwargs)} cannot reach it: set them where it is built.")
    if _identities(entries) != _identities(base.param_groups):
        raise ValueError("base was built on other parameters: build it on params, or pass its class instead.")
    if any("rho" in group for group in base.param_groups):
        raise ValueError(
            "base has groups with a rho, which would hide the rho given here: it is wrapped already. Build a new one, "
            "or, for a rho for each group, pass the groups as params and the optimizer's class as base."
        )


def _identities(entries: Iterable[Any]) -> set[int]:
    """The identities of the parameters in a list of tensors, (name, tensor) pairs or groups."""
    found: set[int] = set()
    for entry in entries:
        if isinstance(entry, dict):
            inner = entry["params"]
            found |= _identities([inner] if isinstance(inner, Tensor) else inner)
        else:
            found.add(id(entry[1] if isinstance(entry, tuple) else entry))
    return found
