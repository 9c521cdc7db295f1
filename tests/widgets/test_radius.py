"""`RadiusExplorer` against the library."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from explorer_view import caption
from torch import nn
from torch.nn import functional as F

from renyi_lab import HessianOperator, models
from renyi_lab.perturbation import loss_along, worst_case_loss
from renyi_lab.widgets import RadiusExplorer


@pytest.fixture(scope="module")
def module_explorer(operator: HessianOperator) -> RadiusExplorer:
    return RadiusExplorer(operator, max_rho=1.0)


@pytest.fixture
def explorer(module_explorer: RadiusExplorer) -> RadiusExplorer:
    module_explorer.reset()
    assert module_explorer.rho.value == pytest.approx(0.5)
    return module_explorer


def linear(size: int, loss_fn: Any) -> HessianOperator:
    model = nn.Linear(size, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    return HessianOperator(model, loss_fn, (torch.eye(size).double(), torch.zeros(size, 1).double()))


def test_the_slider_moves_circle_point_markers_and_caption(operator: HessianOperator, explorer: RadiusExplorer) -> None:
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
        assert f"worst {explorer.worst.loss:.4g}" in caption(explorer)
        assert f"{explorer.worst.rise / explorer.average.rise:.3g} times the average" in caption(explorer)
        assert explorer.picture.value != before


def test_the_plane_contains_the_worst_point_of_the_largest_ball(
    operator: HessianOperator, explorer: RadiusExplorer
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


def test_the_worst_loss_is_monotone_in_the_radius(explorer: RadiusExplorer) -> None:
    losses = [worst.loss for worst in explorer.worst_cases]
    assert losses == sorted(losses)
    assert all(float(worst.perturbation.norm()) <= worst.rho * (1 + 1e-9) for worst in explorer.worst_cases)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"max_rho": -1.0}, ValueError, "max_rho must lie in"),
        ({"rho": 1.5}, ValueError, r"rho must lie in \[0, 1\]"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"max_rho": 1e300}, ValueError, "finite"),
        ({"operator": models.mlp(6, 8, 4)}, TypeError, "operator must be a HessianOperator, got Sequential"),
        ({"operator": linear(1, F.mse_loss)}, ValueError, "spans no plane"),
        (
            {"operator": linear(2, lambda out, y: -out.square().sum())},
            ValueError,
            "no loss on this plane is finite and positive",
        ),
    ],
)
def test_messages(operator: HessianOperator, arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        RadiusExplorer(**{"operator": operator, **arguments})
