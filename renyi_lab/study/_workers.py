"""The workers of a study: those of joblib's backend; local ones end with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from renyi_lab._utils.optional import optional_import

_POLL = 1.0  # seconds between two looks at the parent process; heuristic: costs a few microseconds each

_watching = threading.Lock()  # locked forever by the first task of a worker


class Workers:
    """Workers of joblib's active backend, whose results come one by one, as soon as each is finished."""

    def __init__(self, n_jobs: int | None) -> None:
        """Choose the backend; nothing is started yet."""
        with optional_import("joblib", extra="study", needed_by="renyi_lab.study.run_study"):
            import joblib
        try:
            # pre_dispatch: every waiting task holds a copy of the data
            self._parallel = joblib.Parallel(
                n_jobs=n_jobs, return_as="generator_unordered", pre_dispatch="n_jobs", batch_size=1
            )
        except ValueError as error:
            raise ValueError(
                f"run_study writes each result as soon as it is there, which joblib's active backend cannot do ({error}). "
                "Use another one, as in: with joblib.parallel_config(backend='loky', n_jobs=2)."
            ) from error
        self._delayed = joblib.delayed(_run)

    def results(self, function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """The results of ``function`` in the order in which they are finished; close it to stop the workers."""
        parent = os.getpid()
        outputs = self._parallel(self._delayed(parent, function, each) for each in arguments)
        try:
            yield from outputs
        finally:
            with warnings.catch_warnings():  # the exception that ended the study says more
                warnings.filterwarnings("ignore", ".*You could benefit from adjusting the input task iterator")
                outputs.close()


def _run(parent: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """What a worker runs."""
    # Workers of Dask end with their scheduler, threads with their process; loky's would wait for tasks for five minutes.
    if multiprocessing.current_process().name.startswith("LokyProcess") and _watching.acquire(blocking=False):
        threading.Thread(target=_end_with, args=(parent,), daemon=True, name="end_with_parent").start()
    return function(*arguments)


def _end_with(parent: int) -> None:
    """End this process, in the middle of a training too, when its parent has ended without ending it."""
    while os.getppid() == parent:
        time.sleep(_POLL)
    os._exit(1)
