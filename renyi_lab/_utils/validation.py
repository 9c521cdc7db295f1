"""Argument checks whose messages name the argument, its value and the fix."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

SMALLEST_DELTA = 1e-200
_LONGEST = 300  # characters of a value in a message


def printed(value: Any) -> str:
    """A caller's value for a message: its start where it is long, and its type where it cannot be printed."""
    try:
        text = repr(value)
    except Exception:
        return f"a value of type {type(value).__name__} that cannot be printed"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def shown(value: Any) -> str:
    """A value and its type for a message."""
    text = printed(value)
    return text if text.endswith("that cannot be printed") else f"{text} of type {type(value).__name__}"


def _short(number: int) -> str:
    """An integer for a message; Python prints none of more than some thousands of digits."""
    return str(number) if abs(number) < 10**30 else "an integer of more than 30 digits"


def check_int(name: str, value: Any, minimum: int = 1, maximum: int = sys.maxsize) -> int:
    """Return ``value`` as an ``int`` in ``[minimum, maximum]`` or raise; torch takes no size or seed beyond 64 bits."""
    if isinstance(value, (bool, np.timedelta64)) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, got {shown(value)}.")
    number = int(value)
    if number < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {_short(number)}.")
    if number > maximum:
        raise ValueError(f"{name} must be at most {maximum}, got {_short(number)}.")
    return number


def is_iterable(value: Any) -> bool:
    """Whether ``value`` can be iterated; arrays and tensors without dimensions only look so."""
    return isinstance(value, Iterable) and getattr(value, "ndim", 1) != 0


def check_number(name: str, value: Any) -> float:
    """Return ``value`` as a ``float``, NaN and infinity included, or raise unless it is a real number."""
    if isinstance(value, (bool, np.timedelta64)) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a real number, got {shown(value)}.")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} must be finite, got an integer or fraction beyond the largest float.") from None


def check_real(
    name: str,
    value: Any,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    *,
    open_minimum: bool = False,
    open_maximum: bool = False,
    allow_infinite: bool = False,
) -> float:
    """Return ``value`` as a ``float`` in the stated interval or raise; NaN is always refused."""
    number = check_number(name, value)
    if math.isnan(number) or (math.isinf(number) and not allow_infinite):
        raise ValueError(f"{name} must be {'a number' if allow_infinite else 'finite'}, got {number}.")
    below = number <= minimum if open_minimum else number < minimum
    above = number >= maximum if open_maximum else number > maximum
    if below or above:
        left = f"{'(' if open_minimum or math.isinf(minimum) else '['}{minimum:g}"
        right = f"{maximum:g}{')' if open_maximum or (math.isinf(maximum) and not allow_infinite) else ']'}"
        raise ValueError(f"{name} must lie in {left}, {right}, got {number:g}.")
    return number


def check_delta(delta: Any) -> float:
    """Return ``delta``, an allowed probability of failure in (0, 1), or raise.

    Bounds divide it by the number of their choices and take the logarithm of the inverse, which needs some room above
    the smallest number.
    """
    number = check_real("delta", delta, 0.0, 1.0, open_minimum=True, open_maximum=True)
    if number < SMALLEST_DELTA:
        raise ValueError(f"delta must be at least {SMALLEST_DELTA:g}, got {number:g}.")
    return number


def check_reals(name: str, values: Any, minimum: float = -math.inf, **limits: Any) -> list[float]:
    """Return ``values`` as a list of floats, each checked by `check_real`, or raise; a single number is refused."""
    if isinstance(values, Real):
        raise TypeError(
            f"{name} must be a sequence of numbers, got {printed(values)}; write [{printed(values)}] for a single one."
        )
    if isinstance(values, str) or not is_iterable(values):
        raise TypeError(f"{name} must be a sequence of numbers, got {shown(values)}.")
    return [check_real(f"each of {name}", value, minimum, **limits) for value in values]


def check_choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """Return ``value`` when it is one of ``choices`` or raise an error that lists them."""
    if isinstance(choices, str) or not is_iterable(choices):
        raise TypeError(f"{name} has no choices: they must be a sequence of texts, got {shown(choices)}.")
    options = tuple(choices)
    if not isinstance(value, str) or value not in options:
        found = repr(value) if isinstance(value, str) else shown(value)
        raise ValueError(f"{name} must be one of {', '.join(map(repr, options))}, got {found}.")
    return str(value)


