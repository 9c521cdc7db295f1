"""`DifferenceExplorer` against the orders of truncation and rounding errors, and against `HessianOperator`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import renyi_lab as rl
from renyi_lab.widgets import DifferenceExplorer

STEPS = np.logspace(-11, 0, 45)


def problem(activation: str = "tanh") -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(60, 6, generator=generator), torch.randint(0, 3, (60,), generator=generator)
    return rl.models.mlp(6, 8, 3, activation=activation), data


@pytest.fixture(scope="module")
def explorer() -> DifferenceExplorer:
    model, data = problem()
    return DifferenceExplorer(model, F.cross_entropy, data)


def slope(errors: np.ndarray, low: float, high: float) -> float:
    chosen = slice(*np.searchsorted(STEPS, [low, high]))
    return float(np.polyfit(np.log(STEPS[chosen]), np.log(errors[chosen]), 1)[0])


def test_truncation_error_is_of_first_and_second_order(explorer: DifferenceExplorer) -> None:
    assert slope(explorer.errors["double", "one-sided"], 1e-4, 1e-1) == pytest.approx(1, abs=0.1)
    assert slope(explorer.errors["double", "central"], 1e-3, 1e-1) == pytest.approx(2, abs=0.1)


def test_rounding_error_is_inverse_to_the_step_and_larger_in_single_precision(explorer: DifferenceExplorer) -> None:
    for scheme in ("one-sided", "central"):
        assert slope(explorer.errors["double", scheme], 1e-11, 1e-9) == pytest.approx(-1, abs=0.3)
        best = {name: explorer.errors[name, scheme].min() for name in ("single", "double")}
        assert best["single"] > 1000 * best["double"]
    assert explorer.double_backward["single"] < 1e-5 < explorer.errors["single", "central"].min()


def test_the_product_equals_that_of_the_operator(explorer: DifferenceExplorer) -> None:
    model, (x, y) = problem()
    H = rl.HessianOperator(model.double(), F.cross_entropy, (x.double(), y))
    v = torch.randn(H.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    np.testing.assert_allclose(explorer.product, H @ (v / v.norm()), rtol=1e-10, atol=1e-14)


def test_controls_move_marker_entries_and_picture() -> None:
    model, data = problem()
    explorer = DifferenceExplorer(model, F.cross_entropy, data)
    before = explorer.picture.value
    explorer.step.index, explorer.scheme.value, explorer.precision.value = 20, "central", "double"
    error = explorer.errors["double", "central"][20]
    assert explorer.error == error < 1e-3
    np.testing.assert_allclose(explorer.marker.get_xydata(), [[1e-6, error]])
    np.testing.assert_array_equal(explorer.entries.get_ydata(), explorer.difference)
    np.testing.assert_allclose(explorer.difference, explorer.product, atol=1e-4)
    assert explorer.picture.value != before
    assert f"{error:.1e}" in explorer.caption.value
    explorer.reset()
    assert (explorer.step.value, explorer.scheme.value) == (1e-2, "one-sided")
    assert explorer.picture.value == before


def test_large_steps_of_a_relu_network_cross_kinks() -> None:
    model, data = problem("relu")
    errors = DifferenceExplorer(model, F.cross_entropy, data).errors["double", "central"]
    assert errors.min() < 1e-7
    assert errors[STEPS > 0.5].max() > 0.1


def test_the_model_the_data_and_the_random_state_are_not_changed() -> None:
    model, data = problem()
    model = nn.Sequential(model, nn.BatchNorm1d(3), nn.Dropout()).train()
    model(data[0]).sum().backward()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    grads = [p.grad.clone() for p in model.parameters()]
    x, state = data[0].clone(), torch.get_rng_state()
    DifferenceExplorer(model, F.cross_entropy, data)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(p.grad, grad) for p, grad in zip(model.parameters(), grads, strict=True))
    assert all(module.training for module in model.modules())
    assert torch.equal(data[0], x)
    assert torch.equal(torch.get_rng_state(), state)


def test_frozen_parameters_and_loaders_are_accepted() -> None:
    model, (x, y) = problem()
    model.layer1.requires_grad_(False)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=25)
    explorer = DifferenceExplorer(model, F.cross_entropy, loader, precision="double")
    assert explorer.product.shape == (27,)
    assert explorer.error < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step": 0.0}, r"step must lie in \[1e-11, 1\], got 0"),
        ({"step": float("nan")}, "step must be finite, got nan"),
        ({"precision": "half"}, "precision must be"),
        ({"scheme": "forward"}, "scheme must be"),
        ({"seed": -1}, "seed"),
        ({"data": []}, "data is empty"),
        ({"loss_fn": lambda out, y: 0.0 * out.sum()}, "the Hessian product is zero"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*zero:UserWarning")
def test_messages(options: dict[str, Any], message: str) -> None:
    model, data = problem()
    with pytest.raises(ValueError, match=message):
        DifferenceExplorer(model, **{"loss_fn": F.cross_entropy, "data": data, **options})
