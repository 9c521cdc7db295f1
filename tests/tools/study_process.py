"""Studies in processes of their own, which start in milliseconds, to be ended at a chosen moment."""

from __future__ import annotations

import contextlib
import errno
import functools
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import joblib
import psutil
from small_study import DATA, GRID, norms
from torch import nn

from renyi_lab.study import run_study

TRAININGS = {**GRID, "seed": [0, 1], "epochs": 10}
# Imports the packages once; each process is a copy of it.
FORK_SERVER: Any = multiprocessing.get_context("forkserver") if os.name == "posix" else None
SECONDS = 120.0  # after which a test fails; on a loaded machine imports alone take half a minute


def logged_norms(log: str, model: nn.Module, *arguments: Any, **named: Any) -> dict[str, float]:
    """The measure `norms`; the process in which it ran gets a line in a file, and it waits while it is held."""
    with open(log, "a") as file:
        file.write(f"{os.getpid()}\n")
    limit = Path(f"{log}.limit")  # while this file exists, trainings beyond its number of lines in the log wait
    deadline = time.monotonic() + SECONDS
    with contextlib.suppress(FileNotFoundError):
        while num_lines(Path(log)) > int(limit.read_text() or 0) and time.monotonic() < deadline:
            time.sleep(0.01)
    return norms(model, *arguments, **named)


def norms_and_end(flag: str, model: nn.Module, *arguments: Any, **named: Any) -> dict[str, float]:
    """The measure `norms`; the process ends as soon as it finds the file ``flag``, and removes it before that."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(flag)
        os.kill(os.getpid(), signal.SIGKILL)
    return norms(model, *arguments, **named)


def study(path: Path, backend: str = "", address: str = "") -> Any:
    """The study of all tests here, on a backend of joblib."""
    measure = functools.partial(logged_norms, f"{path}.log")
    with contextlib.ExitStack() as stack:
        if address:
            from distributed import Client

            stack.enter_context(Client(address, set_as_default=True))
        if backend:
            stack.enter_context(joblib.parallel_config(backend, **({} if address else {"n_jobs": 2})))
        return run_study(TRAININGS, data=DATA, measure=measure, path=path, min_accuracy=0, progress=False)


def study_on_full_disk(path: Path, free: int, backend: str = "") -> None:
    """The same where files cannot grow beyond ``free`` bytes; ends with status 0 if ``run_study`` says so."""
    import resource

    if backend:  # the workers, which would have the limit too, start before: torch 2.6 writes a file when imported
        study(path.with_name("other"), backend)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, free))
    try:
        study(path, backend)
    except OSError as error:
        os._exit(0 if error.errno == errno.EFBIG and str(path) in str(error) else 2)
    os._exit(3)


def tasks_of(client: Any) -> int:
    """The number of tasks that Dask's scheduler knows."""
    return int(client.run_on_scheduler(_num_tasks))


def _num_tasks(dask_scheduler: Any) -> int:
    return len(dask_scheduler.tasks)


def executing(client: Any) -> int:
    """The number of tasks that Dask's workers are running, also those whose study has ended."""
    return sum(client.run(_num_executing).values())


def _num_executing(dask_worker: Any) -> int:
    return int(dask_worker.state.executing_count)


def _interruptible(function: Callable[..., Any], *arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which jobs of a shell in the background ignore
    function(*arguments)


@contextlib.contextmanager
def started(function: Callable[..., Any], *arguments: Any) -> Iterator[BaseProcess]:
    # The last writes files when it is imported, which torch 2.6 does with the first optimizer: not on a full disk.
    FORK_SERVER.set_forkserver_preload(["renyi_lab.study", "joblib", "distributed", "torch.distributed.nn"])
    process = FORK_SERVER.Process(target=_interruptible, args=(function, *arguments))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join(SECONDS)


def wait_until(condition: Callable[[], bool], what: str, pause: float = 0.005) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(pause)


def num_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def has_ended(process_id: int) -> bool:
    """Whether a process has ended, be it that nobody has collected its status."""
    try:
        return bool(psutil.Process(process_id).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
