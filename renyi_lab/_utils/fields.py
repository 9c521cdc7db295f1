"""Checks of the fields of records: that each has the type of its annotation."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from renyi_lab._utils.arrays import real_array
from renyi_lab._utils.validation import check_choice, check_flag, check_instance, check_int, check_number, shown


def check_fields(record: Any) -> None:
    """Raise ``TypeError`` unless every field of a dataclass has its annotation's type, for use in ``__post_init__``.

    Numbers become those of Python and sequences tuples or lists; numbers may be NaN or infinite. What else a value must
    satisfy is left to the class.
    """
    hints = _hints(record.__class__)
    for field in fields(record):
        value = getattr(record, field.name)
        checked = _checked(field.name, value, hints[field.name])
        if checked is not value:
            object.__setattr__(record, field.name, checked)


def check_vectors(record: Any, *names: str) -> None:
    """Raise unless these fields of a record are vectors of one length, with at least one entry."""
    shapes = [getattr(record, name).shape for name in names]
    if len(shapes[0]) != 1 or shapes[0][0] == 0 or len(set(shapes)) > 1:
        found = ", ".join(map(str, shapes))
        raise ValueError(f"{' and '.join(names)} must be vectors of one length with at least one entry, got {found}.")


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _checked(name: str, value: Any, hint: Any) -> Any:
    if hint in _SIMPLE:
        return _SIMPLE[hint](name, value)
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if hasattr(kind, "__value__"):  # an alias made by the statement `type`, as NumPy's NDArray since 2.5
        return _checked(name, value, kind.__value__[parts] if parts else kind.__value__)
    if kind in (Union, types.UnionType):
        return _one_of(name, value, parts)
    if kind is Literal:
        return check_choice(name, value, parts)
    if kind is np.ndarray:
        return _array(name, value, parts)
    if kind in (tuple, list):
        return _sequence(name, value, kind, parts)
    if kind is Callable:
        if not callable(value):
            raise TypeError(f"{name} must be callable, got {shown(value)}.")
        return value
    check_instance(name, value, kind)
    if issubclass(kind, Mapping):
        for key, item in value.items():
            _checked(f"each key of {name}", key, parts[0])
            _checked(f"each value of {name}", item, parts[1])
    return value


def _one_of(name: str, value: Any, hints: tuple[Any, ...]) -> Any:
    """``None`` where that is allowed, or a value of one of the types."""
    others = [hint for hint in hints if hint is not types.NoneType]
    if value is None and len(others) < len(hints):
        return None
    if len(others) == 1:
        return _checked(name, value, others[0])
    return check_instance(name, value, tuple(others))


def _array(name: str, value: Any, parts: tuple[Any, ...]) -> Any:
    """An array as it is, where it has the annotation's type, since it may be large."""
    kind = get_args(parts[1])[0]
    if type(value) is np.ndarray and value.dtype.type is kind:
        return value
    if kind is not np.float64:
        raise TypeError(f"{name} must be an array of {kind.__name__}, got {shown(value)}.")
    return real_array(name, value)


def _sequence(name: str, value: Any, kind: type, parts: tuple[Any, ...]) -> Any:
    """A tuple or list whose entries are checked too."""
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise TypeError(f"{name} must be a {kind.__name__}, got {shown(value)}.")
    fixed = kind is tuple and parts[-1] is not Ellipsis
    if fixed and len(value) != len(parts):
        raise ValueError(f"{name} must hold {len(parts)} values, got {len(value)}.")
    hints = parts if fixed else [parts[0]] * len(value)
    checked = [_checked(f"each of {name}", item, hint) for item, hint in zip(value, hints, strict=True)]
    same = type(value) is kind and all(old is new for old, new in zip(value, checked, strict=True))
    return value if same else kind(checked)


_SIMPLE: dict[Any, Callable[[str, Any], Any]] = {
    bool: check_flag,
    int: lambda name, value: check_int(name, value, minimum=-sys.maxsize),
    float: check_number,
    str: lambda name, value: check_instance(name, value, str),
    Any: lambda name, value: value,
}
