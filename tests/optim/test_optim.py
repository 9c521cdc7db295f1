"""Sharpness-aware optimizers against hand-computed steps; errors, checkpoints and interrupts; every message."""

from __future__ import annotations

import copy
import functools
import math
import pickle
import warnings

import pytest
import torch
from torch import nn

from renyi_lab.optim import ASAM, RSAM, SAGM, SAM, FisherSAM, SharpnessAware

SGD = torch.optim.SGD


def parameters(*values: list[float], dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    return [nn.Parameter(torch.tensor(value, dtype=dtype)) for value in values]


def with_gradients(gradients: list[list[float]], dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    params = parameters(*[[0.0] * len(gradient) for gradient in gradients], dtype=dtype)
    for param, gradient in zip(params, gradients, strict=True):
        param.grad = torch.tensor(gradient, dtype=dtype)
    return params


def quartic(params: list[nn.Parameter]) -> torch.Tensor:
    """A loss whose gradient p³ + p is not linear, so that steps depend on the point where it is taken."""
    return sum(((p**4).sum() / 4 + (p**2).sum() / 2 for p in params), start=torch.zeros((), dtype=params[0].dtype))


def closure_for(optimizer: torch.optim.Optimizer, params: list[nn.Parameter], calls: list[int] | None = None):
    def closure() -> torch.Tensor:
        if calls is not None:
            calls.append(1)
        optimizer.zero_grad()
        loss = quartic(params)
        loss.backward()
        return loss

    return closure


def problem(optimizer_class: type[SharpnessAware] = RSAM, **settings):
    params = parameters([1.0, -2.0, 0.5], [[0.3, -0.7]])
    settings = {"rho": 0.1, "lr": 0.05, "momentum": 0.9, **settings}
    return params, optimizer_class(params, SGD, **settings)


ALL_METHODS = {
    "SAM": SAM,
    "ASAM": ASAM,
    "FisherSAM": FisherSAM,
    "SAGM": functools.partial(SAGM, alpha=0.0),  # so that ε is proportional to ρ, as in all others
    "RSAM": RSAM,
    "RSAM-divergence": functools.partial(RSAM, form="divergence", alpha=0.5),
    "RSAM-divergence-1": functools.partial(RSAM, form="divergence", alpha=1.0),
    "RSAM-exact": functools.partial(RSAM, form="exact", alpha=1.5),
}
METHODS = pytest.mark.parametrize("method", ALL_METHODS.values(), ids=ALL_METHODS)


# --- the formulas -----------------------------------------------------------------------------------------------


def test_sam_moves_by_rho_along_the_unit_gradient_of_all_parameters_together():
    params = with_gradients([[3.0], [0.0, 4.0]])
    SAM(params, SGD, rho=0.5).first_step()
    torch.testing.assert_close(params[0].data, torch.tensor([0.3], dtype=torch.float64), rtol=1e-15, atol=0)
    torch.testing.assert_close(params[1].data, torch.tensor([0.0, 0.4], dtype=torch.float64), rtol=1e-15, atol=0)


@pytest.mark.parametrize(("alpha", "sign"), [(0.5, -1), (0.9, -1), (1.2, 1), (2.0, 1), (3.5, 1)])
def test_rsam_moves_by_the_papers_formula(alpha: float, sign: int):
    gradients = [[3.0, -1.0], [0.5, 2.0, 0.0]]
    params = with_gradients(gradients)
    RSAM(params, SGD, rho=0.65, alpha=alpha).first_step()
    g = torch.tensor([x for gradient in gradients for x in gradient], dtype=torch.float64)
    ratio = (g.abs() ** (2 * alpha)).sum() / (g**2).sum() ** alpha
    expected = sign * 0.65 * ratio / (g**2).sum() * g
    moved = torch.cat([param.data for param in params])
    torch.testing.assert_close(moved, expected, rtol=1e-13, atol=0)
    # ‖ε‖ = ρ R_α / ‖g‖
    assert float(moved.norm()) == pytest.approx(0.65 * float(ratio) / float(g.norm()), rel=1e-13)


def test_rsam_on_an_evenly_spread_gradient_has_the_smallest_ratio():
    n, alpha, rho = 16, 1.5, 0.3
    params = with_gradients([[2.0] * n])
    RSAM(params, SGD, rho=rho, alpha=alpha).first_step()
    assert float(params[0].data.norm()) == pytest.approx(rho * n ** (1 - alpha) / (2 * math.sqrt(n)), rel=1e-13)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1.0, 1e20, 1e30])
