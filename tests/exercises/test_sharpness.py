"""The checkers of notebook 04 accept its solutions and name typical mistakes."""

from __future__ import annotations

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


def test_the_solution_of_the_first_exercise_is_what_the_library_reports(network):
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


def test_solutions_in_torch_are_accepted_too():
    def in_torch(hessian: np.ndarray, sizes: list[int], scales: list[float]) -> torch.Tensor:
        d = torch.tensor(scales).double().repeat_interleave(torch.tensor(sizes))
        return torch.from_numpy(hessian) / d[:, None] / d

    def tensors(hessian: np.ndarray, sizes: list[int], alpha: float) -> list[torch.Tensor]:
        return [torch.tensor(value) for value in layer_sharpness(hessian, sizes, alpha)]

    assert check_rescaled_hessian(in_torch).solved
    assert check_layer_sharpness(tensors).solved
    assert check_layer_sharpness(lambda *arguments: np.array(layer_sharpness(*arguments))).solved


@pytest.mark.parametrize(
    ("mistake", "hint"),
    [
        (lambda h, s, a: [entropy_of(np.linalg.eigvalsh(b), a) for b in blocks(h, s)], "this is the entropy"),
        (lambda h, s, a: [-entropy_of(np.diag(b), a) for b in blocks(h, s)], "the diagonal is not the spectrum"),
        (lambda h, s, a: [-entropy_of(b.reshape(-1), a) for b in blocks(h, s)], "the block's entries"),
        (
            lambda h, s, a: [-entropy_of(np.linalg.eigvalsh(h[:n, :n]), a) for n in s],
            "starts in the corner",
        ),
        (
            lambda h, s, a: [-entropy_of(e, a) for e in np.split(np.linalg.eigvalsh(h), np.cumsum(s)[:-1])],
            "belong to no layer",
        ),
        (lambda h, s, a: layer_sharpness(h, s, 2.0), "right at α = 2, wrong at α = 0.5"),
        (lambda h, s, a: layer_sharpness(h, s, a)[::-1], "layer 1 of sizes [4, 3, 2] is wrong"),
        (lambda h, s, a: layer_sharpness(h, s, a)[0], "a list of 1 numbers"),
        (lambda h, s, a: [*layer_sharpness(h, s, a), 0.0], "there are 1 layers"),
        (lambda h, s, a: h[100], "raised IndexError"),
    ],
)
def test_typical_mistakes_with_layers_are_named(mistake: Callable[..., Any], hint: str):
    feedback = check_layer_sharpness(mistake)
    assert feedback.status == "not yet"
    assert hint in feedback.message


def test_forgetting_magnitudes_is_named():
    def signed(hessian: np.ndarray, sizes: list[int], alpha: float) -> list[float]:
        result = []
        for block in blocks(hessian, sizes):
            values = np.linalg.eigvalsh(block)
            with np.errstate(invalid="ignore"):
                result.append(-np.log(((values / values.sum()) ** alpha).sum()) / (1 - alpha))
        return result

    assert "take magnitudes before" in check_layer_sharpness(signed).message


def blocks_only(hessian: np.ndarray, sizes: list[int], scales: list[float], *, between: float) -> np.ndarray:
    owner = np.repeat(range(len(sizes)), sizes)
    same = owner[:, None] == owner
    return np.where(same, rescaled(hessian, sizes, scales), between * hessian)


def overwriting(hessian: np.ndarray, sizes: list[int], scales: list[float]) -> np.ndarray:
    d = np.repeat(scales, sizes)
    hessian /= d[:, None] * d
    return hessian


@pytest.mark.parametrize(
    ("mistake", "hint"),
    [
        (lambda h, s, c: rescaled(h, s, [1 / x for x in c]), "flatter"),
        (lambda h, s, c: h / np.repeat(c, s), "from one side only"),
        (lambda h, s, c: h / np.repeat(c, s)[:, None], "from one side only"),
        (lambda h, s, c: rescaled(h, s, [x**0.5 for x in c]), "how many derivatives"),
        (lambda h, s, c: h, "look at one weight"),
        (lambda h, s, c: blocks_only(h, s, c, between=1.0), "entries between two layers scale too"),
        (lambda h, s, c: blocks_only(h, s, c, between=0.0), "are not zero"),
        (lambda h, s, c: blocks_only(h, s, c, between=2.0), "which factor does that make"),
        (lambda h, s, c: np.linalg.eigvalsh(h), "shape (9, 9) is asked for"),
        (overwriting, "overwritten"),
        (5, "a function is asked for"),
    ],
)
def test_typical_mistakes_with_rescaling_are_named(mistake: Any, hint: str):
    feedback = check_rescaled_hessian(mistake)
    assert feedback.status == "not yet"
    assert hint in feedback.message


@pytest.mark.parametrize("answer", [[1.0, -0.9], np.array([3.0, -1.0, -1.0]), torch.tensor([1.0, 1.0, -1.9])])
def test_too_many_directions_are_recognised(answer: Any):
    assert check_too_many_directions(answer).solved


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        ([1.0, 0.9], "without negative eigenvalues"),
        ([1.0, -2.0], "their sum is -1: not positive"),
        ([1.0, -1.0], "their sum is 0: not positive"),
        ([10.0, -0.001], "so far not too many"),
        ([1.0], "at least two finite numbers"),
        ([1.0, float("nan")], "at least two finite numbers"),
        (["a", "b"], "one number is asked for"),
    ],
)
def test_eigenvalues_that_do_not_do_it_are_answered_with_what_to_change(answer: Any, hint: str):
    feedback = check_too_many_directions(answer)
    assert feedback.status == "not yet"
    assert hint in feedback.message


def test_stubs_run_and_are_not_judged():
    def stub(*_: Any) -> Any:
        return ...

    assert check_layer_sharpness(stub).status == "not attempted yet"
    assert check_rescaled_hessian(stub).status == "not attempted yet"
    assert check_too_many_directions([..., ...]).status == "not attempted yet"
