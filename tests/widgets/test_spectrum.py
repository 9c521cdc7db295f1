"""`SpectrumExplorer` against the quadrature of the chosen steps and probes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from explorer_view import caption

from renyi_lab import Spectrum, estimate_spectrum, matrix_with_spectrum
from renyi_lab.krylov import lanczos
from renyi_lab.widgets import SpectrumExplorer

EIGENVALUES = np.concatenate([[4.0, 3.0, -1.0], np.geomspace(1e-3, 0.1, 57)])


@pytest.fixture(scope="module")
def matrix() -> torch.Tensor:
    return matrix_with_spectrum(EIGENVALUES)


@pytest.fixture
def explorer(matrix: torch.Tensor) -> SpectrumExplorer:
    return SpectrumExplorer(matrix, num_steps=20, num_probes=4)


def quadrature(matrix: torch.Tensor, steps: int, probes: int, f: Any) -> float:
    """``tr f`` by definition: the mean of ``n e_1ᵀ f(T) e_1`` over the probes."""
    values = []
    for seed in range(probes):
        theta, y = np.linalg.eigh(lanczos(matrix, num_steps=steps, seed=seed).matrix())
        values.append(len(matrix) * (y[0] ** 2 @ f(theta)))
    return float(np.mean(values))


@pytest.mark.parametrize(("steps", "probes"), [(1, 1), (5, 3), (20, 4)])
def test_the_spectrum_is_the_quadrature_of_the_chosen_steps_and_probes(
    matrix: torch.Tensor, explorer: SpectrumExplorer, steps: int, probes: int
) -> None:
    explorer.steps.value, explorer.probes.value = steps, probes
    spectrum = explorer.spectrum
    assert (spectrum.num_matvecs, spectrum.dim) == (steps * probes, 60)
    for f in (np.abs, np.square, np.exp):
        assert float(spectrum.trace_of(f)) == pytest.approx(quadrature(matrix, steps, probes, f), rel=1e-9)


def test_every_control_updates_density_and_entropies(matrix: torch.Tensor, explorer: SpectrumExplorer) -> None:
    grid = explorer.density.get_xdata()
    exact = Spectrum.from_eigenvalues(EIGENVALUES)
    moves: list[tuple[Any, Any]] = [(explorer.steps, 8), (explorer.probes, 2), (explorer.bandwidth, 0.24)]
    for control, value in moves:
        before = explorer.picture.value
        control.value = value
        assert explorer.picture.value != before
        width = explorer.bandwidth.value
        np.testing.assert_allclose(
            explorer.density.get_ydata(), 60 * explorer.spectrum.density(grid, width, scale="log"), rtol=1e-9
        )
        np.testing.assert_allclose(
            explorer.true_density.get_ydata(), 60 * exact.density(grid, width, scale="log"), rtol=1e-9, atol=1e-12
        )
        for alpha, entropy in explorer.curve.get_xydata():
            assert entropy == pytest.approx(explorer.spectrum.renyi_entropy(alpha).value, abs=1e-12)


def test_the_caption_compares_entropies_with_the_true_ones(explorer: SpectrumExplorer) -> None:
    explorer.steps.value, explorer.probes.value = 10, 3
    exact = Spectrum.from_eigenvalues(EIGENVALUES)
    expected = [
        f"H{alpha:g} = {explorer.spectrum.renyi_entropy(alpha).value:.2f} (true {exact.renyi_entropy(alpha).value:.2f})"
        for alpha in (0.5, 1, 2)
    ]
    assert caption(explorer) == " · ".join(["30 products for 60 eigenvalues", *expected])


def test_many_steps_and_probes_are_close_to_the_true_entropies(matrix: torch.Tensor) -> None:
    explorer = SpectrumExplorer(matrix, num_steps=30, num_probes=60)
    near = np.abs(explorer.curve.get_ydata() - explorer.figure.axes[1].lines[0].get_ydata())
    assert near.max() < 0.15
    explorer.steps.value, explorer.probes.value = 3, 1
    far = np.abs(explorer.curve.get_ydata() - explorer.figure.axes[1].lines[0].get_ydata())
    assert far.max() > 2 * near.max()


def test_results_of_lanczos_are_accepted(matrix: torch.Tensor, explorer: SpectrumExplorer) -> None:
    runs = [lanczos(matrix, num_steps=20, seed=seed) for seed in range(4)]
    other = SpectrumExplorer(runs, exact=EIGENVALUES)
    assert (other.steps.max, other.probes.max) == (20, 4)
    np.testing.assert_allclose(other.density.get_ydata(), explorer.density.get_ydata(), rtol=1e-9)
    single = SpectrumExplorer(runs[0])
    assert single.probes.max == 1
    assert "all products" in single.caption.value, "without a true spectrum, all products are the reference"
    np.testing.assert_allclose(single.curve.get_ydata(), single.figure.axes[1].lines[0].get_ydata())
    single.steps.value = 3
    assert np.abs(single.curve.get_ydata() - single.figure.axes[1].lines[0].get_ydata()).max() > 0.01


def test_runs_of_unequal_length_are_accepted() -> None:
    # Two distinct eigenvalues: the Krylov space is exhausted after two steps.
    explorer = SpectrumExplorer(torch.diag(torch.tensor([2.0] * 5 + [1.0] * 15, dtype=torch.float64)), num_probes=3)
    assert explorer.steps.max == 2
    runs = [lanczos(torch.diag(torch.arange(1.0, 9.0)), num_steps=steps) for steps in (3, 6)]
    uneven = SpectrumExplorer(runs, exact=np.arange(1.0, 9.0))
    assert uneven.steps.max == 6
    assert uneven.spectrum.num_matvecs == 3 + 6
    assert uneven.spectrum.weights.sum() == pytest.approx(8.0)


def test_an_estimated_spectrum_can_be_the_reference(matrix: torch.Tensor) -> None:
    estimate = estimate_spectrum(matrix, num_matvecs=40)
    explorer = SpectrumExplorer(matrix, num_steps=10, num_probes=2, exact=estimate)
    assert explorer.exact is estimate
    assert explorer.status.value == ""


def test_reset_restores_all_controls_and_the_picture(explorer: SpectrumExplorer) -> None:
    start = explorer.picture.value
    explorer.steps.value, explorer.probes.value, explorer.bandwidth.value = 2, 1, 0.3
    assert explorer.picture.value != start
    explorer.children[0].children[-1].click()
    assert (explorer.steps.value, explorer.probes.value, explorer.bandwidth.value) == (20, 4, 0.1)
    assert explorer.picture.value == start


@pytest.mark.parametrize(
    ("source", "options", "error", "message"),
    [
        ([], {}, ValueError, "source has no Lanczos steps"),
        ([1.0, 2.0], {}, TypeError, "source must contain Tridiagonals"),
        (torch.zeros(3, 3), {}, ValueError, "all zero"),
        (torch.eye(3), {"num_probes": 0}, ValueError, "num_probes must be at least 1"),
        (torch.eye(3), {"num_steps": 1.5}, TypeError, "num_steps must be an integer"),
        (torch.eye(3), {"exact": [1.0]}, ValueError, "exact must contain all 3 eigenvalues, got 1"),
    ],
)
def test_messages(source: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SpectrumExplorer(source, **options)
