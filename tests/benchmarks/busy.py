"""What busy processes cost: training, the tour and Hessian products, idle and beside three of them.

    python tests/benchmarks/busy.py

Every kind of work is timed with the package's guards on the number of threads, without them (all threads), and on one
thread. The three take turns; times are medians over rounds. A busy process is an endless loop in Python. Run it where
nothing else runs; without guards beside busy processes it takes some twenty minutes.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from _common import Target, argument_parser, finish, positive, prepare, show
from _products import LOSS, Case

import renyi_lab as rl
from renyi_lab._utils.threads import one_thread

GUARDED, ALL, ONE = "guards", "all threads", "one thread"
IDLE, BUSY = "idle", "busy"
IDLE_COST, BUSY_COST = 1.2, 3.0  # with guards: over all threads on an idle machine, over one thread on a busy one
# Runs the console command with torch set up as a variant wants it.
_COMMAND = "import sys, torch; {}; from renyi_lab.cli import main; sys.argv = ['renyi-lab', *sys.argv[1:]]; main()"
_SETUP = {
    GUARDED: "torch.set_num_threads({threads})",
    ALL: "torch.set_num_threads({threads}); torch.set_num_threads = lambda number: None",
    ONE: "torch.set_num_threads(1)",
}


def variants(threads: int) -> dict[str, Callable[[], contextlib.AbstractContextManager[Any]]]:
    """Contexts for work in this process; without guards, nothing changes the number of threads."""
    return {
        GUARDED: contextlib.nullcontext,
        ALL: lambda: mock.patch.object(torch, "set_num_threads"),
        ONE: one_thread,
    }


@contextlib.contextmanager
def busy_processes(number: int) -> Iterator[None]:
    """Processes that compute until the block is left."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def training(epochs: int, *widths: int) -> Callable[[], object]:
    """A training of a small network."""
    train_set, _ = rl.datasets.mnist1d()
    return lambda: rl.train(rl.models.mlp(*widths), train_set, epochs=epochs, progress=False)


def products(case: Case, number: int) -> Callable[[], object]:
    """Products with a new operator, as an estimate of the spectrum needs them."""
    model, data = case.model(), case.data()
    vector = torch.randn(sum(p.numel() for p in model.parameters()), generator=torch.Generator().manual_seed(1))

    def work() -> None:
        hessian = rl.HessianOperator(model, LOSS, data)
        for _ in range(number):
            hessian @ vector

    return work


def seconds_of_command(variant: str, threads: int, arguments: list[str]) -> float:
    """Wall-clock time of ``renyi-lab``, the start of Python included."""
    command = [sys.executable, "-c", _COMMAND.format(_SETUP[variant].format(threads=threads)), *arguments]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def seconds_of(work: Callable[[], object], context: contextlib.AbstractContextManager[Any]) -> float:
    """Wall-clock time of work in this process."""
    began = time.perf_counter()
    with context:
        work()
    return time.perf_counter() - began


def measure(
    kinds: dict[str, Callable[[str], float]], names: list[str], rounds: int, num_busy: int
) -> list[dict[str, Any]]:
    """One record for each kind of work, variant and state of the machine."""
    records = []
    for state, number in ((IDLE, 0), (BUSY, num_busy)):
        for kind, timed in kinds.items():
            found: dict[str, list[float]] = {name: [] for name in names}
            with busy_processes(number):
                for turn in range(rounds):
                    shift = turn % len(names)
                    for name in names[shift:] + names[:shift]:
                        found[name].append(timed(name))
            records += [
                {"work": kind, "state": state, "variant": name, "seconds": statistics.median(times), "rounds": times}
                for name, times in found.items()
            ]
    return records


def targets(kinds: list[str], seconds: dict[tuple[str, str, str], float]) -> Iterator[Target]:
    """What the guards must cost at most, for each kind of work."""
    for kind in kinds:
        idle = seconds[kind, IDLE, GUARDED] / seconds[kind, IDLE, ALL]
        busy = seconds[kind, BUSY, GUARDED] / seconds[kind, BUSY, ONE]
        yield Target(f"{kind}: idle, guards over all threads", idle, IDLE_COST)
        yield Target(f"{kind}: busy, guards over one thread", busy, BUSY_COST)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the table, write the JSON file."""
    parser = argument_parser(__doc__, "busy")
    parser.add_argument("--rounds", type=positive, default=3, help="turns of each variant (%(default)s)")
    parser.add_argument("--busy", type=positive, default=3, help="busy processes (%(default)s)")
    options = parser.parse_args(arguments)
    circumstances = prepare(parser, options)
    contexts = variants(options.threads)
    if options.quick:
        work = {"training": training(1, 40, 5, 10), "products": products(Case("mlp", 80, (40, 5, 10)), 4)}
        command = ["tour", "--help"]
    else:
        work = {
            "training, MLP, 10 epochs": training(10, 40, 100, 100, 10),
            "40 products, MLP": products(Case("mlp", 4000, (40, 100, 100, 10)), 40),
            "40 products, CNN": products(Case("cnn1d", 4000), 40),
        }
        command = ["tour", "--quick"]
    kinds = {name: lambda variant, call=call: seconds_of(call, contexts[variant]()) for name, call in work.items()} | {
        " ".join(command): lambda variant: seconds_of_command(variant, options.threads, command)
    }
    for call in work.values():
        call()  # warms up
    records = measure(kinds, list(contexts), 1 if options.quick else options.rounds, options.busy)
    seconds = {(r["work"], r["state"], r["variant"]): r["seconds"] for r in records}
    columns = [(state, variant) for state in (IDLE, BUSY) for variant in contexts]
    rows = [{"work": kind, **{f"{s}, {v}": seconds[kind, s, v] for s, v in columns}} for kind in kinds]
    show(f"Seconds, idle and beside {options.busy} busy processes", rows)
    met = [] if options.quick else list(targets(list(kinds), seconds))
    finish(options.out, circumstances, met, num_busy=options.busy, records=records)


if __name__ == "__main__":
    main()
