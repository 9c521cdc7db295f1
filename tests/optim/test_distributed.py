"""Global and local perturbation in two processes against the same training written out in one."""

from __future__ import annotations

import copy
import tempfile
import warnings
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from renyi_lab.optim import RSAM, SAGM, amp_step, local_perturbation

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
    dist.init_process_group("gloo", f"file://{folder}/meeting", timedelta(seconds=60), world_size=2, rank=rank)
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
        found["sagm"] = _sagm_with_own_perturbations(rank)
        found["amp"] = {kind: _overflow_in_one_process(rank, kind) for kind in ("global", "local")}
        found["missing"] = [_no_gradient_in_one_process(rank, how) for how in ("step", "amp_step")]
        torch.save(found, f"{folder}/rank{rank}.pt")
    finally:
        dist.destroy_process_group()


def _sagm_with_own_perturbations(rank: int) -> dict[str, object]:
    """Thirty steps of SAGM with each process's own perturbation; the second process does not use one parameter."""
    x, y = (part.chunk(2)[rank] for part in batch())
    model = DistributedDataParallel(Branching(), find_unused_parameters=True)
    optimizer = SAGM(model.parameters(), SGD, rho=0.2, alpha=0.1, lr=0.1, momentum=0.9)

    def closure() -> Tensor:
        optimizer.zero_grad()
        with local_perturbation(optimizer, model):
            loss = F.cross_entropy(model(x, rank == 0), y)
            loss.backward()
        return loss

    optimizer.step(closure)
    first = weights(model)
    for _ in range(29):
        optimizer.step(closure)
    return {"first": first, "final": weights(model)}


class Branching(nn.Module):
    """A network with a layer that some passes leave out."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()
        self.extra = nn.Parameter(torch.full((2,), 0.5, dtype=torch.float64))

    def forward(self, x: Tensor, with_extra: bool) -> Tensor:
        return self.body(x) * self.extra if with_extra else self.body(x)


def _expected_sagm() -> Tensor:
    """The first of these steps in one process: the mean over processes of ½ [∇L(θ) + ∇L(θ + ε)]."""
    model = Branching()
    final = [torch.zeros_like(p) for p in model.parameters()]
    for rank in range(2):
        x, y = (part.chunk(2)[rank] for part in batch())
        moved = copy.deepcopy(model)
        params = list(moved.parameters())
        for half in range(2):
            loss = F.cross_entropy(moved(x, rank == 0), y)
            grads = torch.autograd.grad(loss, params, allow_unused=True, materialize_grads=True)
            for total, g in zip(final, grads, strict=True):
                total += g / 4
            length = torch.cat([g.flatten() for g in grads]).norm()
            with torch.no_grad():
                for p, g in zip(params, grads, strict=True):
                    p += (0.2 / length - 0.1) * g * (half == 0)
    return weights(model) - 0.1 * torch.cat([g.flatten() for g in final])


def _overflow_in_one_process(rank: int, kind: str) -> dict[str, list]:
    """Scaled steps of which the first overflows in the second process only, in its own first gradient."""
    x, y = (part.chunk(2)[rank] for part in batch())
    model = DistributedDataParallel(network())
    optimizer = RSAM(model.parameters(), SGD, rho=0.1, alpha=2.0, lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=100)
    found: dict[str, list] = {"scales": [], "weights": [weights(model)], "calls": []}
    for step in range(3):
        calls: list[int] = []

        def closure(step=step, calls=calls) -> Tensor:
            optimizer.zero_grad()
            with local_perturbation(optimizer, model) if kind == "local" else warnings.catch_warnings():
                loss = F.cross_entropy(model(x), y)
                scaler.scale(loss * (torch.inf if (step, rank, calls) == (0, 1, []) else 1.0)).backward()
            calls.append(1)
            return loss

        amp_step(optimizer, scaler, closure)
        found["scales"].append(scaler.get_scale())
        found["weights"].append(weights(model))
        found["calls"].append(len(calls))
    return found


def _no_gradient_in_one_process(rank: int, how: str) -> tuple[str, bool, int]:
    """The message of a step for which the second process has no gradient of its own, and what a later one does."""
    x, y = (part.chunk(2)[rank] for part in batch())
    model = DistributedDataParallel(network())
    optimizer = RSAM(model.parameters(), SGD, rho=0.1, alpha=2.0, lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    before, without = weights(model), rank == 1

    def closure() -> Tensor:
        optimizer.zero_grad()
        with local_perturbation(optimizer, model):
            loss = F.cross_entropy(model(x), y)
            if not without:
                (scaler.scale(loss) if how == "amp_step" else loss).backward()
        return loss

    def step() -> None:
        amp_step(optimizer, scaler, closure) if how == "amp_step" else optimizer.step(closure)

    message = ""
    try:
        step()
    except RuntimeError as error:
        message = str(error)
    unchanged, without = torch.equal(weights(model), before), False
    step()
    return message, unchanged, int((weights(model) != before).sum())


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
    for rank, result in enumerate(found):
        for message, unchanged, changed in result["missing"]:
            assert message.startswith("No parameter" if rank else "Another process has no gradient")
            assert unchanged
            assert changed > 0
        torch.testing.assert_close(result["sagm"]["first"], _expected_sagm(), rtol=1e-12, atol=1e-14)
        for kind in ("global", "local"):
            amp, other = result["amp"][kind], found[0]["amp"][kind]
            assert amp["calls"] == [1, 2, 2]
            assert amp["scales"] == [512.0] * 3
            assert torch.equal(amp["weights"][0], amp["weights"][1])
            assert not torch.equal(amp["weights"][1], amp["weights"][2])
            assert all(torch.equal(a, b) for a, b in zip(amp["weights"], other["weights"], strict=True))
    assert torch.equal(found[0]["sagm"]["final"], found[1]["sagm"]["final"])
