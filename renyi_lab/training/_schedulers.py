"""What `train` accepts as its scheduler of the learning rate, and how it is made and stepped."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from renyi_lab._utils.validation import check_choice, printed

SchedulerFactory = Callable[[Optimizer], Any]

_KINDS = (LRScheduler, ReduceLROnPlateau)
_EXAMPLE = "lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, step_size=20)"


def check_scheduler(scheduler: Any) -> None:
    """Raise an error if ``scheduler`` is neither ``None``, a known name nor a factory."""
    if isinstance(scheduler, _KINDS):
        raise TypeError(
            f"scheduler must be a function that makes one, got the {type(scheduler).__name__} itself, which belongs to "
            f"another optimizer than the one that is made here; pass {_EXAMPLE}."
        )
    if isinstance(scheduler, str):
        check_choice("scheduler", scheduler.lower(), ("cosine",))
    elif scheduler is not None and not callable(scheduler):
        raise TypeError(
            f"scheduler must be None, 'cosine' or a function from an optimizer to its scheduler, as {_EXAMPLE}; got "
            f"{printed(scheduler)}."
        )


class Schedule:
    """A scheduler that is stepped after each epoch.

    Args:
        scheduler: As `check_scheduler` accepts it.
        optimizer: The optimizer whose learning rate it changes.
        epochs: Length of the training.
    """

    def __init__(self, scheduler: Any, optimizer: Optimizer, epochs: int) -> None:
        self._optimizer = optimizer
        self._scheduler = None if scheduler is None else _make(scheduler, optimizer, epochs)

    @property
    def rates(self) -> tuple[float, ...]:
        """The present learning rate, that of the first group of parameters; empty without a scheduler."""
        return () if self._scheduler is None else (float(self._optimizer.param_groups[0]["lr"]),)

    def step(self, loss: float) -> None:
        """Change the learning rate for the next epoch.

        Args:
            loss: Training loss of the epoch, which `ReduceLROnPlateau` looks at.
        """
        if isinstance(self._scheduler, ReduceLROnPlateau):
            self._scheduler.step(loss)
        elif self._scheduler is not None:
            self._scheduler.step()


def _make(scheduler: Any, optimizer: Optimizer, epochs: int) -> Any:
    if "lr" not in optimizer.param_groups[0]:
        raise ValueError(
            f"scheduler changes the learning rate, but {type(optimizer).__name__} has no 'lr' in its parameter groups; "
            "leave scheduler out, or give the optimizer one."
        )
    if isinstance(scheduler, str):
        return LambdaLR(optimizer, lambda epoch: (1 + math.cos(math.pi * epoch / epochs)) / 2)
    try:
        inspect.signature(scheduler).bind(optimizer)
    except TypeError as error:
        raise TypeError(
            f"scheduler is called with the optimizer alone, but {error}; pass a function such as {_EXAMPLE}."
        ) from None
    except ValueError:  # the signature of some callables is not known
        pass
    made = scheduler(optimizer)
    if not isinstance(made, _KINDS):
        raise TypeError(
            "scheduler(optimizer) must return a scheduler of torch.optim.lr_scheduler, got "
            f"{type(made).__name__}; pass a function such as {_EXAMPLE}."
        )
    if getattr(made, "optimizer", optimizer).param_groups is not optimizer.param_groups:
        raise ValueError(
            f"scheduler(optimizer) returned the {type(made).__name__} of another optimizer, so that the learning rate "
            f"would not change; make it on its argument, as {_EXAMPLE}."
        )
    return made
