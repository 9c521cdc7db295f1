"""Blocks of a model's parameters: by tensor, by the modules that a pattern matches, or by names of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

from torch import Tensor, nn

from renyi_lab._utils.parameters import ParameterSelection, listed, plain_name, select_parameters
from renyi_lab._utils.validation import is_iterable, printed

BlockSelection: TypeAlias = (
    "str | nn.Module | Tensor | Iterable[str | nn.Module | Tensor] | Mapping[str, ParameterSelection] | None"
)

_WHOLE = "whole"


def block_parameters(model: nn.Module, names: Sequence[str], selection: BlockSelection = None) -> dict[str, list[str]]:
    """Names of the parameters in each block, by the block's name.

    Args:
        model: Any module.
        names: The parameters that blocks are made of, by their first names in the model.
        selection: As for `ModelOperator.blocks`.

    Raises:
        ValueError: Nothing is matched, or a block without a parameter.
        TypeError: A selection of another type.
    """
    if selection is None:
        return {name: [name] for name in names}
    if isinstance(selection, str):
        return _matches(model, names, selection)
    if isinstance(selection, (nn.Module, Tensor)):
        selection = [selection]
    if not is_iterable(selection):
        raise TypeError(
            f"blocks must be given by a pattern, modules, a list or a mapping of these, got {type(selection).__name__}."
        )
    named = selection if isinstance(selection, Mapping) else {_name(model, entry): entry for entry in selection}
    if not named:
        raise ValueError("no blocks are asked for: the list is empty; leave it out for one block per parameter.")
    return {name: _inside(name, model, names, params) for name, params in named.items()}


def _inside(name: str, model: nn.Module, names: Sequence[str], params: ParameterSelection) -> list[str]:
    selected = select_parameters(model, params)
    if found := [known for known in names if known in selected]:
        return found
    raise ValueError(f"block {name!r} holds none of the operator's parameters, which are {listed(names)}.")


def _matches(model: nn.Module, names: Sequence[str], pattern: str) -> dict[str, list[str]]:
    """One block for each module or parameter that a name or glob matches, outermost ones only."""
    for repeated in (False, True):  # a tied weight's other names only where its first one does not match
        holders = _holders(model, names, repeated)
        if found := _outermost(holders, lambda name: name == pattern or fnmatchcase(name, pattern)):
            return found
    # Names without what wrappers put into them.
    if found := _outermost(holders, lambda name: fnmatchcase(plain_name(name), plain_name(pattern))):
        return found
    select_parameters(model, pattern)  # raises where nothing matches, or all of it is frozen
    raise ValueError(f"{printed(pattern)} matches none of the operator's parameters, which are {listed(names)}.")


def _outermost(holders: Mapping[str, list[str]], matches: Callable[[str], bool]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, inside in holders.items():  # modules before what is inside them
        parents = (name[:i] for i, letter in enumerate(name) if letter == ".")
        if matches(name) and not any(parent in found for parent in parents):
            found[name] = inside
    return found


def _holders(model: nn.Module, names: Sequence[str], repeated: bool) -> dict[str, list[str]]:
    """Those of the given parameters that each module holds, and that each parameter is.

    Args:
        model: Any module.
        names: The parameters.
        repeated: Whether shared modules and tied parameters have all their names, or the first only.
    """
    first = {id(parameter): name for name, parameter in model.named_parameters() if name in set(names)}
    parts = (
        *((name, list(part.parameters())) for name, part in model.named_modules(remove_duplicate=not repeated)),
        *((name, [part]) for name, part in model.named_parameters(remove_duplicate=not repeated)),
    )
    found = {name: [first[id(p)] for p in inside if id(p) in first] for name, inside in parts if not _wraps(name)}
    return {name: inside for name, inside in found.items() if inside}


def _wraps(name: str) -> bool:
    """Whether a module is the model itself, or the inside of a compiled module of that name."""
    return name.rpartition(".")[2] in ("", "_orig_mod")


def _name(model: nn.Module, entry: Any) -> str:
    if isinstance(entry, str):
        return entry
    if entry is model:
        return _WHOLE
    if not isinstance(entry, (nn.Module, Tensor)):
        raise TypeError(
            f"a list of blocks must hold patterns, modules or parameters, got {type(entry).__name__}; for blocks of "
            "several of these pass a mapping {name: [...]}."
        )
    known: Iterable[tuple[str, Any]] = (*model.named_modules(), *model.named_parameters())
    for name, part in known:
        if part is entry:
            return name
    raise ValueError(f"a {type(entry).__name__} among the blocks is not a part of the model; pass one that is.")
