"""The penalty on the true Hessian's collision entropy, against dense Hessians, all probes and finite differences."""

from __future__ import annotations

import importlib.util
import itertools
import math
import sys
import warnings
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from renyi_lab.optim import collision_entropy_penalty
from renyi_lab.optim._entropy_penalty import _log_moments, hessian_probes

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_net() -> tuple[nn.Sequential, Tensor, Tensor]:
    """A smooth network with 2·2 + 2 + 2 = 8 parameters, so that all 2⁸ sign vectors can be tried."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1, bias=False)).double()
        return model, torch.randn(20, 2, dtype=torch.float64), torch.randn(20, 1, dtype=torch.float64)


def small_loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.mse_loss(model(x), y)


def dense_hessian(loss: Tensor, parameters: list[Tensor]) -> Tensor:
    """H with its graph, row by row."""
    slope = torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters, create_graph=True)])
    rows = [torch.autograd.grad(entry, parameters, create_graph=True, materialize_grads=True) for entry in slope]
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])


def flat(parts: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([part.flatten() for part in parts])


def all_signs(parameters: list[Tensor]) -> list[list[Tensor]]:
    total = sum(parameter.numel() for parameter in parameters)
    vectors = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=total)), dtype=torch.float64)
    sizes = [parameter.numel() for parameter in parameters]
    return [
        [part.reshape(parameter.shape) for part, parameter in zip(vector.split(sizes), parameters, strict=True)]
        for vector in vectors
    ]


# --- values and gradients ---------------------------------------------------------------------------------------


def test_over_all_sign_vectors_moments_and_gradient_are_those_of_the_dense_hessian() -> None:
    model, x, y = small_net()
    parameters = list(model.parameters())
    loss = small_loss(model, x, y)
    penalty = _log_moments(*hessian_probes(loss, parameters, all_signs(parameters)))
    hessian = dense_hessian(small_loss(model, x, y), parameters)
    expected = hessian.square().sum().log(), hessian.trace().abs().log()
    for found, exact in zip((penalty.log_frobenius_squared, penalty.log_trace), expected, strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-12, atol=0)
        gradients = [flat(torch.autograd.grad(value, parameters, retain_graph=True)) for value in (found, exact)]
        torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-10)


def test_gradient_agrees_with_finite_differences_at_fixed_probes() -> None:
    model, x, y = small_net()
    parameters = list(model.parameters())

    def value() -> Tensor:
        return collision_entropy_penalty(small_loss(model, x, y), parameters, num_probes=3, generator=generator()).value

    slope = flat(torch.autograd.grad(value(), parameters))
    numerical, step = [], 1e-5
    for parameter in parameters:
        for index in range(parameter.numel()):
            entry = parameter.detach().view(-1)[index]
            entry += step
            above = value().item()
            entry -= 2 * step
            below = value().item()
            entry += step
            numerical.append((above - below) / (2 * step))
    torch.testing.assert_close(slope, torch.tensor(numerical, dtype=torch.float64), rtol=1e-6, atol=1e-7)


def test_of_a_diagonal_hessian_one_pair_of_probes_is_exact() -> None:
    weights = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    penalty = collision_entropy_penalty((weights**4).sum() / 12, [weights], generator=generator())
    eigenvalues = weights.detach() ** 2
    assert penalty.value.item() == pytest.approx(math.log(eigenvalues.square().sum() / eigenvalues.sum() ** 2))
    assert penalty.num_probes == 2
    assert "2 probes" in repr(penalty)


def test_log_moments_are_biased_by_no_more_than_stated() -> None:
    """Quadratic loss with a positive semidefinite H: mean over 4000 pairs of probes against the first-order bounds."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        factor = torch.randn(12, 12, dtype=torch.float64)
    matrix = factor @ factor.T
    weights = torch.zeros(12, dtype=torch.float64, requires_grad=True)
    source, penalties = generator(), []
    for _ in range(4000):
        loss = weights @ matrix @ weights / 2
        penalties.append(collision_entropy_penalty(loss, [weights], num_probes=2, generator=source))
    for name, exact, bound in (
        ("log_trace", matrix.trace().log(), matrix.square().sum() / matrix.trace() ** 2 / 2),
        (
            "log_frobenius_squared",
            matrix.square().sum().log(),
            (matrix @ matrix).square().sum() / matrix.square().sum() ** 2 / 2,
        ),
    ):
        found = torch.stack([getattr(penalty, name) for penalty in penalties]).detach()
        noise = 4 * (found.std() / len(found) ** 0.5).item()
        bias = (found.mean() - exact).item()
        assert -1.5 * bound.item() - noise < bias < noise, name  # 1.5: the terms of second order
        assert bias < 0, name


