"""Finite differences of models that FSDP2 shards over two processes."""

import pytest
import torch
from torch import multiprocessing, nn
from torch.nn import functional as F

from renyi_lab.krylov import lanczos
from renyi_lab.operators import GGNOperator, HessianOperator, LossSurface
from renyi_lab.spectrum import estimate_spectrum

distributed = pytest.importorskip("torch.distributed")
fsdp = pytest.importorskip("torch.distributed.fsdp")
pytestmark = pytest.mark.skipif(
    not (distributed.is_available() and distributed.is_gloo_available() and hasattr(fsdp, "fully_shard")),
    reason="needs gloo and FSDP2",
)
needs_sharding_on_cpu = pytest.mark.skipif(
    torch.__version__ < "2.9", reason="gradients of FSDP2 on the CPU are sums instead of means up to torch 2.8"
)

N, D, CLASSES = 23, 6, 3


def network(dtype=torch.float64):
    torch.manual_seed(0)
    middle = nn.Sequential(nn.Linear(9, 7), nn.LayerNorm(7), nn.Tanh())
    return nn.Sequential(nn.Linear(D, 9), nn.Tanh(), middle, nn.Linear(7, CLASSES)).to(dtype)


def sharded(dtype=torch.float64):
    model = network(dtype)
    fsdp.fully_shard(model[2])
    return fsdp.fully_shard(model)


