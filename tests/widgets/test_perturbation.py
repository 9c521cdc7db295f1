"""The explorers of perturbed data, weights and balls, driven without a browser and compared with the library."""

from __future__ import annotations

import copy
import html
import re
import time
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from renyi_lab import HessianOperator, models
from renyi_lab.perturbation import discrepancy_curve, haar_orthogonal, loss_along, worst_case_loss
from renyi_lab.widgets import PerturbationExplorer, RadiusExplorer


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def operator() -> HessianOperator:
    model = models.mlp(6, 8, 4, seed=1).double()
    for parameter in model.parameters():
        parameter.data *= 2.0
    return HessianOperator(model, F.cross_entropy, (normal(30, 6), torch.arange(30) % 4))


@pytest.fixture(scope="module")
def perturbation_explorer(operator: HessianOperator) -> PerturbationExplorer:
    return PerturbationExplorer(operator, rho=0.33)


@pytest.fixture(scope="module")
def radius_explorer(operator: HessianOperator) -> RadiusExplorer:
    return RadiusExplorer(operator, max_rho=1.0)


def text(explorer: Any) -> str:
    return html.unescape(re.sub("<[^>]*>", "", explorer.caption.value))


def median_milliseconds(explorer: Any, values: Any) -> float:
    seconds = []
    for value in values:
        start = time.process_time()  # not the clock on the wall: other processes may be busy
        explorer.rho.value = float(value)
        seconds.append(time.process_time() - start)
    return 1000 * float(np.median(seconds))