@pytest.mark.parametrize("alpha", [0.5, 1.2, 2.0])
def test_rsam_neither_under_nor_overflows_in_float32(scale: float, alpha: float):
    gradient = [3.0 * scale, -4.0 * scale, 0.1 * scale]
    rho = 0.65 * scale  # keeps ‖ε‖ = ρ R/‖g‖ itself representable
    single, double = with_gradients([gradient], torch.float32), with_gradients([gradient])
    RSAM(single, SGD, rho=rho, alpha=alpha).first_step()
    RSAM(double, SGD, rho=rho, alpha=alpha).first_step()
    torch.testing.assert_close(single[0].data.double(), double[0].data, rtol=1e-5, atol=0)


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e30])
def test_sam_keeps_its_radius_for_tiny_and_huge_float32_gradients(scale: float):
    params = with_gradients([[3.0 * scale, 4.0 * scale]], torch.float32)
    SAM(params, SGD, rho=0.5).first_step()
    assert float(params[0].data.norm()) == pytest.approx(0.5, rel=1e-3 if scale < 1e-38 else 1e-6)


@METHODS
def test_mixed_dtypes_act_as_one_vector(method: type[SharpnessAware]):
    mixed = [
        *with_gradients([[3.0, 1.0]], torch.float32),
        *with_gradients([[4.0]]),
        *with_gradients([[2.0]], torch.half),
    ]
    double = with_gradients([[3.0, 1.0], [4.0], [2.0]])
    method(mixed, SGD, rho=0.5).first_step()
    method(double, SGD, rho=0.5).first_step()
    for one, other in zip(mixed, double, strict=True):
        torch.testing.assert_close(
            one.data.double(), other.data, rtol=1e-3 if one.dtype == torch.half else 1e-6, atol=0
        )


@METHODS
def test_a_zero_gradient_perturbs_nothing(method: type[SharpnessAware]):
    params = with_gradients([[0.0, 0.0]], torch.float32)
    optimizer = method(params, SGD, rho=0.5)
    optimizer.first_step()
    assert params[0].tolist() == [0.0, 0.0]


@METHODS
def test_the_perturbation_does_not_change_the_gradient(method: type[SharpnessAware]):
    params = with_gradients([[3.0, 4.0]], torch.float32)
    gradient = params[0].grad
    method(params, SGD, rho=0.5).first_step()
    assert gradient.tolist() == [3.0, 4.0]


@METHODS
def test_each_group_has_its_own_rho_under_a_common_norm(method: type[SharpnessAware]):
    same, split = with_gradients([[3.0], [4.0]]), with_gradients([[3.0], [4.0]])
    method(same, SGD, rho=0.2).first_step()
    method([{"params": split[:1]}, {"params": split[1:], "rho": 0.6}], SGD, rho=0.2).first_step()
    assert split[0].item() == pytest.approx(same[0].item(), rel=1e-14)
    assert split[1].item() == pytest.approx(3 * same[1].item(), rel=1e-14)


def test_rsam_defaults_are_the_authors_example():
    (param,) = parameters([1.0])
    optimizer = RSAM([param])
    assert isinstance(optimizer.base, SGD)
    group = optimizer.param_groups[0]
    assert (group["rho"], group["alpha"], optimizer.form, optimizer.warmup_steps) == (0.65, 1.2, "paper", 0)


# --- the two-pass step ------------------------------------------------------------------------------------------


def test_sam_equals_the_hand_computed_two_pass_update_with_momentum_and_weight_decay():
    params, optimizer = problem(SAM, weight_decay=0.01)
    theta = torch.cat([p.detach().flatten() for p in params])
    velocity = torch.zeros_like(theta)
    for _ in range(4):
        gradient = theta**3 + theta
        perturbed = theta + 0.1 * gradient / gradient.norm()
        expected_loss = float((theta**4 / 4 + theta**2 / 2).sum())
        velocity = 0.9 * velocity + perturbed**3 + perturbed + 0.01 * theta
        theta = theta - 0.05 * velocity
        loss = optimizer.step(closure_for(optimizer, params))
        assert loss.item() == pytest.approx(expected_loss, rel=1e-12)  # at θ
        torch.testing.assert_close(torch.cat([p.detach().flatten() for p in params]), theta, rtol=1e-12, atol=0)


