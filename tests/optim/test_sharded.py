"""Sharded models (FSDP2) in two processes against the same training in one process on all data."""

from __future__ import annotations

import copy
import tempfile
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from renyi_lab.optim import (
    ASAM,
    RSAM,
    SAGM,
    SAM,
    FisherSAM,
    SharpnessAware,
    amp_step,
    collision_entropy_penalty,
    local_perturbation,
)
from renyi_lab.optim._shards import Shards

SIZES = (20, 12)  # samples of each process
CASES: dict[str, tuple[type[SharpnessAware], dict[str, Any]]] = {
    "SAM": (SAM, {"rho": 0.1}),
    "SAM clipped": (SAM, {"rho": 0.1, "max_grad_norm": 0.01}),
    "ASAM": (ASAM, {"rho": 0.5}),
    "FisherSAM": (FisherSAM, {"rho": 0.1}),
    "SAGM": (SAGM, {"rho": 0.1, "alpha": 0.1}),
    "RSAM paper": (RSAM, {"rho": 0.05, "alpha": 1.5, "warmup_steps": 1}),
    "RSAM capped": (RSAM, {"rho": 5.0, "alpha": 1.5, "max_norm": 0.1}),
    "RSAM divergence": (RSAM, {"rho": 0.05, "alpha": 2.0, "form": "divergence"}),
    "RSAM near one": (RSAM, {"rho": 0.05, "alpha": 1.0, "form": "divergence"}),
    "RSAM exact": (RSAM, {"rho": 0.05, "alpha": 2.0, "form": "exact"}),
}
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-6}
needs_gloo = pytest.mark.skipif(
    not dist.is_available() or not dist.is_gloo_available(), reason="needs torch.distributed with gloo"
)
needs_sharding_on_cpu = pytest.mark.skipif(
    torch.__version__ < "2.9", reason="gradients of FSDP2 on the CPU are sums instead of means up to torch 2.8"
)


class ByTorchNorm(SharpnessAware):
    """SAM as a user would write it, with the operations that torch has for distributed tensors."""

    def perturbation(self, grads, params, groups):
        length = torch.stack([grad.norm() for grad in grads]).norm()
        return [groups[0]["rho"] * grad / length for grad in grads]


def network(dtype: torch.dtype) -> nn.Sequential:
    """Layers of 7, 3 and 1 rows, which two processes cannot share evenly."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3), nn.Tanh(), nn.Linear(3, 1)).to(dtype)


def batch(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    x = torch.randn(sum(SIZES), 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x.to(dtype), (x[:, :1] * x[:, 1:2]).to(dtype)


def closure_for(optimizer: Any, model: nn.Module, x: Tensor, y: Tensor, weight: float):
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = weight * (model(x) - y).square().sum()
        loss.backward()
        return loss

    return closure


def whole(tensor: Any) -> Tensor:
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().clone()


def weights(model: nn.Module) -> Tensor:
    return torch.cat([whole(p).flatten() for p in model.parameters()])


def two_groups(model: nn.Module) -> list[dict[str, Any]]:
    first, *rest = model.parameters()
    return [{"params": [first], "rho": 0.2}, {"params": rest, "lr": 0.01}]


def train(model: nn.Module, case: str, closure_data: tuple, base=torch.optim.Adam, steps: int = 3) -> dict[str, Any]:
    """Train, and say where the weights were at θ, at θ + ε and at the end."""
    method, settings = CASES[case]
    optimizer = method(two_groups(model), base, lr=0.05, **settings)
    closure = closure_for(optimizer, model, *closure_data)
    lengths = []
    for _ in range(steps):
        optimizer.step(closure)
        lengths.append(float(optimizer.perturbation_norm))
    final = weights(model)
    closure()
    optimizer.first_step()
    moved = weights(model)
    optimizer.restore()
    return {"lengths": lengths, "final": final, "moved": moved, "returned": torch.equal(weights(model), final)}


def trained_cases() -> list[tuple[torch.dtype, str]]:
    single = ("SAM", "RSAM paper", "RSAM exact")
    return [*((torch.float64, case) for case in CASES), *((torch.float32, case) for case in single)]


def sharded(model: nn.Module) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (2,))
    fully_shard(model[0], mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def own_data(rank: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, float]:
    """This process's samples, and the weight under which the mean over processes is the mean over all samples."""
    x, y = (part.split(SIZES)[rank] for part in batch(dtype))
    return x, y, len(SIZES) / sum(SIZES)


def _sharded_worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meeting", timedelta(seconds=60), world_size=2, rank=rank)
    try:
        found: dict[str, Any] = {"norms": _norms_of_mixed_tensors(), "fsdp1": _refusals_of_flat_parameters()}
        for dtype, case in trained_cases():
            found[f"{case} {dtype}"] = train(sharded(network(dtype)), case, own_data(rank, dtype))
        found["custom"] = _custom_perturbation(rank)
        found["resumed"] = _resumed_training(rank)
        found["checkpoint"] = _resumed_from_checkpoint_api(rank)
        found["reshard"] = _forward_after_backward(rank)
        found["refused"] = _refusals_of_sharded_models(rank)
        found["replicated"] = _replicated_shards(rank)
        found["tensor-parallel"] = _tensor_parallel_layers()
        found["amp"] = _scaled_steps(rank)
        torch.save(found, f"{folder}/rank{rank}.pt")
    finally:
        dist.destroy_process_group()


