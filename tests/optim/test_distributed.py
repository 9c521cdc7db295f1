"""Global and local perturbation in two processes against the same training written out in one."""

from __future__ import annotations

import copy
import tempfile
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from renyi_lab.optim import RSAM, SAM, local_perturbation

SGD = torch.optim.SGD


def batch() -> tuple[Tensor, Tensor]:
    x = torch.randn(32, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x, (x[:, 0] * x[:, 1] > 0).long()


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2)).double()


def weights(model: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def _worker(rank: int, folder: str) -> None:
    """Train with the global and the local perturbation and store what this process ends with."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    try:
        x, y = (part.chunk(2)[rank] for part in batch())
        found: dict[str, object] = {}
        for kind in ("global", "local"):
            model = DistributedDataParallel(network())
            optimizer = RSAM(model.parameters(), SGD, rho=0.1, alpha=2.0, lr=0.1, momentum=0.9, warmup_steps=1)
            lengths = []
            for _ in range(3):

                def closure(kind=kind, model=model, optimizer=optimizer) -> Tensor:
                    optimizer.zero_grad()
                    with local_perturbation(optimizer, model) if kind == "local" else warnings.catch_warnings():
                        loss = F.cross_entropy(model(x), y)
                        loss.backward()
                    return loss

                optimizer.step(closure)
                lengths.append(float(optimizer.perturbation_norm))
            found[kind] = (weights(model), lengths)
        found["fsdp"] = _refusal_of_sharded_parameters()
        torch.save(found, f"{folder}/rank{rank}.pt")
    finally:
        dist.destroy_process_group()


def _refusal_of_sharded_parameters() -> str:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = network()
    fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    try:
        SAM(model.parameters(), SGD, rho=0.1, lr=0.1)
    except TypeError as error:
        return str(error)
    return "accepted"


def _expected(kind: str) -> tuple[Tensor, list[list[float]]]:
    """The same training in one process: the final weights and each process's ‖ε‖."""
    halves = [tuple(part.chunk(2)[rank] for part in batch()) for rank in range(2)]
    model = network()
    base = SGD(model.parameters(), lr=0.1, momentum=0.9)
    lengths: list[list[float]] = [[0.0], [0.0]]

    def gradients(model: nn.Module, data: list) -> list[Tensor]:
        loss = sum(F.cross_entropy(model(x), y) for x, y in data) / len(data)
        return list(torch.autograd.grad(loss, list(model.parameters())))

    for step in range(3):
        final = [torch.zeros_like(p) for p in model.parameters()]
        for rank, half in enumerate(halves):
            moved = copy.deepcopy(model)
            if step > 0:
                flat = torch.cat([g.flatten() for g in gradients(model, [half] if kind == "local" else halves)])
                length = 0.1 * (flat**4).sum() / (flat @ flat) ** 2 / flat.norm()
                lengths[rank].append(float(length))
                nn.utils.vector_to_parameters(weights(moved) + length * flat / flat.norm(), moved.parameters())
            for total, g in zip(final, gradients(moved, [half]), strict=True):
                total += g / 2
        for p, g in zip(model.parameters(), final, strict=True):
            p.grad = g
        base.step()
    return weights(model), lengths


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs torch.distributed with gloo")
def test_two_processes_perturb_by_the_common_or_by_their_own_gradient_and_stay_together():
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_worker, args=(folder,), nprocs=2)
        found = [torch.load(Path(folder) / f"rank{rank}.pt") for rank in range(2)]
    for kind in ("global", "local"):
        expected, lengths = _expected(kind)
        for rank in range(2):
            torch.testing.assert_close(found[rank][kind][0], expected, rtol=1e-9, atol=1e-12)
            assert found[rank][kind][1] == pytest.approx(lengths[rank], rel=1e-8)
        assert torch.equal(found[0][kind][0], found[1][kind][0])
        same = found[0][kind][1] == pytest.approx(found[1][kind][1], rel=1e-9)
        assert same == (kind == "global")
    assert all("sharded (FSDP)" in result["fsdp"] for result in found)
