"""What a forward pass may change in a module: attributes, buffers, counters, caches, its own random generators."""

from __future__ import annotations

import copy
import enum
import operator
import random
import types
from collections import deque
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_OWN_ATTRIBUTES = frozenset(vars(nn.Module()))  # those of every module, such as `_modules` and `training`
_CONTAINERS = (list, dict, set, deque)
# Heuristics: a configuration has few levels, and long lists hold data.
_DEPTH, _LENGTH = 3, 1000
_CONSTANTS = (bool, int, float, str, bytes, tuple, type(None), torch.dtype, torch.device)
_OPAQUE = (nn.Module, Tensor, types.ModuleType, enum.Enum, np.ndarray, torch.utils.data.Dataset, torch.optim.Optimizer)
_GENERATORS: dict[type, tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]] = {
    torch.Generator: (torch.Generator.get_state, torch.Generator.set_state),
    random.Random: (random.Random.getstate, random.Random.setstate),
    np.random.RandomState: (np.random.RandomState.get_state, np.random.RandomState.set_state),
    np.random.Generator: (
        lambda generator: generator.bit_generator.state,
        lambda generator, state: setattr(generator.bit_generator, "state", state),
    ),
}


class ModuleSnapshot:
    """The attributes of modules, and the contents of their buffers and of lists, dictionaries and sets among them.

    Tensors are not copied by a snapshot: `use_copies` lets a forward pass run on copies instead, so that the modules'
    own tensors are never written to.

    Args:
        modules: The modules, each once.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._attributes: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._containers: list[tuple[Any, Any]] = []
        self._generators: list[tuple[Any, Any]] = []
        self._tensors: list[tuple[MutableMapping[str, Any], str, Tensor]] = []
        for module in modules:
            attributes = vars(module)
            self._attributes.append((attributes, dict(attributes)))
            for container in (module._buffers, module._parameters):
                if isinstance(container, dict):  # scripted modules hold theirs in C++
                    self._containers.append((container, dict(container)))
            self._note_tensors(module._buffers, module._buffers)
            own = own_attributes(module)
            for value in own.values():
                if type(value) in _GENERATORS:
                    self._generators.append((value, _GENERATORS[type(value)][0](value)))
            self._note_tensors(attributes, own)
        for container in containers_in(map(own_attributes, modules)):
            self._containers.append((container, copy.copy(container)))
            if not isinstance(container, set):
                self._note_tensors(container, container if isinstance(container, dict) else dict(enumerate(container)))

    def _note_tensors(self, mapping: Any, chosen: Any) -> None:
        for name, value in chosen.items():
            if isinstance(value, Tensor) and not value.requires_grad:
                self._tensors.append((mapping, name, value))

    def restore(self) -> None:
        """Give every module the attributes, and every container and generator the contents, that it had."""
        for attributes, before in self._attributes:
            attributes.update(before)
        self._restore_contents()

    def _restore_contents(self) -> None:
        for attributes, before in self._attributes:
            for name in attributes.keys() - before.keys():
                del attributes[name]
        for container, content in self._containers:
            if not _same_content(container, content):
                container.clear()
                container.extend(content) if isinstance(container, (list, deque)) else container.update(content)
        for mapping, name, tensor in self._tensors:
            mapping[name] = tensor
        for generator, state in self._generators:
            _GENERATORS[type(generator)][1](generator, state)

    def use_copies(self) -> None:
        """`restore`, but with a fresh copy in place of each buffer and of each tensor among the attributes.

        Counters, attributes that are numbers, go on counting until `restore`.
        """
        for attributes, before in self._attributes:
            attributes.update({name: value for name, value in before.items() if type(value) not in (int, float)})
        self._restore_contents()
        copies: dict[int, Tensor] = {}
        for mapping, name, tensor in self._tensors:
            if id(tensor) not in copies:
                copies[id(tensor)] = tensor.detach().clone()
            mapping[name] = copies[id(tensor)]


def own_attributes(module: nn.Module) -> dict[str, Any]:
    """The attributes of a module that its class defines, beside those of every `torch.nn.Module`."""
    return {name: value for name, value in vars(module).items() if name not in _OWN_ATTRIBUTES}


def containers_in(attributes: Iterable[dict[str, Any]]) -> list[Any]:
    """Lists, deques, dictionaries and sets among modules' attributes, and those inside them, each once.

    Of objects that only hold attributes, such as configurations, it is the dictionary of these.
    """
    found: list[Any] = []
    waiting = [(value, 0) for own in attributes for value in own.values() if type(value) not in _CONSTANTS]
    seen: set[int] = set()
    while waiting:
        value, depth = waiting.pop()
        container = value if isinstance(value, _CONTAINERS) else _plain_attributes(value)
        if container is None or id(value) in seen:
            continue
        seen.add(id(value))
        found.append(container)
        if depth < _DEPTH and len(container) <= _LENGTH:
            inside = container.values() if isinstance(container, dict) else container
            waiting += [(part, depth + 1) for part in inside if type(part) not in _CONSTANTS]
    return found


def _plain_attributes(value: Any) -> dict[str, Any] | None:
    """The attributes of an object that is not callable."""
    if isinstance(value, _OPAQUE) or callable(value):
        return None
    return getattr(value, "__dict__", None)


def _same_content(container: Any, content: Any) -> bool:
    if len(container) != len(content):
        return False
    if isinstance(container, set):
        return bool(container == content)
    same_keys = all(map(operator.is_, container, content))
    return same_keys and (
        not isinstance(container, dict) or all(map(operator.is_, container.values(), content.values()))
    )
