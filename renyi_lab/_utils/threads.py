"""How many threads torch computes on: one where more would only wait for each other.

Threads meet after every operation. On an idle machine that costs little; beside busy processes a thread that has lost
its processor keeps the others waiting, and small operations take ten times as long on two threads as on one.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import nn

from renyi_lab._utils.interrupts import restoring
from renyi_lab._utils.structures import tensors_in

_SMALL_WORK = 2**25  # heuristic: see one_thread_if_small() for the measurement
_TOLERATED = 2.0  # heuristic: idle, two threads took at most 1.4 times as long as one, even for the smallest products
_PAUSE = 10.0  # heuristic: trying all threads on a busy machine costs at most a tenth of the time

_lock = threading.Lock()
_guards: Counter[int] = Counter()  # that each Python thread is inside of
_outside = 1  # torch's number of threads outside all guards


@restoring
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread; on exit, errors and interrupts included, the number is what it was.

    torch keeps one number for each Python thread, and MKL one for all, so a guard that finds another Python thread
    inside one restores the number from outside both. Setting the number takes 0.1 µs, and switching back and forth
    costs nothing beyond that.
    """
    global _outside
    me = threading.get_ident()
    with _lock:
        if not _guards.total():
            _outside = torch.get_num_threads()
        before = torch.get_num_threads() if _guards[me] else _outside
        _guards[me] += 1
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)
        with _lock:
            _guards[me] -= 1


def one_thread_if_small(model: nn.Module, inputs: Any) -> contextlib.AbstractContextManager[None]:
    """`one_thread` if a pass of ``model`` over the batch ``inputs`` is too small for several threads to gain by it.

    The work is taken as parameters × samples × positions (pixels, or time steps), about the multiply-adds of a forward
    pass, and called small up to 2²⁵. That depends on shapes only, so a training is as reproducible as before.
    Measured: milliseconds of one training step (forward, backward, SGD) on two cores, torch 2.13, idle, and beside
    about five busy processes.

        network              samples   work     idle: 1 thread, 2 threads     busy: 1 thread, 2 threads
        MLP 40-100-100-10        128   2·10⁶       0.48     0.67                   2.5      8.9
        MLP 40-100-100-10       2048   3·10⁷       3.6      3.1                    7.3    272
        MLP 40-300-300-10        128   1·10⁷       1.3      1.6                    5.9      6.0
        MLP 40-300-300-10        512   5·10⁷       4.6      3.4                   16       24
        MLP 40-1000-1000-10      128   1·10⁸      10        7.8                   22      308
        CNN1d                    128   7·10⁵       1.7      2.0                    8.2      8.5
        CNN1d                   2048   1·10⁷      15       14                     44      360
        ResNet-20, 32 × 32        16   4·10⁹      59       40                    125     3600

    Args:
        model: The network.
        inputs: A batch, ``(samples, features)`` or ``(samples, channels, *positions)``; of a structure the largest of
            its tensors counts.
    """
    tensors = [tensor for tensor in tensors_in(inputs) if tensor.ndim]
    positions = max((len(tensor) * math.prod(tensor.shape[2:]) for tensor in tensors), default=0)
    work = sum(parameter.numel() for parameter in model.parameters()) * positions
    on_cpu = all(tensor.device.type == "cpu" for tensor in tensors)
    return one_thread() if on_cpu and work <= _SMALL_WORK else contextlib.nullcontext()


class AdaptiveThreads:
    """All of torch's threads for a repeated piece of work, or one where that is more than twice as fast.

    The first two runs, a warm-up and a measurement, are on one thread, the following ones on all. A run on all threads
    that takes more than twice as long as the latest on one shows a busy machine: all instances then use one thread for
    ten times as long as that run took. So a busy machine costs a factor of about two at most (without: 5 to 30 for
    Hessian products), and on an idle machine the choice is the same every time.
    """

    _busy_until: ClassVar[float] = 0.0  # by time.perf_counter()

    def __init__(self) -> None:
        self._runs_on_one = 0
        self._seconds_on_one = 0.0

    @restoring
    def run(self) -> Iterator[None]:
        """Run the block, which does the same work each time, on the number of threads that is due."""
        began = time.perf_counter()
        on_one = self._runs_on_one < 2 or began < AdaptiveThreads._busy_until
        with one_thread() if on_one else contextlib.nullcontext():
            yield
        seconds = time.perf_counter() - began
        if on_one:
            self._runs_on_one += 1
            self._seconds_on_one = seconds
        elif seconds > _TOLERATED * self._seconds_on_one:
            AdaptiveThreads._busy_until = began + (1 + _PAUSE) * seconds
