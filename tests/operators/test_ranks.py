"""Operators whose data are shared among processes, against one process with all data."""

from __future__ import annotations

import functools
import os
import time
import warnings

import pytest
import torch
import torch.distributed as dist
from processes import run_processes
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import renyi_lab as rl

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo"),
]
DTYPES = [torch.float32, torch.float64]
SPLITS = [[40, 24], [64, 0], [0, 64], [7, 57]]


def network(dtype=torch.float64):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 4)).to(dtype)


def data(dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(64, 6, generator=generator, dtype=torch.float64).to(dtype)
    y = torch.randint(0, 4, (64,), generator=generator)
    y[::5] = -100  # ignored: masses differ from sizes
    return x, y


def shard(dtype, sizes):
    return tuple(part.split(sizes)[dist.get_rank()] for part in data(dtype))


def quantities(H):
    v = torch.randn(H.dim, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(H.dtype)
    loss, gradient = H.loss_and_gradient()
    return {
        "product": H @ v,
        "products": H @ torch.stack([v, v.flip(0)], dim=1),
        "gradient": gradient,
        "loss": torch.tensor([loss, H.loss, H.total_loss()]),
        "sizes": torch.tensor([H.num_samples, H.total_mass, H.num_counted]),
        "block": H.blocks()["0.weight"] @ v[:54],
    }


def of_all_operators():
    return {(dtype, *sizes): of_operators(dtype, sizes) for dtype in DTYPES for sizes in SPLITS}


@pytest.fixture(scope="module")
def operators_of_ranks():
    return run_processes(of_all_operators)


def of_operators(dtype, sizes):
    group, x, loss = dist.group.WORLD, shard(dtype, sizes), nn.CrossEntropyLoss()
    model = network(dtype)
    found = [quantities(rl.HessianOperator(model, loss, x, process_group=group))]
    found.append(quantities(rl.GGNOperator(model, loss, x, process_group=group, micro_batch_size=9)))
    wrapped = DistributedDataParallel(network(dtype))
    found.append(quantities(rl.HessianOperator(wrapped, nn.CrossEntropyLoss(reduction="sum"), x, process_group=group)))
    found.append({"draws": with_dropout(dtype, x, group)})
    return found


def with_dropout(dtype, batches, group=None):
    model = nn.Sequential(network(dtype), nn.Dropout(0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        H = rl.HessianOperator(model, nn.CrossEntropyLoss(), batches, mode="train", process_group=group)
    return H @ torch.ones(H.dim, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", SPLITS)
def test_two_processes_are_one(operators_of_ranks, dtype, sizes):
    model, total = network(dtype), nn.CrossEntropyLoss(reduction="sum")
    expected = [
        quantities(rl.HessianOperator(model, nn.CrossEntropyLoss(), data(dtype))),
        quantities(rl.GGNOperator(model, nn.CrossEntropyLoss(), data(dtype))),
        quantities(rl.HessianOperator(model, total, data(dtype))),
        {"draws": with_dropout(dtype, list(zip(*(part.split(sizes) for part in data(dtype)), strict=True)))},
    ]
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    ranks = [found[(dtype, *sizes)] for found in operators_of_ranks]
    for one, other, alone in zip(*ranks, expected, strict=True):
        for name, value in alone.items():
            assert torch.equal(one[name], other[name]), name
            scale = float(value.abs().max())
            torch.testing.assert_close(one[name], value, rtol=0, atol=tolerance * scale, msg=name)


def of_all_spectra():
    return {dtype: of_spectra(dtype, [40, 24]) for dtype in DTYPES}


@pytest.fixture(scope="module")
def spectra_of_ranks():
    return run_processes(of_all_spectra)


def of_spectra(dtype, sizes):
    warnings.simplefilter("ignore")
    group, x = dist.group.WORLD, shard(dtype, sizes)
    H = rl.HessianOperator(network(dtype), nn.CrossEntropyLoss(), x, process_group=group)
    report = rl.sharpness_report(
        network(dtype), nn.CrossEntropyLoss(), x, num_matvecs=40, perturbation_samples=30, process_group=group
    )
    spectra = {
        "estimated": rl.estimate_spectrum(H, num_matvecs=40),
        "sharded": rl.estimate_spectrum(H, num_matvecs=40, basis="sharded"),
        "sharded, rounded": rl.estimate_spectrum(H, num_matvecs=40, basis="sharded", basis_dtype=torch.bfloat16),
        "data error": rl.estimate_spectrum(H, num_matvecs=30, data_error=True),
        "exact": rl.exact_spectrum(H),
    }
    numbers = {name: entropies(spectrum) for name, spectrum in spectra.items()}
    return numbers, {row: estimate.value for row, estimate in report.estimates.items()}, report.notes


def entropies(spectrum):
    found = [spectrum.renyi_entropy(alpha) for alpha in (0.5, 1.0, 2.0)]
    return torch.tensor([[each.value, each.standard_error] for each in found])


@pytest.mark.filterwarnings("ignore:the entropy of order")
@pytest.mark.parametrize("dtype", DTYPES)
def test_spectra_and_reports_of_two_processes_are_those_of_one(spectra_of_ranks, dtype):
    model, loss = network(dtype), nn.CrossEntropyLoss()
    H = rl.HessianOperator(model, loss, data(dtype))
    alone = {
        "estimated": rl.estimate_spectrum(H, num_matvecs=40),
        "data error": rl.estimate_spectrum(H, num_matvecs=30, data_error=True),
        "exact": rl.exact_spectrum(H),
        "sharded, rounded": rl.estimate_spectrum(H, num_matvecs=40, basis_dtype=torch.bfloat16),
    }
    report = rl.sharpness_report(model, loss, data(dtype), num_matvecs=40, perturbation_samples=30)
    (numbers, values, notes), other = (found[dtype] for found in spectra_of_ranks)
    # An entropy of order ½ depends on the square roots of eigenvalues that are zero up to rounding.
    tolerance = 1e-3 if dtype == torch.float32 else 1e-7
    for name, found in numbers.items():
        expected = entropies(alone["estimated" if name == "sharded" else name])
        # Each rank keeps what rounding took from the largest entries of its own columns.
        close = 1e-3 if name == "sharded, rounded" else tolerance
        torch.testing.assert_close(found, expected, rtol=close, atol=close, msg=name)
        assert torch.equal(found, other[0][name])
    assert notes.keys() == report.notes.keys()
    for row, estimate in report.estimates.items():
        assert values[row] == pytest.approx(estimate.value, rel=tolerance, abs=tolerance, nan_ok=True), row


def of_memory(place):
    values = torch.linspace(0, 1, 30_001, dtype=torch.float64)
    operator = Diagonal(
        values,
        rl.HessianOperator(
            network(), nn.CrossEntropyLoss(), shard(torch.float64, [40, 24]), process_group=dist.group.WORLD
        ).ranks,
    )
    run = rl.krylov.lanczos(operator, num_steps=20, basis=place)
    return run.basis.untyped_storage().nbytes(), run.ritz_values, run.ritz_vectors(slice(0, 2))


class Diagonal(rl.operators.LinearOperator):
    _checks_symmetry = False

    def __init__(self, values, ranks=None):
        super().__init__(len(values), values.dtype, values.device)
        self.values, self.ranks = values, ranks

    def _matvec(self, vector):
        return self.values * vector


def test_a_sharded_basis_takes_half_the_memory_on_each_of_two_ranks():
    alone = rl.krylov.lanczos(Diagonal(torch.linspace(0, 1, 30_001, dtype=torch.float64)), num_steps=20)
    for size, ritz_values, vectors in run_processes(of_memory, "sharded"):
        assert size <= 20 * 15_001 * 8
        torch.testing.assert_close(torch.tensor(ritz_values), torch.tensor(alone.ritz_values), rtol=0, atol=1e-12)
        torch.testing.assert_close(vectors, alone.ritz_vectors(slice(0, 2)), rtol=0, atol=1e-9)


class OwnError(ValueError):
    pass


FAULTS = [
    ("weights", (RuntimeError, RuntimeError), "weights or buffers differ between the ranks"),
    ("model", (ValueError, ValueError), "differ in their parameters"),
    ("seed", (ValueError, ValueError), "differ in their seeds: 0 on rank 0, 1 on rank 1"),
    ("same data", (ValueError, ValueError), "ranks 0 and 1 of the process group hold the same data"),
    ("no data", (ValueError, ValueError), "every rank of the process group has empty data"),
    ("labels", (ValueError, ValueError), "label"),
    ("NaN", (ValueError, ValueError), "loss"),
    ("half precision", (ValueError, ValueError), "single precision"),
    ("vector", (RuntimeError, RuntimeError), "vectors or weights differ"),
    ("later weights", (RuntimeError, RuntimeError), "vectors or weights differ"),
    ("layer", (RuntimeError, OSError), "the disk is full"),
    ("error of one's own", (ValueError, OwnError), "the disk is full"),
    ("small weights", (RuntimeError, RuntimeError), "weights or buffers differ between the ranks"),
    ("weights and infinity", (RuntimeError, RuntimeError), "weights or buffers differ between the ranks"),
    ("class weights", (RuntimeError, RuntimeError), "weights or buffers differ between the ranks"),
    ("class weights of a function", (RuntimeError, RuntimeError), "weights or buffers differ between the ranks"),
    ("ignored labels", (ValueError, ValueError), "differ in their ignored labels"),
    ("buffers", (ValueError, ValueError), "differ in their shapes of weights and buffers"),
    ("method", (ValueError, ValueError), "differ in their methods"),
    ("params", (ValueError, ValueError), "params='other' is not the name"),
    ("batches", (TypeError, TypeError), "data must be"),
    ("vector, finite differences", (RuntimeError, RuntimeError), "vectors or weights differ"),
    ("a little later weights, finite differences", (torch.Tensor, torch.Tensor), "tensor"),
    ("memory", (ValueError, ValueError), "a basis of 15 vectors"),
    ("warning", (UserWarning, UserWarning), "computes partly in torch.float32"),
    ("no fault, one-hot", (torch.Tensor, torch.Tensor), "tensor"),
    ("no fault", (torch.Tensor, torch.Tensor), "tensor"),  # the group still works
]


def of_all_faults():
    """One after the other in one group, which works on after each."""
    found = {}
    for fault, *_ in FAULTS:
        try:
            found[fault] = of_faults(fault)
        except Exception as error:
            found[fault] = error
    return found


@pytest.fixture(scope="module")
def faults_of_ranks():
    return run_processes(of_all_faults, timeout=30)


def of_faults(fault):
    rank, group = dist.get_rank(), dist.group.WORLD
    model, x, loss, options = network(), list(shard(torch.float64, [40, 24])), nn.CrossEntropyLoss(), {}
    if fault == "weights" and rank == 1:
        model[0].bias.data += 1
    if fault == "model":
        model = nn.Sequential(nn.Linear(6, 9 + rank), nn.Tanh(), nn.Linear(9 + rank, 4)).double()
    if fault == "seed":
        options["seed"] = rank
    if fault == "same data":
        x = data()
    if fault == "no data":
        x = [part[:0] for part in x]
    if fault == "labels" and rank == 1:
        x[1] = x[1] + 4
    if fault == "NaN" and rank == 0:
        x[0] = x[0] * torch.nan
    if fault == "half precision":
        model = model.half()
    if fault == "small weights":
        model[0].weight.data *= 1e5
        model[2].bias.data += rank
    if fault == "weights and infinity":
        model.register_buffer("mask", torch.full((2,), -torch.inf))
        model[2].bias.data += rank
    if fault == "class weights":
        loss = nn.CrossEntropyLoss(weight=torch.ones(4).double() + rank)
    if fault == "class weights of a function":
        loss = functools.partial(F.cross_entropy, weight=torch.ones(4).double() + rank)
    if fault == "ignored labels":
        loss = nn.CrossEntropyLoss(ignore_index=-100 + rank)
    if fault == "buffers" and rank == 1:
        model.register_buffer("more", torch.zeros(2))
    if (fault == "method" and rank == 1) or "finite differences" in fault:
        options["method"] = "finite_difference"
    if fault == "params" and rank == 1:
        options["params"] = "other"
    if fault == "warning":  # the model and the warning are seen by rank 0 alone
        model, x = nn.Sequential(model, Rounded()), shard(torch.float64, [64, 0])
    if fault == "no fault, one-hot":  # the sums of both parts are the same
        x = torch.eye(6).double().roll(rank, 1), torch.arange(6) % 2
    with warnings.catch_warnings():
        warnings.simplefilter("error" if fault == "warning" else "default")
        H = rl.HessianOperator(model, loss, tuple(x), **{"process_group": group, **options})
    if fault == "batches":
        return H.restricted(batches=H.batches if rank == 0 else 5)
    if fault == "memory":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("renyi_lab.krylov._basis.free_bytes", lambda device: 10 if rank == 1 else 10**9)
            return rl.estimate_spectrum(H, num_matvecs=20)
    v = torch.ones(H.dim, dtype=H.dtype)
    if fault.startswith("vector"):
        return H @ (v + rank)
    if fault == "later weights" and rank == 1:
        model[0].weight.data *= 1.5
    if fault == "a little later weights, finite differences":
        H @ v
        if rank == 1:  # less than is noticed
            model[0].weight.data *= 1 + 1e-9
    if fault in ("layer", "error of one's own") and rank == 1:
        H.loss_fn = broken_loss if fault == "layer" else own_broken_loss
        model[0].weight.data *= 1.5
    return H @ v


def broken_loss(outputs, targets):
    raise OSError("the disk is full")


def own_broken_loss(outputs, targets):
    raise OwnError("the disk is full")


class Rounded(nn.Module):
    def forward(self, x):
        return (x.float() * 1).double()


def of_an_empty_rank():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        H = rl.HessianOperator(
            nn.Sequential(network(), Rounded()),
            nn.CrossEntropyLoss(),
            shard(torch.float64, [64, 0]),
            process_group=dist.group.WORLD,
        )
    return H.eps


def test_the_precision_is_that_of_all_ranks():
    assert run_processes(of_an_empty_rank) == [torch.finfo(torch.float32).eps] * 2


@pytest.mark.parametrize(("fault", "kinds", "message"), FAULTS)
def test_a_fault_on_one_rank_ends_all_with_its_message(faults_of_ranks, fault, kinds, message):
    for ranks, kind in zip(faults_of_ranks, kinds, strict=True):
        assert type(ranks[fault]) is kind, ranks[fault]
        assert message in str(ranks[fault])


def of_an_end(folder):
    H = rl.HessianOperator(
        network(), nn.CrossEntropyLoss(), shard(torch.float64, [40, 24]), process_group=dist.group.WORLD
    )
    v = torch.ones(H.dim, dtype=H.dtype)
    if dist.get_rank() == 1:
        (folder / "1").write_bytes(b"")
        os._exit(0)
    time.sleep(0.1)
    try:
        H @ v
    except RuntimeError as error:
        (folder / "message").write_text(str(error))
    os._exit(0)


def test_a_rank_that_ends_is_noticed(tmp_path):
    with pytest.raises((FileNotFoundError, EOFError)):  # neither leaves a result
        run_processes(of_an_end, tmp_path, timeout=20)
    assert "has ended or has not answered within its timeout" in (tmp_path / "message").read_text()


def of_another_loss():
    x, y = shard(torch.float64, [40, 24])
    H = rl.HessianOperator(network(), custom_loss, (x, y.clamp_min(0)), process_group=dist.group.WORLD)
    try:  # rank 1 has labels that do not count: a mean over labels, which is not one over samples
        rl.HessianOperator(network(), custom_loss, (x, y), process_group=dist.group.WORLD)
    except ValueError as error:
        return H.loss, error
    return H.loss, None


def custom_loss(outputs, targets):
    return F.cross_entropy(outputs, targets)


def test_a_loss_of_ones_own_is_checked_on_every_rank():
    x, y = data()
    expected = rl.HessianOperator(network(), custom_loss, (x, y.clamp_min(0))).loss
    for loss, error in run_processes(of_another_loss):
        assert loss == pytest.approx(expected, rel=1e-12)
        assert "batch_mass" in str(error)


def test_a_process_group_is_needed_first():
    with pytest.raises(ValueError, match="init_process_group"):
        rl.HessianOperator(network(), nn.CrossEntropyLoss(), data(), process_group="world")
