"""`LanczosExplorer`: what it shows at each step is what Lanczos and the true spectrum say."""

from __future__ import annotations

import base64
import html
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from renyi_lab import HessianOperator, Spectrum, matrix_with_spectrum
from renyi_lab.krylov import lanczos, lanczos_steps
from renyi_lab.models import mlp
from renyi_lab.widgets import LanczosExplorer

EIGENVALUES = np.concatenate([[4.0, 3.0, 2.0, -1.0], np.linspace(0.01, 0.1, 46)])


@pytest.fixture(scope="module")
def matrix() -> torch.Tensor:
    return matrix_with_spectrum(EIGENVALUES)


def caption(explorer: LanczosExplorer) -> str:
    return html.unescape(re.sub("<[^>]*>", "", explorer.caption.value))


@pytest.mark.parametrize("step", [1, 7, 20])
def test_both_pictures_show_the_ritz_pairs_of_the_slider_s_step(matrix: torch.Tensor, step: int) -> None:
    explorer = LanczosExplorer(matrix, num_steps=20, step=3)
    before = explorer.picture.value
    explorer.step.value = step
    expected = lanczos(matrix, num_steps=step)
    np.testing.assert_array_equal(explorer.ritz_values, expected.ritz_values)
    np.testing.assert_array_equal(explorer.current.get_xdata(), expected.ritz_values)
    assert set(explorer.current.get_ydata()) == {step}
    converged = expected.residuals <= 1e-3 * np.abs(expected.ritz_values)
    np.testing.assert_array_equal(explorer.small.get_xdata(), expected.ritz_values[converged])
    np.testing.assert_array_equal(explorer.large.get_xdata(), expected.ritz_values[~converged])
    shown = np.concatenate([explorer.small.get_ydata(), explorer.large.get_ydata()])
    order = np.concatenate([np.flatnonzero(converged), np.flatnonzero(~converged)])
    np.testing.assert_allclose(shown, np.maximum(expected.residuals[order], 4e-16), rtol=1e-6)
    assert explorer.picture.value != before
    assert caption(explorer).startswith(f"{step} products · {converged.sum()} of {step} Ritz values have converged")


def test_the_history_holds_every_earlier_step_and_no_later_one(matrix: torch.Tensor) -> None:
    explorer = LanczosExplorer(matrix, num_steps=20, step=15)
    explorer.step.value = 12
    points = np.concatenate([line.get_xydata() for line in (explorer.found, explorer.searching)])
    for step in range(1, 13):
        row = np.sort(points[points[:, 1] == step, 0])
        np.testing.assert_allclose(row, lanczos(matrix, num_steps=step).ritz_values, atol=1e-12)
    assert points[:, 1].max() == 12
    found = explorer.found.get_xydata()
    true_distance = np.abs(found[:, :1] - EIGENVALUES).min(1)
    assert len(found) > 5
    assert true_distance.max() < 1e-4, "what is drawn as converged lies on an eigenvalue"


def test_lines_stand_at_the_true_eigenvalues_or_at_the_last_ritz_values(matrix: torch.Tensor) -> None:
    def lines(explorer: LanczosExplorer) -> Any:
        return [segment[0, 0] for segment in explorer.figure.axes[0].collections[0].get_segments()]

    np.testing.assert_allclose(lines(LanczosExplorer(matrix)), np.sort(EIGENVALUES), atol=1e-12)
    steps = list(lanczos_steps(matrix, num_steps=9))
    np.testing.assert_allclose(lines(LanczosExplorer(steps, exact=EIGENVALUES)), np.sort(EIGENVALUES))
    unknown = LanczosExplorer(steps)
    np.testing.assert_array_equal(lines(unknown), steps[-1].ritz_values)
    assert "largest eigenvalue" not in caption(unknown)
    assert f"largest eigenvalue {EIGENVALUES.max():.5g}" in caption(LanczosExplorer(matrix))


def test_steps_taken_before_give_the_picture_of_the_operator(matrix: torch.Tensor) -> None:
    from_matrix = LanczosExplorer(matrix, num_steps=12, step=8)
    results = (lanczos_steps(matrix, num_steps=12), list(lanczos_steps(matrix, num_steps=12)))
    for source in (*results, lanczos(matrix, num_steps=12), matrix.numpy()):
        other = LanczosExplorer(source, num_steps=12, step=8, exact=Spectrum.from_eigenvalues(EIGENVALUES))
        assert other.step.max == 12
        np.testing.assert_allclose(other.ritz_values, from_matrix.ritz_values, atol=1e-12)


