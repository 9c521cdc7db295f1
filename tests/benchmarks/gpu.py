"""What the package computes on a GPU, and how fast: numerical checks, products and memory, peers, optimizer steps.

    python tests/benchmarks/gpu.py

One line is printed after every case. The cases run in a process of their own, which is ended and replaced when a case
takes longer than its limit or breaks down, so that the others go on. Without a CUDA device nothing is run, and nothing
is written; ``--device cpu --quick`` runs every case on tiny networks, to check the benchmark itself.
"""

from __future__ import annotations

import argparse
import functools
import gc
import math
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for deterministic algorithms; read when CUDA starts

import torch
from _common import Target, argument_parser, finish, prepare
from _gpu_checks import CHECKS
from _gpu_networks import FULL
from _gpu_timings import CONTENDERS, Clock, estimate, gradient, layer, step, synchronisations

Record = dict[str, Any]
START_LIMIT = 90  # seconds for a new process
GRADIENTS_TARGET, SPEEDUP_TARGET = 2.1, 1.4
LANGUAGE_MODEL = "GPT, 124 M"


@dataclass(frozen=True)
class Case:
    """One line of the benchmark.

    Attributes:
        group: Table that it belongs to.
        network: The network, or the name of a check.
        method: What is measured on it.
        run: Returns the record.
        limit: Seconds that it may take.
    """

    group: str
    network: str
    method: str
    run: Callable[[Clock], Record]
    limit: int = 30


def _check(name: str, clock: Clock) -> Record:
    errors = CHECKS[name](clock.device)
    compared = [{"what": what, "error": error, "limit": limit} for what, (error, limit) in errors.items()]
    return {"passed": all(error <= limit for error, limit in errors.values()), "compared": compared}


def cases() -> Iterator[Case]:
    """All cases in the order in which they run."""
    for name in CHECKS:
        yield Case("checks", name, "check", functools.partial(_check, name))
    for name in FULL:
        yield Case("products", name, "gradient", functools.partial(gradient, name))
        for method, function in CONTENDERS.items():
            yield Case("products", name, method, functools.partial(function, name))
    for name in ("MLP 40-100-100-10", "ResNet-20", "GPT, 10 M"):
        yield Case("synchronisations", name, "waits", functools.partial(synchronisations, name))
    for name in ("MLP 40-100-100-10", "ResNet-18", "GPT, 10 M"):
        yield Case("steps", name, "RSAM over SGD", functools.partial(step, name))
    for name in ("ResNet-18", "GPT, 10 M", LANGUAGE_MODEL):
        yield Case("estimates", name, "60 products", functools.partial(estimate, name), 120)
    yield Case("layers", LANGUAGE_MODEL, "every block of one layer", functools.partial(layer, LANGUAGE_MODEL), 120)


def _serve(pipe: Connection, device: torch.device, quick: bool) -> None:
    """Run the cases whose numbers come through the pipe."""
    torch.set_num_threads(1 if quick else 2)
    torch.backends.cudnn.allow_tf32 = False  # all contenders compute in float32
    all_cases, clock = list(cases()), Clock(device, quick)
    pipe.send("ready")
    while (number := pipe.recv()) is not None:
        try:
            pipe.send(all_cases[number].run(clock))
        except Exception as error:  # any failure of a case is its result
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{os.path.basename(place.filename)}:{place.lineno}"
            message = (str(error).splitlines() or [""])[0]
            pipe.send({"failure": f"{type(error).__name__} at {where}: {message}"[:300]})
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


class Worker:
    """A process that runs cases; it is replaced where it does not answer in time."""

    def __init__(self, device: torch.device, quick: bool) -> None:
        self._arguments = device, quick
        self._process: Any = None

    def run(self, number: int, limit: float) -> Record:
        """The record of a case, or one with a ``failure``."""
        if self._process is None:
            self._start()
        began = time.perf_counter()
        try:
            self._pipe.send(number)
            if self._pipe.poll(limit):
                record = self._pipe.recv()
                return {**record, "seconds_in_all": time.perf_counter() - began}
            failure = f"took more than {limit:.0f} s"
        except (EOFError, OSError):
            failure = "the process broke down"
        self.stop()
        return {"failure": failure, "seconds_in_all": time.perf_counter() - began}

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, *self._arguments), daemon=True)
        self._process.start()
        other.close()
        if not self._pipe.poll(START_LIMIT) or self._pipe.recv() != "ready":
            raise RuntimeError("the process that runs the cases did not start.")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._process = None


def described(record: Record) -> str:
    """A record in one line."""
    if "failure" in record:
        return f"FAILED: {record['failure']}"
    if "compared" in record:
        words = [f"{part['what']} {part['error']:.1e}" for part in record["compared"]]
        return ("passed: " if record["passed"] else "WRONG: ") + ", ".join(words)
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in record.items()
    )


def targets(records: list[Record]) -> list[Target]:
    """What is promised of products and checks."""
    checks = [r for r in records if r["group"] == "checks"]
    found = [Target("numerical checks that fail", sum(not r.get("passed", False) for r in checks), 0)]
    for name in FULL:
        costs = {
            r["method"]: r.get("inside_gradients", r["gradients"])
            for r in records
            if r["network"] == name and r["group"] == "products" and "gradients" in r
        }
        peers = [cost for method, cost in costs.items() if not method.startswith("renyi_lab")]
        if "renyi_lab" in costs:
            found.append(Target(f"gradients per product, {name}", costs["renyi_lab"], GRADIENTS_TARGET))
        if peers and "renyi_lab" in costs:
            claim = f"times faster than the best peer, {name}"
            found.append(Target(claim, min(peers) / costs["renyi_lab"], SPEEDUP_TARGET, at_least=True))
    return found


def main(arguments: list[str] | None = None) -> None:
    """Run the cases, print a line for each, write the JSON file."""
    parser = argument_parser(__doc__ or "", "gpu")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu (%(default)s)")
    parser.add_argument("--only", default="", help="only cases whose description holds this text")
    parser.add_argument("--limit", type=float, default=math.inf, help="seconds after which no further case is begun")
    options = parser.parse_args(arguments)
    device = _device(parser, options.device)
    if device is None:
        return
    circumstances = {**prepare(parser, options), "device": _name(device)}
    print(f"{circumstances['device']}, torch {torch.__version__}", flush=True)
    began, worker, records = time.perf_counter(), Worker(device, options.quick), []
    try:
        for number, case in enumerate(cases()):
            label = f"{case.group}: {case.network}, {case.method}"
            if options.only in label and time.perf_counter() - began < options.limit:
                record = worker.run(number, case.limit)
                seconds = time.perf_counter() - began
                print(f"[{seconds:5.1f} s] {label}: {described(record)}", flush=True)
                records.append({"group": case.group, "network": case.network, "method": case.method, **record})
    finally:
        worker.stop()
    circumstances["seconds"] = time.perf_counter() - began
    finish(options.out, circumstances, [] if options.quick else targets(records), cases=records)


def _device(parser: argparse.ArgumentParser, name: str) -> torch.device | None:
    """The device, or ``None`` with a message where there is no GPU."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        parser.error(f"--device {name}: {str(error).splitlines()[0]}")
    if device.type == "cuda" and not torch.cuda.is_available():
        print("No CUDA device was found, so that nothing is measured; --device cpu --quick tries the benchmark itself.")
        return None
    return device


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


if __name__ == "__main__":
    sys.exit(main())