@METHODS
@pytest.mark.parametrize("base", [SGD, torch.optim.AdamW, torch.optim.Adagrad, torch.optim.NAdam])
def test_step_with_closure_equals_the_hand_written_loop_bit_for_bit(method, base: type[torch.optim.Optimizer]):
    runs = []
    for by_hand in (False, True):
        params = parameters([1.0, -2.0, 0.5], [[0.3, -0.7]])
        optimizer = method(params, base, rho=0.1, lr=0.01)
        for _ in range(3):
            if by_hand:
                quartic(params).backward()
                optimizer.first_step()
                quartic(params).backward()
                optimizer.second_step()
                optimizer.zero_grad()
            else:
                optimizer.step(closure_for(optimizer, params))
        runs.append([p.detach().clone() for p in params])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_a_base_instance_and_its_class_give_the_same_steps():
    params_a, by_class = problem(SAM)
    params_b = parameters([1.0, -2.0, 0.5], [[0.3, -0.7]])
    base = SGD(params_b, lr=0.05, momentum=0.9)
    by_instance = SAM(iter(params_b), base, rho=0.1)
    for _ in range(3):
        by_class.step(closure_for(by_class, params_a))
        by_instance.step(closure_for(by_instance, params_b))
    assert by_instance.base is base
    assert all(torch.equal(a, b) for a, b in zip(params_a, params_b, strict=True))


def test_gradients_of_the_first_pass_do_not_leak_into_the_second_when_the_closure_does_not_clear_them():
    params, optimizer = problem(SAM)
    twin, reference = problem(SAM)

    def closure_without_zero_grad() -> torch.Tensor:
        loss = quartic(params)
        loss.backward()
        return loss

    for _ in range(2):
        optimizer.zero_grad()
        optimizer.step(closure_without_zero_grad)
        reference.step(closure_for(reference, twin))
    assert all(torch.equal(a, b) for a, b in zip(params, twin, strict=True))


def test_step_runs_the_closure_twice_and_with_gradients_even_under_no_grad():
    params, optimizer = problem()
    calls: list[int] = []
    with torch.no_grad():
        optimizer.step(closure_for(optimizer, params, calls))
    assert len(calls) == 2
    assert params[0].tolist() != [1.0, -2.0, 0.5]


def test_a_parameter_without_gradient_is_not_changed():
    params = parameters([1.0, 2.0], [5.0])
    optimizer = SAM(params, SGD, rho=0.1, lr=0.1, weight_decay=0.1)
    optimizer.step(closure_for(optimizer, params[:1]))
    assert params[1].item() == 5.0
    assert params[0].tolist() != [1.0, 2.0]


@METHODS
def test_a_step_reads_nothing_from_the_device(method: type[SharpnessAware]):
    params = [nn.Parameter(torch.zeros(3, device="meta")), nn.Parameter(torch.zeros(2, 2, device="meta"))]
    for param in params:
        param.grad = torch.ones_like(param)
    with pytest.raises(RuntimeError, match="meta"):
        params[0].sum().item()  # the meta device has no values to read
    optimizer = method(params, SGD, rho=0.1)
    optimizer.first_step()
    optimizer.restore()


@pytest.mark.parametrize("by_hand", [False, True])
def test_warm_up_steps_are_plain_steps_of_the_base(by_hand: bool):
    params, optimizer = problem(warmup_steps=2)
    twin = parameters([1.0, -2.0, 0.5], [[0.3, -0.7]])
    plain = SGD(twin, lr=0.05, momentum=0.9)
    calls: list[int] = []
    for step in range(3):
        assert optimizer.warming_up == (step < 2)
        closure = closure_for(optimizer, params, calls)
        if by_hand:
            closure()
            optimizer.first_step()
            closure()
            optimizer.second_step()
        else:
            optimizer.step(closure)
        plain.step(closure_for(plain, twin))
        same = all(torch.equal(a, b) for a, b in zip(params, twin, strict=True))
        assert same == (step < 2)
    assert len(calls) == (6 if by_hand else 4)


