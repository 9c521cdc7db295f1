"""`PerturbationExplorer` against the library."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from explorer_view import caption
from torch.nn import functional as F

from renyi_lab import HessianOperator, models
from renyi_lab.perturbation import discrepancy_curve, haar_orthogonal
from renyi_lab.widgets import PerturbationExplorer


@pytest.fixture(scope="module")
def module_explorer(operator: HessianOperator) -> PerturbationExplorer:
    return PerturbationExplorer(operator, rho=0.33)


@pytest.fixture
def explorer(module_explorer: PerturbationExplorer) -> PerturbationExplorer:
    module_explorer.reset()
    return module_explorer


def test_the_controls_move_input_weight_curves_and_caption(
    operator: HessianOperator, explorer: PerturbationExplorer
) -> None:
    W, h = operator.model[0].weight.detach(), operator.batches[0].content[0][0]
    matrices = [haar_orthogonal(6, seed) for seed in range(3)] + [torch.eye(6, dtype=torch.float64)]
    assert list(explorer.direction.options) == [*(f"random orthogonal {k}" for k in (1, 2, 3)), "A = I"]
    for name, A in zip(explorer.direction.options, matrices, strict=True):
        for rho in (0.2, 1.0):
            before = explorer.picture.value
            explorer.direction.value, explorer.rho.value = name, rho
            np.testing.assert_allclose(explorer.input.get_ydata(), h + rho * A @ h, atol=1e-12)
            np.testing.assert_allclose(explorer.weight.get_array(), W + rho * W @ A, atol=1e-12)
            np.testing.assert_allclose(explorer.old_weight.get_array(), W, atol=0)
            assert explorer.old_weight.get_clim() == explorer.weight.get_clim(), "colours can be compared"
            curve = discrepancy_curve(operator, "layer1", A, rho)
            assert explorer.losses == pytest.approx((curve.data_form[0], curve.weight_form[0]), abs=1e-13)
            assert explorer.data_marker.get_xydata().tolist() == [[rho, explorer.losses[0]]]
            assert explorer.weight_marker.get_xydata().tolist() == [[rho, explorer.losses[1]]]
            assert explorer.data_line.get_ydata()[0] == pytest.approx(operator.loss, abs=1e-13)
            assert explorer.picture.value != before
            assert f"loss {explorer.losses[0]:.4g} with perturbed data" in caption(explorer)
            assert f"‖ρAh‖ = {rho:.2f} ‖h‖, ‖ρWA‖ = {rho:.2f} ‖W‖" in caption(explorer)


def test_both_curves_are_shown_and_equal(operator: HessianOperator) -> None:
    explorer = PerturbationExplorer(operator, "layer2", directions={"A": haar_orthogonal(8)}, max_rho=2.0)
    np.testing.assert_allclose(explorer.data_line.get_xdata(), np.linspace(0, 2, 21))
    np.testing.assert_allclose(explorer.data_line.get_ydata(), explorer.weight_line.get_ydata(), atol=1e-13)
    assert np.ptp(explorer.data_line.get_ydata()) > 0.01


def test_all_curves_are_inside_the_axes(explorer: PerturbationExplorer) -> None:
    for name in explorer.direction.options:
        explorer.direction.value = name
        for rho in (0.0, 0.5, 1.0):
            explorer.rho.value = rho
            low, high = explorer.input.axes.get_ylim()
            assert low <= explorer.input.get_ydata().min() <= explorer.input.get_ydata().max() <= high
            low, high = explorer.data_line.axes.get_ylim()
            assert low <= explorer.data_line.get_ydata().min() <= explorer.data_line.get_ydata().max() <= high


def test_the_slider_has_the_computed_points_and_reset_restores_both_controls(explorer: PerturbationExplorer) -> None:
    assert explorer.rho.value == pytest.approx(0.35), "the nearest of 21 points"
    start = explorer.picture.value
    explorer.rho.value, explorer.direction.value = 0.9, "A = I"
    assert explorer.picture.value != start
    explorer.reset()
    assert (explorer.rho.value, explorer.direction.value) == (pytest.approx(0.35), "random orthogonal 1")
    assert explorer.picture.value == start


def test_custom_directions_and_convolutions_are_accepted() -> None:
    model = models.cnn1d(channels=4, in_features=12).double()
    x = torch.linspace(-20, 20, 108, dtype=torch.float64).sin().reshape(9, 12)
    H = HessianOperator(model, F.cross_entropy, (x, torch.arange(9) % 10))
    swap = torch.eye(4, dtype=torch.float64)[[1, 0, 2, 3]]
    explorer = PerturbationExplorer(H, "conv2", directions={"swap": swap}, rho=1.0, sample=3)
    h = model.relu1(model.conv1(H.batches[0].content[0][3:4, None])).detach()[0]
    np.testing.assert_allclose(explorer.input.get_ydata(), (h + h[[1, 0, 2, 3]]).reshape(-1), atol=1e-12)
    weight = model.conv2.weight.detach()
    np.testing.assert_allclose(
        explorer.weight.get_array(), (weight + weight[:, [1, 0, 2, 3]]).reshape(4, -1), atol=1e-12
    )


def test_the_model_is_not_changed(operator: HessianOperator) -> None:
    before = copy.deepcopy(operator.model.state_dict())
    one = {"A": haar_orthogonal(6)}
    PerturbationExplorer(operator, directions=one).rho.value = 0.5
    after = operator.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not any(module._forward_pre_hooks for module in operator.model.modules())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"layer": "relu1"}, ValueError, "layer='relu1' is a ReLU"),
        ({"layer": "nine"}, ValueError, "is not a layer"),
        ({"directions": {}}, ValueError, "directions is empty"),
        ({"directions": [torch.eye(6)]}, TypeError, "directions must map names to matrices, got list"),
        ({"directions": {"A": torch.eye(5)}}, ValueError, r"shape \(6, 6\)"),
        ({"max_rho": 0.0}, ValueError, "max_rho must lie in"),
        ({"rho": 2.0}, ValueError, r"rho must lie in \[0, 1\]"),
        ({"sample": 30}, ValueError, "sample must be at most 29"),
        ({"operator": models.mlp(6, 8, 4)}, TypeError, "operator must be a HessianOperator, got Sequential"),
    ],
)
def test_messages(operator: HessianOperator, arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        PerturbationExplorer(**{"operator": operator, **arguments})
