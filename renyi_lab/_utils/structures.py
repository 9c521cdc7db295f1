"""The tensors inside a batch: nested tuples, lists, mappings, dataclasses and other objects with attributes."""

from __future__ import annotations

import copy
import dataclasses
import types
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn


def map_tensors(content: Any, function: Any) -> Any:
    """Apply ``function`` to every tensor, in copies of the containers; everything else is kept as it is.

    Containers are tuples (named ones too), lists, mappings, dataclasses, and objects that hold tensors in attributes,
    such as graphs of torch_geometric; each keeps its type.
    """
    return _mapped(content, function, ())


def _mapped(content: Any, function: Callable[[Tensor], Any], outer: tuple[int, ...]) -> Any:
    if isinstance(content, Tensor):
        return function(content)
    parts = _parts(content)
    if parts is None:
        return content
    if id(content) in outer:
        raise TypeError(
            f"a batch holds a {type(content).__name__} that refers back to itself; pass its tensors in a dictionary."
        )
    inner = (*outer, id(content))
    return rebuilt(content, {key: _mapped(part, function, inner) for key, part in parts.items()})


def tensors_in(content: Any) -> list[Tensor]:
    """All tensors in a batch, as `map_tensors` finds them."""
    return [leaf for leaf in leaves(content) if isinstance(leaf, Tensor)]


def leaves(content: Any) -> list[Any]:
    """Everything in a batch that is not a container: tensors, and what `map_tensors` keeps."""
    found: list[Any] = []
    waiting: list[Any] = [content]
    seen: list[Any] = []
    while waiting:
        part = waiting.pop()
        inside = None if isinstance(part, Tensor) else _parts(part)
        if inside is None:
            found.append(part)
        elif not any(part is container for container in seen):
            seen.append(part)
            waiting += reversed(inside.values())
    return found


def take_rows(tensor: Tensor, start_or_indices: slice | Tensor) -> Tensor:
    """``tensor[...]`` along the first dimension, for sparse tensors too."""
    if tensor.layout == torch.strided:
        rows: Tensor = tensor[start_or_indices]
        return rows
    indices = start_or_indices
    if isinstance(indices, slice):
        indices = torch.arange(len(tensor), device=tensor.device)[indices]
    rows = tensor.to_sparse_coo().index_select(0, indices)
    return rows if tensor.layout == torch.sparse_coo else rows.to_sparse(layout=tensor.layout)


def join_rows(first: Tensor, second: Tensor) -> Tensor:
    """``torch.cat`` along the first dimension, for sparse tensors too; ``second`` has the layout of ``first``."""
    if first.layout in (torch.strided, torch.sparse_coo):
        return torch.cat([first, second])
    return torch.cat([first.to_sparse_coo(), second.to_sparse_coo()]).to_sparse(layout=first.layout)


def rows(content: Any, start_or_indices: slice | Tensor) -> Any:
    """`take_rows` of every tensor in a structure; those without dimensions are kept."""
    return map_tensors(content, lambda tensor: take_rows(tensor, start_or_indices) if tensor.ndim else tensor)


def _parts(content: Any) -> dict[Any, Any] | None:
    """What a container holds, by key; ``None`` for everything else."""
    if isinstance(content, Mapping):
        return dict(content.items())  # not by iteration, which goes over samples in some libraries
    if isinstance(content, (tuple, list)):
        return dict(enumerate(content))
    if _is_opaque(content):
        return None
    # Only what holds tensors, since an object's other attributes may refer to anything.
    held = {name: part for name, part in _attributes(content).items() if _holds_tensors(part)}
    return held or None


def _is_opaque(content: Any) -> bool:
    """Whether nothing is looked for inside: values, classes, modules of torch and Python, iterators and data sets."""
    return (
        isinstance(content, (type, types.ModuleType, nn.Module, torch.utils.data.Dataset, torch.utils.data.DataLoader))
        or hasattr(content, "__next__")
        or not (dataclasses.is_dataclass(content) or hasattr(content, "__dict__"))
    )


def _holds_tensors(part: Any, depth: int = 4) -> bool:
    if isinstance(part, Tensor):
        return True
    if depth == 0:
        return False
    if isinstance(part, Mapping):
        return any(_holds_tensors(inner, depth - 1) for inner in part.values())
    if isinstance(part, (tuple, list)):
        return any(_holds_tensors(inner, depth - 1) for inner in part)
    if _is_opaque(part):
        return False
    return any(_holds_tensors(inner, depth - 1) for inner in _attributes(part).values())


def _attributes(content: Any) -> dict[str, Any]:
    if not dataclasses.is_dataclass(content):
        return dict(vars(content))
    names = [field.name for field in dataclasses.fields(content)]
    return {name: getattr(content, name) for name in names if hasattr(content, name)}


def rebuilt(content: Any, parts: dict[Any, Any]) -> Any:
    """A container of the same type as ``content`` with other parts, by index, key or name."""
    if isinstance(content, (tuple, list)):
        values = list(parts.values())
        return type(content)(*values) if hasattr(content, "_fields") else type(content)(values)
    if isinstance(content, Mapping) and not isinstance(content, MutableMapping):
        return parts
    rebuilt = copy.copy(content)
    for key, part in parts.items():
        if isinstance(content, MutableMapping):
            rebuilt[key] = part
        else:
            object.__setattr__(rebuilt, key, part)  # frozen dataclasses too, without running their checks again
    return rebuilt
