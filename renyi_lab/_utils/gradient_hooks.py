"""Evaluation without hooks that change gradients: a derivative is then that of the loss alone.

A hook on a parameter (``p.register_hook(lambda g: g.clamp(-1, 1))``), on a module (``register_full_backward_hook``) or
on a tensor of the forward pass replaces a gradient by something that is not the derivative of any loss. Forward hooks
are a part of the function and stay, as do the hooks by which FSDP brings weights together. `Tensor.retain_grad` has no
effect either: under double backward the gradient that it stores is a reference cycle, so that memory would leak.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from renyi_lab._utils.interrupts import restoring

_MODULE_HOOKS = ("_backward_hooks", "_backward_pre_hooks")
_GLOBAL_HOOKS = ("_global_backward_hooks", "_global_backward_pre_hooks")
_TENSOR_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")
_REGISTRATIONS = ("register_hook", "register_post_accumulate_grad_hook", "retain_grad")

_lock = threading.Lock()
_without_hooks: Counter[int] = Counter()  # Python threads inside `no_new_hooks`
_own: dict[str, Any] = {}  # torch's methods while they are replaced


@restoring
def suspended_hooks(parameters: Iterable[Tensor], modules: Iterable[nn.Module] = ()) -> Iterator[None]:
    """No hook that is registered now is called inside the block; all are there again afterwards.

    The dictionaries that hold the hooks stay the same objects, since autograd and the handles refer to them.

    Args:
        parameters: Tensors whose hooks are suspended.
        modules: Modules whose backward hooks are suspended, and with them the global ones.
    """
    holders: list[Any] = [getattr(parameter, name) for parameter in parameters for name in _TENSOR_HOOKS]
    holders += [getattr(nn.modules.module, name) for name in _GLOBAL_HOOKS]
    holders += [vars(module).get(name) for module in modules for name in _MODULE_HOOKS]
    suspended = [(holder, list(holder.items())) for holder in holders if holder]
    try:
        for holder, _ in suspended:
            holder.clear()
        yield
    finally:
        for holder, hooks in suspended:
            holder.clear()
            holder.update(hooks)


@restoring
def no_new_hooks() -> Iterator[None]:
    """Let forward passes of this Python thread register hooks on tensors without effect."""
    me = threading.get_ident()
    with _lock:
        if not _without_hooks.total():
            for name in _REGISTRATIONS:
                _own[name] = vars(Tensor).get(name)
                setattr(Tensor, name, _ignoring(name, getattr(Tensor, name)))
        _without_hooks[me] += 1
    try:
        yield
    finally:
        with _lock:
            _without_hooks[me] -= 1
            if not _without_hooks.total():
                for name in _REGISTRATIONS:
                    if _own[name] is None:
                        delattr(Tensor, name)  # inherited
                    else:
                        setattr(Tensor, name, _own[name])


def _gathers_weights(*arguments: Any) -> bool:
    """Whether the hook is one by which torch brings sharded weights together for a backward pass."""
    return any(str(getattr(hook, "__module__", "")).startswith("torch.distributed.fsdp") for hook in arguments)


def _ignoring(name: str, method: Any) -> Any:
    def register(tensor: Tensor, *arguments: Any, **keywords: Any) -> Any:
        if not _without_hooks[threading.get_ident()] or _gathers_weights(*arguments):
            return method(tensor, *arguments, **keywords)
        return None if name == "retain_grad" else RemovableHandle(OrderedDict())

    return register
