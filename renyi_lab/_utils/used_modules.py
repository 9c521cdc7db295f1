"""The modules that a loss function uses: a teacher, a feature extractor, a criterion with a state."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

from torch import nn

_DEPTH = 3  # heuristic: a partial of a function that calls a helper


def modules_used(function: Callable[..., Any]) -> list[nn.Module]:
    """Modules that a function is, is bound to or refers to, each once.

    They are looked for in arguments of partials, attributes of callable objects, and variables of functions.
    """
    found: dict[int, nn.Module] = {}
    waiting: list[tuple[Any, int]] = [(function, 0)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, nn.Module):
            found[id(value)] = value
        elif depth <= _DEPTH:
            waiting += [(part, depth + 1) for part in _parts(value)]
    return list(found.values())


def _parts(value: Any) -> list[Any]:
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, types.MethodType):
        owner = value.__self__
        held = [] if isinstance(owner, (nn.Module, type)) else getattr(owner, "__dict__", {}).values()
        return [owner, value.__func__, *held]
    if isinstance(value, types.FunctionType):
        return _variables(value)
    if isinstance(value, (list, tuple, dict)):
        return [part for part in (value.values() if isinstance(value, dict) else value) if isinstance(part, nn.Module)]
    if callable(value) and not isinstance(value, type):
        return list(getattr(value, "__dict__", {}).values())
    return []


def _variables(function: types.FunctionType) -> list[Any]:
    """Values of a function's closure and defaults, and modules and helpers among the global variables that it names."""
    if function.__module__ == "torch" or str(function.__module__).startswith("torch."):
        return []
    inside = [cell.cell_contents for cell in function.__closure__ or () if _is_set(cell)]
    inside += [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    named = [function.__globals__.get(name) for name in function.__code__.co_names]
    own = [each for each in named if getattr(each, "__module__", "") == function.__module__]
    return inside + [each for each in named if isinstance(each, nn.Module)] + own


def _is_set(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