def _norms_of_mixed_tensors() -> list[tuple[float, float, int]]:
    """Norms by `Shards` of cut, replicated and plain tensors together, and of the same tensors in one vector."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    full = [torch.randn(3, 5, generator=torch.Generator().manual_seed(i), dtype=torch.float64) for i in range(5)]
    line, grid = init_device_mesh("cpu", (2,)), init_device_mesh("cpu", (1, 2))
    tensors = [
        full[0],
        distribute_tensor(full[1], line, [Shard(0)]),
        distribute_tensor(full[2], line, [Replicate()]),
        distribute_tensor(full[3], grid, [Replicate(), Shard(1)]),
        distribute_tensor(full[4], grid, [Shard(0), Shard(1)]),
    ]
    shards, vector = Shards(tensors), torch.cat([tensor.flatten() for tensor in full])
    norms = [(float(shards.total(shards.parts, p)), float(vector.norm(p))) for p in (1, 2, torch.inf)]
    return [(*pair, shards.numel) for pair in norms]


def _replicated_shards(rank: int) -> tuple[Tensor, Tensor]:
    """Weights after steps in one process, and with parameters that are replicated over one axis of a mesh."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = network(torch.float64)
    fully_shard(model, mesh=init_device_mesh("cpu", (2, 1), mesh_dim_names=("replicate", "shard")))
    plain = train(network(torch.float64), "RSAM paper", (*batch(torch.float64), 1 / sum(SIZES)))
    return plain["final"], train(model, "RSAM paper", own_data(rank, torch.float64))["final"]


def _tensor_parallel_layers() -> tuple[Tensor, Tensor]:
    """The same with layers that share out rows or columns, and a norm layer whose gradients are partial sums."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        RowwiseParallel,
        SequenceParallel,
        parallelize_module,
    )

    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 4), nn.LayerNorm(4), nn.Linear(4, 1)).double()
    model = copy.deepcopy(plain)
    plan = {
        "0": ColwiseParallel(),
        "2": RowwiseParallel(output_layouts=Shard(0)),
        "3": SequenceParallel(sequence_dim=0),
        "4": RowwiseParallel(input_layouts=Shard(0)),
    }
    parallelize_module(model, init_device_mesh("cpu", (2,)), plan)
    data = (*batch(torch.float64), 1 / sum(SIZES))
    return tuple(train(m, "RSAM paper", data, torch.optim.SGD)["final"] for m in (plain, model))


def _refusals_of_flat_parameters() -> list[str]:
    from torch.distributed.fsdp import FullyShardedDataParallel

    messages = []
    for original in (False, True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = FullyShardedDataParallel(
                network(torch.float32), device_id=torch.device("cpu"), use_orig_params=original
            )
        try:
            SAM(model.parameters())
        except TypeError as error:
            messages.append(str(error))
    return messages


def _custom_perturbation(rank: int) -> tuple[Tensor, Tensor]:
    results = []
    for method in (SAM, ByTorchNorm):
        model = sharded(network(torch.float64))
        optimizer = method(model.parameters(), torch.optim.SGD, rho=0.1, lr=0.1)
        optimizer.step(closure_for(optimizer, model, *own_data(rank, torch.float64)))
        results.append(weights(model))
    return results[0], results[1]


def _resumed_training(rank: int) -> tuple[Tensor, Tensor]:
    """Weights after four steps, and after two, a `state_dict` into a new optimizer, and two more."""
    data = own_data(rank, torch.float64)

    def made() -> tuple[nn.Module, SharpnessAware]:
        model = sharded(network(torch.float64))
        return model, RSAM(model.parameters(), torch.optim.Adam, rho=0.05, lr=0.05, warmup_steps=3)

    first, optimizer = made()
    for _ in range(2):
        optimizer.step(closure_for(optimizer, first, *data))
    second, resumed = made()
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for model, own in ((first, optimizer), (second, resumed)):
        for _ in range(2):
            own.step(closure_for(own, model, *data))
    return weights(first), weights(second)


def _resumed_from_checkpoint_api(rank: int) -> tuple[Tensor, Tensor]:
    """The same with torch's checkpoint API on the base optimizer, and a learning rate changed in between."""
    from torch.distributed.checkpoint import state_dict as api

    data = own_data(rank, torch.float64)
    models = [sharded(network(torch.float64)) for _ in range(2)]
    optimizers = [SAM(model.parameters(), torch.optim.Adam, rho=0.1, lr=0.05) for model in models]
    optimizers[0].step(closure_for(optimizers[0], models[0], *data))
    models[1].load_state_dict(models[0].state_dict())
    saved = copy.deepcopy(api.get_optimizer_state_dict(models[0], optimizers[0].base))
    api.set_optimizer_state_dict(models[1], optimizers[1].base, saved)
    for model, optimizer in zip(models, optimizers, strict=True):
        optimizer.param_groups[0]["lr"] = 0.02
        optimizer.step(closure_for(optimizer, model, *data))
    return weights(models[0]), weights(models[1])