@METHODS
def test_training_lowers_the_loss_of_a_small_network(method: type[SharpnessAware]):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 5, generator=generator, dtype=torch.float64)
    y = (x[:, 0] * x[:, 1] > 0).long()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 2)).double()
    optimizer = method(model.parameters(), SGD, rho=0.05, lr=0.2, momentum=0.9)
    optimizer.max_norm = 0.1  # RSAM's ‖ε‖ grows without limit as the gradient of the full batch vanishes

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(100)]
    assert losses[0] > 0.5
    assert losses[-1] < 0.1


# --- the interface of torch's optimizers ------------------------------------------------------------------------


def test_a_scheduler_changes_the_learning_rate_of_the_base():
    (param,) = parameters([1.0])
    optimizer = SAM([param], SGD, rho=1e-9, lr=0.5)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.1)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        param.sum().backward()  # gradient 1 everywhere: a step is exactly the rate
        return param.sum()

    optimizer.step(closure)
    scheduler.step()
    before = param.item()
    optimizer.step(closure)
    assert before == 0.5
    assert optimizer.base.param_groups[0]["lr"] == pytest.approx(0.05)
    assert before - param.item() == pytest.approx(0.05, rel=1e-12)


def test_a_scheduler_does_not_warn_in_a_hand_written_loop():
    params, optimizer = problem()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1)
        quartic(params).backward()
        optimizer.first_step()
        quartic(params).backward()
        optimizer.second_step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.005)


@METHODS
@pytest.mark.parametrize("base", [SGD, torch.optim.Adam])
@pytest.mark.parametrize("way", ["state_dict", "pickle", "deepcopy", "pickle, scheduled"])
def test_training_resumes_bit_for_bit(method, base: type[torch.optim.Optimizer], way: str):
    def made(params: list[nn.Parameter]) -> SharpnessAware:
        momentum = {"momentum": 0.9} if base is SGD else {}
        return method(params, base, rho=0.1, warmup_steps=3, lr=0.01, **momentum)

    params = parameters([1.0, -2.0, 0.5], [[0.3, -0.7]])
    optimizer = made(params)
    for _ in range(2):
        optimizer.step(closure_for(optimizer, params))
    optimizer.param_groups[0]["rho"] = 0.2
    if way == "pickle, scheduled":
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1.0)  # replaces optimizer.step
    if way == "deepcopy":
        resumed_params, resumed = copy.deepcopy((params, optimizer))
    elif way != "state_dict":
        resumed_params, resumed = pickle.loads(pickle.dumps((params, optimizer)))
    else:
        resumed_params = [nn.Parameter(p.detach().clone()) for p in params]
        resumed = made(resumed_params)
        resumed.load_state_dict(pickle.loads(pickle.dumps(optimizer.state_dict())))
    assert resumed.base.param_groups is resumed.param_groups
    assert resumed.base.state is resumed.state
    assert resumed.base.param_groups[0]["params"][0] is resumed_params[0]
    for _ in range(3):
        optimizer.step(closure_for(optimizer, params))
        resumed.step(closure_for(resumed, resumed_params))
    assert resumed.steps_taken == 5
    assert all(torch.equal(a, b) for a, b in zip(params, resumed_params, strict=True))


def test_an_added_group_is_perturbed_and_stepped():
    params = parameters([3.0], [4.0])
    optimizer = SAM(params[:1], SGD, rho=0.1, lr=0.5)
    optimizer.add_param_group({"params": params[1:], "lr": 0.25})
    optimizer.step(closure_for(optimizer, params))
    gradient = torch.tensor([30.0, 68.0], dtype=torch.float64)
    perturbed = torch.tensor([3.0, 4.0], dtype=torch.float64) + 0.1 * gradient / gradient.norm()
    second = perturbed**3 + perturbed
    assert params[0].item() == pytest.approx(3.0 - 0.5 * second[0].item(), rel=1e-12)
    assert params[1].item() == pytest.approx(4.0 - 0.25 * second[1].item(), rel=1e-12)


