"""Mixed precision, batch norm, accumulation, clipping, compilation; several processes are in test_distributed.py."""

from __future__ import annotations

import copy
import math
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from renyi_lab.optim import RSAM, SAGM, SAM, SharpnessAware, amp_step, local_perturbation, statistics_once

SGD = torch.optim.SGD
METHODS = pytest.mark.parametrize("method", [SAM, RSAM, SAGM])


def batch(n: int = 32, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 5, generator=generator, dtype=dtype)
    return x, (x[:, 0] * x[:, 1] > 0).long()


def network(*, norm: bool = False, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        middle: list[nn.Module] = [nn.BatchNorm1d(8)] if norm else []
        return nn.Sequential(nn.Linear(5, 8), *middle, nn.Tanh(), nn.Linear(8, 2)).to(dtype)


def weights(model: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def plain_closure(optimizer: SharpnessAware, model: nn.Module, x: Tensor, y: Tensor):
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    return closure


# --- mixed precision --------------------------------------------------------------------------------------------


def scaled_closure(optimizer: SharpnessAware, model: nn.Module, scaler: torch.amp.GradScaler, factors=None):
    """Float16 forward pass; ``factors`` multiply the loss of one pass after the other."""
    x, y = batch(dtype=torch.float32)

    def closure() -> Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = F.cross_entropy(model(x), y)
        scaler.scale(loss * (1.0 if factors is None else factors.pop(0))).backward()
        return loss

    return closure


@METHODS
def test_a_scaled_float16_step_is_the_unscaled_step(method: type[SharpnessAware]):
    results = []
    for scale in (1.0, 2.0**10):  # powers of two: scaling rounds nothing, unless something over- or underflows
        model = network(dtype=torch.float32)
        optimizer = method(model.parameters(), SGD, rho=0.1, lr=0.1, momentum=0.9)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        losses = [amp_step(optimizer, scaler, scaled_closure(optimizer, model, scaler)).item() for _ in range(5)]
        assert optimizer.steps_taken == 5
        results.append((losses, weights(model)))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-3)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=0, atol=1e-3)
    assert float((results[0][1] - weights(network(dtype=torch.float32))).abs().max()) > 0.02


