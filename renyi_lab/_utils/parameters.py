"""Selection of a model's parameters by name, glob, module or tensor, and their flat vector."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from renyi_lab._utils.exclusive import exclusive
from renyi_lab._utils.validation import is_iterable, printed

ParameterSelection: TypeAlias = "str | nn.Module | Tensor | Iterable[str | nn.Module | Tensor] | None"

_SHOWN = 8  # names in a message

_COMPLEX = (
    "parameter {!r} is complex ({}), but a Hessian is one in real numbers: store it as two real numbers per entry, "
    "nn.Parameter(torch.view_as_real(weight.detach())), and use torch.view_as_complex(parameter) in forward(); or "
    "leave it out with params=."
)


@exclusive()
def select_parameters(model: nn.Module, params: ParameterSelection = None) -> dict[str, nn.Parameter]:
    """The selected trainable parameters by name, in the model's order.

    Args:
        model: Any module.
        params: ``None`` for all trainable parameters; or a name (``"0.weight"``), a glob of names of parameters or
            modules (``"*.weight"``, ``"h.*.attn"``), a module or its name (``"0"``), a parameter, or several of these.

    Raises:
        ValueError: Nothing matches, a parameter selected by its full name or as a tensor is frozen, or the selected
            parameters differ in dtype or device, or are in half precision.
        TypeError: ``params`` holds something else.
    """
    available = dict(model.named_parameters(remove_duplicate=False))  # tied weights under all their names
    if not available:
        raise ValueError(
            f"model ({type(model).__name__}) has no parameters, so it has no Hessian; pass a model with weights (where "
            "they were packed by quantisation or torch.jit.freeze, the model from before)."
        )
    choices = _choices(params)
    chosen = {name for choice in choices for name in _names(model, available, choice)}
    inside = {id(available[name]) for name in chosen}
    selected = {name: parameter for name, parameter in _trainable(model).items() if id(parameter) in inside}
    if not selected:
        raise ValueError(
            f"params={_shown(params)} selects no trainable parameter; all of "
            f"{listed(sorted(chosen))} are frozen. Call requires_grad_(True) on those you want."
        )
    check_uniform(selected)
    return selected


class ParameterBlock:
    """Some of a model's parameters by name, looked up afresh at each use, since a model's parameters may be replaced.

    Args:
        model: Any module.
        params: As for `select_parameters`.

    Attributes:
        names: The names, in the model's order.
        shapes: Shapes by name.
        dtype: Data type of all.
        device: Device of all.
        dim: Number of entries.
    """

    def __init__(self, model: nn.Module, params: ParameterSelection = None) -> None:
        selected = select_parameters(model, params)
        first = next(iter(selected.values()))
        self.names, self.dtype, self.device = tuple(selected), first.dtype, first.device
        self.shapes = {name: parameter.shape for name, parameter in selected.items()}
        self.dim = sum(shape.numel() for shape in self.shapes.values())
        self._is_whole = params is None

    @exclusive()
    def of(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """The parameters of ``model`` with these names.

        Raises:
            ValueError: One is missing, frozen, tied to another, or of another shape, dtype or device than before; or
                more are trainable, and all were selected.
        """
        trainable = _trainable(model)
        for name, shape in self.shapes.items():
            if name not in trainable:
                raise ValueError(_CHANGED.format(f"it has no trainable parameter {name!r} of its own any more"))
            found, now = trainable[name], (trainable[name].shape, trainable[name].dtype, trainable[name].device)
            if now != (shape, self.dtype, self.device):
                before = f"{tuple(shape)} {self.dtype} on {self.device}"
                after = f"{tuple(found.shape)} {found.dtype} on {found.device}"
                raise ValueError(_CHANGED.format(f"parameter {name!r} was {before} and is {after}"))
        if self._is_whole and len(trainable) > len(self.shapes):
            new = next(name for name in trainable if name not in self.shapes)
            raise ValueError(_CHANGED.format(f"it has the new trainable parameter {new!r}"))
        return {name: trainable[name] for name in self.names}


_CHANGED = "the model's parameters have changed since the operator was made: {}. Make a new operator for this model."


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad and p.numel()}


def plain_name(name: str) -> str:
    """A name without what wrappers put into it.

    That is ``_orig_mod`` (torch.compile), and in front ``module`` (data-parallel) and ``base_model.model`` (adapters of
    the package ``peft``). The name of a wrapper alone is a pattern for everything inside.
    """
    parts = [part for part in name.split(".") if part != "_orig_mod"]
    while parts[:1] == ["module"] or parts[:2] == ["base_model", "model"]:
        del parts[: 1 if parts[0] == "module" else 2]
    return ".".join(parts) or "*"


def flatten(tensors: Iterable[Tensor], leading: int = 0) -> Tensor:
    """One vector ``(n,)`` from tensors of any shapes, as a detached copy; the first ``leading`` axes are kept.

    Of tensors that are distributed over processes it is the whole.
    """
    return torch.cat([whole(tensor.detach()).reshape(*tensor.shape[:leading], -1) for tensor in tensors], dim=-1)


def is_distributed(tensor: Any) -> bool:
    """Whether a tensor is distributed over the processes of a device mesh, each of which holds a part."""
    kind = type(tensor)
    return kind is not nn.Parameter and kind is not Tensor and _is_distributed_type(kind.__mro__)


@functools.cache
def _is_distributed_type(kinds: tuple[type, ...]) -> bool:
    # By name, because importing torch.distributed.tensor takes longer than importing all of this package.
    return any(kind.__name__ == "DTensor" for kind in kinds)


def whole(tensor: Tensor) -> Tensor:
    """The whole tensor, of which this process may hold a part only."""
    gather: Callable[[], Tensor] | None = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def unflatten(vector: Tensor, like: Iterable[Tensor]) -> list[Tensor]:
    """The inverse of `flatten`: parts shaped like the tensors of ``like``, after any leading axes of ``vector``."""
    return split(vector, [tensor.shape for tensor in like])


def split(vector: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    """Parts of the given shapes, after any leading axes of ``vector``."""
    parts = vector.split([shape.numel() for shape in shapes], dim=-1)
    return [_aligned(part).reshape((*vector.shape[:-1], *shape)) for part, shape in zip(parts, shapes, strict=True)]


def _aligned(part: Tensor) -> Tensor:
    """The part itself where it lies at even positions in memory, as ``torch.view_as_complex`` needs, or a copy."""
    return part.clone() if part.storage_offset() % 2 or any(step % 2 for step in part.stride()[:-1]) else part


def _shown(params: Any) -> str:
    return repr(params) if params is None or isinstance(params, (str, list, tuple)) else f"<{type(params).__name__}>"


def _choices(params: Any) -> list[Any]:
    if params is None or isinstance(params, (str, nn.Module, Tensor)):
        return [params]
    if not is_iterable(params) or getattr(params, "ndim", 1) == 0:
        raise TypeError(f"params must hold names, modules or parameters, got {type(params).__name__}.")
    choices = list(params)
    if any(choice is None for choice in choices):
        raise TypeError("params must hold names, modules or parameters, not None; for all, pass None itself.")
    if not choices:
        raise ValueError("params is empty; name at least one parameter, or pass None for all trainable ones.")
    return choices


def _names(model: nn.Module, available: dict[str, nn.Parameter], choice: Any) -> list[str]:
    if choice is None:
        return list(available)
    if isinstance(choice, str):
        return _names_matching(available, choice)
    if isinstance(choice, nn.Module):
        inside = {id(parameter) for parameter in choice.parameters()}
    elif isinstance(choice, Tensor):
        if not choice.requires_grad:
            raise ValueError("params holds a frozen parameter; call requires_grad_(True) on it or leave it out.")
        inside = {id(choice)}
    else:
        raise TypeError(f"params must hold names, modules or parameters, got {type(choice).__name__}.")
    found = [name for name, parameter in available.items() if id(parameter) in inside]
    if not found:
        raise ValueError(f"params holds a {type(choice).__name__} that has no parameter of the model.")
    return found


def _names_matching(available: dict[str, nn.Parameter], pattern: str) -> list[str]:
    if pattern in available:
        if not available[pattern].requires_grad:
            raise ValueError(
                f"parameter {printed(pattern)} is frozen; call requires_grad_(True) on it or leave it out."
            )
        return [pattern]
    found = [name for name in available if any(fnmatchcase(part, pattern) for part in prefixes(name))]
    found = found or [name for name in available if name.startswith(f"{pattern}.")]
    if not found:
        plain = {plain_name(name): name for name in available}
        if (plain_name(pattern), *plain) != (pattern, *available):  # wrappers: names with and without them
            known = {short: available[name] for short, name in plain.items()}
            return [plain[name] for name in _names_matching(known, plain_name(pattern))]
        raise ValueError(
            f"params={printed(pattern)} is not the name of a parameter or module of the model; "
            f"{names_hint(pattern, available)}"
        )
    return found


def prefixes(name: str) -> list[str]:
    """The name of a parameter and those of the modules that hold it, from the outermost on."""
    parts = name.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def names_hint(pattern: str, available: Iterable[str]) -> str:
    """Names that resemble a pattern, or what there is, as the end of a sentence."""
    known = list(available)
    if any(fnmatchcase(prefix, f"*.{pattern}") for name in known for prefix in prefixes(name)):
        return f"did you mean {f'*.{pattern}'!r}?"
    modules = [prefix for name in known for prefix in prefixes(name)[:-1]]
    close = difflib.get_close_matches(pattern, dict.fromkeys((*known, *modules)), n=3)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else f"there are {listed(known)}."


def listed(names: Iterable[str]) -> str:
    """The first names of a list, and how many more there are."""
    found = list(names)
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more


def check_uniform(selected: Mapping[str, Tensor]) -> None:
    dtypes = {parameter.dtype for parameter in selected.values()}
    devices = {parameter.device for parameter in selected.values()}
    for name, parameter in selected.items():
        if parameter.is_complex():
            raise ValueError(_COMPLEX.format(name, parameter.dtype))
    if len(dtypes) > 1 or len(devices) > 1:
        raise ValueError(
            f"the parameters must share one dtype and one device, got {sorted(map(str, dtypes | devices))}; "
            "move the model with model.to(...)."
        )
    dtype = next(iter(dtypes))
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"second derivatives in {dtype} overflow or vanish; use a copy in single precision: "
            f"copy.deepcopy(model).float()."
        )