def test_step_hooks_of_wrapper_and_base_run_once_a_step():
    params, optimizer = problem()
    seen: list[str] = []
    optimizer.register_step_post_hook(lambda *_: seen.append("wrapper"))
    optimizer.base.register_step_post_hook(lambda *_: seen.append("base"))
    optimizer.step(closure_for(optimizer, params))
    assert seen == ["base", "wrapper"]


def test_an_attribute_tells_trainers_that_a_closure_is_needed():
    assert SharpnessAware.requires_closure is True


# --- errors and interrupts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_in_the_second_closure_leaves_the_weights_at_theta_bit_for_bit(error: type[BaseException]):
    params, optimizer = problem(rho=1e3)
    optimizer.step(closure_for(optimizer, params))
    before = [p.detach().clone() for p in params]
    state = copy.deepcopy(optimizer.state_dict())
    inside: list[bool] = []

    def closure() -> torch.Tensor:
        inside.append(torch.equal(params[0], before[0]))
        if len(inside) == 2:
            raise error("in between")
        return closure_for(optimizer, params)()

    with pytest.raises(error, match="in between"):
        optimizer.step(closure)
    assert inside == [True, False]
    assert all(torch.equal(a, b) for a, b in zip(params, before, strict=True))
    momenta = [entry["momentum_buffer"] for entry in state["state"].values()]
    kept = [entry["momentum_buffer"] for entry in optimizer.state_dict()["state"].values()]
    assert all(torch.equal(a, b) for a, b in zip(momenta, kept, strict=True))
    optimizer.step(closure_for(optimizer, params))  # the next step works
    assert optimizer.steps_taken == 2


def test_an_interrupt_right_after_the_perturbation_restores_the_weights(monkeypatch: pytest.MonkeyPatch):
    params, optimizer = problem()
    before = params[0].detach().clone()

    def interrupted(*_: object, **__: object) -> None:
        assert not torch.equal(params[0], before)
        raise KeyboardInterrupt

    closure = closure_for(optimizer, params)

    def first_time_only() -> torch.Tensor:
        loss = closure()
        monkeypatch.setattr(optimizer, "zero_grad", interrupted)  # first_step() calls it last
        return loss

    with pytest.raises(KeyboardInterrupt):
        optimizer.step(first_time_only)
    assert torch.equal(params[0], before)


def test_a_second_closure_without_gradient_is_explained_and_restores_the_weights():
    params, optimizer = problem()
    before = params[0].detach().clone()
    calls: list[int] = []

    def closure() -> torch.Tensor:
        calls.append(1)
        optimizer.zero_grad()
        loss = quartic(params)
        if len(calls) == 1:
            loss.backward()
        return loss

    with pytest.raises(RuntimeError, match=r"backward\(\)"):
        optimizer.step(closure)
    assert torch.equal(params[0], before)


def test_restore_cancels_a_hand_written_step():
    params, optimizer = problem()
    before = [p.detach().clone() for p in params]
    quartic(params).backward()
    optimizer.first_step()
    assert not torch.equal(params[0], before[0])
    optimizer.restore()
    assert all(torch.equal(a, b) for a, b in zip(params, before, strict=True))
    optimizer.step(closure_for(optimizer, params))


def test_restored_weights_are_exact_where_subtracting_the_perturbation_would_not_be():
    params = parameters([1e-8, 3.0], dtype=torch.float32)
    optimizer = SAM(params, SGD, rho=1e4, lr=0.0)
    before = params[0].detach().clone()
    optimizer.step(closure_for(optimizer, params))
    assert torch.equal(params[0], before)


def test_sparse_gradients_are_refused_before_anything_moves():
    embedding = nn.Embedding(4, 3, sparse=True)
    before = embedding.weight.detach().clone()
    optimizer = SAM(embedding.parameters(), SGD, rho=0.1, lr=0.1)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = embedding(torch.tensor([1])).sum()
        loss.backward()
        return loss

    with pytest.raises(RuntimeError, match=r"\(4, 3\).*sparse=False"):
        optimizer.step(closure)
    assert torch.equal(embedding.weight, before)


