"""The workers of a study: those of joblib's active backend; local ones end with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
import warnings
from collections.abc import Callable, Generator, Sequence
from typing import Any

from renyi_lab._utils.optional import optional_import

_POLL = 1.0  # seconds between two looks at the parent process; heuristic: each takes microseconds

_watching = threading.Lock()  # taken by the first task of a worker, and never released

Results = Generator[Any, None, None]


class Workers:
    """Workers of joblib's active backend, whose results come one by one, as soon as each is finished."""

    def __init__(self, n_jobs: int | None) -> None:
        """Choose the backend; nothing is started yet."""
        with optional_import("joblib", extra="study", needed_by="renyi_lab.study.run_study"):
            import joblib
        backend, _ = joblib.parallel.get_active_backend()
        self._dask = backend if type(backend).__name__ == "DaskDistributedBackend" else None
        self._delayed = joblib.delayed(_run)
        try:
            # pre_dispatch: every waiting task holds a copy of the data
            self._parallel = joblib.Parallel(
                n_jobs=n_jobs, return_as="generator_unordered", pre_dispatch="n_jobs", batch_size=1
            )
        except ValueError as error:
            raise ValueError(
                f"run_study writes each record as soon as it is there, which joblib's active backend does not allow "
                f"({error}). Choose another one, as in: with joblib.parallel_config(backend='loky', n_jobs=2)."
            ) from error

    def results(self, function: Callable[..., Any], each: Sequence[Any], common: tuple[Any, ...]) -> Results:
        """``function(item, *common)`` for every item of ``each``, in the order of finishing; close it to stop."""
        if self._dask is not None:
            return _dask_results(self._dask, function, each, common)
        return self._joblib_results(function, each, common)

    def _joblib_results(self, function: Callable[..., Any], each: Sequence[Any], common: tuple[Any, ...]) -> Results:
        parent = os.getpid()
        outputs = self._parallel(self._delayed(parent, function, item, *common) for item in each)
        try:
            yield from outputs
        finally:
            with warnings.catch_warnings():  # the exception that ends the study says more
                warnings.filterwarnings("ignore", r"[\s\S]*adjusting the input task iterator")
                outputs.close()


def _dask_results(backend: Any, function: Callable[..., Any], each: Sequence[Any], common: tuple[Any, ...]) -> Results:
    """The same through Dask's own interface: joblib's (1.6) waits forever for a task that Dask gives up."""
    from distributed import as_completed

    client, options = backend.client, {"pure": False, **backend.submit_kwargs}
    try:
        client.wait_for_workers(1, timeout=backend.wait_for_workers_timeout)
    except TimeoutError as error:
        raise RuntimeError(
            f"Dask has no worker: {client}. Start some, or wait for them longer: "
            "joblib.parallel_config(backend='dask', wait_for_workers_timeout=60)."
        ) from error
    # A task of its own: sent once, and made again where the worker that held it has ended.
    shared = client.submit(tuple, common, **options)
    futures = [client.submit(_run_shared, function, item, shared, **options) for item in each]
    try:
        for future in as_completed(futures):  # type: ignore[no-untyped-call, unused-ignore]
            if future.status == "cancelled":
                raise RuntimeError(f"Dask has cancelled a training, or its scheduler has ended: {client}.")
            try:
                result = future.result()
            except Exception as error:
                if type(error).__name__ != "KilledWorker":
                    raise
                raise RuntimeError(
                    f"Dask gave up a training, since its workers ended again and again: {error}"
                ) from error
            yield result
    finally:
        for future in futures:
            future.release()  # what is still to be trained is not


def _run_shared(function: Callable[..., Any], item: Any, common: tuple[Any, ...]) -> Any:
    return function(item, *common)


def _run(parent: int, function: Callable[..., Any], *arguments: Any) -> Any:
    # Threads end with their process; workers of loky would wait for tasks for five minutes.
    if multiprocessing.current_process().name.startswith("LokyProcess") and _watching.acquire(blocking=False):
        threading.Thread(target=_end_with, args=(parent,), daemon=True, name="end_with_parent").start()
    return function(*arguments)


def _end_with(parent: int) -> None:
    """End this process, in the middle of a training too, when its parent has ended without ending it."""
    while os.getppid() == parent:
        time.sleep(_POLL)
    os._exit(1)
