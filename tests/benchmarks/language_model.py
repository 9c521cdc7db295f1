"""The spectrum of a language model of 10 M parameters on a processor: memory, time and what was expected of both.

    python tests/benchmarks/language_model.py

A model of GPT's shape is trained for about a minute on the text of Python's own help, character by character. Then its
Rényi entropy of order 1.5 is estimated from 60 products, with Lanczos vectors kept in single precision, kept in
bfloat16, and not kept at all. Products alone are timed on three sizes of models; the documentation's cost model rests
on them. It takes some twelve minutes on an idle machine with two cores.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _common import Target, argument_parser, finish, positive, prepare, show
from _language import ORDER, Shape, alone, estimate, product, projection, train

Record = dict[str, Any]
TEN_MILLION = Shape(vocabulary=256, context=256, width=256, depth=12, heads=8, length=128)
SHAPES = {
    "GPT, 2.5 M": Shape(vocabulary=256, context=256, width=128, depth=12, heads=4, length=256),
    "GPT, 10 M": TEN_MILLION,
    "GPT, 29 M": Shape(vocabulary=256, context=256, width=384, depth=16, heads=6, length=128),
    "GPT, 124 M": Shape(vocabulary=50257, context=1024, width=768, depth=12, heads=12, length=64),
}
METHODS = ("gradient", "graph kept", "graph built again")
CASES: dict[str, Record] = {
    "all vectors kept, float32": {},
    "all vectors kept, bfloat16": {"basis_dtype": "bfloat16"},
    "no vectors kept": {"reorthogonalize": "none"},
}
MEMORY_TARGETS = {"all vectors kept, float32": 3000, "all vectors kept, bfloat16": 1600}  # MB above model and data
AGREEMENT = 0.3  # of time and memory with what was expected, relative
NUM_PRODUCTS, SEQUENCES = 60, 8

_TINY = Shape(vocabulary=256, context=16, width=16, depth=2, heads=2, length=16)


class Parts:
    """Records that are written as soon as they are measured, so that a run that was interrupted can go on.

    Args:
        folder: Where they are.
        threads: Threads of a measurement.
        resume: Whether to use those of an earlier run.
    """

    def __init__(self, folder: Path, threads: int, resume: bool) -> None:
        self.folder, self._threads, self._resume = folder, threads, resume
        folder.mkdir(parents=True, exist_ok=True)

    def record(self, name: str, function: Callable[..., Record], *arguments: Any) -> Record:
        """The record of a function that runs in a process of its own, or the one that is there."""
        path = self.folder / f"{re.sub(r'[^a-z0-9]+', '_', name.lower())}.json"
        if not self._resume or not path.exists():
            path.write_text(json.dumps(alone(function, self._threads, *arguments)), encoding="utf-8")
        return json.loads(path.read_text(encoding="utf-8"))


def products(parts: Parts, quick: bool) -> list[Record]:
    """Gradients and products of networks of several sizes."""
    records = []
    for name, shape in ({"tiny": _TINY} if quick else SHAPES).items():
        for method in METHODS:
            measured = parts.record(f"{name} {method}", product, shape, 2, method)
            records.append({"network": name, **shape.describe(), **measured})
    return records


def estimates(parts: Parts, shape: Shape, sequences: int, quick: bool) -> tuple[Record, list[Record]]:
    """The training, and a record for each way to keep Lanczos vectors."""
    path, count = parts.folder / "weights.pt", 20 if quick else NUM_PRODUCTS
    training = parts.record("training", train, shape, path, 4 if quick else 480)
    records = [
        {"case": name, **parts.record(name, estimate, shape, path, sequences, count, settings)}
        for name, settings in CASES.items()
    ]
    return training, records


def targets(records: list[Record]) -> list[Target]:
    """What is promised of memory and of its estimate."""
    found = []
    for record in records:
        name = record["case"]
        if name in MEMORY_TARGETS:
            found.append(Target(f"MB above model and data, {name}", record["peak_mb"], MEMORY_TARGETS[name]))
        for what, measured in (("processor_seconds", record["processor_seconds"]), ("mb", record["peak_mb"])):
            claim = f"relative difference of {'memory' if what == 'mb' else 'time'} and `estimate_cost`, {name}"
            found.append(Target(claim, abs(record[f"expected_{what}"] / measured - 1), AGREEMENT))
    return found


def main(arguments: list[str] | None = None) -> None:
    """Train, measure, print the tables, write the JSON file."""
    options_parser = argument_parser(__doc__ or "", "language_model")
    options_parser.add_argument(
        "--sequences", type=positive, default=SEQUENCES, help="of 128 characters, of the Hessian (%(default)s)"
    )
    options_parser.add_argument("--resume", action="store_true", help="go on with a run that was interrupted")
    options = options_parser.parse_args(arguments)
    circumstances, began = prepare(options_parser, options), time.perf_counter()
    folder = Path("build") / ("language_model_quick" if options.quick else "language_model")
    parts, shape = Parts(folder, options.threads, options.resume), _TINY if options.quick else TEN_MILLION
    training, estimated = estimates(parts, shape, 2 if options.quick else options.sequences, options.quick)
    multiplied = products(parts, options.quick)
    projected = parts.record("projection", projection, shape)
    show("Products", _chosen(multiplied, "network", "parameters", "method", "seconds", "processor_seconds", "peak_mb"))
    times = ("seconds", "processor_seconds", "expected_processor_seconds", "peak_mb", "expected_mb")
    show(f"Entropy of order {ORDER}", _chosen(estimated, "case", "entropy", "error", *times))
    circumstances["seconds"] = time.perf_counter() - began
    found = [] if options.quick else targets(estimated)
    results = {"model": shape.describe(), "training": training, "products": multiplied, "estimates": estimated}
    results["projection"] = projected
    finish(options.out, circumstances, found, **results)


def _chosen(records: list[Record], *names: str) -> list[Record]:
    return [{name: record[name] for name in names} for record in records]


if __name__ == "__main__":
    main()