def test_the_state_of_a_plain_optimizer_is_refused_and_nothing_changes():
    params, optimizer = problem()
    state = SGD(params, lr=0.1).state_dict()
    with pytest.raises(ValueError, match="pass the instance as base"):
        optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["lr"] == 0.05


def test_a_base_with_an_alpha_of_its_own_is_refused_by_rsam_alone():
    params = parameters([1.0])
    optimizer = SAM(params, torch.optim.RMSprop, lr=0.1)
    optimizer.step(closure_for(optimizer, params))
    assert params[0].item() != 1.0


@METHODS
def test_groups_and_parameters_without_entries_change_nothing(method: type[SharpnessAware]):
    steps = []
    for extra in (False, True):
        params = parameters([1.0, 2.0])
        nothing = torch.zeros(0, dtype=params[0].dtype, requires_grad=True)
        groups = [{"params": []}, {"params": (p for p in [nothing, *params])}] if extra else params
        optimizer = method(groups, SGD, rho=0.1, lr=0.1)
        (quartic(params) + nothing.sum()).backward()
        optimizer.first_step()
        steps.append(params[0].tolist())
        optimizer.restore()
    assert steps[0] == steps[1]


def test_a_state_loaded_into_the_base_alone_is_the_wrappers_too():
    params = parameters([1.0, 2.0])
    for optimizer in (made := SAM(params, torch.optim.Adam, lr=0.1), copy.deepcopy(made)):
        state = optimizer.base.state_dict()
        state["param_groups"][0]["lr"] = 0.5
        for _ in range(2):
            optimizer.base.load_state_dict(state)
        assert optimizer.param_groups is optimizer.base.param_groups
        assert optimizer.state is optimizer.base.state
        assert optimizer.param_groups[0]["lr"] == 0.5


# --- messages ---------------------------------------------------------------------------------------------------


def made(method, **settings):
    return lambda: method(**{"params": parameters([1.0]), "base": SGD, **settings})


def mid_step(action, **settings):
    def call() -> None:
        params, optimizer = problem(**settings)
        quartic(params).backward()
        optimizer.first_step()
        action(optimizer)

    return call


def with_gradient(action):
    def call() -> None:
        params, optimizer = problem()
        quartic(params).backward()
        action(optimizer)

    return call


def wrapped_twice() -> None:
    params = parameters([1.0])
    base = SGD(params, lr=0.1)
    SAM(params, base, rho=0.05)
    RSAM(params, base, rho=0.65)


def settings_for_a_built_base() -> None:
    params = parameters([1.0])
    SAM(params, SGD(params, lr=0.1), momentum=0.9)


