"""One step of an optimizer on one batch."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from renyi_lab._utils.interrupts import atomic, interruptible
from renyi_lab.optim import SharpnessAware, statistics_once

Passes = list[tuple[Any, float]]


def take_step(model: nn.Module, optimizer: Optimizer, forward: Callable[[], tuple[Any, Tensor]]) -> Passes:
    """One optimizer step; outputs and loss of every pass that the optimizer asked for, that at θ first.

    Args:
        model: The model.
        optimizer: Optimizer of its parameters.
        forward: Returns outputs and loss of the batch at the current weights.

    Raises:
        TypeError: The optimizer did not call the closure that it was given.
    """
    passes: Passes = []

    @interruptible
    def closure() -> Any:
        with torch.enable_grad():
            optimizer.zero_grad()
            once = statistics_once(optimizer, model) if isinstance(optimizer, SharpnessAware) else None
            with once or contextlib.nullcontext():
                outputs, loss = forward()
            loss.backward()
        passes.append((outputs, float(loss.detach())))
        return loss

    step: Callable[..., Any] = optimizer.step
    by_keyword = _closure_by_keyword(optimizer)
    if by_keyword is None:
        closure()
        _call(step)
    else:
        _call(step, closure=closure) if by_keyword else _call(step, closure)
    if not passes:
        raise TypeError(
            f"{type(optimizer).__name__}.step(closure) did not call its closure, so there is no gradient; call it, or "
            "let step take no closure."
        )
    return passes


@atomic
def _call(step: Callable[..., Any], *closure: Any, **named: Any) -> None:
    """Let no interrupt come between the updates of two weights."""
    step(*closure, **named)


def _closure_by_keyword(optimizer: Optimizer) -> bool | None:
    """Whether ``step`` takes its closure by keyword only; ``None`` where it takes none, as in ``step(self)``."""
    step: Any = optimizer.step
    named = dict(inspect.signature(step).parameters)
    if not inspect.ismethod(step) and inspect.unwrap(step) is inspect.unwrap(type(optimizer).step):
        named.pop(next(iter(named)))  # a scheduler's wrapper, which has the signature of the method with self
    if (closure := named.get("closure")) is not None:
        return closure.kind is closure.KEYWORD_ONLY
    for parameter in named.values():
        required = parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
        if parameter.kind is not parameter.KEYWORD_ONLY and required:  # step(self, fn), step(self, *args)
            return False
    return None
