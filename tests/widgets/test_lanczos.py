"""`LanczosExplorer` against `lanczos` and the true spectrum."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest
import torch
from explorer_view import caption
from torch import nn

from renyi_lab import HessianOperator, Spectrum, matrix_with_spectrum
from renyi_lab.krylov import lanczos, lanczos_steps
from renyi_lab.models import mlp
from renyi_lab.widgets import LanczosExplorer

EIGENVALUES = np.concatenate([[4.0, 3.0, 2.0, -1.0], np.linspace(0.01, 0.1, 46)])


@pytest.fixture(scope="module")
def matrix() -> torch.Tensor:
    return matrix_with_spectrum(EIGENVALUES)


@pytest.mark.parametrize("step", [1, 7, 20])
def test_both_pictures_show_the_ritz_pairs_of_the_current_step(matrix: torch.Tensor, step: int) -> None:
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


def test_the_left_picture_has_the_steps_up_to_the_current_one(matrix: torch.Tensor) -> None:
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
    assert true_distance.max() < 1e-4, "converged Ritz values are eigenvalues"


def test_vertical_lines_are_at_the_true_eigenvalues_or_at_the_last_ritz_values(matrix: torch.Tensor) -> None:
    def lines(explorer: LanczosExplorer) -> Any:
        return [segment[0, 0] for segment in explorer.figure.axes[0].collections[0].get_segments()]

    np.testing.assert_allclose(lines(LanczosExplorer(matrix)), np.sort(EIGENVALUES), atol=1e-12)
    steps = list(lanczos_steps(matrix, num_steps=9))
    np.testing.assert_allclose(lines(LanczosExplorer(steps, exact=EIGENVALUES)), np.sort(EIGENVALUES))
    unknown = LanczosExplorer(steps)
    np.testing.assert_array_equal(lines(unknown), steps[-1].ritz_values)
    assert "largest eigenvalue" not in caption(unknown)
    assert f"largest eigenvalue {EIGENVALUES.max():.5g}" in caption(LanczosExplorer(matrix))


def test_the_bulk_has_room_on_the_axis_beside_the_outliers(matrix: torch.Tensor) -> None:
    for axes in LanczosExplorer(matrix, num_steps=20).figure.axes:
        across = axes.transAxes.inverted().transform(axes.transData.transform([(x, 1.0) for x in EIGENVALUES]))[:, 0]
        bulk = np.ptp(across[abs(EIGENVALUES) < 0.2])
        assert 0 < across.min() < across.max() < 1
        assert bulk > 0.08, "on a linear axis this would be 0.017"


def test_the_axes_have_round_ticks_that_do_not_touch_and_the_dashed_line_a_legend(matrix: torch.Tensor) -> None:
    for source in (matrix, torch.diag(torch.arange(1.0, 6.0)), 1e-7 * matrix, torch.zeros(3, 3)):
        figure = LanczosExplorer(source, num_steps=3).figure
        for axes in figure.axes:
            boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
            assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
            assert len(boxes) >= (1 if source.abs().max() == 0 else 3)
        assert [text.get_text() for text in figure.axes[1].get_legend().get_texts()] == ["|θ| / 1000: converged below"]


def test_results_of_lanczos_are_accepted(matrix: torch.Tensor) -> None:
    from_matrix = LanczosExplorer(matrix, num_steps=12, step=8)
    results = (lanczos_steps(matrix, num_steps=12), list(lanczos_steps(matrix, num_steps=12)))
    for source in (*results, lanczos(matrix, num_steps=12), matrix.numpy()):
        other = LanczosExplorer(source, num_steps=12, step=8, exact=Spectrum.from_eigenvalues(EIGENVALUES))
        assert other.step.max == 12
        np.testing.assert_allclose(other.ritz_values, from_matrix.ritz_values, atol=1e-12)


def test_ghosts_are_counted_without_reorthogonalization_and_absent_with_it(matrix: torch.Tensor) -> None:
    plain = LanczosExplorer(lanczos_steps(matrix, num_steps=45, reorthogonalize=False), exact=EIGENVALUES, step=45)
    near_top = (np.abs(plain.ritz_values - 4.0) < 1e-6).sum()
    assert near_top > 1, "the recurrence alone must find the largest eigenvalue again"
    counted = re.search(r"(\d+) of them are copies", caption(plain))
    assert counted is not None
    assert int(counted.group(1)) >= near_top - 1
    assert "ghosts" not in caption(LanczosExplorer(matrix, num_steps=45, step=45))


def test_the_hessian_of_a_network_is_accepted_and_the_network_not_changed() -> None:
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


def test_an_exhausted_krylov_space_ends_the_steps() -> None:
    explorer = LanczosExplorer(torch.diag(torch.tensor([2.0, 2.0, 1.0, 1.0], dtype=torch.float64)), step=2)
    assert explorer.step.max == 2
    np.testing.assert_allclose(explorer.ritz_values, [1.0, 2.0], atol=1e-12)
    assert explorer.small.get_ydata().min() >= 1e-16, "a residual of zero needs a place on a logarithmic axis"


def test_one_step_and_a_zero_matrix_are_shown() -> None:
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


def test_the_play_button_has_the_range_of_the_slider(matrix: torch.Tensor) -> None:
    explorer = LanczosExplorer(matrix, num_steps=25, step=4)
    assert (explorer.play.min, explorer.play.max, explorer.play.value) == (1, 25, 4)
    assert explorer.children[0].children[:2] == (explorer.play, explorer.step)


@pytest.mark.parametrize(
    ("source", "options", "error", "message"),
    [
        ([], {}, ValueError, "source has no Lanczos steps"),
        ([[2.0, 1.0], [1.0, 2.0]], {}, TypeError, "source must contain Tridiagonals.*torch tensor or a NumPy array"),
        ("matrix", {}, TypeError, "operator must have .shape"),
        (torch.tensor([[1.0, torch.nan], [torch.nan, 1.0]]), {}, ValueError, "NaN"),
        (torch.eye(3), {"step": 2}, ValueError, "step must be at most 1"),
        (torch.eye(3), {"num_steps": 0}, ValueError, "num_steps must be at least 1"),
        (torch.eye(3), {"exact": [1.0, 1.0]}, ValueError, "exact must contain all 3 eigenvalues, got 2"),
        (torch.eye(3), {"exact": [1.0, 1.0, np.inf]}, ValueError, "finite"),
        ([lanczos(torch.eye(n), num_steps=1) for n in (3, 50)], {}, ValueError, r"different sizes: \[3, 50\]"),
    ],
)
def test_messages(source: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        LanczosExplorer(source, **options)
