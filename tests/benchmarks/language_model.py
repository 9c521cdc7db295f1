"""The spectrum of a language model of 10 M parameters on a processor: memory, time and what was expected of both.

    python tests/benchmarks/language_model.py

A model of GPT's shape is trained for about a minute on the text of Python's own help, character by character. Then its
Rényi entropy of order 1.5 is estimated from 60 products, with Lanczos vectors kept in single precision, kept in
bfloat16, and not kept at all. Products alone are timed on three sizes of models; the documentation's cost model rests
on them. It takes some twelve minutes on an idle machine with two cores.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from _common import Target, argument_parser, finish, prepare, show
from _language import ORDER, Shape, alone, estimate, product, train

Record = dict[str, Any]
TEN_MILLION = Shape(vocabulary=256, context=256, width=256, depth=12, heads=8, length=128)
SHAPES = {
    "GPT, 10 M": (TEN_MILLION, 2),
    "GPT, 2.5 M": (Shape(vocabulary=256, context=256, width=128, depth=12, heads=4, length=256), 2),
    "GPT, 28 M": (Shape(vocabulary=256, context=256, width=384, depth=16, heads=6, length=128), 2),
    "GPT, 124 M": (Shape(vocabulary=50257, context=1024, width=768, depth=12, heads=12, length=64), 2),
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


def estimates(shape: Shape, sequences: int, threads: int, quick: bool) -> tuple[Record, list[Record]]:
    """The training, and a record for each way to keep Lanczos vectors."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pt"
        training = alone(train, threads, shape, path, 4 if quick else 640, 1 if quick else 2)
        print(f"trained: {training}", flush=True)
        records = []
        for name, settings in CASES.items():
            found = alone(estimate, threads, shape, path, sequences, 20 if quick else NUM_PRODUCTS, settings)
            records.append({"case": name, **found})
            print(f"{records[-1]}", flush=True)
    return training, records


def targets(records: list[Record]) -> list[Target]:
    """What is promised of memory and of its estimate."""
    found = []
    for record in records:
        name = record["case"]
        if name in MEMORY_TARGETS:
            found.append(Target(f"MB above model and data, {name}", record["peak_mb"], MEMORY_TARGETS[name]))
        for what, measured in (("seconds", record["seconds"]), ("mb", record["peak_mb"])):
            claim = f"relative difference of {what if what == 'seconds' else 'memory'} and `estimate_cost`, {name}"
            found.append(Target(claim, abs(record[f"expected_{what}"] / measured - 1), AGREEMENT))
    return found


def main(arguments: list[str] | None = None) -> None:
    """Train, measure, print the tables, write the JSON file."""
    options_parser = argument_parser(__doc__ or "", "language_model")
    options = options_parser.parse_args(arguments)
    circumstances = prepare(options_parser, options)
    began = time.perf_counter()
    shapes = {"tiny": (_TINY, 2)} if options.quick else SHAPES
    products = []
    for name, (shape, sequences) in shapes.items():
        for method in METHODS:
            measured = alone(product, options.threads, shape, sequences, method)
            products.append({"network": name, **shape.describe(), **measured})
            print(products[-1], flush=True)
    shape = _TINY if options.quick else TEN_MILLION
    training, records = estimates(shape, 2 if options.quick else SEQUENCES, options.threads, options.quick)
    show("Products", products)
    show(f"Entropy of order {ORDER}", records)
    circumstances["seconds"] = time.perf_counter() - began
    found = [] if options.quick else targets(records)
    model = shape.describe()
    finish(options.out, circumstances, found, model=model, training=training, products=products, estimates=records)


if __name__ == "__main__":
    main()
