"""The cost of a spectrum: memory is that of the tensors which are there, and the measurement leaves no trace."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import renyi_lab as rl
from renyi_lab.operators import Cost, format_bytes, saved_bytes


def operator(count: int = 64, **options: object) -> rl.HessianOperator:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(count, 20, generator=generator), torch.randint(0, 5, (count,), generator=generator)
    batches = [(x[i : i + 16], y[i : i + 16]) for i in range(0, count, 16)]
    return rl.HessianOperator(rl.models.mlp(20, 30, 5), F.cross_entropy, batches, **options)  # type: ignore[arg-type]


def test_nothing_is_left_behind() -> None:
    H = operator()
    before = copy.deepcopy(H.model.state_dict())
    state = torch.get_rng_state()
    H.estimate_cost()
    assert (H.num_matvecs, H.num_batches_kept) == (0, 0)
    H @ torch.ones(H.dim)
    H.estimate_cost(50)
    assert (H.num_matvecs, H.num_batches_kept) == (1, 4)
    assert all(torch.equal(value, before[name]) for name, value in H.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_memory_is_the_sum_of_its_parts() -> None:
    H = operator()
    cost = H.estimate_cost(100)
    parameters = sum(p.numel() for p in H.model.parameters())
    assert cost.model_memory == 4 * parameters + 64 * (20 * 4 + 8)
    # 75 Lanczos vectors, 25 of the short runs and 8 to work with.
    assert cost.vector_memory == (75 + 25 + 8) * parameters * 4
    halved = H.estimate_cost(100, basis_dtype=torch.bfloat16)
    assert halved.vector_memory == (75 / 2 + 25 + 8) * parameters * 4
    assert H.estimate_cost(100, reorthogonalize="none").vector_memory == (25 + 8) * parameters * 4
    assert cost.memory == cost.model_memory + cost.graph_memory + cost.vector_memory
    assert not cost.is_exact


def test_memory_of_kept_graphs_is_that_of_their_tensors() -> None:
    H = operator()
    parameters = list(H.model.parameters())
    outside = [*parameters, *(tensor for batch in H.batches for tensor in batch.content)]  # there without graphs too

    def build(index: int) -> object:
        with H.evaluation_point(), torch.enable_grad():
            loss = H.batch_loss(index)
            return torch.autograd.grad(loss, parameters, create_graph=True)

    graphs = [saved_bytes(lambda i=index: build(i), outside) for index in range(4)]
    cost = H.estimate_cost()
    assert cost.graph_memory == pytest.approx(sum(graphs) + max(graphs), rel=0.1)
    # Without kept graphs, one batch's is built at a time.
    assert operator(graph_budget=0).estimate_cost().graph_memory == pytest.approx(max(graphs), rel=0.1)


def test_the_lanczos_vectors_of_an_estimate_fit_into_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bases of the deep run and of its combinations, which are all large tensors of `estimate_spectrum`."""
    H = operator()
    sizes: list[int] = []
    empty, matmul = torch.empty, torch.Tensor.__matmul__

    def noted_empty(*shape: int, **options: object) -> torch.Tensor:
        made = empty(*shape, **options)  # type: ignore[call-overload]
        if made.ndim == 2 and made.shape[1] == H.dim:
            sizes.append(made.nbytes)
        return made

    def noted_matmul(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        made = matmul(one, other)
        if made.ndim == 2 and made.shape[1] == H.dim:
            sizes.append(made.nbytes)
        return made

    monkeypatch.setattr(torch, "empty", noted_empty)
    monkeypatch.setattr(torch.Tensor, "__matmul__", noted_matmul)
    rl.estimate_spectrum(H, num_matvecs=100)
    said = H.estimate_cost(100).vector_memory
    two_largest = sorted(sizes)[-2:]
    assert sum(two_largest) <= said
    assert sum(two_largest) >= said / 4


def test_as_many_products_as_rows_are_an_exact_spectrum() -> None:
    H = operator()
    cost = H.estimate_cost(5000)
    assert cost.is_exact
    assert cost.num_matvecs == H.dim == rl.estimate_spectrum(H, num_matvecs=5000).num_matvecs
    assert cost.vector_memory == H.dim**2 * (4 + 24)
    assert "an exact spectrum" in repr(cost)


def test_times_are_consistent() -> None:
    H = operator()
    few, many = H.estimate_cost(10), H.estimate_cost(1000 - 100)
    for cost in (few, many):
        assert 0 < cost.fastest <= cost.seconds <= cost.slowest
        assert cost.seconds >= cost.num_matvecs * cost.seconds_per_product * 0.99
    assert many.seconds > few.seconds


def test_the_representation_is_for_readers() -> None:
    cost = Cost(200, 0.06, 12.04, 10.4, 16.2, 310_400_000, 1, 2, 3, False)
    assert repr(cost) == "200 products: about 12 s (10 s to 16 s); 310 MB"
    assert repr(Cost(2000, 5.0, 10_000.0, 9_000.0, 20_000.0, 4_200_000_000, 1, 2, 3, False)) == (
        "2,000 products: about 2.8 h (2.5 h to 5.6 h); 4.2 GB"
    )
    assert [format_bytes(n) for n in (10, 1500, 2_500_000)] == ["1 kB", "2 kB", "2.5 MB"]


@pytest.mark.parametrize("num_matvecs", [0, -1])
def test_a_number_that_is_not_positive_is_refused(num_matvecs: int) -> None:
    with pytest.raises(ValueError, match="num_matvecs"):
        operator().estimate_cost(num_matvecs)


def test_a_product_of_one_row() -> None:
    x = torch.ones(3, 1)
    cost = rl.HessianOperator(nn.Linear(1, 1, bias=False), nn.MSELoss(), (x, x)).estimate_cost(1)
    assert cost.num_matvecs == 1


def test_the_gauss_newton_matrix_has_a_cost_too() -> None:
    H = operator()
    G = rl.GGNOperator(H.model, F.cross_entropy, [batch.content for batch in H.batches])
    assert G.estimate_cost(20).graph_memory > 0