OF_ALL_METHODS = [
    ({"rho": 0.0}, ValueError, "rho must lie in"),
    ({"rho": -1.0}, ValueError, "rho must lie in"),
    ({"rho": math.nan}, ValueError, "rho must be finite"),
    ({"rho": "big"}, TypeError, "rho must be a real number"),
    ({"warmup_steps": -1}, ValueError, "warmup_steps"),
    ({"params": []}, ValueError, "params is empty.*afresh"),
    ({"params": [{"params": []}]}, ValueError, "params is empty.*afresh"),
    ({"params": iter(())}, ValueError, "params is empty.*afresh"),
    ({"params": None}, TypeError, "params must be tensors.*got NoneType"),
    ({"params": [None]}, TypeError, "got NoneType at position 0"),
    ({"params": "weight"}, TypeError, "params must be tensors.*got str"),
    ({"params": nn.Sequential(nn.Linear(2, 2))}, TypeError, r"got the module Sequential: pass its \.parameters\(\)"),
    ({"params": parameters([1.0])[0]}, TypeError, r"write \[parameter\] for one"),
    ({"params": {"params": parameters([1.0])}}, TypeError, r"got a dictionary: write \[group\] for one"),
    ({"params": set(parameters([1.0]))}, TypeError, "got a set: pass a list"),
    ({"params": [("w", *parameters([1.0]), 1)]}, TypeError, r"got \(str, .*, int\) at position 0"),
    ({"params": [{"param": parameters([1.0])}]}, ValueError, "needs the entry 'params'.*only \\['param'\\]"),
    ({"params": [{"params": None}]}, TypeError, "params of a group must be tensors.*got NoneType"),
    ({"params": [{"params": [None]}]}, TypeError, "got NoneType at position 0"),
    ({"params": [{"params": parameters([1.0])}, *parameters([1.0])]}, TypeError, "all tensors or all groups"),
    ({"params": parameters([1.0]) * 2}, ValueError, "a tensor twice"),
    ({"params": [2 * parameters([1.0])[0]]}, ValueError, "is the result of an operation"),
    ({"params": [{"params": parameters([1.0]), "rho": -1.0}]}, ValueError, "rho of the parameter group"),
    ({"base": nn.Linear}, TypeError, "base must be a torch.optim class"),
    ({"base": "sgd"}, TypeError, "base must be a torch.optim class"),
    ({"base": torch.optim.LBFGS}, TypeError, "LBFGS needs a closure"),
    ({"base": SAM}, TypeError, "SAM needs a closure"),
    ({"base": torch.optim.Adadelta}, ValueError, "rho of its own"),
    ({"base": SGD(parameters([1.0]), lr=0.1)}, ValueError, "other parameters"),
]
OF_ORDERS = [
    (0.0, "paper", "alpha must lie"),
    (-2, "divergence", "alpha must lie"),
    (1, "paper", 'alpha = 1 is refused.*form="divergence"'),
    (1.0, "exact", 'alpha = 1 is refused.*form="divergence"'),
    (0.4, "exact", "alpha = 0.4 is refused.*alpha ≥ 0.5"),
    (2.0, "papers", "form must be one of 'paper', 'divergence', 'exact'"),
]
MESSAGES = [
    *((made(m, **settings), error, text) for m in ALL_METHODS.values() for settings, error, text in OF_ALL_METHODS),
    *((made(RSAM, alpha=alpha, form=form), ValueError, text) for alpha, form, text in OF_ORDERS),
    *(
        (made(RSAM, params=[{"params": parameters([1.0]), "alpha": alpha}], alpha=2.0, form=form), ValueError, text)
        for alpha, form, text in OF_ORDERS
    ),
    *(
        (made(RSAM, **{name: value}), error, name)
        for name in ("max_norm", "max_grad_norm")
        for value, error in [(0.0, ValueError), (-1, ValueError), ("1", TypeError)]
    ),
    *((made(m, eta=-0.1), ValueError, "eta must lie in") for m in (ASAM, FisherSAM)),
    (made(SAGM, alpha=-0.1), ValueError, "alpha must lie in"),
    (made(RSAM, base=torch.optim.RMSprop), ValueError, "RMSprop has a hyperparameter alpha of its own"),
    (settings_for_a_built_base, TypeError, r"momentum.*set them where it is built"),
    (wrapped_twice, ValueError, "wrapped already"),  # the first one's rho would win
    *(
        (mid_step(action, warmup_steps=warmup_steps), RuntimeError, r"second_step\(\).*restore\(\)")
        for warmup_steps in (0, 5)
        for action in (
            lambda optimizer: optimizer.state_dict(),
            lambda optimizer: optimizer.load_state_dict({}),
            lambda optimizer: optimizer.first_step(),
            lambda optimizer: optimizer.step(lambda: None),
            copy.deepcopy,
            pickle.dumps,
        )
    ),
    *(
        (with_gradient(lambda optimizer, group=group: optimizer.add_param_group(group)), error, message)
        for group, error, message in (
            (None, TypeError, "param_group must be a dictionary.*got NoneType"),
            ({}, ValueError, "needs the entry 'params'"),
            ({"params": [None]}, TypeError, "got NoneType at position 0"),
        )
    ),
    (with_gradient(lambda optimizer: optimizer.second_step()), RuntimeError, r"needs first_step\(\)"),
    *(
        (
            with_gradient(lambda optimizer, closure=closure: optimizer.step(closure)),
            TypeError,
            r"(?s)needs a closure.*def closure\(\):.*loss\.backward\(\).*optimizer\.step\(closure\)",
        )
        for closure in (None, 3.0)
    ),
    (
        lambda: problem()[1].step(lambda: torch.zeros(())),
        RuntimeError,
        r"(?s)No parameter of this optimizer has a gradient.*loss\.backward\(\)",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), MESSAGES)
def test_errors_name_the_argument_or_the_call_that_is_missing(call, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        call()
