"""The checkers of notebook 09 accept its solutions and explain typical mistakes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from renyi_lab import counterexamples, datasets, exact_spectrum, gram_spectrum, models
from renyi_lab.exercises import (
    check_gram_eigenvalues,
    check_minimal_trace,
    check_one_sam_point,
    check_output_gradients,
    check_rescaled_unit,
)
from renyi_lab.operators import HessianOperator

NOT_ATTEMPTED = "not attempted yet"


def gradients(x: Tensor, W: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    Z = x @ W.T
    return torch.relu(Z), w * (Z > 0)


def by_autograd(x: Tensor, W: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    Z, second = (x @ W.T).requires_grad_(), w.expand(len(x), -1).clone().requires_grad_()
    A, U = torch.autograd.grad((second * torch.relu(Z)).sum(), (Z, second))
    return U, A


def point(
    Z: Tensor, w: Tensor, U: Tensor, A: Tensor, e: Tensor, lengths: Tensor, rho: float, **changes: Any
) -> tuple[Tensor, Tensor]:
    N = (A.square().sum(1) * changes.get("inside", lengths) + U.square().sum(1)).sqrt()
    N = torch.where(N > 0, N, torch.inf) ** changes.get("power", 1)
    step = (changes.get("sign", 1.0) * rho * changes.get("signs", e.sign()) / N)[:, None]
    return Z + step * changes.get("factor", lengths[:, None]) * A, w + step * changes.get("second", 1.0) * U


def careless_point(Z: Tensor, w: Tensor, U: Tensor, A: Tensor, e: Tensor, lengths: Tensor, rho: float) -> Any:
    step = (rho * e.sign() / (A.square().sum(1) * lengths + U.square().sum(1)).sqrt())[:, None]
    return Z + step * lengths[:, None] * A, w + step * U


def eigenvalues(U: Tensor, A: Tensor, x: Tensor) -> Tensor:
    return torch.linalg.eigvalsh(2 / len(x) * (U @ U.T + (A @ A.T) * (x @ x.T)))


def test_solutions_are_accepted() -> None:
    assert check_output_gradients(gradients).solved
    assert check_output_gradients(by_autograd).solved
    assert check_one_sam_point(point).solved
    assert check_gram_eigenvalues(eigenvalues).solved
    assert check_minimal_trace(lambda d, bias: 4 * math.sqrt(d + bias)).solved


@pytest.mark.parametrize(
    ("check", "solution"),
    [(check_output_gradients, gradients), (check_one_sam_point, point), (check_gram_eigenvalues, eigenvalues)],
)
def test_a_working_function_stands_in_until_the_attempt_is_solved(check: Any, solution: Any) -> None:
    assert check(solution).function is solution
    stand_in = check(lambda *arguments: None).function
    assert check(stand_in).solved
    assert check(stand_in).function is stand_in


def test_the_functions_are_those_of_the_library() -> None:
    train_set, _ = datasets.xor(num_samples=12, num_features=6, targets="signs")
    x, y = (part.double() for part in train_set.tensors)
    model = models.two_layer(6, 20, bias=False).double()
    W, w = model.layer1.weight.detach(), model.layer2.weight[0].detach()
    U, A = gradients(x, W, w)
    Z, moved = point(x @ W.T, w, U, A, U @ w - y, x.square().sum(1), 0.1)
    slope = 2 / len(x) * ((torch.relu(Z) * moved).sum(1) - y)[:, None]
    wanted = counterexamples.one_sam_gradients(model, train_set, 0.1)
    torch.testing.assert_close((slope * moved * (Z > 0)).T @ x, wanted["layer1.weight"])

    interpolating = (x, model(x).detach())
    found = eigenvalues(U, A, x)
    assert torch.allclose(found, torch.tensor(gram_spectrum(model, nn.MSELoss(), interpolating).nodes)[-12:])
    dense = exact_spectrum(HessianOperator(model, nn.MSELoss(), interpolating))
    assert torch.allclose(found, torch.tensor(dense.nodes.copy())[-12:], atol=1e-10)


def test_the_right_predictions_are_those_of_a_rescaled_unit() -> None:
    train_set, _ = datasets.xor(num_samples=100, num_features=30, targets="signs")
    pair = tuple(part.double() for part in train_set.tensors)
    model = counterexamples.memorizing_network(train_set)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.layer1.weight[7] *= 2
        other.layer1.bias[7] *= 2
        other.layer2.weight[0, 7] /= 2
    before, after = (gram_spectrum(net, nn.MSELoss(), pair) for net in (model, other))
    measured = (
        after.max_eigenvalue / before.max_eigenvalue,
        after.trace.value / before.trace.value,
        after.trace.value / after.max_eigenvalue,
    )
    assert check_rescaled_unit(*measured).solved


def with_changes(**changes: Any) -> Callable[..., Any]:
    return lambda Z, w, U, A, e, lengths, rho: point(Z, w, U, A, e, lengths, rho, **changes)


def in_place(U: Tensor, A: Tensor, x: Tensor) -> Tensor:
    return eigenvalues(U.mul_(1.0), A, x.div_(2.0))


@pytest.mark.parametrize(
    ("check", "answers", "message"),
    [
        (check_output_gradients, (lambda x, W, w: gradients(x, W, w)[::-1],), "exchanged"),
        (check_output_gradients, (lambda x, W, w: (x @ W.T, w * (x @ W.T > 0)),), "after the ReLU"),
        (check_output_gradients, (lambda x, W, w: (torch.relu(x @ W.T) * w, w * (x @ W.T > 0)),), "does not occur"),
        (check_output_gradients, (lambda x, W, w: (torch.relu(x @ W.T), w.expand(5, 4)),), "units that are off"),
        (check_output_gradients, (lambda x, W, w: (torch.relu(x @ W.T), torch.relu(x @ W.T) * w),), "1 or 0"),
        (check_output_gradients, (lambda x, W, w: (torch.relu(x @ W.T), 1.0 * (x @ W.T > 0)),), "weight w_j"),
        (check_output_gradients, (lambda x, W, w: (torch.relu(x @ W.T), w * (x @ W.T).sign()),), "0, not −1"),
        (check_output_gradients, (lambda x, W, w: torch.relu(x @ W.T),), "return two tensors"),
        (check_output_gradients, (lambda x, W, w: gradients(x.T, W, w),), "your code raised"),
        (check_output_gradients, (lambda x, W, w: (x, W),), "shape (5, 4) is expected"),
        (check_output_gradients, (lambda x, W, w: ...,), NOT_ATTEMPTED),
        (check_output_gradients, (lambda x: x,), "(x, W, w)"),
        (check_one_sam_point, (with_changes(signs=1.0),), "sign of the error is missing"),
        (check_one_sam_point, (with_changes(sign=-1.0),), "looks uphill"),
        (check_one_sam_point, (with_changes(factor=1.0),), "factor ‖x_i‖²"),
        (check_one_sam_point, (with_changes(inside=1.0),), "N_i² is"),
        (check_one_sam_point, (with_changes(power=2),), "not by N_i²"),
        (check_one_sam_point, (lambda *arguments: point(*arguments)[::-1],), "exchanged"),
        (check_one_sam_point, (lambda Z, w, *rest: (point(Z, w, *rest)[0] - Z, w.expand(5, 4)),), "to Z itself"),
        (check_one_sam_point, (lambda *arguments: point(*arguments[:-1], rho=1.0),), "factor ρ is missing"),
        (
            check_one_sam_point,
            (lambda *arguments: point(*arguments, factor=arguments[5].sqrt()[:, None]),),
            "not ‖x_i‖.",
        ),
        (check_one_sam_point, (with_changes(second=-1.0),), "of w: this step goes down"),
        (check_one_sam_point, (with_changes(second=0.5),), "one row for every sample"),
        (
            check_one_sam_point,
            (lambda Z, w, U, A, e, q, r: point(Z, w, U, A, e, q, r, signs=e),),
            "size of e_i cancels",
        ),
        (check_one_sam_point, (lambda Z, w, U, A, e, q, r: (Z, w.expand(len(Z), -1)),), "without a perturbation"),
        (check_one_sam_point, (careless_point,), "avoid 0/0"),
        (check_one_sam_point, (lambda *arguments: None,), NOT_ATTEMPTED),
        (check_gram_eigenvalues, (in_place,), "itself was changed"),
        (check_gram_eigenvalues, (lambda U, A, x: eigenvalues(U, A, x).flip(0),), "ascending"),
        (check_gram_eigenvalues, (lambda U, A, x: eigenvalues(U, A, x) * len(x) / 2,), "2/n of the mean"),
        (check_gram_eigenvalues, (lambda U, A, x: eigenvalues(U, A, x) / 2,), "second derivative"),
        (check_gram_eigenvalues, (lambda U, A, x: eigenvalues(0 * U, A, x),), "U Uᵀ is missing"),
        (check_gram_eigenvalues, (lambda U, A, x: eigenvalues(U, 0 * A, x),), "second layer alone"),
        (check_gram_eigenvalues, (lambda U, A, x: eigenvalues(A, U, x),), "exchanged"),
        (check_gram_eigenvalues, (lambda U, A, x: U @ U.T,), "shape (5,) is expected"),
        (check_gram_eigenvalues, (3.0,), "a function is expected"),
        (check_minimal_trace, (lambda d, bias: 4 * math.sqrt(d),), "a 1"),
        (check_minimal_trace, (lambda d, bias: 4 * math.sqrt(d + 1),), "without biases"),
        (check_minimal_trace, (lambda d, bias: 2 * math.sqrt(d + bias),), "twice its mean"),
        (check_minimal_trace, (lambda d, bias: 4 * (d + bias),), "square root"),
        (check_minimal_trace, (lambda d, bias: 2 * (1 + d + bias),), "this is s = 1"),
        (check_minimal_trace, (lambda d, bias: ...,), NOT_ATTEMPTED),
        (check_rescaled_unit, (4, 1, 1), "one of the two parts alone"),
        (check_rescaled_unit, (2.125, 2.125, 1), "only one of the 100"),
        (check_rescaled_unit, (2.125, 101.125, 1), "divide by the old sum"),
        (check_rescaled_unit, (2.125, 1.01125, 48), "not rounded"),
        (check_rescaled_unit, (2.125, 1.01125, 100), "the number before"),
        (check_rescaled_unit, ("two", 1, 1), "one number is expected"),
        (check_rescaled_unit, (..., ..., ...), NOT_ATTEMPTED),
    ],
)
def test_messages(check: Callable[..., Any], answers: tuple[Any, ...], message: str) -> None:
    feedback = check(*answers)
    assert not feedback.solved
    assert message in repr(feedback)