def _forward_after_backward(rank: int) -> tuple[Tensor, Tensor]:
    """Weights after a step, without and with a forward pass and ``reshard()`` at the end of the closure."""
    x, y, weight = own_data(rank, torch.float64)
    results = []
    for again in (False, True):
        model = sharded(network(torch.float64))
        optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.5, lr=0.1)
        plain = closure_for(optimizer, model, x, y, weight)

        def closure(again=again, plain=plain, model=model) -> Tensor:
            loss = plain()
            if again:
                with torch.no_grad():
                    model(x)
                model.reshard()
            return loss

        optimizer.step(closure)
        results.append(weights(model))
    return results[0], results[1]


def _refusals_of_sharded_models(rank: int) -> list[str]:
    x, y, _ = own_data(rank, torch.float64)
    model = sharded(network(torch.float64))
    messages = []
    try:
        loss = (model(x) - y).square().mean()
        collision_entropy_penalty(loss, model.parameters(), generator=torch.Generator())
    except ValueError as error:
        messages.append(str(error))
    try:
        with local_perturbation(SAM(model.parameters()), model):
            pass
    except TypeError as error:
        messages.append(str(error))
    return messages


def _scaled_steps(rank: int) -> dict[str, Any]:
    """Steps with a gradient scaler: one that is taken, and those with an overflow in one process's shard only."""
    x, y, weight = own_data(rank, torch.float64)
    plain_model, model = sharded(network(torch.float64)), sharded(network(torch.float64))
    plain, optimizer = (SAM(m.parameters(), torch.optim.SGD, rho=0.1, lr=0.1) for m in (plain_model, model))
    plain.step(closure_for(plain, plain_model, x, y, weight))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=100)
    found: dict[str, Any] = {"plain": weights(plain_model), "scales": [], "kept": []}
    for bad_pass in (None, 1, 2):
        calls = []

        def closure(bad_pass=bad_pass, calls=calls) -> Tensor:
            optimizer.zero_grad()
            loss = weight * (model(x) - y).square().sum()
            scaler.scale(loss).backward()
            calls.append(1)
            if len(calls) == bad_pass and rank == 1:
                with torch.no_grad():
                    model[0].weight.grad.to_local()[0, 0] = torch.nan
            return loss

        before = weights(model)
        amp_step(optimizer, scaler, closure)
        found["scales"].append(scaler.get_scale())
        found["kept"].append(torch.equal(weights(model), before))
        found.setdefault("scaled", weights(model))
    return found


@pytest.mark.slow
@needs_gloo
@needs_sharding_on_cpu
def test_two_processes_with_shards_take_the_steps_of_one_process_on_all_data():
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_sharded_worker, args=(folder,), nprocs=2)
        found = [torch.load(Path(folder) / f"rank{rank}.pt") for rank in range(2)]
    for dtype, case in trained_cases():
        expected, tolerance = train(network(dtype), case, (*batch(dtype), 1 / sum(SIZES))), TOLERANCES[dtype]
        for result in (one[f"{case} {dtype}"] for one in found):
            for name in ("final", "moved"):
                torch.testing.assert_close(
                    result[name], expected[name], rtol=tolerance, atol=tolerance, msg=lambda m, c=case: f"{c}: {m}"
                )
            assert result["lengths"] == pytest.approx(expected["lengths"], rel=10 * tolerance), case
            assert result["returned"]
        assert torch.equal(found[0][f"{case} {dtype}"]["final"], found[1][f"{case} {dtype}"]["final"])
    for one in found:
        for ours, theirs, numel in one["norms"]:
            assert ours == pytest.approx(theirs, rel=1e-14)
            assert numel == 75
        assert len(one["fsdp1"]) == 2
        assert all("FSDP1" in message and "fully_shard" in message for message in one["fsdp1"])
        for name in ("custom", "replicated", "tensor-parallel"):
            torch.testing.assert_close(*one[name], rtol=1e-12, atol=1e-14, msg=lambda m, name=name: f"{name}: {m}")
        for name in ("resumed", "checkpoint", "reshard"):
            assert torch.equal(*one[name]), name
        assert "sharded among processes (FSDP)" in one["refused"][0]
        assert "it is always global" in one["refused"][1]
        torch.testing.assert_close(one["amp"]["scaled"], one["amp"]["plain"], rtol=1e-12, atol=1e-14)
        assert one["amp"]["scales"] == [1024.0, 512.0, 256.0]
        assert one["amp"]["kept"] == [False, True, True]
