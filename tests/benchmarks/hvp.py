"""Cost of a Hessian-vector product in gradients: this package and its peers, interleaved in one process.

    python tests/benchmarks/hvp.py

A product's cost is the median of its time over that of a plain gradient on the same data. In every round each contender
is timed once, in an order that rotates, so that other load slows all alike. Before that, every product is compared with
one in double precision. Then: what `estimate_spectrum` takes beyond its products, and memory, each measurement in a
process of its own.

Peers that are not installed are left out. PyHessian requires packages that it does not use; `make bench` installs it
without them.
"""

from __future__ import annotations

import contextlib
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from _common import Target, argument_parser, finish, positive, prepare, show
from _memory import measure_memory
from _products import CONTENDERS, LOSS, Case, Product, gradient, renyi_lab
from torch import Tensor

import renyi_lab as rl
from renyi_lab._utils.progress import progress_bar

TOLERANCE = 1e-3  # relative, of a product in single precision
GRADIENTS_TARGET, SPEEDUP_TARGET, OVERHEAD_TARGET = 2.2, 1.4, 1.2


@dataclass(frozen=True)
class Plan:
    """What is measured, and how long."""

    product_cases: tuple[Case, ...]
    estimate_cases: tuple[Case, ...]
    num_products: int  # budget of an estimate
    memory: tuple[tuple[Case, str, int], ...]  # case, what is called, number of calls
    rounds: int
    turn_seconds: float  # shorter work is repeated within a turn


_MLP, _CNN, _RESNET = Case("mlp", 4000, (40, 100, 100, 10)), Case("cnn1d", 4000), Case("resnet20", 64)
_KEPT, _GRADIENT = "products, graph kept", "gradient"
FULL = Plan(
    (_MLP, _CNN, _RESNET),
    (Case("mlp", 4000, (40, 60, 60, 10)), _CNN),
    num_products=200,
    memory=((_MLP, _KEPT, 1000), (_RESNET, _KEPT, 20), (_RESNET, _GRADIENT, 20)),
    rounds=15,
    turn_seconds=0.05,
)
_SMALL = Case("mlp", 80, (40, 10, 10))
QUICK = Plan(
    (_SMALL, Case("cnn1d", 40)),
    (_SMALL,),
    num_products=20,
    memory=((_SMALL, _KEPT, 30),),
    rounds=2,
    turn_seconds=0.005,
)


def relative_error(case: Case, product: Product, vector: Tensor) -> float:
    """Against a double backward in double precision."""
    model, (x, y) = case.model().double(), case.data()
    truth = rl.hvp(LOSS(model(x.double()), y), model.parameters(), vector.double())
    return float((product(vector).double() - truth).norm() / truth.norm())


def time_in_turns(calls: dict[str, Callable[[], object]], plan: Plan, title: str) -> dict[str, list[float]]:
    """Seconds of a call, one value a round; the calls take turns in an order that rotates."""
    names = list(calls)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    repeats = {}
    for name, call in calls.items():  # warms up as well
        began = time.perf_counter()
        call()
        repeats[name] = math.ceil(plan.turn_seconds / (time.perf_counter() - began))
    with progress_bar(plan.rounds, title) as bar:
        for number in range(plan.rounds):
            shift = number % len(names)
            for name in names[shift:] + names[:shift]:
                began = time.perf_counter()
                for _ in range(repeats[name]):
                    calls[name]()
                seconds[name].append((time.perf_counter() - began) / repeats[name])
            bar.update()
    return seconds


def measure_products(case: Case, plan: Plan) -> list[dict[str, Any]]:
    """One record for each contender that is installed."""
    size = sum(p.numel() for p in case.model().parameters())
    vector = torch.randn(size, generator=torch.Generator().manual_seed(1))
    products: dict[str, Product] = {}
    with warnings.catch_warnings():
        # PyHessian's backward(create_graph=True) leaks, as torch says at each call.
        warnings.filterwarnings("ignore", message="Using backward.. with create_graph=True")
        for name, contender in CONTENDERS.items():
            with contextlib.suppress(ImportError):
                products[name] = contender.make(case)
        errors = {name: relative_error(case, product, vector) for name, product in products.items()}
        wrong = {name: error for name, error in errors.items() if not error <= TOLERANCE}
        if wrong:
            sys.exit(f"{case.name}: these products are wrong by more than {TOLERANCE:g}, relative: {wrong}")
        calls = {
            name: lambda product=product: product(vector)
            for name, product in {"gradient": gradient(case), **products}.items()
        }
        seconds = time_in_turns(calls, plan, f"products, {case.name}")
    one_gradient = statistics.median(seconds["gradient"])
    return [
        {
            "network": case.name,
            "parameters": size,
            "samples": case.samples,
            "method": name,
            "version": CONTENDERS[name].version,
            "gradients": statistics.median(seconds[name]) / one_gradient,
            "milliseconds": 1e3 * statistics.median(seconds[name]),
            "gradient_milliseconds": 1e3 * one_gradient,
            "relative_error": errors[name],
            "whole_data": CONTENDERS[name].whole_data,
            "note": CONTENDERS[name].note,
        }
        for name in products
    ]


