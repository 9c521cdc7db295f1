"""The checkers of notebook 08b accept its solutions and explain typical mistakes."""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from renyi_lab.exercises import (
    check_chance_of_lead,
    check_equal_gradients,
    check_sagm_gradient,
    check_sam_over_base,
)
from renyi_lab.optim import SAGM, SAM

NOT_ATTEMPTED = "not attempted yet"


def norm_of(params: list[Tensor]) -> Tensor:
    return nn.utils.get_total_norm([param.grad for param in params])


def sam_step(
    params: list[Tensor],
    closure: Callable[[], Tensor],
    base: torch.optim.Optimizer,
    rho: float,
    *,
    sign: float = 1.0,
    normalize: Callable[[list[Tensor]], Any] = norm_of,
    step_first: bool = False,
    go_back: bool = True,
    second: bool = True,
) -> Tensor:
    loss = closure()
    steps = [sign * rho * param.grad / normalize(params) for param in params]
    if step_first:
        base.step()
    with torch.no_grad():
        for param, step in zip(params, steps, strict=True):
            param.add_(step)
    if second:
        closure()
    if go_back:
        with torch.no_grad():
            for param, step in zip(params, steps, strict=True):
                param.sub_(step)
    base.step()
    return loss


def variant(**options: Any) -> Callable[..., Tensor]:
    return lambda params, closure, base, rho: sam_step(params, closure, base, rho, **options)


def by_tensor(params: list[Tensor], closure: Callable[[], Tensor], base: Any, rho: float) -> Tensor:
    loss = closure()
    steps = [rho * param.grad / param.grad.norm() for param in params]
    with torch.no_grad():
        for param, step in zip(params, steps, strict=True):
            param.add_(step)
    closure()
    with torch.no_grad():
        for param, step in zip(params, steps, strict=True):
            param.sub_(step)
    base.step()
    return loss


def second_loss(params: list[Tensor], closure: Callable[[], Tensor], base: Any, rho: float) -> Tensor:
    losses = []

    def recording() -> Tensor:
        losses.append(closure())
        return losses[-1]

    sam_step(params, recording, base, rho)
    return losses[1]


def silent(params: list[Tensor], closure: Callable[[], Tensor], base: Any, rho: float) -> None:
    sam_step(params, closure, base, rho)


def own_optimizer(params: list[Tensor], closure: Callable[[], Tensor], base: Any, rho: float) -> Tensor:
    return sam_step(params, closure, torch.optim.SGD(params, lr=base.param_groups[0]["lr"]), rho)


def first_gradient(params: list[Tensor], closure: Callable[[], Tensor], base: Any, rho: float) -> Tensor:
    loss = closure()
    kept = [param.grad.clone() for param in params]
    closure()
    for param, grad in zip(params, kept, strict=True):
        param.grad = grad
    base.step()
    return loss


def step_before_return(params: list[Tensor], closure: Callable[[], Tensor], base: Any, rho: float) -> Tensor:
    loss = closure()
    steps = [rho * param.grad / norm_of(params) for param in params]
    with torch.no_grad():
        for param, step in zip(params, steps, strict=True):
            param.add_(step)
    base.step(closure)
    with torch.no_grad():
        for param, step in zip(params, steps, strict=True):
            param.sub_(step)
    return loss


def endless(params: list[Tensor], closure: Callable[[], Tensor], base: Any, rho: float) -> Tensor:
    while True:
        closure()


def sagm_gradient(gradient: Callable[[Tensor], Tensor], theta: Tensor, rho: float, alpha: float) -> Tensor:
    g = gradient(theta)
    return (g + gradient(theta + rho * g / g.norm() - alpha * g)) / 2


def chance_of_lead(num_methods: int, threshold: float) -> float:
    return 1 - NormalDist().cdf(threshold) ** num_methods


BASES = (
    lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9),
    lambda params: torch.optim.AdamW(params, lr=0.01),
    lambda params: torch.optim.RMSprop(params, lr=0.01),
)


