"""Calling a reader's function safely and reading its answer: whatever goes wrong becomes a hint."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from renyi_lab._utils.interrupts import restoring
from renyi_lab._utils.random import preserved_rng

_MAX_ERROR_LENGTH = 300  # characters: a torch error can fill a screen


class NotAttempted(Exception):
    """A function under test returned nothing."""


class Hint(Exception):
    """Ends the checks; its text is the hint."""


def answer_of(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call the attempt and return its result.

    The random states of torch, NumPy and Python, the gradient mode, the default dtype and the number of threads are
    restored afterwards.

    Args:
        function: The attempt.
        arguments: Positional arguments; an argument that is changed in place gives a hint.

    Raises:
        NotAttempted: It returns nothing, or a value with ``None`` or ``...`` in it.
        Hint: It is not a function, takes other arguments, raises, changes an argument or leaves a setting changed.
    """
    require_function(function, "", len(arguments))
    before = _copied(arguments)
    with _kept_settings() as changed:
        try:
            result = function(*arguments)
        except Hint:  # from a closure of the checker
            raise
        except (Exception, SystemExit) as error:
            raise Hint(f"your code raised {error_text(error)}") from error
    if is_blank(result):
        raise NotAttempted
    if inspect.isgenerator(result) or inspect.iscoroutine(result):
        result.close()
        raise Hint(f"a value is expected, got a {type(result).__name__}: write return instead of yield or async.")
    if changed:
        raise Hint(changed[0])
    for name, old, new in zip(_names(function, len(arguments)), before, _copied(arguments), strict=True):
        if not _equal(old, new):
            raise Hint(f"{name} itself was changed: your function has overwritten its argument. Work on a copy.")
    return result


def require_function(attempt: Any, signature: str, num_arguments: int | None = None) -> None:
    """Raise a `Hint` unless ``attempt`` is a function that can be called with the expected arguments.

    Args:
        attempt: Anything.
        signature: The expected parameters, such as ``"(theta, v)"``, for the hint; may be empty.
        num_arguments: Number of positional arguments. Default: counted in ``signature``.
    """
    if not callable(attempt):
        raise Hint(f"a function is expected, got {type(attempt).__name__}; pass its name, do not call it.")
    if inspect.isclass(attempt):
        raise Hint(f"a function is expected, got the class {attempt.__name__}; pass a function defined with def.")
    if inspect.isgeneratorfunction(attempt) or inspect.iscoroutinefunction(attempt):
        raise Hint("a plain function is expected: write return instead of yield or async.")
    count = len(signature.split(",")) if num_arguments is None else num_arguments
    try:
        found = inspect.signature(attempt)
    except (TypeError, ValueError):  # some built-in functions do not tell
        return
    try:
        found.bind(*range(count))
    except TypeError:
        expected = signature or f"{count} argument{'' if count == 1 else 's'}"
        raise Hint(
            f"your code raised TypeError: the function is called with {expected}, in this order, but yours takes "
            f"{found}."
        ) from None


def number_of(answer: Any) -> float:
    """The answer as a ``float``; raises `Hint` if it is not one real number."""
    try:
        value = answer.item() if isinstance(answer, (Tensor, np.ndarray)) else answer
        if isinstance(value, (str, bytes, complex)) or (isinstance(answer, (Tensor, np.ndarray)) and answer.ndim):
            raise TypeError
        return float(value)
    except Exception:
        raise Hint(f"one number is expected, got {described(answer)}.") from None


def tensor_of(answer: Any, shape: Iterable[int], dtype: torch.dtype | None = None) -> Tensor:
    """The answer as a dense tensor in double precision on the CPU.

    Args:
        answer: What the attempt returned.
        shape: The expected shape.
        dtype: The expected dtype, if another one loses digits.

    Raises:
        Hint: It is not a tensor of this shape, holds no floating-point numbers, or has another dtype than expected.
    """
    if not isinstance(answer, Tensor) or answer.shape != tuple(shape):
        raise Hint(f"a tensor of shape {tuple(shape)} is expected, got {described(answer)}.")
    if not answer.is_floating_point():
        raise Hint(f"a tensor of floating-point numbers is expected, got dtype {answer.dtype}.")
    if dtype is not None and answer.dtype != dtype:
        raise Hint(f"the answer has dtype {answer.dtype}, the arguments have {dtype}: where are the digits lost?")
    dense = answer.detach() if answer.layout == torch.strided else answer.detach().to_dense()
    return dense.cpu().double()


def described(answer: Any) -> str:
    """Type and shape of an answer, for a hint."""
    shape = getattr(answer, "shape", None)
    return type(answer).__name__ + (f" of shape {tuple(shape)}" if isinstance(shape, tuple) else "")


def error_text(error: BaseException) -> str:
    """Type and first line of an error; an error whose text cannot be made gives its type."""
    try:
        line = next(iter(str(error).splitlines()), "")
    except Exception:
        line = ""
    short = line if len(line) <= _MAX_ERROR_LENGTH else line[:_MAX_ERROR_LENGTH] + " …"
    return f"{type(error).__name__}: {short}"


def is_blank(attempt: Any) -> bool:
    """Whether an attempt is ``None`` or ``...`` or contains one of these."""
    if isinstance(attempt, Mapping):
        return any(map(is_blank, attempt.values()))
    if isinstance(attempt, (tuple, list)):
        return any(map(is_blank, attempt))
    return attempt is None or attempt is Ellipsis


@restoring
def _kept_settings() -> Iterator[list[str]]:
    """Restore random states and settings; the list says afterwards which settings of torch were left changed."""
    grad, dtype, threads = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads()
    changed: list[str] = []
    try:
        with preserved_rng(), np.errstate():
            yield changed
    finally:
        if torch.is_grad_enabled() != grad:
            changed.append("your function leaves the gradient mode changed; use with torch.no_grad(): instead.")
        if torch.get_default_dtype() != dtype:
            changed.append("your function leaves torch's default dtype changed; name the dtype where it is needed.")
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def _copied(value: Any) -> Any:
    """A copy of the data in an argument, to compare with; functions and other objects are not looked into."""
    if isinstance(value, Tensor):
        return [value.detach().clone(), value.requires_grad]
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, nn.Module):
        state: dict[str, Any] = {name: tensor.detach().clone() for name, tensor in value.state_dict().items()}
        flags = [parameter.requires_grad for parameter in value.parameters()]
        return state | {"": [*flags, *(module.training for module in value.modules())]}
    if isinstance(value, Mapping):
        return {key: _copied(part) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return [_copied(part) for part in value]
    return value if isinstance(value, (int, float, str)) else None


def _equal(old: Any, new: Any) -> bool:
    if isinstance(old, (Tensor, np.ndarray)):
        before, after = np.asarray(old), np.asarray(new)
        same_form = old.shape == new.shape and old.dtype == new.dtype
        return same_form and np.array_equal(before, after, equal_nan=before.dtype.kind in "fc")  # text has no NaN
    if isinstance(old, list):
        return len(old) == len(new) and all(map(_equal, old, new))
    if isinstance(old, dict):
        return list(old) == list(new) and all(map(_equal, old.values(), new.values()))
    return bool(old == new)


def _names(function: Callable[..., Any], count: int) -> list[str]:
    """The names of the first parameters, as the reader wrote them."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    simple = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][:count]
    return simple + [f"number {index + 1}" for index in range(len(simple), count)]