@METHODS
@pytest.mark.parametrize("factors", [[math.inf], [1.0, math.inf], [math.nan], [1.0, math.nan]])
def test_an_overflow_in_either_pass_skips_the_step_and_lowers_the_scale(method: type[SharpnessAware], factors: list):
    model = network(dtype=torch.float32)
    optimizer = method(model.parameters(), SGD, rho=0.1, lr=0.1, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    before = weights(model)
    remaining = list(factors)
    amp_step(optimizer, scaler, scaled_closure(optimizer, model, scaler, remaining))
    assert remaining == []  # no second pass after an overflow in the first
    assert torch.equal(weights(model), before)
    assert (optimizer.steps_taken, scaler.get_scale(), dict(optimizer.state)) == (0, 512.0, {})
    amp_step(optimizer, scaler, scaled_closure(optimizer, model, scaler))  # and the next step works
    assert optimizer.steps_taken == 1
    assert not torch.equal(weights(model), before)


def test_a_scale_too_large_for_float16_is_lowered_until_steps_are_taken():
    model = network(dtype=torch.float32)
    optimizer = SAM(model.parameters(), SGD, rho=0.1, lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    for _ in range(30):
        loss = amp_step(optimizer, scaler, scaled_closure(optimizer, model, scaler))
    assert 0 < optimizer.steps_taken < 30
    assert scaler.get_scale() < 2.0**24
    assert float(loss.detach()) < 0.7
    assert bool(torch.isfinite(weights(model)).all())


def test_the_scale_grows_once_per_step_not_once_per_pass():
    model = network(dtype=torch.float32)
    optimizer = SAM(model.parameters(), SGD, rho=0.1, lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2)
    scales = []
    for _ in range(4):
        amp_step(optimizer, scaler, scaled_closure(optimizer, model, scaler))
        scales.append(scaler.get_scale())
    assert scales == [4.0, 8.0, 8.0, 16.0]


@pytest.mark.parametrize("enabled", [True, False])
def test_warm_up_takes_one_scaled_gradient_a_step(enabled: bool):
    model, twin = network(dtype=torch.float32), network(dtype=torch.float32)
    optimizer = RSAM(model.parameters(), SGD, warmup_steps=2, lr=0.1)
    plain = SGD(twin.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, enabled=enabled)
    factors = [1.0, 1.0]
    for _ in range(2):
        amp_step(optimizer, scaler, scaled_closure(optimizer, model, scaler, factors))
        plain.zero_grad()
        x, y = batch(dtype=torch.float32)
        with torch.autocast("cpu", torch.float16):
            loss = F.cross_entropy(twin(x), y)
        loss.backward()
        plain.step()
    torch.testing.assert_close(weights(model), weights(twin), rtol=0, atol=1e-4)
    assert factors == []
    assert optimizer.steps_taken == 2


def test_an_error_in_the_second_scaled_pass_restores_the_weights():
    model = network(dtype=torch.float32)
    optimizer = SAM(model.parameters(), SGD, rho=10.0, lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    before = weights(model)
    with pytest.raises(IndexError):
        amp_step(optimizer, scaler, scaled_closure(optimizer, model, scaler, [1.0]))
    assert torch.equal(weights(model), before)
    amp_step(optimizer, scaler, scaled_closure(optimizer, model, scaler))
    assert optimizer.steps_taken == 1


def test_bfloat16_needs_no_scaler():
    x, y = batch(dtype=torch.float32)
    model = network(dtype=torch.float32)
    optimizer = RSAM(model.parameters(), SGD, rho=0.05, lr=0.5, momentum=0.9)

    def closure() -> Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    losses = [float(optimizer.step(closure).detach()) for _ in range(60)]
    assert losses[-1] < 0.5 * losses[0]


# --- accumulation and clipping ----------------------------------------------------------------------------------


@METHODS
def test_a_closure_over_a_window_gives_the_step_of_the_whole_batch(method: type[SharpnessAware]):
    x, y = batch()
    whole, parts = network(), network()
    optimizers = [method(model.parameters(), SGD, rho=0.1, lr=0.1, momentum=0.9) for model in (whole, parts)]
    window = list(zip(x.split(8), y.split(8), strict=True))

    def closure() -> float:
        optimizers[1].zero_grad()
        total = 0.0
        for inputs, targets in window:
            loss = F.cross_entropy(parts(inputs), targets) / len(window)
            loss.backward()
            total += float(loss.detach())
        return total

    for _ in range(3):
        expected = optimizers[0].step(plain_closure(optimizers[0], whole, x, y))
        assert optimizers[1].step(closure) == pytest.approx(float(expected.detach()), rel=1e-12)
    torch.testing.assert_close(weights(parts), weights(whole), rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("warmup_steps", [0, 1])
def test_max_grad_norm_clips_the_gradient_that_the_base_steps_with_and_not_the_perturbation(warmup_steps: int):
    x, y = batch()
    clipped, free = network(), network()
    start = weights(clipped)
    options = {"rho": 0.1, "lr": 1.0, "warmup_steps": warmup_steps}
    optimizer = RSAM(clipped.parameters(), SGD, max_grad_norm=1e-3, **options)
    reference = RSAM(free.parameters(), SGD, **options)
    optimizer.step(plain_closure(optimizer, clipped, x, y))
    reference.step(plain_closure(reference, free, x, y))
    assert torch.equal(optimizer.perturbation_norm, reference.perturbation_norm)
    step, full = weights(clipped) - start, weights(free) - start
    assert float(step.norm()) == pytest.approx(1e-3, rel=1e-2)
    torch.testing.assert_close(step / step.norm(), full / full.norm(), rtol=1e-7, atol=1e-12)


def test_clipping_inside_the_closure_changes_rsams_perturbation_but_not_sams():
    x, y = batch()
    lengths = {}
    for method in (SAM, RSAM):
        for limit in (math.inf, 1e-3):
            model = network()
            optimizer = method(model.parameters(), SGD, rho=0.1)
            closure = plain_closure(optimizer, model, x, y)

            def clipping(closure=closure, model=model, limit=limit) -> Tensor:
                loss = closure()
                nn.utils.clip_grad_norm_(model.parameters(), limit)
                return loss

            optimizer.step(clipping)
            lengths[method, limit] = float(optimizer.perturbation_norm)
    assert lengths[SAM, 1e-3] == pytest.approx(lengths[SAM, math.inf], rel=1e-9)
    assert lengths[RSAM, 1e-3] > 10 * lengths[RSAM, math.inf]


# --- batch norm -------------------------------------------------------------------------------------------------


def statistics(model: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


@pytest.mark.parametrize("once", [True, False])
def test_running_statistics_are_updated_once_per_step_inside_the_recipe_and_twice_without(once: bool):
    x, y = batch()
    model, one_pass, two_pass = (network(norm=True) for _ in range(3))
    one_pass(x)
    optimizer = SAM(model.parameters(), SGD, rho=0.5, lr=0.1)
    outputs = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        with statistics_once(optimizer, model) if once else warnings.catch_warnings():
            outputs.append(model(x))
        loss = F.cross_entropy(outputs[-1], y)
        loss.backward()
        return loss

    loss = optimizer.step(closure)
    if once:
        assert all(torch.equal(a, b) for a, b in zip(model.buffers(), one_pass.buffers(), strict=True))
    else:
        assert int(model[1].num_batches_tracked) == 2
    assert all(layer.track_running_stats for layer in model if isinstance(layer, nn.BatchNorm1d))
    # The second pass still normalises by its batch: the step is the same with the recipe as without.
    reference = SAM(two_pass.parameters(), SGD, rho=0.5, lr=0.1)
    assert torch.equal(reference.step(plain_closure(reference, two_pass, x, y)), loss)
    assert torch.equal(weights(model), weights(two_pass))


def test_the_recipe_does_not_change_layers_in_evaluation_mode_and_restores_after_errors():
    x, y = batch()
    model = network(norm=True)
    optimizer = SAM(model.parameters(), SGD, rho=0.5, lr=0.1)
    plain_closure(optimizer, model, x, y)()
    model.eval()
    before, outputs = statistics(model), model(x)
    optimizer.first_step()
    optimizer.restore()
    quiet = copy.deepcopy(model)
    plain_closure(optimizer, model, x, y)()
    optimizer.first_step()
    with torch.no_grad():
        perturbed = [p.clone() for p in model.parameters()]
        for p, value in zip(quiet.parameters(), perturbed, strict=True):
            p.copy_(value)
    with statistics_once(optimizer, model):
        assert torch.equal(model(x), quiet(x))  # running statistics are used, not the batch's
    model.train()
    seen = []

    def failing() -> None:
        with statistics_once(optimizer, model):
            seen.append(model[1].track_running_stats)
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert (seen, model[1].track_running_stats) == ([False], True)
    optimizer.restore()
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert not torch.equal(outputs, quiet(x))


# --- compiled models --------------------------------------------------------------------------------------------


@METHODS
def test_a_compiled_model_trains_like_the_plain_one(method: type[SharpnessAware]):
    x, y = batch()
    plain, compiled = network(norm=True), network(norm=True)
    run = torch.compile(compiled, backend="aot_eager")
    optimizers = [method(model.parameters(), SGD, rho=0.1, lr=0.1) for model in (plain, run)]
    for _ in range(3):
        for optimizer, model in zip(optimizers, (plain, run), strict=True):

            def closure(optimizer=optimizer, model=model) -> Tensor:
                optimizer.zero_grad()
                with statistics_once(optimizer, model):
                    loss = F.cross_entropy(model(x), y)
                loss.backward()
                return loss

            optimizer.step(closure)
    torch.testing.assert_close(weights(compiled), weights(plain), rtol=1e-10, atol=1e-13)
    assert int(compiled[1].num_batches_tracked) == 3


def test_a_local_perturbation_needs_a_distributed_model():
    model = network()
    optimizer = SAM(model.parameters(), SGD)
    with (
        pytest.raises(TypeError, match="must be a DistributedDataParallel, got Sequential"),
        local_perturbation(optimizer, model),
    ):
        pass