def test_ghosts_are_counted_without_reorthogonalisation_and_absent_with_it(matrix: torch.Tensor) -> None:
    bare = LanczosExplorer(lanczos_steps(matrix, num_steps=45, reorthogonalize=False), exact=EIGENVALUES, step=45)
    near_top = (np.abs(bare.ritz_values - 4.0) < 1e-6).sum()
    assert near_top > 1, "the recurrence alone must find the largest eigenvalue again"
    counted = re.search(r"(\d+) of them are copies", caption(bare))
    assert counted is not None
    assert int(counted.group(1)) >= near_top - 1
    assert "ghosts" not in caption(LanczosExplorer(matrix, num_steps=45, step=45))


def test_a_network_s_hessian_goes_in_and_the_network_is_left_as_it_was() -> None:
    model = mlp(4, 5, 3, seed=0).double()
    x = torch.randn(20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    operator = HessianOperator(model, nn.functional.cross_entropy, (x, torch.arange(20) % 3))
    state = torch.get_rng_state()
    explorer = LanczosExplorer(operator, num_steps=60)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert explorer.step.max <= operator.dim, "no more steps than dimensions"
    explorer.step.value = explorer.step.max
    distance = np.abs(explorer.ritz_values[:, None] - explorer.exact.nodes)
    assert distance.min(axis=0).max() < 1e-7, "every eigenvalue is found"
    assert distance.min(axis=1).max() < 1e-7, "and nothing else"


def test_an_early_end_of_the_krylov_space_is_the_last_step() -> None:
    explorer = LanczosExplorer(torch.diag(torch.tensor([2.0, 2.0, 1.0, 1.0], dtype=torch.float64)), step=2)
    assert explorer.step.max == 2
    np.testing.assert_allclose(explorer.ritz_values, [1.0, 2.0], atol=1e-12)
    assert explorer.small.get_ydata().min() >= 1e-16, "a residual of zero has its place on a logarithmic axis"


def test_one_step_and_a_zero_matrix_are_shown_too() -> None:
    assert LanczosExplorer(torch.eye(1)).ritz_values.tolist() == [1.0]
    assert LanczosExplorer(torch.zeros(3, 3)).ritz_values.tolist() == [0.0]


def test_reset_stops_the_play_button_and_restores_the_picture(matrix: torch.Tensor) -> None:
    explorer = LanczosExplorer(matrix, step=5)
    start = explorer.picture.value
    explorer.play.playing = True
    explorer.step.value = 30
    assert explorer.picture.value != start
    explorer.children[0].children[-1].click()
    assert (explorer.step.value, explorer.play.playing) == (5, False)
    assert explorer.picture.value == start


def test_the_play_button_has_the_slider_s_range_and_stands_beside_it(matrix: torch.Tensor) -> None:
    explorer = LanczosExplorer(matrix, num_steps=25, step=4)
    assert (explorer.play.min, explorer.play.max, explorer.play.value) == (1, 25, 4)
    assert explorer.children[0].children[:2] == (explorer.play, explorer.step)


def test_a_notebook_stores_picture_and_fixed_text(matrix: torch.Tensor) -> None:
    explorer = LanczosExplorer(matrix)
    bundle = explorer._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"]) == explorer.picture.value
    assert bundle["text/plain"] == "LanczosExplorer()"


@pytest.mark.parametrize(
    ("source", "options", "error", "message"),
    [
        ([], {}, ValueError, "source holds no Lanczos steps"),
        ([[2.0, 1.0], [1.0, 2.0]], {}, TypeError, "source must hold Tridiagonals.*torch tensor or a NumPy array"),
        ("matrix", {}, TypeError, "operator must have .shape"),
        (torch.tensor([[1.0, torch.nan], [torch.nan, 1.0]]), {}, ValueError, "NaN"),
        (torch.eye(3), {"step": 2}, ValueError, "step must be at most 1"),
        (torch.eye(3), {"num_steps": 0}, ValueError, "num_steps must be at least 1"),
        (torch.eye(3), {"exact": [1.0, 1.0]}, ValueError, "exact must hold all 3 eigenvalues, got 2"),
        (torch.eye(3), {"exact": [1.0, 1.0, np.inf]}, ValueError, "finite"),
    ],
)
def test_bad_input_is_named(source: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        LanczosExplorer(source, **options)


def test_results_of_different_operators_are_not_mixed(matrix: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"different sizes: \[3, 50\]"):
        LanczosExplorer([lanczos(torch.eye(3), num_steps=1), lanczos(matrix, num_steps=1)])