def test_value_bounds_the_sharpness_of_the_magnitudes_from_above() -> None:
    weights = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    eigenvalues = torch.tensor([4.0, 1.0, -2.0], dtype=torch.float64)
    penalty = collision_entropy_penalty((eigenvalues * weights**2).sum() / 2, [weights], generator=generator())
    sharpness = math.log(eigenvalues.square().sum() / eigenvalues.abs().sum() ** 2)
    excess = 2 * math.log(eigenvalues.abs().sum() / eigenvalues.sum().abs())
    assert penalty.value.item() == pytest.approx(sharpness + excess)
    assert excess > 0


def test_stacked_training_of_the_benchmark_uses_the_same_moments() -> None:
    stack_module = load_benchmark("_stacked")
    shape = stack_module.Shape((3, 4, 2), "tanh")
    networks = [shape.model(seed).double() for seed in range(2)]
    x, y = torch.randn(2, 6, 3, generator=generator(), dtype=torch.float64), torch.tensor([[0, 1, 0, 1, 1, 0]] * 2)
    stack = stack_module.stacked(networks)
    source = generator()
    signs = [
        [[2.0 * torch.randint(2, p.shape[1:], generator=source) - 1 for p in stack] for _ in range(2)] for _ in networks
    ]
    square, form = stack_module.moments(stack_module.losses(shape, stack, x, y), stack, signs)
    for index, network in enumerate(networks):
        # A linear layer holds its weight as (out, in), the stack as (in, out).
        probes = [[v.T if v.shape[0] > 1 else v[0] for v in probe] for probe in signs[index]]
        loss = F.cross_entropy(network(x[index]), y[index])
        squares, forms = hessian_probes(loss, list(network.parameters()), probes)
        torch.testing.assert_close(square[index], squares.mean())
        torch.testing.assert_close(form[index], forms.mean())