class TestPerturbationExplorer:
    @pytest.fixture
    def explorer(self, perturbation_explorer: PerturbationExplorer) -> PerturbationExplorer:
        perturbation_explorer.reset()
        return perturbation_explorer

    def test_slider_and_direction_move_input_weight_curves_and_caption(
        self, operator: HessianOperator, explorer: PerturbationExplorer
    ) -> None:
        W, h = operator.model[0].weight.detach(), operator.batches[0].content[0][0]
        matrices = [haar_orthogonal(6, seed) for seed in range(3)] + [torch.eye(6, dtype=torch.float64)]
        assert list(explorer.direction.options) == [*(f"random rotation {k}" for k in (1, 2, 3)), "A = I"]
        for name, A in zip(explorer.direction.options, matrices, strict=True):
            for rho in (0.2, 1.0):
                before = explorer.picture.value
                explorer.direction.value, explorer.rho.value = name, rho
                np.testing.assert_allclose(explorer.input.get_ydata(), h + rho * A @ h, atol=1e-12)
                np.testing.assert_allclose(explorer.weight.get_array(), W + rho * W @ A, atol=1e-12)
                curve = discrepancy_curve(operator, "layer1", A, rho)
                assert explorer.losses == pytest.approx((curve.data_form[0], curve.weight_form[0]), abs=1e-13)
                assert explorer.data_marker.get_xydata().tolist() == [[rho, explorer.losses[0]]]
                assert explorer.weight_marker.get_xydata().tolist() == [[rho, explorer.losses[1]]]
                assert explorer.data_line.get_ydata()[0] == pytest.approx(operator.loss, abs=1e-13)
                assert explorer.picture.value != before
                assert f"loss {explorer.losses[0]:.4g} with other data" in text(explorer)
                assert f"‖ρAh‖ = {rho:.2f} ‖h‖, ‖ρWA‖ = {rho:.2f} ‖W‖" in text(explorer)

    def test_both_curves_are_shown_and_lie_on_each_other(self, operator: HessianOperator) -> None:
        explorer = PerturbationExplorer(operator, "layer2", directions={"A": haar_orthogonal(8)}, max_rho=2.0)
        np.testing.assert_allclose(explorer.data_line.get_xdata(), np.linspace(0, 2, 21))
        np.testing.assert_allclose(explorer.data_line.get_ydata(), explorer.weight_line.get_ydata(), atol=1e-13)
        assert np.ptp(explorer.data_line.get_ydata()) > 0.01

    def test_everything_that_a_slider_can_show_lies_inside_the_axes(self, explorer: PerturbationExplorer) -> None:
        for name in explorer.direction.options:
            explorer.direction.value = name
            for rho in (0.0, 0.5, 1.0):
                explorer.rho.value = rho
                low, high = explorer.input.axes.get_ylim()
                assert low <= explorer.input.get_ydata().min() <= explorer.input.get_ydata().max() <= high
                low, high = explorer.data_line.axes.get_ylim()
                assert low <= explorer.data_line.get_ydata().min() <= explorer.data_line.get_ydata().max() <= high

    def test_the_slider_s_steps_are_the_computed_points_and_reset_goes_back(
        self, explorer: PerturbationExplorer
    ) -> None:
        assert explorer.rho.value == pytest.approx(0.35), "the nearest of 21 points"
        start = explorer.picture.value
        explorer.rho.value, explorer.direction.value = 0.9, "A = I"
        assert explorer.picture.value != start
        explorer.reset()
        assert (explorer.rho.value, explorer.direction.value) == (pytest.approx(0.35), "random rotation 1")
        assert explorer.picture.value == start

    def test_own_directions_layers_and_convolutions_are_taken(self) -> None:
        model = models.cnn1d(channels=4, in_features=12).double()
        H = HessianOperator(model, F.cross_entropy, (normal(9, 12), torch.arange(9) % 10))
        swap = torch.eye(4, dtype=torch.float64)[[1, 0, 2, 3]]
        explorer = PerturbationExplorer(H, "conv2", directions={"swap": swap}, rho=1.0, sample=3)
        h = model.relu1(model.conv1(H.batches[0].content[0][3:4, None])).detach()[0]
        np.testing.assert_allclose(explorer.input.get_ydata(), (h + h[[1, 0, 2, 3]]).reshape(-1), atol=1e-12)
        weight = model.conv2.weight.detach()
        np.testing.assert_allclose(
            explorer.weight.get_array(), (weight + weight[:, [1, 0, 2, 3]]).reshape(4, -1), atol=1e-12
        )

    def test_the_model_is_left_as_it_was(self, operator: HessianOperator) -> None:
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
        ],
    )
    def test_bad_input_is_named(
        self, operator: HessianOperator, arguments: dict[str, Any], error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            PerturbationExplorer(operator, **arguments)

    def test_something_else_than_an_operator_is_named(self, operator: HessianOperator) -> None:
        for explorer in (PerturbationExplorer, RadiusExplorer):
            with pytest.raises(TypeError, match="operator must be a HessianOperator, got Sequential"):
                explorer(operator.model)

    def test_updates_are_quick(self, capsys: pytest.CaptureFixture[str]) -> None:
        model = models.mlp(40, 100, 100, 10)
        H = HessianOperator(model, F.cross_entropy, (normal(20, 40).float(), torch.arange(20) % 10))
        explorer = PerturbationExplorer(H, "layer2", directions={"A": haar_orthogonal(100)})
        median = median_milliseconds(explorer, np.linspace(0.05, 1, 20))
        with capsys.disabled():
            print(f" [median update {median:.0f} ms] ", end="")
        assert median < 100, "50 ms is what a slider needs; this machine was twice as slow as that"


class TestRadiusExplorer:
    @pytest.fixture
    def explorer(self, radius_explorer: RadiusExplorer) -> RadiusExplorer:
        radius_explorer.reset()
        return radius_explorer

    def test_the_slider_moves_circle_point_markers_and_caption(
        self, operator: HessianOperator, explorer: RadiusExplorer
    ) -> None:
        for rho in (0.05, 0.7, 1.0):
            before = explorer.picture.value
            explorer.rho.value = rho
            radii = np.hypot(*explorer.circle.get_data())
            np.testing.assert_allclose(radii, rho)
            assert explorer.worst.rho == pytest.approx(rho)
            assert explorer.worst_marker.get_xydata() == pytest.approx(np.array([[rho, explorer.worst.loss]]))
            assert explorer.average_marker.get_xydata() == pytest.approx(np.array([[rho, explorer.average.loss]]))
            assert explorer.worst.loss >= worst_case_loss(operator, rho, seed=0).loss - 1e-12
            assert float(np.hypot(*explorer.point.get_data())[0]) <= rho * (1 + 1e-9), "inside the circle"
            assert f"worst {explorer.worst.loss:.4g}" in text(explorer)
            assert f"{explorer.worst.rise / explorer.average.rise:.3g} times the average" in text(explorer)
            assert explorer.picture.value != before

    def test_the_plane_holds_the_worst_point_of_the_largest_ball(
        self, operator: HessianOperator, explorer: RadiusExplorer
    ) -> None:
        explorer.rho.value = 1.0
        assert explorer.point.get_data() == (pytest.approx([1.0]), pytest.approx([0.0], abs=1e-12))
        worst = explorer.worst.perturbation
        step = explorer.plane.first_steps[-1]
        along = loss_along(operator, worst / worst.norm(), [step]).losses[0]
        middle = len(explorer.plane.second_steps) // 2
        assert explorer.plane.second_steps[middle] == 0.0
        assert explorer.plane.losses[-1, middle] == pytest.approx(along, abs=1e-12)
        assert explorer.plane.losses[middle, middle] == pytest.approx(operator.loss, abs=1e-12)

    def test_it_shows_itself_under_a_fixed_text(self, explorer: RadiusExplorer) -> None:
        bundle = explorer._repr_mimebundle_()
        assert bundle["text/plain"] == "RadiusExplorer()"
        assert "image/png" in bundle
        assert explorer.status.value == ""

    def test_the_worst_never_falls_as_the_ball_grows(self, explorer: RadiusExplorer) -> None:
        losses = [worst.loss for worst in explorer.worst_cases]
        assert losses == sorted(losses)
        assert all(float(worst.perturbation.norm()) <= worst.rho * (1 + 1e-9) for worst in explorer.worst_cases)

    def test_reset_goes_back_and_updates_are_quick(
        self, explorer: RadiusExplorer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        start = explorer.picture.value
        median = median_milliseconds(explorer, np.linspace(0.05, 1, 20))
        assert explorer.picture.value != start
        explorer.reset()
        assert explorer.rho.value == pytest.approx(0.5)
        assert explorer.picture.value == start
        with capsys.disabled():
            print(f" [median update {median:.0f} ms] ", end="")
        assert median < 100, "50 ms is what a slider needs; this machine was twice as slow as that"

    def test_a_maximum_is_shown_as_one(self) -> None:
        model = nn.Linear(2, 1, bias=False).double()
        nn.init.zeros_(model.weight)
        H = HessianOperator(model, lambda out, y: -out.square().sum(), (torch.eye(2).double(), torch.zeros(2, 1)))
        with pytest.raises(ValueError, match="no loss on this plane is finite and positive"):
            RadiusExplorer(H)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"max_rho": -1.0}, "max_rho must lie in"),
            ({"rho": 1.5}, r"rho must lie in \[0, 1\]"),
            ({"seed": -1}, "seed must be at least 0"),
            ({"max_rho": 1e300}, "finite"),
        ],
    )
    def test_bad_input_is_named(self, operator: HessianOperator, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            RadiusExplorer(operator, **arguments)

    def test_a_single_parameter_spans_no_plane(self) -> None:
        H = HessianOperator(nn.Linear(1, 1, bias=False), F.mse_loss, (torch.ones(3, 1), torch.zeros(3, 1)))
        with pytest.raises(ValueError, match="spans no plane"):
            RadiusExplorer(H)