def data(dtype=torch.float64):
    x = torch.randn(N, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(dtype)
    y = torch.arange(N) % CLASSES
    y[4] = -100  # not counted
    return x, y


def shard(rank, dtype=torch.float64):
    """Three batches on the first process, and one on the second."""
    x, y = data(dtype)
    return [(x[:5], y[:5]), (x[5:6], y[5:6]), (x[6:11], y[6:11])] if rank == 0 else [(x[11:], y[11:])]


def local_parts(model):
    return [parameter.detach().to_local().clone() for parameter in model.parameters()]


def vector(dim, dtype=torch.float64):
    return torch.randn(dim, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).to(dtype)


def equals_one_process(rank, dtype):
    H = HessianOperator(sharded(dtype), F.cross_entropy, shard(rank, dtype), method="finite_difference")
    x, y = data(dtype)
    reference = HessianOperator(network(dtype).double(), F.cross_entropy, (x.double(), y))
    rounding = 100 * torch.finfo(dtype).eps
    assert (H.num_samples, H.total_mass, H.dim) == (N, N - 1, reference.dim)
    assert abs(H.loss - reference.loss) < rounding
    assert abs(H.total_loss() - reference.loss) < rounding
    assert float((H.gradient().double() - reference.gradient()).norm()) < rounding
    v = vector(H.dim, dtype)
    product, exact = (H @ v).double(), reference @ v.double()
    norm = float(torch.linalg.eigvalsh(reference.to_dense()).abs().max())
    assert float((product - exact).norm()) < 10 * H.product_error * norm * float(v.norm())
    assert H.product_error < (1e-6 if dtype == torch.float64 else 1e-2)
    gathered = [torch.empty_like(product) for _ in range(2)]
    distributed.all_gather(gathered, product)
    assert torch.equal(*gathered)


def restores_weights_and_gradients(rank, _):
    model = sharded()
    x, y = shard(rank)[0]
    F.cross_entropy(model(x), y).backward()
    weights, gradients = local_parts(model), [p.grad.to_local().clone() for p in model.parameters()]
    H = HessianOperator(model, F.cross_entropy, shard(rank), method="finite_difference")
    H @ vector(H.dim)
    assert all(map(torch.equal, weights, local_parts(model)))
    assert all(map(torch.equal, gradients, [p.grad.to_local() for p in model.parameters()]))
    assert all(isinstance(p, nn.Parameter) and hasattr(p, "full_tensor") for p in model.parameters())


def follows_training_and_forward_passes(rank, _):
    model, plain = sharded(), network()
    H = HessianOperator(model, F.cross_entropy, shard(rank), method="finite_difference")
    H @ vector(H.dim)
    for one in (model, plain):
        optimizer = torch.optim.SGD(one.parameters(), lr=0.5)
        F.cross_entropy(one(data()[0]), data()[1]).backward()
        optimizer.step()
        one(data()[0])  # leaves the outermost weights whole
    reference = HessianOperator(plain, F.cross_entropy, data())
    v = vector(H.dim)
    assert float((H @ v - reference @ v).norm()) < 1e-6 * float((reference @ v).norm())


def blocks_surface_and_spectrum(rank, _):
    H = HessianOperator(sharded(), F.cross_entropy, shard(rank), method="finite_difference")
    reference = HessianOperator(network(), F.cross_entropy, data())
    block, exact = H.restricted(params="2.0"), reference.restricted(params="2.0")
    v = vector(block.dim)
    assert float((block @ v - exact @ v).norm()) < 1e-6 * float((exact @ v).norm())
    surface, other = LossSurface(H), LossSurface(reference)
    assert torch.equal(surface.start, other.start)
    assert abs(surface.loss(1.1 * surface.start) - other.loss(1.1 * other.start)) < 1e-12
    run = lanczos(H, num_steps=6, basis="sharded")
    assert run.basis.shape[1] < 0.6 * H.dim  # half of each vector on each of two processes
    assert abs(run.ritz_values[-1] - lanczos(reference, num_steps=6).ritz_values[-1]) < 1e-6
    trace = estimate_spectrum(H.restricted(params="3.bias")).trace.value
    assert abs(trace - float(reference.restricted(params="3.bias").to_dense().trace())) < 1e-6


def failures_reach_every_process(rank, _):
    empty = [] if rank == 1 else shard(rank)
    with pytest.raises(
        ValueError if rank == 1 else RuntimeError, match="empty" if rank == 1 else r"process 1 has failed.*empty"
    ):
        HessianOperator(sharded(), F.cross_entropy, empty, method="finite_difference")


def messages(rank, _):
    model = sharded()
    for kind in (HessianOperator, GGNOperator):
        with pytest.raises(TypeError, match=r'fully sharded.*method="finite_difference"'):
            kind(model, F.cross_entropy, shard(rank))
    options = {"method": "finite_difference"}
    with pytest.raises(ValueError, match="micro_batch_size"):
        HessianOperator(model, F.cross_entropy, shard(rank), micro_batch_size=2, **options)
    with pytest.raises(ValueError, match="batch_mass"):
        HessianOperator(model, lambda outputs, y: F.cross_entropy(outputs, y), shard(rank), **options)
    model.set_gradient_divide_factor(1.0)
    with pytest.raises(ValueError, match="set_gradient_divide_factor"):
        HessianOperator(model, F.cross_entropy, shard(rank), **options)


CHECKS = (
    (equals_one_process, torch.float64),
    (equals_one_process, torch.float32),
    (restores_weights_and_gradients, None),
    (follows_training_and_forward_passes, None),
    (blocks_surface_and_spectrum, None),
    (failures_reach_every_process, None),
    (messages, None),
)


def in_one_process(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    for check, argument in CHECKS:
        check(rank, argument)
    distributed.barrier()  # one that ends first would break the other's connection
    distributed.destroy_process_group()


@needs_sharding_on_cpu
def test_two_processes_multiply_as_one_does(tmp_path):
    """All checks at once, since starting processes takes longer than the checks."""
    multiprocessing.spawn(in_one_process, (str(tmp_path),), nprocs=2)


def test_a_release_whose_gradients_are_sums_is_named(tmp_path, monkeypatch):
    monkeypatch.delattr(torch.cpu.Stream, "record_event", raising=False)  # as in torch 2.6
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        with pytest.raises(RuntimeError, match=r"does not average.* on a CPU; install torch>=2\.13"):
            HessianOperator(sharded(), F.cross_entropy, data(), method="finite_difference")
    finally:
        distributed.destroy_process_group()
