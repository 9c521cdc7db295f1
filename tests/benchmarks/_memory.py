"""Peak memory of Hessian-vector products, each measurement in its own process."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import psutil
import torch
from _products import Case, Product

BYTES_PER_MB = 1e6


class PeakMemory:
    """Largest resident memory of this process while the block runs, sampled every two milliseconds."""

    def __enter__(self) -> PeakMemory:
        self._process, self._stopped = psutil.Process(), threading.Event()
        self.bytes = self.start = self._process.memory_info().rss
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def _watch(self) -> None:
        while not self._stopped.wait(0.002):
            self.bytes = max(self.bytes, self._process.memory_info().rss)

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._watcher.join()
        self.bytes = max(self.bytes, self._process.memory_info().rss)


def measure_memory(case: Case, make: Callable[[Case], Product], num_calls: int, threads: int) -> dict[str, float]:
    """Peak above what model and data take, and how much higher it is in the second half of the calls."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        return executor.submit(_memory, case, make, num_calls, threads).result()


def _memory(case: Case, make: Callable[[Case], Product], num_calls: int, threads: int) -> dict[str, float]:
    torch.set_num_threads(threads)
    vector = torch.randn(sum(p.numel() for p in case.model().parameters()))
    case.data()
    gc.collect()
    # Equal halves, since of two windows the longer one finds the higher peak even where nothing grows.
    with PeakMemory() as first:
        product = make(case)
        for _ in range(num_calls // 2):
            product(vector)
    with PeakMemory() as second:
        for _ in range(num_calls // 2):
            product(vector)
    return {
        "base_mb": first.start / BYTES_PER_MB,
        "peak_mb": (max(first.bytes, second.bytes) - first.start) / BYTES_PER_MB,
        "growth_mb": (second.bytes - first.bytes) / BYTES_PER_MB,
    }