def test_a_stacked_network_does_not_depend_on_its_neighbours() -> None:
    module = load_benchmark("_stacked")
    shape, source = module.Shape((3, 4, 2), "tanh"), generator()
    x, y = torch.randn(150, 3, generator=source), torch.randint(2, (150,), generator=source)
    members = [module.Member(0.0, 0.0, 0), module.Member(0.05, 0.1, 0), module.Member(0.05, 0.1, 1, None, True)]

    def trained(chosen: list) -> dict:
        found = module.train_stack(shape, chosen, x, y, goal=0.0, max_epochs=6)
        return {t.member: nn.utils.parameters_to_vector(t.model.parameters()).detach() for t in found}

    together = trained(members)
    for member in members:
        torch.testing.assert_close(together[member], trained([member])[member], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(together[members[0]], together[members[1]], rtol=1e-2)


def load_benchmark(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        specification.loader.exec_module(module)
    finally:
        del sys.modules[name]
    return module


# --- cost and side effects --------------------------------------------------------------------------------------


class CountedProduct(torch.autograd.Function):
    """A matrix product that counts how often a product is computed, in all derivatives."""

    count = 0

    @staticmethod
    def forward(left: Tensor, right: Tensor) -> Tensor:
        CountedProduct.count += 1
        return left @ right

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        left, right = ctx.saved_tensors
        return (
            CountedProduct.apply(gradient, right.T) if ctx.needs_input_grad[0] else None,
            CountedProduct.apply(left.T, gradient) if ctx.needs_input_grad[1] else None,
        )


@pytest.mark.parametrize("num_probes", [1, 2, 4])
def test_cost_in_gradients_is_as_stated(num_probes: int) -> None:
    """Counted in matrix products, for a network of five layers and by the products of one plain gradient."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = [torch.randn(6, 6, dtype=torch.float64, requires_grad=True) for _ in range(5)]
        x = torch.randn(8, 6, dtype=torch.float64)

    def cost(*, penalised: bool) -> int:
        CountedProduct.count, hidden = 0, x
        for weight in weights:
            hidden = torch.tanh(CountedProduct.apply(hidden, weight))
        loss = hidden.square().mean()
        if penalised:
            loss = loss + collision_entropy_penalty(loss, weights, num_probes=num_probes, generator=generator()).value
        torch.autograd.grad(loss, weights)
        return CountedProduct.count

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one probe
        ratio = cost(penalised=True) / cost(penalised=False)
    assert ratio == pytest.approx(2 + 5 * num_probes, rel=0.05)


def test_nothing_is_left_behind() -> None:
    model, x, y = small_net()
    before = torch.get_rng_state(), [p.detach().clone() for p in model.parameters()]
    collision_entropy_penalty(small_loss(model, x, y), model.parameters(), generator=generator())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before[1], strict=True))


def test_generator_makes_the_probes_fresh_and_reproducible() -> None:
    model, x, y = small_net()

    def values(source: torch.Generator) -> list[float]:
        losses = [small_loss(model, x, y) for _ in range(2)]
        return [collision_entropy_penalty(loss, model.parameters(), generator=source).value.item() for loss in losses]

    first = values(generator(3))
    assert first == values(generator(3))
    assert first[0] != first[1]


def test_frozen_parameters_are_left_out() -> None:
    model, x, y = small_net()
    model[0].requires_grad_(False)
    loss = small_loss(model, x, y)
    both = [
        collision_entropy_penalty(loss, chosen, generator=generator()).value.item()
        for chosen in (model.parameters(), model[2].parameters())
    ]
    assert both[0] == both[1]


def test_a_constant_hessian_adds_no_gradient() -> None:
    weights = torch.tensor([1.0, 2.0], requires_grad=True)
    loss = (weights**2).sum()
    (loss + collision_entropy_penalty(loss, [weights], generator=generator()).value).backward()
    assert torch.equal(weights.grad, 2 * weights.detach())


def test_gradient_descent_on_the_penalty_lowers_renyi_sharpness() -> None:
    """Logistic regression, whose H is positive semidefinite, so that |tr H| is the sum of the magnitudes."""
    x, y = torch.randn(30, 3, generator=generator(), dtype=torch.float64), torch.tensor([0.0, 1.0] * 15).double()
    weights = weight(0.5, -1.0, 2.0)

    def sharpness() -> float:
        loss = F.binary_cross_entropy_with_logits(x @ weights, y)
        eigenvalues = torch.linalg.eigvalsh(dense_hessian(loss, [weights]).detach())
        return math.log(eigenvalues.square().sum() / eigenvalues.sum() ** 2)

    before, source = sharpness(), generator()
    for _ in range(20):
        loss = F.binary_cross_entropy_with_logits(x @ weights, y)
        value = collision_entropy_penalty(loss, [weights], num_probes=8, generator=source).value
        (slope,) = torch.autograd.grad(value, [weights])
        with torch.no_grad():
            weights -= 0.1 * slope
    assert sharpness() < before - 0.01


# --- bad input --------------------------------------------------------------------------------------------------


class Outside(torch.autograd.Function):
    """A square whose backward pass leaves no graph."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return (2 * x * gradient).detach()


class Once(Outside):
    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * gradient


def weight(*values: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype, requires_grad=True)


def freed() -> Tensor:
    loss = (W**2).sum()
    torch.autograd.grad(loss, [W])
    return loss


W = weight(1.0, 2.0)
HALF = weight(1.0, 2.0, dtype=torch.bfloat16)
COMPLEX = torch.tensor([1.0 + 1.0j, 2.0], requires_grad=True)
BAD = {
    "linear loss": (lambda: (3 * W).sum(), [W], ValueError, "no second derivative"),
    "backward outside autograd": (lambda: Outside.apply(W).sum(), [W], ValueError, "no second derivative"),
    "once differentiable": (lambda: Once.apply(W).sum(), [W], ValueError, "no second derivative"),
    "zero Hessian": (lambda: ((W - W.detach()) ** 3).sum(), [W], ValueError, "tr H² is exactly zero"),
    "zero trace": (lambda: W[0] ** 2 - W[1] ** 2, [W], ValueError, "tr H is exactly zero"),
    "infinite curvature": (lambda: (W - W.detach()).abs().pow(1.5).sum(), [W], ValueError, "not finite"),
    "no scalar": (lambda: W**2, [W], ValueError, "one real number"),
    "complex loss": (lambda: (COMPLEX**2).sum(), [COMPLEX], ValueError, "one real number"),
    "complex parameters": (lambda: COMPLEX.abs().square().sum(), [COMPLEX], ValueError, "complex"),
    "no graph": (lambda: (W.detach() ** 2).sum(), [W], ValueError, "no graph"),
    "a number": (lambda: 3.0, [W], TypeError, "loss must be a tensor"),
    "NaN": (lambda: (W * math.nan).square().sum(), [W], ValueError, "loss is not finite"),
    "other parameters": (lambda: (W**2).sum(), [weight(1.0)], ValueError, "does not depend on parameter 0"),
    "no parameters": (lambda: (W**2).sum(), [], ValueError, "no tensor that requires"),
    "frozen parameters": (lambda: (W**2).sum(), [W.detach()], ValueError, "no tensor that requires"),
    "one tensor": (lambda: (W**2).sum(), W, TypeError, r"\[parameter\]"),
    "no sequence": (lambda: (W**2).sum(), None, TypeError, "parameters must be tensors.*NoneType"),
    "a tensor twice": (lambda: (W**2).sum(), [W, W], ValueError, "hold a tensor twice"),
    "graph freed": (freed, [W], ValueError, r"before loss\.backward"),
    "names": (lambda: (W**2).sum(), ["weight"], TypeError, "must be tensors"),
    "half precision": (lambda: (HALF**2).sum(), [HALF], ValueError, "bfloat16"),
    "two precisions": (lambda: (W**2).sum(), [W, HALF], ValueError, "one dtype"),
}


@pytest.mark.parametrize(("make_loss", "parameters", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_named(make_loss, parameters, error, message) -> None:
    loss = make_loss()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a trace near zero is not resolved
        with pytest.raises(error, match=message):
            collision_entropy_penalty(loss, parameters, generator=generator())


def test_disabled_gradients_are_named() -> None:
    loss = (W**2).sum()
    with torch.no_grad(), pytest.raises(ValueError, match=r"outside torch\.no_grad"):
        collision_entropy_penalty(loss, [W], generator=generator())


@pytest.mark.parametrize("num_probes", [0, -1, 1.5, True])
def test_number_of_probes_is_checked(num_probes) -> None:
    with pytest.raises((TypeError, ValueError), match="num_probes"):
        collision_entropy_penalty((W**2).sum(), [W], num_probes=num_probes, generator=generator())


@pytest.mark.parametrize("source", [0, None])
def test_a_seed_is_no_generator(source) -> None:
    with pytest.raises(TypeError, match=r"torch\.Generator"):
        collision_entropy_penalty((W**2).sum(), [W], generator=source)


def test_one_probe_gives_a_warning() -> None:
    with pytest.warns(UserWarning, match="num_probes=1"):
        collision_entropy_penalty((W**4).sum(), [W], num_probes=1, generator=generator())


def test_an_unresolved_trace_gives_a_warning_shown_once() -> None:
    """An indefinite H with trace 0: for each probe vᵀHv = 2 v₁v₂."""
    weights = weight(1.0, 1.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        source = generator()
        for _ in range(20):
            collision_entropy_penalty(weights[0] * weights[1], [weights], num_probes=3, generator=source)
    assert len([w for w in caught if "not resolved" in str(w.message)]) == 1
