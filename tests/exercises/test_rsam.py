"""The checkers of notebook 08 accept its solutions and explain typical mistakes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import renyi_lab as rl
from renyi_lab.exercises import (
    check_constant,
    check_divergence_perturbation,
    check_loss_scale,
    check_paper_perturbation,
    check_power_ratio,
    check_sam_step,
)

NOT_ATTEMPTED = "not attempted yet"


def step(
    *,
    perturb: Callable[[list[Tensor], float], list[Tensor]] | None = None,
    second: bool = True,
    restored: bool = True,
    first_into_grad: bool = False,
    cleared: bool = True,
    steps: bool = True,
    returned: str = "before",
    by_hand: bool = False,
) -> Callable[..., Any]:
    """A step of SAM with one or several mistakes."""

    def sam_step(params: list[Tensor], loss_of: Any, optimizer: Any, rho: float) -> Any:
        if first_into_grad:
            optimizer.zero_grad()
            loss = loss_of()
            loss.backward()
            gradients = [param.grad.clone() for param in params]
        else:
            loss = loss_of()
            gradients = list(torch.autograd.grad(loss, params))
        old = [param.detach().clone() for param in params]
        with torch.no_grad():
            for param, move in zip(params, (perturb or ascent)(gradients, rho), strict=True):
                param += move
        if cleared:
            optimizer.zero_grad()
        other = None
        if second:
            other = loss_of()
            other.backward()
        else:
            for param, gradient in zip(params, gradients, strict=True):
                param.grad = gradient
        with torch.no_grad():
            if restored:
                for param, value in zip(params, old, strict=True):
                    param.copy_(value)
            if by_hand:
                for param in params:
                    param -= 0.1 * param.grad
            elif steps:
                optimizer.step()
        return {"before": loss, "perturbed": other, "nothing": None}[returned]

    return sam_step


def ascent(gradients: list[Tensor], rho: float) -> list[Tensor]:
    norm = torch.stack([g.norm() for g in gradients]).norm()
    return [rho * g / norm if norm > 0 else g for g in gradients]


def careless(gradients: list[Tensor], rho: float) -> list[Tensor]:
    norm = torch.stack([g.norm() for g in gradients]).norm()
    return [rho * g / norm for g in gradients]


def flat_step(params: list[Tensor], loss_of: Any, optimizer: Any, rho: float) -> float:
    loss = loss_of()
    g = parameters_to_vector(torch.autograd.grad(loss, params))
    theta = parameters_to_vector(params).detach().clone()
    vector_to_parameters(theta + rho * g / g.norm().clamp(min=1e-300), params)
    optimizer.zero_grad()
    loss_of().backward()
    vector_to_parameters(theta, params)
    optimizer.step()
    return loss.item()


def replaces_params(params: list[Tensor], loss_of: Any, optimizer: Any, rho: float) -> float:
    params[:] = [param.detach() + 1 for param in params]
    return 1.0


def thrice(params: list[Tensor], loss_of: Any, optimizer: Any, rho: float) -> Any:
    loss_of()
    return flat_step(params, loss_of, optimizer, rho)


@pytest.mark.parametrize("function", [step(), step(first_into_grad=True), flat_step])
def test_a_right_step_is_accepted_and_returned(function: Callable[..., Any]) -> None:
    for _ in range(2):
        feedback = check_sam_step(function)
        assert feedback.solved, feedback
        assert feedback.function is function


def test_the_librarys_step_is_accepted_and_agrees_with_sam() -> None:
    library = check_sam_step(lambda *_: None).function
    assert library is not None
    assert check_sam_step(library).solved
    x = torch.linspace(-1, 1, 20, dtype=torch.float64).reshape(5, 4)
    first, second = (rl.models.mlp(4, 5, 3, seed=0).double() for _ in range(2))
    base = torch.optim.SGD(first.parameters(), lr=0.1, momentum=0.9)
    sam = rl.SAM(second.parameters(), rho=0.3, lr=0.1, momentum=0.9)

    def closure() -> Tensor:
        sam.zero_grad()
        loss = second(x).square().mean()
        loss.backward()
        return loss

    for _ in range(3):
        library(list(first.parameters()), lambda: first(x).square().mean(), base, 0.3)
        sam.step(closure)
    weights = [parameters_to_vector(model.parameters()).detach() for model in (first, second)]
    torch.testing.assert_close(*weights, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda *_: ..., NOT_ATTEMPTED),
        (lambda *_: 1.0, "take the step with optimizer.step()"),
        (lambda params, loss: 1.0, "is called with (params, loss_of, optimizer, rho)"),
        (step(second=False), "plain gradient descent"),
        (step(restored=False), "not restored"),
        (step(restored=False, steps=False), "only perturbed"),
        (step(first_into_grad=True, cleared=False), "the gradients at both points add up"),
        (step(cleared=False), "a gradient of the step before"),
        (step(perturb=lambda g, rho: [rho * part / part.norm() for part in g]), "one norm over all"),
        (step(perturb=lambda g, rho: [rho * part for part in g]), "must have length rho"),
        (step(perturb=lambda g, rho: [-part for part in ascent(g, rho)]), "goes down the gradient"),
        (step(perturb=lambda g, rho: [rho + 0 * part for part in g]), "differ from theta"),
        (step(perturb=careless), "0/0"),
        (step(by_hand=True), "momentum is lost"),
        (step(returned="nothing"), "also return the loss"),
        (step(returned="perturbed"), "the loss at the perturbed weights"),
        (replaces_params, "holds other tensors"),
        (thrice, "called 3 times"),
    ],
)
def test_hints_for_the_step(function: Callable[..., Any], message: str) -> None:
    feedback = check_sam_step(function)
    assert not feedback.solved
    assert message in repr(feedback)
    assert check_sam_step(feedback.function).solved


def ratio(g: Tensor, alpha: float) -> Tensor:
    return g.abs().pow(2 * alpha).sum() / g.square().sum() ** alpha


def paper(g: Tensor, rho: float, alpha: float) -> Tensor:
    if not g.any():
        return torch.zeros_like(g)
    return float(np.sign(alpha - 1)) * rho * ratio(g, alpha) * g / g.square().sum()


def divergence(g: Tensor, rho: float, alpha: float) -> Tensor:
    p = g.square() / g.square().sum()
    entropy = -(p[p > 0] * p[p > 0].log()).sum() if alpha == 1 else ratio(g, alpha).log() / (1 - alpha)
    return rho * (math.log(len(g)) - entropy) * g / g.square().sum()


@pytest.mark.parametrize(
    ("check", "function"),
    [
        (check_power_ratio, ratio),
        (check_power_ratio, lambda g, alpha: float((g.abs() / g.norm()).pow(2 * alpha).sum())),
        (check_paper_perturbation, paper),
        (check_divergence_perturbation, divergence),
        (check_constant, lambda n, alpha: -(n ** (1 - alpha))),
    ],
)
def test_right_functions_are_accepted(check: Callable[..., Any], function: Callable[..., Any]) -> None:
    assert check(function).solved, check(function)
    library = check(lambda *_: None).function
    assert library is None or check(library).solved


@pytest.mark.parametrize(("form", "function", "alpha"), [("paper", paper, 1.2), ("divergence", divergence, 1.0)])
def test_the_accepted_perturbations_are_those_of_the_optimizer(form: str, function: Any, alpha: float) -> None:
    g = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    w.grad = g.clone()
    rl.RSAM([w], lr=1.0, rho=0.3, alpha=alpha, form=form).first_step()
    torch.testing.assert_close(w.detach(), function(g, 0.3, alpha))


def test_predictions_are_accepted() -> None:
    assert check_loss_scale(1, 0.1, 1).solved


@pytest.mark.parametrize(
    ("check", "answers", "message"),
    [
        (check_power_ratio, (lambda g, a: g.abs().pow(a).sum() / g.abs().sum() ** a,), "the power is α; it is 2α"),
        (check_power_ratio, (lambda g, a: g.abs().pow(2 * a).sum(),), "the denominator is missing"),
        (check_power_ratio, (lambda g, a: g.abs().pow(2 * a).sum() / g.square().sum(),), "needs the power α"),
        (check_power_ratio, (lambda g, a: g.abs().pow(2 * a).sum() / g.norm() ** a,), "it is ‖g‖^{2α}"),
        (check_power_ratio, (lambda g, a: ratio(g, a).log(),), "the logarithm of R_α"),
        (check_power_ratio, (lambda g, a: ratio(g, a).log() / (1 - a),), "return R_α itself"),
        (check_power_ratio, (lambda g, a: (2 * a * g.log()).exp().sum() / g.square().sum() ** a,), "absolute values"),
        (check_power_ratio, (lambda g, a: g,), "one number is expected"),
        (check_power_ratio, (lambda g: g,), "(g, alpha)"),
        (check_paper_perturbation, (lambda g, r, a: r * g / g.norm(),), "this is SAM's"),
        (check_paper_perturbation, (lambda g, r, a: paper(g, r, a) * g.norm(),), "not by ‖g‖"),
        (check_paper_perturbation, (lambda g, r, a: paper(g, r, a) * g.norm() ** 2,), "divide by ‖g‖²."),
        (check_paper_perturbation, (lambda g, r, a: paper(g, 1, a),), "the factor ρ is missing"),
        (check_paper_perturbation, (lambda g, r, a: -paper(g, r, a),), "so that −sign(1 − α) is +1"),
        (check_paper_perturbation, (lambda g, r, a: r * ratio(g, a) * g / g.square().sum(),), "is −1, down"),
        (
            check_paper_perturbation,
            (lambda g, r, a: float(np.sign(a - 1)) * r * ratio(g, a) * g / g.square().sum(),),
            "return zeros, not 0/0",
        ),
        (
            check_paper_perturbation,
            (lambda g, r, a: math.copysign(r, a - 1) * ratio(g, a) * g / g.square().sum(),),
            "sign(0) = 0",
        ),
        (check_paper_perturbation, (lambda g, r, a: r,), "a tensor of shape (6,) is expected"),
        (check_divergence_perturbation, (paper,), "this is the paper's form"),
        (check_divergence_perturbation, (lambda g, r, a: -divergence(g, r, a),), "goes up the gradient"),
        (check_divergence_perturbation, (lambda g, r, a: divergence(g, r, a) * g.norm(),), "divide by ‖g‖²"),
        (
            check_divergence_perturbation,
            (lambda g, r, a: divergence(g, r, a) - r * math.log(len(g)) * g / g.square().sum(),),
            "log n is missing",
        ),
        (check_divergence_perturbation, (lambda g, r, a: 0 * g if a == 1 else divergence(g, r, a),), "not zero at"),
        (check_divergence_perturbation, (lambda g, r, a: g / 0 if a == 1 else divergence(g, r, a),), "Shannon"),
        (check_constant, (lambda n, a: n ** (1 - a),), "the sign"),
        (check_constant, (lambda n, a: -1.0,), "with n equal ones it differs"),
        (check_constant, (lambda n, a: -(n ** (a - 1)),), "the exponent"),
        (check_constant, (lambda n, a: -(n**-a),), "a sum of n equal terms"),
        (check_constant, (lambda n, a: math.log(n),), "compute R_α for n entries"),
        (check_loss_scale, (10, 0.1, 1), "sam: g grows"),
        (check_loss_scale, (2, 0.1, 1), "whatever the gradient"),
        (check_loss_scale, (1, 1, 1), "but ‖g‖ is not"),
        (check_loss_scale, (1, 10, 1), "in the denominator"),
        (check_loss_scale, (1, 0.01, 1), "one power of ‖g‖ cancels"),
        (check_loss_scale, (1, 0.1, 10), "shorter by as much"),
        (check_loss_scale, (1, 0.1, 0.1), "no length of g remains"),
        (check_loss_scale, (..., 1, 1), NOT_ATTEMPTED),
    ],
)
def test_hints(check: Callable[..., Any], answers: tuple[Any, ...], message: str) -> None:
    feedback = check(*answers)
    assert not feedback.solved
    assert message in repr(feedback)
