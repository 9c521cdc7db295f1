"""The cost model of the documentation: its counts are those of torch's graphs, its errors at measured points small."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from cost_model import (
    BFLOAT16,
    GRADIENT,
    KEPT,
    OF_LOSS,
    REBUILT,
    Machine,
    Network,
    Storage,
    estimate_memory,
    largest_network,
    orthogonal_seconds,
    plan,
    vector_reads,
)
from cost_page import ON_GPU, compared, cpu_points, estimates_compared, fitted, gpu_points, processor
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SMALL = Network(vocabulary=96, width=32, depth=3, heads=4, length=24, context=24)
MACHINE = Machine("made up", 1e12, 1e10, 1e-3, 1e11, 1e10, 1e10, ((2, 1e10), (4, 1e10)))
TOLERANCE = 0.3  # relative, of time and memory at measured points


def results(name: str) -> dict[str, Any]:
    path = BENCHMARKS / "results" / f"{name}.json"
    if not path.exists():
        pytest.skip(f"{name}.py was not run")
    return json.loads(path.read_text(encoding="utf-8"))


def saved_bytes(model: torch.nn.Module, ids: Tensor, twice: bool) -> int:
    """Bytes that the graph of the loss, or that of its gradient, keeps alive beside the parameters."""
    sizes: dict[int, int] = {}
    kept = []
    parameters = list(model.parameters())

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor.detach())  # so that no address is used twice
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), sdpa_kernel(SDPBackend.MATH):
        logits = model(ids[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        if twice:
            torch.autograd.grad(loss, parameters, create_graph=True)
    for parameter in parameters:
        sizes.pop(parameter.untyped_storage().data_ptr(), None)
    return sum(sizes.values())


@pytest.mark.parametrize("twice", [False, True])
def test_memory_of_graphs_is_that_of_torch_s_saved_tensors(twice: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from _gpu_networks import GPT

    model = GPT(SMALL.vocabulary, SMALL.context, SMALL.width, SMALL.depth, SMALL.heads)
    assert SMALL.parameters == sum(p.numel() for p in model.parameters())
    ids = torch.randint(SMALL.vocabulary, (40, SMALL.length + 1), generator=torch.Generator().manual_seed(0))
    tokens = 40 * SMALL.length
    modelled = SMALL.graph_bytes(tokens) if twice else SMALL.graph_bytes(tokens, OF_LOSS)
    assert modelled == pytest.approx(saved_bytes(model, ids, twice), rel=0.05)


def test_networks_on_the_gpu_have_the_measured_number_of_parameters() -> None:
    measured = {c["network"]: c["parameters"] for c in results("gpu")["cases"] if c["method"] == "gradient"}
    for name in ("GPT, 10 M", "GPT, 124 M"):
        assert ON_GPU[name][0].parameters == measured[name]


@pytest.mark.parametrize(
    ("name", "points", "waits"), [("gpu", gpu_points, True), ("language_model", cpu_points, False)]
)
def test_time_and_memory_at_measured_points_are_within_the_tolerance(name: str, points: Any, waits: bool) -> None:
    measured = points(results(name))
    assert len(measured) >= 8
    for record in compared(fitted(name, measured, waits), measured):
        assert abs(record["time_error"]) < TOLERANCE, record
        assert record["memory"] is None or abs(record["memory_error"]) < TOLERANCE, record


def test_estimates_that_were_not_fitted_are_within_the_tolerance() -> None:
    measured = results("language_model")
    for record in estimates_compared(measured, processor(measured, cpu_points(measured))):
        assert abs(record["time_error"]) < TOLERANCE, record
        assert abs(record["memory_error"]) < TOLERANCE, record


def test_graphs_built_again_cost_a_gradient_more() -> None:
    kept, again, gradient = (SMALL.work(method, 480) for method in (KEPT, REBUILT, GRADIENT))
    assert kept.flops == 2 * gradient.flops
    assert again == kept + gradient
    assert MACHINE.seconds(again) == pytest.approx(MACHINE.seconds(kept) + MACHINE.seconds(gradient))


def test_vectors_read_are_those_of_a_projection_twice_for_every_step_and_probe() -> None:
    deep, shallow, probes = 45, 15, 10  # of 60 products
    counted = sum(4 * step for step in range(1, deep + 1)) + 4 * deep * (shallow + probes)
    assert vector_reads(60) == pytest.approx(counted, rel=0.02)


def test_a_basis_takes_half_in_bfloat16_and_a_share_on_each_device() -> None:
    none, exact, half, shared = (
        estimate_memory(SMALL, 60, storage, 24, devices=4)
        for storage in (Storage("none"), Storage("device"), Storage("device", BFLOAT16), Storage("sharded"))
    )
    assert exact - none == 45 * SMALL.vector_bytes
    assert half - none == (exact - none) / 2
    assert shared - none == (exact - none) / 4
    assert orthogonal_seconds(MACHINE, SMALL, 60, Storage("none")) == 0


def test_plans_take_the_first_storage_that_fits() -> None:
    chosen = []
    for memory in (1e9, 12e6, 1.1e7, 1e7, 1e3):
        machine = Machine("made up", 1e12, 1e10, 1e-3, 1e11, 1e10, memory, ((2, 1e10),))
        found = plan(machine, SMALL, 960, 60, devices=1)
        chosen.append(None if found is None else (found.storage.describe(), found.kept))
        assert found is None or found.memory <= memory
    assert chosen[0] == ('basis="device"', True)
    assert chosen[-1] is None


def test_more_devices_hold_larger_networks_only_where_vectors_are_shared() -> None:
    device, shared = (
        [largest_network(MACHINE, 60, Storage(place), d) for d in (1, 2)] for place in ("device", "sharded")
    )
    assert device[0] == device[1] == shared[0] < shared[1]
