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
from renyi_lab.exercises import (
    check_entropy_range,
    check_layer_sharpness,
    check_renyi_sharpness,
    check_rescaled_hessian,
    check_too_many_directions,
)
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


def sharpness(values: np.ndarray, alpha: float) -> float:
    return -entropy_of(values, alpha)


def formula(values: np.ndarray, alpha: float) -> float:
    p = values / values.sum()
    with np.errstate(all="ignore"):
        return -np.log((p**alpha).sum()) / (1 - alpha)


def entropy_range(trace: float, largest: float, n: int) -> tuple[float, float]:
    full, rest = divmod(trace, largest)
    low = -math.log((full * largest**2 + rest**2) / trace**2)
    spread = 0.0 if n == 1 else (trace - largest) ** 2 / (n - 1)
    return low, -math.log((largest**2 + spread) / trace**2)


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


def test_layers_of_a_network_agree_with_the_library(network):
    model, data, hessian, sizes = network
    report = sharpness_report(model, F.cross_entropy, data)
    for alpha in (0.5, 1.0, 2.0):
        expected = [report[f"renyi_sharpness_{alpha:g}", name].value for name, _ in model.named_parameters()]
        np.testing.assert_allclose(layer_sharpness(hessian, sizes, alpha), expected, rtol=1e-6)
    assert check_layer_sharpness(layer_sharpness).solved


def test_a_rescaled_hessian_is_the_hessian_of_the_rescaled_network(network):
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


def test_the_range_of_the_entropy_holds_every_spectrum_with_these_facts():
    rng = np.random.default_rng(0)
    found = []
    while len(found) < 200:
        values = 4.0 * rng.dirichlet(np.ones(5)) ** rng.uniform(0.2, 3)
        values = np.append(4.0, values * 6.0 / values.sum())
        if values.max() <= 4.0:
            found.append(entropy_of(values, 2.0))
    low, high = entropy_range(10.0, 4.0, 6)
    assert low - 1e-12 <= min(found) < max(found) <= high + 1e-12
    assert entropy_of(np.array([4.0, 4.0, 2.0, 0, 0, 0]), 2.0) == pytest.approx(low)
    assert entropy_of(np.array([4.0, *[1.2] * 5]), 2.0) == pytest.approx(high)


@pytest.mark.parametrize(
    ("check", "solution"), [(check_renyi_sharpness, sharpness), (check_rescaled_hessian, rescaled)]
)
def test_a_core_function_is_the_readers_once_it_is_solved_and_the_librarys_until_then(check: Any, solution: Any):
    library = check(stub).function
    assert check(solution).function is solution
    for attempt in (stub, 3, None, lambda *_: "text"):
        feedback = check(attempt)
        assert not feedback.solved
        assert feedback.function is library
    for _ in range(2):
        assert check(library).solved
    if check is check_renyi_sharpness:
        values = np.array([3.0, -1.0, 0.0])
        for alpha in (0.5, 1, 2):
            assert library(values, alpha) == pytest.approx(sharpness(values, alpha))
    else:
        hessian = np.arange(9.0).reshape(3, 3)
        np.testing.assert_allclose(library(hessian, [2, 1], [2, 0.5]), rescaled(hessian, [2, 1], [2, 0.5]))


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


def test_the_solution_of_the_range_is_accepted():
    assert check_entropy_range(entropy_range).solved
    assert check_entropy_range(lambda *facts: np.array(entropy_range(*facts))).solved


@pytest.mark.parametrize("answer", [[1.0, -0.9], np.array([3.0, -1.0, -1.0]), torch.tensor([1.0, 1.0, -1.9])])
def test_too_many_directions_are_accepted(answer: Any):
    assert check_too_many_directions(answer).solved


def spoiling(values: np.ndarray, alpha: float) -> float:
    result = sharpness(values, alpha)
    values *= 0
    return result


def eigenvalues_of(parts: list[np.ndarray], alpha: float) -> list[float]:
    return [-entropy_of(np.linalg.eigvalsh(part), alpha) for part in parts]