def measure_estimate(case: Case, plan: Plan) -> dict[str, Any]:
    """`estimate_spectrum` over its products alone, the graph being kept before either starts."""
    hessian = rl.HessianOperator(case.model(), LOSS, case.data())
    vector = torch.randn(hessian.shape[0], generator=torch.Generator().manual_seed(1))

    def products_alone() -> None:
        for _ in range(plan.num_products):
            hessian @ vector

    calls = {
        "products": products_alone,
        "estimate": lambda: rl.estimate_spectrum(hessian, num_matvecs=plan.num_products, progress=False),
    }
    seconds = {n: statistics.median(s) for n, s in time_in_turns(calls, plan, f"estimate, {case.name}").items()}
    return {
        "network": case.name,
        "parameters": hessian.shape[0],
        "num_products": plan.num_products,
        "products_seconds": seconds["products"],
        "estimate_seconds": seconds["estimate"],
        "ratio": seconds["estimate"] / seconds["products"],
    }


def memory_records(plan: Plan, threads: int) -> list[dict[str, Any]]:
    """Peak memory, and how far it grows over many calls."""
    records = []
    with progress_bar(len(plan.memory), "memory") as bar:
        for case, what, calls in plan.memory:
            measured = measure_memory(case, renyi_lab if what == _KEPT else gradient, calls, threads)
            records.append({"network": case.name, "samples": case.samples, "what": what, "calls": calls, **measured})
            bar.update()
    return records


def targets(products: list[dict[str, Any]], estimates: list[dict[str, Any]]) -> list[Target]:
    found = []
    for network in dict.fromkeys(record["network"] for record in products):
        gradients = {r["method"]: r["gradients"] for r in products if r["network"] == network}
        own = gradients.pop("renyi_lab")
        found.append(Target(f"gradients per product, {network}", own, GRADIENTS_TARGET))
        whole = [cost for name, cost in gradients.items() if CONTENDERS[name].whole_data]
        if whole:
            claim = f"times faster than the best peer for whole data sets, {network}"
            found.append(Target(claim, min(whole) / own, SPEEDUP_TARGET, at_least=True))
    for record in estimates:
        claim = f"estimate_spectrum over its {record['num_products']} products alone, {record['network']}"
        found.append(Target(claim, record["ratio"], OVERHEAD_TARGET))
    return found


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the tables, write the JSON file."""
    parser = argument_parser(__doc__, "hvp")
    parser.add_argument("--rounds", type=positive, help="rounds of the timing (15; with --quick 2)")
    options = parser.parse_args(arguments)
    plan = QUICK if options.quick else FULL
    plan = replace(plan, rounds=options.rounds or plan.rounds)
    circumstances = prepare(parser, options)
    products = [record for case in plan.product_cases for record in measure_products(case, plan)]
    # A turn holds hundreds of products, so that few rounds suffice.
    estimates = [measure_estimate(case, replace(plan, rounds=min(plan.rounds, 5))) for case in plan.estimate_cases]
    memory = memory_records(plan, options.threads)
    show("Gradients per Hessian-vector product", products)
    if missing := CONTENDERS.keys() - {record["method"] for record in products}:
        print(f"Not installed and left out: {', '.join(sorted(missing))}. `make bench` installs all.")
    show("estimate_spectrum over its products alone", estimates)
    show("Resident memory in MB above model and data; growth: peak of the second half less that of the first", memory)
    found = [] if options.quick else targets(products, estimates)
    finish(options.out, circumstances, found, products=products, estimates=estimates, memory=memory)


if __name__ == "__main__":
    main()
