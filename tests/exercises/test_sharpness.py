"""The checkers of notebook 04 accept its solutions and explain typical mistakes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import renyi_lab as rl
from renyi_lab.exercises import check_layer_sharpness, check_rescaled_hessian, check_too_many_directions
from renyi_lab.operators import HessianOperator
from renyi_lab.perturbation import reparametrize
from renyi_lab.sharpness import sharpness_report

NOT_ATTEMPTED = "not attempted yet"


def stub(*_: Any) -> Any:
    return ...


def blocks(hessian: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    ends = np.cumsum(sizes)
    return [hessian[end - size : end, end - size : end] for size, end in zip(sizes, ends, strict=True)]


def entropy_of(values: np.ndarray, alpha: float) -> float:
    return rl.renyi_entropy(np.abs(values), alpha)


def layer_sharpness(hessian: np.ndarray, sizes: list[int], alpha: float) -> list[float]:
    return [-entropy_of(np.linalg.eigvalsh(block), alpha) for block in blocks(hessian, sizes)]


def rescaled(hessian: np.ndarray, sizes: list[int], scales: list[float]) -> np.ndarray:
    d = np.repeat(scales, sizes)
    return hessian / d[:, None] / d


@pytest.fixture(scope="module")
def network() -> tuple[torch.nn.Sequential, tuple[torch.Tensor, torch.Tensor], np.ndarray, list[int]]:
    model = rl.models.mlp(3, 4, 3, 2, bias=False).double()
    x = torch.randn(30, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    data = (x, torch.arange(30) % 2)
    hessian = HessianOperator(model, F.cross_entropy, data).to_dense().numpy()
    return model, data, hessian, [p.numel() for p in model.parameters()]


def test_the_solution_of_the_first_exercise_agrees_with_the_library(network):
    model, data, hessian, sizes = network
    report = sharpness_report(model, F.cross_entropy, data)
    for alpha in (0.5, 1.0, 2.0):
        expected = [report[f"renyi_sharpness_{alpha:g}", name].value for name, _ in model.named_parameters()]
        np.testing.assert_allclose(layer_sharpness(hessian, sizes, alpha), expected, rtol=1e-6)
    assert check_layer_sharpness(layer_sharpness).solved


def test_the_solution_of_the_second_exercise_is_the_hessian_of_the_rescaled_network(network):
    model, data, hessian, sizes = network
    scales = [4.0, 0.5, 0.5]
    expected = HessianOperator(reparametrize(model, scales), F.cross_entropy, data).to_dense().numpy()
    np.testing.assert_allclose(rescaled(hessian, sizes, scales), expected, rtol=1e-9, atol=1e-12)
    assert check_rescaled_hessian(rescaled).solved


def test_solutions_in_torch_are_accepted():
    def in_torch(hessian: np.ndarray, sizes: list[int], scales: list[float]) -> torch.Tensor:
        d = torch.tensor(scales).double().repeat_interleave(torch.tensor(sizes))
        return torch.from_numpy(hessian) / d[:, None] / d

    def tensors(hessian: np.ndarray, sizes: list[int], alpha: float) -> list[torch.Tensor]:
        return [torch.tensor(value) for value in layer_sharpness(hessian, sizes, alpha)]

    assert check_rescaled_hessian(in_torch).solved
    assert check_layer_sharpness(tensors).solved
    assert check_layer_sharpness(lambda *arguments: np.array(layer_sharpness(*arguments))).solved


def signed(hessian: np.ndarray, sizes: list[int], alpha: float) -> list[float]:
    result = []
    for block in blocks(hessian, sizes):
        values = np.linalg.eigvalsh(block)
        with np.errstate(invalid="ignore"):
            result.append(-np.log(((values / values.sum()) ** alpha).sum()) / (1 - alpha))
    return result


def blocks_only(hessian: np.ndarray, sizes: list[int], scales: list[float], *, between: float) -> np.ndarray:
    owner = np.repeat(range(len(sizes)), sizes)
    same = owner[:, None] == owner
    return np.where(same, rescaled(hessian, sizes, scales), between * hessian)


def overwriting(hessian: np.ndarray, sizes: list[int], scales: list[float]) -> np.ndarray:
    d = np.repeat(scales, sizes)
    hessian /= d[:, None] * d
    return hessian


@pytest.mark.parametrize("answer", [[1.0, -0.9], np.array([3.0, -1.0, -1.0]), torch.tensor([1.0, 1.0, -1.9])])
def test_too_many_directions_are_accepted(answer: Any):
    assert check_too_many_directions(answer).solved


def eigenvalues_of(parts: list[np.ndarray], alpha: float) -> list[float]:
    return [-entropy_of(np.linalg.eigvalsh(part), alpha) for part in parts]


@pytest.mark.parametrize(
    ("check", "attempt", "message"),
    [
        (check_layer_sharpness, lambda h, s, a: [-x for x in layer_sharpness(h, s, a)], "this is the entropy"),
        (
            check_layer_sharpness,
            lambda h, s, a: [-entropy_of(np.diag(b), a) for b in blocks(h, s)],
            "the diagonal is not",
        ),
        (
            check_layer_sharpness,
            lambda h, s, a: [-entropy_of(b.reshape(-1), a) for b in blocks(h, s)],
            "these are the entries",
        ),
        (check_layer_sharpness, lambda h, s, a: eigenvalues_of([h[:n, :n] for n in s], a), "starts in the corner"),
        (
            check_layer_sharpness,
            lambda h, s, a: [-entropy_of(e, a) for e in np.split(np.linalg.eigvalsh(h), np.cumsum(s)[:-1])],
            "belong to no layer",
        ),
        (check_layer_sharpness, lambda h, s, a: layer_sharpness(h, s, 2.0), "right at α = 2, wrong at α = 0.5"),
        (check_layer_sharpness, lambda h, s, a: layer_sharpness(h, s, a)[::-1], "layer 1 of sizes [4, 3, 2] is wrong"),
        (check_layer_sharpness, lambda h, s, a: layer_sharpness(h, s, a)[0], "a list of 1 numbers"),
        (check_layer_sharpness, lambda h, s, a: [*layer_sharpness(h, s, a), 0.0], "there are 1 layers"),
        (check_layer_sharpness, lambda h, s, a: h[100], "raised IndexError"),
        (check_layer_sharpness, lambda h, s, a: [0.0] * len(s), "the answer should be −H_α"),
        (check_layer_sharpness, lambda h, s, a: [math.nan] * len(s), "the result is NaN"),
        (check_layer_sharpness, signed, "take magnitudes before"),
        (check_layer_sharpness, stub, NOT_ATTEMPTED),
        (check_rescaled_hessian, lambda h, s, c: rescaled(h, s, [1 / x for x in c]), "flatter"),
        (check_rescaled_hessian, lambda h, s, c: h / np.repeat(c, s), "from one side only"),
        (check_rescaled_hessian, lambda h, s, c: h / np.repeat(c, s)[:, None], "from one side only"),
        (check_rescaled_hessian, lambda h, s, c: rescaled(h, s, [x**0.5 for x in c]), "how many derivatives"),
        (check_rescaled_hessian, lambda h, s, c: h, "consider one weight"),
        (
            check_rescaled_hessian,
            lambda h, s, c: blocks_only(h, s, c, between=1.0),
            "entries between two layers scale too",
        ),
        (check_rescaled_hessian, lambda h, s, c: blocks_only(h, s, c, between=0.0), "are not zero"),
        (check_rescaled_hessian, lambda h, s, c: blocks_only(h, s, c, between=2.0), "has one derivative for each"),
        (check_rescaled_hessian, lambda h, s, c: np.linalg.eigvalsh(h), "shape (9, 9) is expected"),
        (check_rescaled_hessian, overwriting, "overwritten"),
        (check_rescaled_hessian, 5, "a function is expected"),
        (check_rescaled_hessian, stub, NOT_ATTEMPTED),
        (check_too_many_directions, [1.0, 0.9], "without negative eigenvalues"),
        (check_too_many_directions, [1.0, -2.0], "their sum is -1: not positive"),
        (check_too_many_directions, [1.0, -1.0], "their sum is 0: not positive"),
        (check_too_many_directions, [10.0, -0.001], "so far not too many"),
        (check_too_many_directions, [1.0], "at least two finite numbers"),
        (check_too_many_directions, [1.0, math.nan], "at least two finite numbers"),
        (check_too_many_directions, ["a", "b"], "one number is expected"),
        (check_too_many_directions, [..., ...], NOT_ATTEMPTED),
    ],
)
def test_messages(check: Callable[[Any], Any], attempt: Any, message: str) -> None:
    feedback = check(attempt)
    assert not feedback.solved
    assert message in repr(feedback)
