"""Everything public, found by introspection: functions, classes, and public methods and properties of classes."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import renyi_lab

# Names that are not called, with their members, each with its reason.
EXCLUDED = {
    "renyi_lab.cli.main": "reads the command line; has tests of its own",
    "renyi_lab.course.train_network": "trains for many seconds; its only argument is the progress bar",
    "renyi_lab.widgets.Explorer": "a base class: its subclasses say how to draw",
}
# Members that belong to another call: inside evaluation_point(), which restores what they change; hooks of subclasses.
PARTS = ("batch_loss", "outputs", "output_loss", "differentiation")  # inside evaluation_point()
PARTS += ("check_group", "perturbation", "combine", "scales")
# The forward pass of a network, whose inputs are checked by torch: it is called with plausible arguments only.
INNER = frozenset(("renyi_lab.models.TwoLayer.forward",))


@dataclass(frozen=True)
class Target:
    """Something that is called.

    Attributes:
        name: Full name, such as ``"renyi_lab.Spectrum.density"``.
        kind: ``"function"``, ``"class"``, ``"method"`` or ``"property"``.
        function: What is called; for a property its getter.
        owners: For methods and properties, the names of the classes that have it.
        parameters: Without ``self``.
    """

    name: str
    kind: str
    function: Any
    owners: tuple[str, ...]
    parameters: tuple[inspect.Parameter, ...]

    @property
    def only_plausible(self) -> bool:
        """Whether hostile arguments are left out."""
        return self.name in INNER

    @property
    def documentation(self) -> str:
        """The docstring; for a class, that of its constructor too."""
        own = inspect.getdoc(self.function) or ""
        return own + (inspect.getdoc(self.function.__init__) or "" if self.kind == "class" else "")


def public_modules() -> list[types.ModuleType]:
    """The package and its public modules."""
    found = pkgutil.walk_packages(renyi_lab.__path__, "renyi_lab.")
    names = [info.name for info in found if not any(part.startswith("_") for part in info.name.split("."))]
    return [renyi_lab, *map(importlib.import_module, names)]


def public_names(module: types.ModuleType) -> list[str]:
    """``__all__``, or what the module defines itself without an underscore."""
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    return list(getattr(module, "__all__", sorted(name for name in own if not name.startswith("_"))))


def signature(function: Any) -> tuple[inspect.Parameter, ...]:
    """Parameters without ``self``; none where Python cannot tell, as for exceptions."""
    try:
        found = inspect.signature(function).parameters.values()
    except ValueError:
        return ()
    return tuple(parameter for parameter in found if parameter.name not in ("self", "cls"))


def members(owner: type) -> Iterator[tuple[str, str, Any]]:
    """``(name, kind, function)`` of the public members that a class of the package, or a base in it, defines."""
    bases = [base for base in owner.__mro__ if base.__module__.startswith("renyi_lab")]
    for name in sorted({name for base in bases for name in vars(base)}):
        found = next(vars(base)[name] for base in bases if name in vars(base))
        if name.startswith("_") and name not in ("__matmul__", "__len__", "__float__", "__getitem__", "__call__"):
            continue
        if isinstance(found, (property, functools.cached_property)):
            yield name, "property", found.fget if isinstance(found, property) else found.func
        elif isinstance(found, (staticmethod, classmethod)):
            yield name, "function", getattr(owner, name)
        elif inspect.isfunction(found) and name not in PARTS:
            yield name, "method", found


@functools.cache
def targets() -> tuple[Target, ...]:
    """All targets, sorted by name; a member that several classes inherit is one target."""
    places: dict[Any, str] = {}
    for module in public_modules():
        for name in public_names(module):
            value = getattr(module, name)
            if callable(value) and str(getattr(value, "__module__", "")).startswith("renyi_lab"):
                places.setdefault(value, f"{module.__name__}.{name}")
    places = {value: name for value, name in places.items() if not inspect.isabstract(value)}
    found = {
        name: Target(name, "class" if inspect.isclass(f) else "function", f, (), signature(f))
        for f, name in places.items()
    }
    by_function: dict[Any, Target] = {}
    for owner, place in places.items():
        if not inspect.isclass(owner):
            continue
        for name, kind, function in members(owner):
            key = getattr(function, "__func__", function)
            earlier = by_function.get(key, Target(f"{place}.{name}", kind, function, (), signature(function)))
            by_function[key] = Target(earlier.name, kind, function, (*earlier.owners, place), earlier.parameters)
    found |= {target.name: target for target in by_function.values()}
    kept = [name for name in sorted(found) if not {name, name.rpartition(".")[0]} & EXCLUDED.keys()]
    return tuple(found[name] for name in kept)
