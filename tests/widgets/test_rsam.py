"""`RSAMExplorer` against the optimizers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from explorer_view import caption

from renyi_lab.optim import RSAM, SAM
from renyi_lab.widgets import RSAMExplorer


def perturbed(name: str, gradient: np.ndarray, alpha: float, rho: float) -> np.ndarray:
    w = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    w.grad = torch.as_tensor(gradient.copy())
    settings = {} if name == "SAM" else {"alpha": alpha, "form": name}
    (SAM if name == "SAM" else RSAM)([w], rho=rho, lr=1.0, **settings).first_step()
    return w.detach().numpy()


def test_the_controls_move_the_perturbations_steps_and_curves() -> None:
    explorer = RSAMExplorer((3.0, 0.5))
    for alpha, rho, x, y in ((1.5, 0.3, 1.0, -1.2), (0.7, 0.9, -0.4, 0.8)):
        before = explorer.picture.value
        explorer.alpha.value, explorer.rho.value, explorer.x.value, explorer.y.value = alpha, rho, x, y
        np.testing.assert_allclose(explorer.gradient, [3.0 * x, 0.5 * y])
        theta = np.array([x, y])
        for name, epsilon in explorer.perturbations.items():
            np.testing.assert_allclose(epsilon, perturbed(name, explorer.gradient, alpha, rho), atol=1e-12)
            np.testing.assert_allclose(explorer.arrows[name].get_xydata(), [theta, theta + epsilon])
            after = theta - 0.2 * np.array([3.0, 0.5]) * (theta + epsilon)
            np.testing.assert_allclose(explorer.steps[name].get_xydata(), [theta, after])
            assert explorer.markers[name].get_xydata().tolist() == [[alpha, explorer.lengths[name]]]
            index = list(explorer.curves[name].get_xdata()).index(alpha)
            assert explorer.curves[name].get_ydata()[index] == pytest.approx(explorer.lengths[name])
        np.testing.assert_allclose(explorer.plain.get_xydata()[1], theta - 0.2 * explorer.gradient)
        assert explorer.picture.value != before
    assert "paper ‖ε‖" in caption(explorer)


def test_the_caption_says_which_way_each_perturbation_points() -> None:
    explorer = RSAMExplorer(point=(0.5, 1.2), alpha=2.0)
    text = caption(explorer)
    assert "SAM ‖ε‖ = 0.7 up" in text
    assert text.endswith("across")
    explorer.alpha.value = 0.8
    assert " down" in caption(explorer)


@pytest.mark.parametrize(("point", "alpha"), [((0.0, 0.0), 1.2), ((0.5, 1.2), 1.0)])
def test_nothing_moves_at_the_minimum_nor_the_papers_form_at_order_one(
    point: tuple[float, float], alpha: float
) -> None:
    explorer = RSAMExplorer(point=point, alpha=alpha)
    assert explorer.lengths["paper"] == explorer.lengths["exact"] == 0.0
    assert (explorer.lengths["SAM"] > 0) == (point != (0.0, 0.0))
    assert explorer.status.value == ""


def test_reset_restores_all_controls() -> None:
    explorer = RSAMExplorer()
    start = explorer.picture.value
    explorer.alpha.value, explorer.rho.value, explorer.x.value, explorer.y.value = 2.5, 0.1, -1.0, -1.0
    explorer.reset()
    assert explorer.picture.value == start


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"eigenvalues": (1.0, 0.0)}, ValueError, r"eigenvalues must lie in \[0.001, 1000\], got 0"),
        ({"eigenvalues": (1e300, 1.0)}, ValueError, r"eigenvalues must lie in \[0.001, 1000\]"),
        ({"eigenvalues": (1.0, float("nan"))}, ValueError, "eigenvalues must be finite"),
        ({"eigenvalues": 3.0}, TypeError, "eigenvalues must be a pair of numbers, got 3.0"),
        ({"eigenvalues": (1.0, 2.0, 3.0)}, TypeError, "must be a pair"),
        ({"eigenvalues": ("a", 1.0)}, TypeError, "eigenvalues must be a real number"),
        ({"point": (3.0, 0.0)}, ValueError, r"point must lie in \[-2, 2\]"),
        ({"alpha": 0.3}, ValueError, r"alpha must lie in \[0.5, 3\]"),
        ({"rho": 0.0}, ValueError, r"rho must lie in \[0.01, 1\]"),
        ({"rho": 2.0}, ValueError, r"rho must lie in \[0.01, 1\]"),
    ],
)
def test_messages(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        RSAMExplorer(**arguments)
