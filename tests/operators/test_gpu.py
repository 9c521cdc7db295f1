"""On a CUDA device: the numbers of the CPU, and no waits inside products."""

from __future__ import annotations

import copy
import warnings
from contextlib import contextmanager

import pytest
import torch
from torch.nn import functional as F

from renyi_lab import GGNOperator, HessianOperator, estimate_spectrum, lanczos_steps, models

pytestmark = pytest.mark.gpu


def curves(device="cuda", dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(32, 40, generator=generator, dtype=torch.float64)
    return x.to(device, dtype), torch.randint(10, (32,), generator=generator).to(device)


def images(device="cuda", dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 3, 32, 32, generator=generator, dtype=torch.float64)
    return x.to(device, dtype), torch.randint(10, (4,), generator=generator).to(device)


def probe(dim, *columns):
    return torch.randn(dim, *columns, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def relative(found, truth):
    return float((found.cpu().double() - truth).norm() / truth.norm())


@contextmanager
def waits():
    """The warnings about waits of the host for the device inside the block."""
    torch.cuda.synchronize()
    found = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")
    found += [warning for warning in caught if "called a synchronizing" in str(warning.message)]


@pytest.mark.parametrize("kind", [HessianOperator, GGNOperator])
@pytest.mark.parametrize(("make", "data"), [(models.cnn1d, curves), (models.resnet20, images)])
def test_products_are_those_of_the_cpu(kind, make, data):
    truth = kind(make().double(), F.cross_entropy, data("cpu"))
    V = probe(truth.dim, 6)
    expected = truth @ V
    for dtype, limit in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        H = kind(make().to("cuda", dtype), F.cross_entropy, data(dtype=dtype))
        W = V.to("cuda", dtype)
        assert relative(H @ W, expected) < limit
        assert relative(H @ W[:, 0], expected[:, 0]) < limit
        assert relative(H.gradient(), truth.gradient()) < limit


def test_products_and_gradients_at_weights_that_are_views_of_one_vector():
    model = models.resnet20().double().cuda()
    H, params = HessianOperator(model, F.cross_entropy, images()), list(model.parameters())
    v = probe(H.dim).cuda()
    v /= v.norm()
    flat = torch.nn.utils.parameters_to_vector(params).detach().clone()
    gradients = []
    for sign in (1, -1):
        torch.nn.utils.vector_to_parameters(flat + sign * 1e-5 * v, params)
        gradients.append(H.gradient())
    torch.nn.utils.vector_to_parameters(flat, params)
    difference = (gradients[0] - gradients[1]) / 2e-5
    assert relative(H @ v, difference.cpu()) < 1e-6


def test_weights_and_buffers_changed_through_data_are_noticed():
    model = models.resnet20().double().cuda()
    H = HessianOperator(model, F.cross_entropy, images())
    v = probe(H.dim)
    for tensor in (next(model.parameters()), next(b for b in model.buffers() if b.is_floating_point())):
        H @ v.cuda()
        tensor.data.mul_(1.5)
        twin = HessianOperator(copy.deepcopy(model).cpu(), F.cross_entropy, images("cpu"))
        assert relative(H @ v.cuda(), twin @ v) < 1e-12


def test_a_product_waits_once_and_none_inside_an_algorithm():
    H = HessianOperator(models.resnet20().cuda(), F.cross_entropy, images(dtype=torch.float32))
    v = probe(H.dim).cuda()
    for _ in range(6):  # the first few are compared with each other
        H @ v.float()
    v = v.float()
    with waits() as found:
        H @ v
    assert len(found) <= 1
    with H.unchanged():
        H @ v
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(3):
                H @ v
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_a_lanczos_step_waits_once():
    H = HessianOperator(models.cnn1d().cuda(), F.cross_entropy, curves(dtype=torch.float32))
    steps = lanczos_steps(H, num_steps=20)
    with H.unchanged():
        for _ in range(8):
            next(steps)
        with waits() as found:
            for _ in range(5):
                next(steps)
    assert len(found) <= 5


def test_seeds_give_the_probes_of_the_cpu():
    numbers = []
    for device in ("cpu", "cuda"):
        H = HessianOperator(models.mlp(40, 10, 10).double().to(device), F.cross_entropy, curves(device))
        numbers.append(float(estimate_spectrum(H, num_matvecs=30, progress=False).trace))
    assert numbers[1] == pytest.approx(numbers[0], rel=1e-8)


def test_tf32_and_autocast_change_no_product_and_stay_on():
    truth = HessianOperator(models.resnet20().double(), F.cross_entropy, images("cpu"))
    expected = truth @ probe(truth.dim)
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        with torch.autocast("cuda", torch.bfloat16):
            H = HessianOperator(models.resnet20().cuda(), F.cross_entropy, images(dtype=torch.float32))
            assert relative(H @ probe(H.dim).cuda().float(), expected) < 1e-5
            assert relative(H.gradient(), truth.gradient()) < 1e-5
            assert torch.is_autocast_enabled("cuda")
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
