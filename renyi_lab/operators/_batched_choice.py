"""Whether a GPU multiplies with several vectors at once or one by one, as measured on the network at hand.

At once saves the launch of many small kernels, and so pays for small networks. Convolutions with several vectors become
grouped ones, which may take many times as long.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

# Vectors per batched product. Heuristic: enough to fill a GPU with a small network, few enough to keep intermediates
# small.
_AT_ONCE = 32
_TRIED = 4  # vectors in the measurement, heuristic
_GAIN = 0.95  # batched must take less than this share of the time; it needs more memory
_DIFFERENCE = 1e-2  # relative; beyond rounding, one of the two ways is wrong


class BatchedChoice:
    """The number of vectors that are multiplied at once; measured at the first use with four vectors or more.

    The measurement takes about ten products. Under `torch.use_deterministic_algorithms` vectors are multiplied one by
    one, since times differ from run to run.
    """

    def __init__(self) -> None:
        self._width: int | None = None

    def products(self, product: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        """Products with vectors that are rows, ``(k, n)``.

        Args:
            product: The product with one vector ``(n,)`` or with rows ``(k, n)``.
            rows: The vectors.
        """
        if self._width is None and len(rows) >= _TRIED:
            self._width = _measured_width(product, rows[:_TRIED])
        width = 1 if self._width is None or torch.are_deterministic_algorithms_enabled() else self._width
        while width > 1:
            try:
                return torch.cat([product(part) for part in rows.split(width)])
            except torch.OutOfMemoryError:
                self._width = width = width // 2
        return torch.stack([product(row.contiguous()) for row in rows])


def _measured_width(product: Callable[[Tensor], Tensor], rows: Tensor) -> int:
    single = [product(row.contiguous()) for row in rows]  # warms up as well
    device = rows.device
    one_by_one = len(rows) / 2 * _seconds(device, lambda: [product(row.contiguous()) for row in rows[:2]])
    try:
        together: list[Tensor] = []
        at_once = _seconds(device, lambda: together.append(product(rows)))
        if at_once >= _GAIN * one_by_one:
            at_once = _seconds(device, lambda: product(rows))  # the first call chooses and loads kernels
    except RuntimeError:  # out of memory, or an operation that cannot be batched
        return 1
    truth = torch.stack(single)
    agrees = bool((together[0] - truth).norm() <= _DIFFERENCE * truth.norm())
    return _AT_ONCE if agrees and at_once < _GAIN * one_by_one else 1


def _seconds(device: torch.device, work: Callable[[], object]) -> float:
    torch.cuda.synchronize(device)
    began = time.perf_counter()
    work()
    torch.cuda.synchronize(device)
    return time.perf_counter() - began