@pytest.mark.parametrize(
    ("check", "attempt", "message"),
    [
        (check_renyi_sharpness, lambda v, a: entropy_of(v, a), "this is the entropy"),
        (check_renyi_sharpness, lambda v, a: sharpness(v, a) / math.log(2), "this is in bits"),
        (check_renyi_sharpness, lambda v, a: np.array([sharpness(v, a)]), "one number is expected"),
        (check_renyi_sharpness, lambda v, a: rl.Spectrum.from_eigenvalues(v).renyi_sharpness(a), "of an Estimate, its"),
        (check_rescaled_hessian, lambda *given: torch.tensor(rescaled(*given)).requires_grad_(), "answer.detach()"),
        (check_rescaled_hessian, lambda *given: "text", "is expected, got str"),
        (check_rescaled_hessian, lambda *given: 1j * rescaled(*given), "real numbers are expected, got complex128"),
        (check_rescaled_hessian, lambda *given: np.nan * rescaled(*given), "NaN or infinity"),
        (check_renyi_sharpness, lambda v, a: math.exp(entropy_of(v, a)), "effective number"),
        (check_renyi_sharpness, lambda v, a: np.log((v**a).sum()), "by their sum first"),
        (check_renyi_sharpness, lambda v, a: a * np.log(v / v.sum()).sum(), "one logarithm"),
        (check_renyi_sharpness, lambda v, a: 7.0, "should be log Σ p² = -0.6931"),
        (check_renyi_sharpness, formula, "take magnitudes before you divide"),
        (check_renyi_sharpness, lambda v, a: np.log((np.abs(v) / np.abs(v).sum()) ** a).sum(), "one logarithm"),
        (check_renyi_sharpness, lambda v, a: np.log(((np.abs(v) / np.abs(v).sum()) ** a).sum()), "and missing"),
        (check_renyi_sharpness, lambda v, a: formula(np.abs(v), a), "at α = 1 the formula is 0/0"),
        (check_renyi_sharpness, lambda v, a: sharpness(v, a) / (1.0 - a) * (1.0 - a), "at α = 1 the formula is 0/0"),
        (check_renyi_sharpness, lambda v, a: None if a == 1 else sharpness(v, a), "at α = 1 the formula is 0/0"),
        (check_renyi_sharpness, lambda v, a: math.nan if 0 in v else sharpness(v, a), "two eigenvalues are 0"),
        (check_renyi_sharpness, lambda v, a: [sharpness(v, a)] * 2, "one number is expected"),
        (check_renyi_sharpness, spoiling, "overwritten"),
        (check_renyi_sharpness, 3, "a function is expected"),
        (check_renyi_sharpness, stub, NOT_ATTEMPTED),
        (check_entropy_range, lambda t, m, n: entropy_range(t, m, n)[::-1], "the smaller number comes first"),
        (check_entropy_range, lambda t, m, n: [-x for x in entropy_range(t, m, n)], "these are sharpnesses"),
        (check_entropy_range, lambda t, m, n: (0.0, math.log(n)), "cannot be log n"),
        (check_entropy_range, lambda t, m, n: (0.0, -math.log((m**2 + (t - m) ** 2 / n) / t**2)), "n − 1 eigenvalues"),
        (check_entropy_range, lambda t, m, n: (0.0, 1.0), "one eigenvalue is λ_max"),
        (check_entropy_range, lambda t, m, n: (math.log(t / m), entropy_range(t, m, n)[1]), "a whole number"),
        (check_entropy_range, lambda t, m, n: (0.0, entropy_range(t, m, n)[1]), "0 would be a single direction"),
        (
            check_entropy_range,
            lambda t, m, n: (-math.log((m**2 + (t - m) ** 2) / t**2), entropy_range(t, m, n)[1]),
            "no eigenvalue may be larger",
        ),
        (check_entropy_range, lambda t, m, n: (0.5, entropy_range(t, m, n)[1]), "what remains"),
        (check_entropy_range, lambda t, m, n: entropy_range(10.0, 4.0, 6), "wrong for trace 6"),
        (check_entropy_range, lambda t, m, n: entropy_range(t, m, n)[0], "two numbers are expected"),
        (check_entropy_range, stub, NOT_ATTEMPTED),
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
