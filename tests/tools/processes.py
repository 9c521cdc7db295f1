"""Several processes of a gloo group on this machine, for tests."""

from __future__ import annotations

import contextlib
import datetime
import os
import pickle
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


def run_processes(function: Callable[..., Any], *args: Any, size: int = 2, timeout: float = 60.0) -> list[Any]:
    """What ``function(*args)`` returns, or the exception that it raises, on each rank of a group of ``size``.

    Args:
        function: A function of a module.
        args: Its arguments.
        size: Number of processes.
        timeout: Seconds after which a collective operation fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_run, args=(folder, size, timeout, function, args), nprocs=size)
        return [pickle.loads((Path(folder) / str(rank)).read_bytes()) for rank in range(size)]


def _run(rank: int, folder: str, size: int, timeout: float, function: Callable[..., Any], args: Any) -> None:
    torch.set_num_threads(1)
    limit = datetime.timedelta(seconds=timeout)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size, timeout=limit)
    try:
        result = function(*args)
    except Exception as error:
        traceback.print_exc()
        result = error
    (Path(folder) / str(rank)).write_bytes(pickle.dumps(result))
    # Gloo may abort a process that takes its group down, or whose partner has ended: both leave without it.
    with contextlib.suppress(RuntimeError):
        dist.barrier()
    os._exit(0)