@pytest.mark.parametrize("make_base", BASES)
@pytest.mark.parametrize("step", [sam_step, check_sam_over_base(None).function])
def test_the_step_is_the_library_s_over_any_base(make_base: Callable[..., Any], step: Callable[..., Any]) -> None:
    models = [nn.Linear(3, 2).double() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).double()
    base, other_base = (make_base(model.parameters()) for model in models)
    library = SAM(models[1].parameters(), other_base, 0.3)
    for _ in range(3):

        def closure(model: nn.Module, optimizer: Any) -> Tensor:
            optimizer.zero_grad()
            loss = (model(x) ** 2).mean() + model(x).sin().mean()
            loss.backward()
            return loss.detach()

        ours = step(list(models[0].parameters()), lambda: closure(models[0], base), base, 0.3)
        theirs = library.step(lambda: closure(models[1], library))
        assert float(ours) == pytest.approx(float(theirs))
    for own, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(own, other)


def test_the_direction_is_that_of_the_library_s_sagm() -> None:
    theta = torch.tensor([1.0, -0.5, 0.3], dtype=torch.float64, requires_grad=True)
    optimizer = SAGM([theta], torch.optim.SGD, rho=0.4, alpha=0.1, lr=1.0)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (theta**4).sum() + theta.cos().sum()
        loss.backward()
        return loss

    before = theta.detach().clone()
    optimizer.step(closure)
    for function in (sagm_gradient, check_sagm_gradient(None).function):
        wanted = before - theta.detach()
        torch.testing.assert_close(function(lambda t: 4 * t**3 - t.sin(), before, 0.4, 0.1), wanted)


def test_solutions_are_accepted() -> None:
    assert check_sam_over_base(sam_step).solved
    assert check_sagm_gradient(sagm_gradient).solved
    assert check_equal_gradients(30, 35, 50).solved
    assert check_chance_of_lead(chance_of_lead).solved
    assert 0.3 < chance_of_lead(19, 2.0) < 0.4, "as the message says"


