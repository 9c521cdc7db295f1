"""The checkers of notebook 05 accept its solutions and explain typical mistakes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from renyi_lab import HessianOperator
from renyi_lab.exercises import check_convolution_weight, check_equal_weight, check_kappa, check_neuron_flatness
from renyi_lab.perturbation import haar_orthogonal, weight_perturbation
from renyi_lab.sharpness import relative_flatness

NOT_ATTEMPTED = "not attempted yet"


def equal_weight(W: Tensor, A: Tensor, rho: float) -> Tensor:
    return W + rho * torch.einsum("oi...,ij->oj...", W, A)


def in_place(W: Tensor, A: Tensor, rho: float) -> Tensor:
    W += rho * torch.einsum("oi...,ij->oj...", W, A)
    return W


def scales_the_matrix(W: Tensor, A: Tensor, rho: float) -> Tensor:
    A *= rho
    return W + W @ A


def mixes_places(W: Tensor, A: Tensor, rho: float) -> Tensor:
    return W + rho * torch.einsum("oix,ij->ojx", W.flip(2), A)


def transposed(W: Tensor, A: Tensor, rho: float) -> Tensor:
    return W + rho * torch.einsum("oix,ji->ojx", W, A)


def curvature(p: Tensor) -> Tensor:
    return torch.diag_embed(p) - p[:, :, None] * p[:, None, :]


def kappa(W: Tensor, h: Tensor, p: Tensor) -> Tensor:
    return (W @ W.T * (h.square().sum(dim=1)[:, None, None] * curvature(p)).mean(dim=0)).sum()


def neuron_flatness(W: Tensor, h: Tensor, p: Tensor) -> Tensor:
    columns = torch.einsum("sj,ist,tj->ij", W, curvature(p), W)
    return (h.square() * columns).sum(dim=1).mean()


def overwrites(W: Tensor, h: Tensor, p: Tensor) -> float:
    value = float(kappa(W, h, p))
    h.square_()
    return value


def test_the_equal_weight_of_the_library_is_accepted() -> None:
    assert check_equal_weight(equal_weight).solved
    assert check_equal_weight(lambda W, A, rho: W + rho * W @ A).solved
    assert check_equal_weight(lambda W, A, rho: W + rho * weight_perturbation(W, A)).solved
    assert check_equal_weight(lambda W, A, rho: equal_weight(W, A, rho).float()).solved, "single precision is enough"
    assert check_convolution_weight(equal_weight).solved


def test_the_measures_equal_the_library_and_what_they_are_derived_from() -> None:
    assert check_kappa(kappa).solved
    assert check_neuron_flatness(neuron_flatness).solved
    layer = nn.Linear(4, 3).double()
    x, y = torch.randn(20, 4, generator=torch.Generator().manual_seed(0)).double(), torch.arange(20) % 3
    H = HessianOperator(nn.Sequential(layer), nn.functional.cross_entropy, (x, y))
    W, p = layer.weight.detach(), layer(x).detach().softmax(dim=1)
    assert float(kappa(W, x, p)) == pytest.approx(float(relative_flatness(H)))

    def rise(A: Tensor, rho: float = 1e-3) -> float:
        moved = [nn.functional.cross_entropy(layer(x + sign * rho * x @ A.T), y).item() for sign in (1, -1)]
        return (sum(moved) / 2 - H.loss) / (rho**2 / 2)

    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 4)
    rises = torch.tensor([rise(torch.diag(s)) for s in signs])
    assert float(neuron_flatness(W, x, p)) == pytest.approx(float(rises.mean()), rel=1e-3)
    rises = torch.tensor([rise(haar_orthogonal(4, seed)) for seed in range(300)])
    assert abs(float(rises.mean()) - float(kappa(W, x, p)) / 4) < 4 * float(rises.std()) / 300**0.5


def test_the_library_stands_in_for_functions_that_are_not_solved() -> None:
    for check, solution in ((check_equal_weight, equal_weight), (check_kappa, kappa)):
        feedback = check(solution)
        assert feedback.function is solution
        stand_in = check(lambda *arguments: None).function
        assert check(stand_in).solved
        assert check(stand_in).function is stand_in, "called twice, and with its own function"


@pytest.mark.parametrize(
    ("check", "function", "message"),
    [
        (check_equal_weight, lambda W, A, rho: rho * W @ A, "this is the change, ρWA"),
        (check_equal_weight, lambda W, A, rho: W + rho * W @ A.T, "A is transposed"),
        (check_equal_weight, lambda W, A, rho: W + W @ A, "ρ has no effect"),
        (check_equal_weight, lambda W, A, rho: W, "this is W unchanged"),
        (check_equal_weight, lambda W, A, rho: W + rho * A @ W, "your code raised RuntimeError"),
        (check_equal_weight, lambda W, A, rho: (W + rho * W @ A).T, "shape (5, 4) is expected, got Tensor of shape (4"),
        (check_equal_weight, lambda W, A, rho: W - rho * W @ A, "keep the order of W and A"),
        (check_equal_weight, lambda W, A, rho: torch.full_like(W, torch.nan), "keep the order of W and A"),
        (check_equal_weight, in_place, "W itself was changed"),
        (check_equal_weight, scales_the_matrix, "A itself was changed"),
        (check_equal_weight, lambda W, A, rho: 3.0, "a tensor of shape (5, 4) is expected, got float"),
        (check_equal_weight, lambda W, A, rho: (W + rho * W @ A).numpy(), "is expected, got ndarray"),
        (check_equal_weight, torch.eye(3), "a function is expected"),
        (check_equal_weight, lambda W, A, rho: None, NOT_ATTEMPTED),
        (check_convolution_weight, lambda W, A, rho: W + rho * W @ A, "your code raised RuntimeError"),
        (check_convolution_weight, mixes_places, "the channels are the middle index"),
        (check_convolution_weight, transposed, "A is transposed"),
        (check_convolution_weight, lambda W, A, rho: W, "W unchanged"),
        (check_convolution_weight, lambda W, A, rho: equal_weight(W, A, rho) - W, "add W"),
        (check_convolution_weight, in_place, "W itself was changed"),
        (check_convolution_weight, lambda W, A, rho: ..., NOT_ATTEMPTED),
        (check_kappa, lambda W, h, p: kappa(W, h, p) * len(h), "divide by their number"),
        (check_kappa, lambda W, h, p: (W @ W.T * curvature(p).mean(0)).sum(), "the factor ‖h‖²"),
        (check_kappa, lambda W, h, p: kappa(W, h / h.norm(dim=1, keepdim=True).sqrt(), p), "enters squared"),
        (
            check_kappa,
            lambda W, h, p: (W @ W.T * curvature(p).mean(0)).sum() * h.square().sum(dim=1).mean(),
            "not its factors separately",
        ),
        (check_kappa, lambda W, h, p: kappa(torch.eye(3).double(), h, p), "this is the trace of the layer's Hessian"),
        (
            check_kappa,
            lambda W, h, p: (h.square().sum(1) * (p * (1 - p) * W.square().sum(1)).sum(1)).mean(),
            "the pairs s = t only",
        ),
        (check_kappa, lambda W, h, p: 0.0, "over all s and t"),
        (check_kappa, lambda W, h, p: W, "one number is expected"),
        (check_kappa, overwrites, "h itself was changed"),
        (check_kappa, lambda W, h, p: None, NOT_ATTEMPTED),
        (check_neuron_flatness, kappa, "this is κ"),
        (check_neuron_flatness, lambda W, h, p: neuron_flatness(W, h, p) / 4, "no 1/n"),
        (check_neuron_flatness, lambda W, h, p: neuron_flatness(W, h, p) * 6, "divide by their number"),
        (check_neuron_flatness, lambda W, h, p: neuron_flatness(W, h, p) / 2, "½ ρ²"),
        (check_neuron_flatness, lambda W, h, p: -1.0, "over the columns w of W"),
        (check_neuron_flatness, lambda W, h, p: None, NOT_ATTEMPTED),
    ],
)
def test_messages(check: Callable[..., Any], function: Any, message: str) -> None:
    feedback = check(function)
    assert not feedback.solved
    assert message in repr(feedback)