def check_printable(name: str, value: Any) -> str:
    """Return ``value`` when it is text without line breaks or characters that command a terminal, or raise."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, got {shown(value)}.")
    if not value.isprintable():
        raise ValueError(f"{name} must be printable, got {value!a}; leave control characters out.")
    return value


def check_instance(name: str, value: Any, kind: type | tuple[type, ...], hint: str = "") -> Any:
    """Return ``value`` when it is a ``kind``, or raise ``TypeError`` with a ``hint`` at what to pass."""
    if not isinstance(value, kind):
        kinds = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
        raise TypeError(f"{name} must be a {kinds}, got {type(value).__name__}{'; ' if hint else ''}{hint}.")
    return value


def check_flag(name: str, value: Any) -> bool:
    """Return ``value`` when it is ``True`` or ``False``, also one of NumPy, or raise."""
    if not (isinstance(value, bool) or (type(value).__name__ in ("bool", "bool_") and not isinstance(value, Tensor))):
        raise TypeError(f"{name} must be True or False, got {shown(value)}.")
    return bool(value)


def check_closure(name: str, value: Any, hint: str) -> Callable[[], Any]:
    """Return ``value`` when it can be called without arguments, or raise with a ``hint`` at an example."""
    called = value.forward if isinstance(value, torch.nn.Module) else value
    try:
        inspect.signature(called if callable(called) else check_int).bind()
    except TypeError:
        raise TypeError(f"{name} must be a function without arguments, got {shown(value)}{hint}") from None
    except ValueError:  # some built-in functions do not say what they take
        pass
    return value  # type: ignore[no-any-return]


def check_tensor(name: str, value: Any, device: torch.device) -> Tensor:
    """Return ``value``, detached, when it is a real tensor on the operator's ``device`` or raise."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch tensor, got {type(value).__name__}; use torch.from_numpy for arrays.")
    if value.is_complex() or value.is_quantized:
        raise TypeError(f"{name} must be real, got {value.dtype}.")
    _check_computed(name, value)
    if value.layout is not torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got {value.layout}; use {name}.to_dense().")
    if value.device != device:
        raise ValueError(f"{name} is on {value.device}, the operator on {device}; move it there.")
    return value.detach()


def check_loss_fn(loss_fn: Any) -> None:
    """Raise ``TypeError`` unless ``loss_fn`` takes two arguments; a class of torch makes a loss, it is none."""
    if isinstance(loss_fn, type) and issubclass(loss_fn, torch.nn.Module):
        raise TypeError(f"loss_fn must be a loss, got the class {loss_fn.__name__}; pass {loss_fn.__name__}().")
    if not callable(loss_fn):
        raise TypeError(f"loss_fn must be callable, got {type(loss_fn).__name__}; the order is model, loss_fn, data.")
    called = loss_fn.forward if isinstance(loss_fn, torch.nn.Module) else loss_fn
    try:
        inspect.signature(called).bind(None, None)
    except TypeError:
        raise TypeError(
            f"loss_fn must take two arguments, as in loss_fn(model(x), y), got {type(loss_fn).__name__} with the "
            f"arguments {inspect.signature(called)}."
        ) from None
    except ValueError:  # some built-in functions do not say what they take
        pass


def check_finite(name: str, value: Tensor, causes: str) -> None:
    """Raise ``ValueError`` naming likely ``causes`` when ``value`` holds NaN or infinity."""
    _check_computed(name, value)
    if not bool(torch.isfinite(value).all()):
        shown = f" ({value.item()})" if value.numel() == 1 else ""
        raise ValueError(f"{name} is not finite{shown}. Likely causes: {causes}")


def _check_computed(name: str, value: Tensor) -> None:
    """Raise ``TypeError`` for floating-point dtypes of 8 bits, for which torch has hardly any function."""
    if value.is_floating_point() and value.element_size() == 1:
        raise TypeError(f"{name} must have a dtype that torch computes in, got {value.dtype}; convert it to float32.")


def check_labels(outputs: Tensor, targets: Tensor, ignored: int | None = -100) -> None:
    """Raise when a class label other than ``ignored`` (``None``: any) is outside ``0 … classes − 1``, or complex."""
    if not isinstance(outputs, Tensor):
        raise TypeError(
            f"the model's output must be one tensor, got {type(outputs).__name__}; choose it in the loss, for example "
            "loss_fn=lambda outputs, y: torch.nn.functional.cross_entropy(outputs[0], y)."
        )
    if targets.is_complex():
        raise TypeError(f"targets must be real, such as labels as integers, got {targets.dtype}.")
    if targets.is_floating_point() or outputs.ndim < 2 or targets.numel() == 0:
        return
    num_classes = outputs.shape[1]
    outside = (targets < 0) | (targets >= num_classes)
    wrong = targets[outside if ignored is None else outside & (targets != ignored)]
    if wrong.numel():
        raise ValueError(
            f"targets hold the label {int(wrong[0])}, but the model has {num_classes} outputs (labels 0 to "
            f"{num_classes - 1}); fix the labels or widen the last layer."
        )


def one_logit_hint(scores: Any) -> str:
    """How a classifier with one output per sample is turned into one with class scores; empty for other outputs."""
    if not isinstance(scores, Tensor) or scores.ndim not in (1, 2) or scores.shape[1:] not in ((), (1,)):
        return ""
    return (
        " For a binary classifier with one logit f per sample, pass a network with the scores (0, f), as "
        "torch.stack([torch.zeros_like(f), f], 1) with f of shape (batch,), whose cross-entropy is the binary one, and "
        "the labels as integers of shape (N,), y.long()."
    )