def test_the_library_stands_in_for_functions_that_are_not_solved() -> None:
    for check, solution in ((check_sam_over_base, sam_step), (check_sagm_gradient, sagm_gradient)):
        assert check(solution).function is solution
        stand_in = check(lambda *arguments: None).function
        assert check(stand_in).solved
        assert check(stand_in).function is stand_in, "called twice, and with its own function"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (variant(go_back=False), "have not returned to θ"),
        (variant(second=False), "closure was called 1 time; a SAM step needs it twice"),
        (variant(sign=-1.0), "ε goes down the gradient"),
        (variant(normalize=lambda params: 1.0), "ε is ρ g, not"),
        (variant(normalize=lambda params: norm_of(params) ** 2), "the root is missing"),
        (variant(step_first=True), "go to θ + ε"),
        (by_tensor, "one norm over all parameters"),
        (first_gradient, "the second gradient is not used"),
        (second_loss, "return the loss of the first pass, at θ"),
        (silent, "the step is made, but nothing is returned"),
        (own_optimizer, "its state has counted no steps, not 2"),
        (endless, "not yet: closure is called more than a hundred times"),
        (step_before_return, "base.step() is called at θ + ε"),
        (lambda params, closure, base, rho: sam_step(params, closure, base, 0.5), "does not depend on rho"),
        (lambda params, closure, base, rho: (closure(), closure())[0], "base.step() is missing"),
        (lambda params, closure, base, rho: None, NOT_ATTEMPTED),
        (lambda params, closure, base, rho: "loss", "one number is expected, got str"),
        (lambda params, closure, base, rho: base.step(closure), "closure was called 1 time"),
        (lambda params, closure: closure(), "the function is called with (params, closure, base, rho)"),
        (lambda params, closure, base, rho: params[0].add_(1.0), "your code raised RuntimeError"),
        (3.0, "a function is expected"),
    ],
)
def test_hints_for_the_step(function: Any, message: str) -> None:
    feedback = check_sam_over_base(function)
    assert not feedback.solved
    assert message in repr(feedback)
    assert check_sam_over_base(feedback.function).solved


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda gradient, theta, rho, alpha: 2 * sagm_gradient(gradient, theta, rho, alpha), "take the mean"),
        (lambda gradient, theta, rho, alpha: sagm_gradient(gradient, theta, rho, -alpha), "the sign of α"),
        (lambda gradient, theta, rho, alpha: sagm_gradient(gradient, theta, rho, 0.0), "−αg, is missing"),
        (lambda gradient, theta, rho, alpha: gradient(theta), "the plain gradient"),
        (
            lambda gradient, theta, rho, alpha: gradient(theta + rho * gradient(theta) / gradient(theta).norm()),
            "this is SAM's gradient",
        ),
        (
            lambda gradient, theta, rho, alpha: 2 * sagm_gradient(gradient, theta, rho, alpha) - gradient(theta),
            "take its mean with that at θ",
        ),
        (lambda gradient, theta, rho, alpha: -sagm_gradient(gradient, theta, rho, alpha), "the sign is wrong"),
        (lambda gradient, theta, rho, alpha: theta - sagm_gradient(gradient, theta, rho, alpha), "new weights"),
        (lambda gradient, theta, rho, alpha: (rho / gradient(theta).norm() - alpha) * gradient(theta), "this is ε"),
        (lambda gradient, theta, rho, alpha: sagm_gradient(gradient, theta, 0.5, 0.2), "does not depend on rho"),
        (lambda gradient, theta, rho, alpha: theta.mul_(2), "theta itself was changed"),
        (lambda gradient, theta, rho, alpha: 1.0, "a tensor of shape (7,) is expected"),
        (lambda gradient, theta, rho, alpha: torch.full_like(theta, torch.nan), "NaN or infinite"),
        (lambda gradient, theta: theta, "the function is called with (gradient, theta, rho, alpha)"),
        (lambda gradient, theta, rho, alpha: ..., NOT_ATTEMPTED),
    ],
)
def test_hints_for_sagm(function: Any, message: str) -> None:
    assert message in repr(check_sagm_gradient(function))


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ((60, 35, 50), "sam: a SAM step costs two"),
        ((120, 35, 50), "sam: half of 60"),
        ((30, 25, 50), "with_plain_epochs: these are SAM's epochs"),
        ((30, 30, 50), "with_plain_epochs: the ten plain epochs cost"),
        ((30, 35, 30), "every_fifth: five steps cost six"),
        ((30, 35, 60), "every_fifth: the fifth step costs two"),
        ((30, 35, 7), "every_fifth: five steps, one of them"),
        ((30, "35", 50), "with_plain_epochs: one number is expected, got str"),
        ((..., 35, 50), NOT_ATTEMPTED),
    ],
)
def test_hints_for_equal_gradients(answers: tuple[Any, ...], message: str) -> None:
    assert message in repr(check_equal_gradients(*answers))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda m, t: 1 - chance_of_lead(m, t), "no lead: subtract"),
        (lambda m, t: chance_of_lead(1, t), "4 methods, threshold 2: this is for one method"),
        (lambda m, t: m * chance_of_lead(1, t), "counts experiments with two leads twice"),
        (lambda m, t: chance_of_lead(1, t) ** m, "all methods lead"),
        (lambda m, t: 1 - (2 * NormalDist().cdf(t) - 1) ** m, "one below −threshold"),
        (lambda m, t: 0.5, "no method leads if each stays below"),
        (lambda m, t: None, NOT_ATTEMPTED),
        (lambda m: m, "the function is called with (num_methods, threshold)"),
    ],
)
def test_hints_for_the_chance_of_a_lead(function: Any, message: str) -> None:
    assert message in repr(check_chance_of_lead(function))
