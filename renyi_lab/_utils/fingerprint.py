"""What a graph was built from, to tell whether it still belongs to the model."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from renyi_lab._utils.module_snapshot import containers_in, own_attributes
from renyi_lab._utils.stored_values import StoredValues

Attributes = dict[str, Any]

_PLAIN = (bool, int, float, complex, str, bytes)


class Fingerprint:
    """The modules, weights, buffers and settings that a graph was built from.

    Identities and version numbers reveal the changes that autograd would refuse or ignore, such as weights or layers
    that were replaced; values those that it cannot see and would silently give a wrong Hessian for, such as
    ``parameter.data.add_(...)`` or ``model.scale = 2``. Comparing costs far less than a product.

    Args:
        roots: The model, and further modules that the loss uses.
    """

    def __init__(self, roots: Sequence[nn.Module]) -> None:
        self._modules = _modules(roots)
        self._parameters = [parameter for module in self._modules for parameter in module._parameters.values()]
        self._versions = _versions(self._parameters)
        own = [own_attributes(module) for module in self._modules]
        self._settings = _settings(self._modules, own)
        self._values = StoredValues(_state(self._modules, own))
        self._attributes = [_entries(module) for module in self._modules]
        self._own = own

    def matches(self, roots: Sequence[nn.Module]) -> bool:
        """Whether the modules are the same, and unchanged, with the weights in the same memory."""
        modules = _modules(roots)
        if not _identical(modules, self._modules):
            return False
        parameters = [parameter for module in modules for parameter in module._parameters.values()]
        own = [
            known if _same_entries(_entries(module), before) else own_attributes(module)
            for module, before, known in zip(modules, self._attributes, self._own, strict=True)
        ]
        return (
            _identical(parameters, self._parameters)
            and _versions(parameters) == self._versions
            and _same(_settings(modules, own), self._settings)
            and self._values.match(_state(modules, own))
        )


def _modules(roots: Sequence[nn.Module]) -> list[nn.Module]:
    return [module for root in roots for module in root.modules()]


def _identical(some: Sequence[Any], others: Sequence[Any]) -> bool:
    return len(some) == len(others) and all(map(operator.is_, some, others))


def _entries(module: nn.Module) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    return tuple(vars(module)), tuple(vars(module).values())


def _same_entries(some: tuple[Any, Any], others: tuple[Any, Any]) -> bool:
    return bool(some[0] == others[0]) and _identical(some[1], others[1])


def _versions(parameters: Sequence[Tensor | None]) -> list[tuple[int, int, bool]]:
    return [(p.data_ptr(), p._version, p.requires_grad) for p in parameters if p is not None]


def _state(modules: Sequence[nn.Module], attributes: Sequence[Attributes]) -> list[Tensor]:
    """Weights, buffers and plain tensors among the attributes; those with a graph are derived from others."""
    tensors: dict[int, Tensor] = {}
    for module, own in zip(modules, attributes, strict=True):
        plain = (v for v in own.values() if isinstance(v, Tensor) and not v.requires_grad)
        for tensor in (*module._parameters.values(), *module._buffers.values(), *plain):
            if tensor is not None:
                tensors[id(tensor)] = tensor  # tied weights once
    for container in containers_in(attributes):
        for part in container.values() if isinstance(container, dict) else container:
            if isinstance(part, Tensor) and not part.requires_grad:
                tensors[id(part)] = part
    return [tensor.detach() for tensor in tensors.values()]


def _settings(modules: Sequence[nn.Module], attributes: Sequence[Attributes]) -> tuple[Any, ...]:
    hooks = [
        hook for module in modules for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    ]
    return (*map(_frozen, attributes), *map(_frozen, containers_in(attributes)), tuple(hooks))


def _frozen(container: Any) -> tuple[Any, ...]:
    """The content of a container as a tuple that later changes do not reach, without tensors."""
    content = (*container, *container.values()) if isinstance(container, dict) else container
    return tuple(_array(part) for part in content if not isinstance(part, Tensor))


def _array(value: Any) -> Any:
    return value.tobytes() if isinstance(value, np.ndarray) else value


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, _PLAIN) and bool(one == other)
