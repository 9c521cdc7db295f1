"""Checking what an optimizer is built on: parameters, named parameters or groups of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from renyi_lab._utils.parameters import is_distributed
from renyi_lab._utils.validation import is_iterable

_EXPECTED = "tensors, such as model.parameters(), named tensors, or groups such as [{'params': model.parameters()}]"


def check_entries(params: Any) -> list[Any]:
    """Return ``params`` as a list in which generators are read once, or raise.

    Args:
        params: Tensors, pairs of name and tensor, or group dictionaries.

    Raises:
        ValueError: If there is no tensor, one is given twice, or one is the result of an operation.
        TypeError: If ``params`` is of another kind, or tensors are sharded in a way that is not supported.
    """
    entries = [_checked_group(entry) if isinstance(entry, dict) else entry for entry in _listed("params", params)]
    tensors = list(parameters_in(entries))
    if not tensors:
        raise ValueError("params is empty. A generator can be used only once: pass model.parameters() afresh.")
    _check_tensors(tensors)
    return entries


def check_group_entries(group: Any, present: Iterable[Tensor]) -> None:
    """Raise as `check_entries` does if a further group of an optimizer is wrong; its tensors are put into a list.

    Args:
        group: Dictionary with ``params`` and settings. It may hold no tensor, as in torch.
        present: Tensors that the optimizer has already.
    """
    if not isinstance(group, dict):
        raise TypeError(
            f"param_group must be a dictionary such as {{'params': model.parameters()}}, got {type(group).__name__}."
        )
    group["params"] = _checked_group(group)["params"]  # in place, since the base optimizer holds the same group
    new = list(parameters_in([group]))
    _check_tensors(new)
    known = set(map(id, present))
    if any(id(tensor) in known for tensor in new):
        raise ValueError("params of the group hold a tensor that the optimizer has already.")


def parameters_in(entries: Iterable[Any]) -> Iterator[Any]:
    """The tensors in a list of tensors, (name, tensor) pairs or groups."""
    for entry in entries:
        if isinstance(entry, dict):
            yield from parameters_in(entry["params"])
        else:
            yield entry[1] if isinstance(entry, tuple) else entry


def _checked_group(group: dict[str, Any]) -> dict[str, Any]:
    if "params" not in group:
        raise ValueError(f"a group of params needs the entry 'params' with its tensors, got only {sorted(group)}.")
    inner = group["params"]
    return {**group, "params": [inner] if isinstance(inner, Tensor) else _listed("params of a group", inner)}


def _listed(name: str, params: Any) -> list[Any]:
    if isinstance(params, nn.Module):
        raise TypeError(f"{name} must be {_EXPECTED}; got the module {type(params).__name__}: pass its .parameters().")
    if isinstance(params, Tensor):
        raise TypeError(f"{name} must be several tensors, such as model.parameters(); write [parameter] for one.")
    if isinstance(params, Mapping):
        raise TypeError(f"{name} must be {_EXPECTED}; got a dictionary: write [group] for one, or its .items().")
    if isinstance(params, (set, frozenset)):
        raise TypeError(f"{name} must be in an order that is the same in every run, got a set: pass a list.")
    if isinstance(params, (str, bytes)) or not is_iterable(params):
        raise TypeError(f"{name} must be {_EXPECTED}; got {type(params).__name__}.")
    entries = list(params)
    for position, entry in enumerate(entries):
        if not _is_entry(entry, in_group=name != "params"):
            raise TypeError(f"{name} must be {_EXPECTED}; got {_described(entry)} at position {position}.")
    if len({isinstance(entry, dict) for entry in entries}) > 1:
        raise TypeError(f"{name} must be all tensors or all groups, got both: put the tensors into a group.")
    return entries


def _is_entry(entry: Any, in_group: bool) -> bool:
    if isinstance(entry, dict):
        return not in_group
    if isinstance(entry, tuple):
        return len(entry) == 2 and isinstance(entry[0], str) and isinstance(entry[1], Tensor)
    return isinstance(entry, Tensor)


def _described(entry: Any) -> str:
    if isinstance(entry, tuple):
        return f"({', '.join(type(part).__name__ for part in entry)})"
    return type(entry).__name__


def _check_tensors(tensors: list[Tensor]) -> None:
    if len(set(map(id, tensors))) < len(tensors):
        raise ValueError("params hold a tensor twice, which would move it twice in each step: pass each once.")
    for tensor in tensors:
        if not tensor.is_leaf and not tensor.retains_grad:
            raise ValueError(
                f"params hold a tensor of shape {tuple(tensor.shape)} that is the result of an operation, so that it "
                "gets no .grad: pass the tensors that it was computed from."
            )
        if getattr(tensor, "_is_flat_param", False) or getattr(tensor, "_fsdp_flattened", False):
            raise TypeError(
                "params are sharded by FullyShardedDataParallel (FSDP1), in whose flat parameters a process cannot "
                "tell its part of the gradient from the whole: wrap the model with torch.distributed.fsdp."
                "fully_shard (FSDP2) or torch.nn.parallel.DistributedDataParallel instead."
            )
        if is_distributed(tensor) and tensor.is_complex():
            raise TypeError("params are sharded and complex, which is not supported: shard real parameters only.")
