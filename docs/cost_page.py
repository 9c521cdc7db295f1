"""The tables of the page of the cost model: measured points, fitted constants, errors, and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from cost_model import (
    AT_ONCE,
    BFLOAT16,
    FLOAT,
    GRADIENT,
    KEPT,
    REBUILT,
    Machine,
    Network,
    Storage,
    estimate_memory,
    largest_network,
    orthogonal_seconds,
    plan,
    tokens_for_host_basis,
    vector_reads,
)

Record = dict[str, Any]
MB = 1e6
TOKENS, PRODUCTS, DEVICES = 2**20, 60, (1, 8, 64)
NETWORKS = {
    "7 M": Network(vocabulary=256, width=256, depth=9, heads=8, length=256, context=256),
    "70 M": Network(vocabulary=50257, width=512, depth=14, heads=8, length=1024, context=1024),
    "124 M": Network(vocabulary=50257, width=768, depth=12, heads=12, length=1024, context=1024),
    "1 B": Network(vocabulary=50257, width=1792, depth=24, heads=14, length=1024, context=1024),
    "7 B": Network(vocabulary=50257, width=4096, depth=34, heads=32, length=1024, context=1024),
}
# The networks of the benchmark on a GPU, with their tokens. Of the vision transformer, patches count as tokens.
ON_GPU = {
    "GPT, 10 M": (Network(256, 256, 12, 8, 256, 256), 16 * 256),
    "GPT, 124 M": (Network(50257, 768, 12, 12, 512, 1024), 4 * 512),
    "ViT-tiny": (Network(10, 192, 12, 3, 64, 64), 256 * 64),
}
# https://www.nvidia.com/en-us/data-center/h200/ has the memory, its rate, single precision and NVLink (both directions
# together); 400 Gbit/s for each device between machines are those of the systems in MLPerf Inference 4.1.
H200_PEAK, H200_RATE, H200_MEMORY, NVLINK, NETWORK = 67e12, 4.8e12, 141e9, 900e9 / 2, 400e9 / 8
SHARE = 0.7  # of the memory's rate that reading long vectors reaches: assumed
HOST_RATE = 1e10  # bytes per second that one thread of the host reads: assumed, about what was measured here


@dataclass(frozen=True)
class Point:
    """A measurement.

    Attributes:
        network: Its name.
        shape: The network.
        tokens: Number of tokens.
        method: As in `Network.work`.
        seconds: Measured time.
        memory: Measured peak, bytes above model and data; ``None`` where there is none for this method.
    """

    network: str
    shape: Network
    tokens: int
    method: str
    seconds: float
    memory: float | None


def gpu_points(results: Record) -> list[Point]:
    """Those of the benchmark on a GPU."""
    points = []
    for case in results["cases"]:
        name, method = case["network"], case["method"]
        if case["group"] != "products" or name not in ON_GPU or "failure" in case:
            continue
        if method == "gradient":
            points.append(Point(name, *ON_GPU[name], GRADIENT, case["milliseconds"] / 1e3, case["peak_mb"] * MB))
        if method == "renyi_lab":
            points.append(Point(name, *ON_GPU[name], KEPT, case["inside_milliseconds"] / 1e3, case["peak_mb"] * MB))
        if method == "renyi_lab, 8 at once" and case["at_once"] > 1:
            points.append(Point(name, *ON_GPU[name], AT_ONCE, case["milliseconds"] / 1e3, None))
    return points


def cpu_points(results: Record) -> list[Point]:
    """Those of the benchmark with a language model, in seconds of the processors that it was given."""
    points = []
    for case in results["products"]:
        shape = _shape(case)
        seconds = case["processor_seconds"] / results["circumstances"]["threads"]
        tokens = case["sequences"] * shape.length
        points.append(Point(case["network"], shape, tokens, case["method"], seconds, case["peak_mb"] * MB))
    return points


def estimates_compared(results: Record, machine: Machine) -> list[Record]:
    """Measured and modelled estimates with a language model; graphs are built again, a sequence at a time."""
    shape, records = _shape(results["model"]), []
    for case in results["estimates"]:
        keeps_none, half = "no vectors" in case["case"], "bfloat16" in case["case"]
        storage = Storage("none" if keeps_none else "device", BFLOAT16 if half else FLOAT)
        seconds = case["processor_seconds"] / results["circumstances"]["threads"]
        modelled = case["products"] * case["sequences"] * machine.seconds(shape.work(REBUILT, shape.length))
        modelled += orthogonal_seconds(machine, shape, case["products"], storage)
        memory = estimate_memory(shape, case["products"], storage, shape.length)
        records.append(
            {
                "network": storage.describe(),
                "method": f"{case['products']} products",
                "tokens": case["sequences"] * shape.length,
                "seconds": seconds,
                "modelled_seconds": modelled,
                "time_error": modelled / seconds - 1,
                "memory": case["peak_mb"] * MB,
                "modelled_memory": memory,
                "memory_error": memory / (case["peak_mb"] * MB) - 1,
            }
        )
    return records


def _shape(record: Record) -> Network:
    return Network(*(record[name] for name in ("vocabulary", "width", "depth", "heads", "length", "context")))


def fitted(name: str, points: Sequence[Point], waits: bool) -> Machine:
    """The machine whose times are nearest to measured ones, by their logarithms, to two digits of each constant.

    Args:
        name: Of the machine.
        points: Measurements.
        waits: Whether the device may wait for the host.
    """
    work = [point.shape.work(point.method, point.tokens) for point in points]
    flops, graph, starts = (np.array([getattr(w, what) for w in work])[:, None] for what in _WORK)
    measured = np.array([point.seconds for point in points])[:, None]
    per_layer = _two_digits(measured.max() / starts.max()) if waits else [0.0]
    best = (np.inf, 0.0, 0.0, 0.0)
    for rate in _two_digits((flops / measured).max()):
        for layer in per_layer:
            graph_rates = np.array(_two_digits((graph / measured).max(), 3))
            seconds = np.maximum(flops / rate + graph / graph_rates, starts * layer)
            errors = (np.log(seconds / measured) ** 2).sum(axis=0)
            best = min(best, (float(errors.min()), rate, float(graph_rates[errors.argmin()]), layer))
    return Machine(name, best[1], best[2], best[3])


_WORK = ("flops", "graph_bytes", "starts")


def _two_digits(about: float, decades: int = 1) -> list[float]:
    """Numbers of two digits from a tenth of one to so many decades above it."""
    low = int(np.floor(np.log10(about))) - 1
    return [float(f"{digits}e{power - 1}") for power in range(low, low + 1 + decades) for digits in range(10, 100, 2)]


def compared(machine: Machine, points: Sequence[Point]) -> list[Record]:
    """Measured and modelled time and memory."""
    records = []
    for point in points:
        seconds = machine.seconds(point.shape.work(point.method, point.tokens))
        memory = point.shape.memory(point.method, point.tokens)
        records.append(
            {
                "network": point.network,
                "method": point.method,
                "tokens": point.tokens,
                "seconds": point.seconds,
                "modelled_seconds": seconds,
                "time_error": seconds / point.seconds - 1,
                "memory": point.memory,
                "modelled_memory": None if point.memory is None else memory,
                "memory_error": None if point.memory is None else memory / point.memory - 1,
            }
        )
    return records


def h200(points: Sequence[Point]) -> Machine:
    """A measured H200 with what is only known from data sheets: memory, links, and the rates of long vectors."""
    links = (8, NVLINK), (64, NETWORK)
    machine = replace(fitted("NVIDIA H200", points, waits=True), memory=H200_MEMORY, link_rates=links)
    return replace(machine, vector_rate=SHARE * H200_RATE, host_rate=HOST_RATE)


def processor(results: Record, points: Sequence[Point]) -> Machine:
    """The processor that the benchmark with a language model ran on."""
    read = results["projection"]
    return replace(fitted("processor", points, waits=False), vector_rate=read["bytes_read"] / read["processor_seconds"])


def costs(machine: Machine) -> list[Record]:
    """One product and an estimate, for each network and number of devices."""
    records = []
    for name, network in NETWORKS.items():
        for devices in DEVICES:
            tokens = max(network.length, TOKENS // devices)
            found = plan(machine, network, TOKENS, PRODUCTS, devices)
            work = network.work(REBUILT if found is None or not found.kept else KEPT, tokens)
            records.append(
                {
                    "network": name,
                    "devices": devices,
                    "flops": work.flops,
                    "bytes_moved": work.bytes_moved,
                    "vectors": network.vector_bytes,
                    "plan": found,
                    "least": network.vector_bytes + estimate_memory(network, PRODUCTS, Storage("none"), network.length),
                }
            )
    return records


def bases(machine: Machine) -> list[Record]:
    """Memory of the basis, time to keep it orthogonal, and tokens whose graphs fit beside it, on one device."""
    records = []
    for name, network in NETWORKS.items():
        for storage in (Storage("device"), Storage("device", BFLOAT16), Storage("cpu"), Storage("none")):
            free = machine.memory - network.vector_bytes - estimate_memory(network, PRODUCTS, storage, 0)
            room = free / (network.memory(KEPT, 1) - network.memory(KEPT, 0))
            records.append(
                {
                    "network": name,
                    "storage": storage.describe(),
                    "basis": storage.total_bytes(network, PRODUCTS),
                    "orthogonal_seconds": orthogonal_seconds(machine, network, PRODUCTS, storage),
                    "tokens": max(0, int(room)),
                }
            )
    return records


def largest(machine: Machine) -> list[Record]:
    """Number of parameters up to which each storage fits."""
    records = []
    for storage in (Storage("device"), Storage("device", BFLOAT16), Storage("sharded"), Storage("none")):
        sizes = [largest_network(machine, PRODUCTS, storage, devices) for devices in DEVICES]
        records.append({"storage": storage.describe(), "sizes": sizes})
    return records


def page(gpu: Record | None, language_model: Record | None) -> Record:
    """All that the page shows; parts whose measurements are missing are ``None``."""
    shown: Record = {"gpu": None, "cpu": None, "products": PRODUCTS, "tokens": TOKENS, "devices": DEVICES}
    shown["reads"] = vector_reads(PRODUCTS)
    shown |= {"networks": NETWORKS, "peak": H200_PEAK, "rate": H200_RATE, "share": SHARE}
    if gpu is not None:
        points = gpu_points(gpu)
        machine = h200(points)
        shown["gpu"] = {"machine": machine, "points": compared(machine, points), "costs": costs(machine)}
        shown["gpu"] |= {"bases": bases(machine), "largest": largest(machine)}
        shown["gpu"]["host_basis_tokens"] = tokens_for_host_basis(machine, PRODUCTS)
    if language_model is not None:
        points = cpu_points(language_model)
        machine = processor(language_model, points)
        shown["cpu"] = {"machine": machine, "points": compared(machine, points)}
        shown["cpu"]["estimates"] = estimates_compared(language_model, machine)
    return shown
