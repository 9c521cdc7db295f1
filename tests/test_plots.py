"""Plots are compared by the data of their artists."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure, FigureBase

import renyi_lab as rl
from renyi_lab import Spectrum, choose_alpha, estimate_spectrum, plots
from renyi_lab.training import History

ZEROS = Spectrum.from_eigenvalues([0.0, 0.0])


@pytest.fixture
def ax() -> Axes:
    return Figure().subplots()


@pytest.fixture
def spectrum() -> Spectrum:
    return Spectrum.from_eigenvalues(np.concatenate([[-6.0, 4.0, 3.0], np.geomspace(1e-5, 1e-2, 100), [0.0]]))


@pytest.fixture
def estimated() -> Spectrum:
    return estimate_spectrum(torch.diag(torch.linspace(0.0, 1.0, 300, dtype=torch.float64)), num_matvecs=40)


def test_grid_covers_the_spectrum_but_not_rounding_errors() -> None:
    eigenvalues = Spectrum.from_eigenvalues([0.0, -1e-3, 2.0])
    grid = eigenvalues.magnitude_grid(50)
    np.testing.assert_allclose(grid, np.geomspace(5e-4, 4.0, 50))
    np.testing.assert_array_equal(plots.magnitude_grid(eigenvalues, num_points=50), grid)
    assert len(eigenvalues.magnitude_grid()) == 400
    assert plots.magnitude_grid(Spectrum.from_eigenvalues([1e-30, 2.0]))[0] == pytest.approx(1e-8)


def test_dips_of_a_choice_are_shaded_and_the_groups_named(ax: Axes) -> None:
    spectrum = Spectrum.from_eigenvalues([10.0, 9.0, 8.0, 0.5, 0.4, 0.3] + [1e-3] * 100)
    choice = choose_alpha(spectrum)
    plots.plot_spectrum(ax, spectrum, choice=choice)
    shaded = [patch.get_extents().transformed(ax.transData.inverted()).intervalx for patch in ax.patches]
    np.testing.assert_allclose(shaded, choice.dips, rtol=1e-6)
    assert [text.get_text() for text in ax.texts] == ["top: 3", "middle: 3", "bulk"]


@pytest.mark.parametrize("draw", [plots.plot_spectrum, lambda ax, spectrum: spectrum.plot(ax)])
def test_spectrum_is_drawn_as_its_density_times_n_with_the_largest_marked(
    draw: Callable[[Axes, Spectrum], object], ax: Axes, spectrum: Spectrum
) -> None:
    draw(ax, spectrum)
    (ticks,) = ax.get_lines()
    np.testing.assert_allclose(ticks.get_xdata(), np.sort(np.abs(spectrum.nodes))[-20:])
    (area,) = ax.collections
    outline = area.get_paths()[0].vertices
    grid = plots.magnitude_grid(spectrum)
    expected = spectrum.dim * spectrum.density(grid, scale="log")
    upper = outline[outline[:, 1] > 0]
    np.testing.assert_allclose(np.interp(grid, *upper[np.argsort(upper[:, 0], kind="stable")].T), expected, rtol=1e-9)
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert ax.get_xlabel() == "|λ|"


def test_plot_draws_into_the_given_axes_or_a_new_figure(ax: Axes, spectrum: Spectrum, estimated: Spectrum) -> None:
    assert spectrum.plot(ax) is ax.figure
    assert ax.has_data()
    first, second = spectrum.plot(), spectrum.plot()
    assert isinstance(first, FigureBase)
    assert first is not second
    assert first is not ax.figure
    (ticks,) = estimated.plot().axes[0].get_lines()
    np.testing.assert_array_equal(ticks.get_xdata(), np.sort(estimated.last_rule.magnitudes)[-20:])


def test_bandwidth_is_that_of_the_drawn_density(spectrum: Spectrum) -> None:
    grid = plots.magnitude_grid(spectrum)
    for bandwidth in (0.05, 0.5):
        outline = spectrum.plot(bandwidth=bandwidth).axes[0].collections[0].get_paths()[0].vertices
        expected = spectrum.dim * spectrum.density(grid, bandwidth, scale="log")
        assert outline[:, 1].max() == pytest.approx(expected.max())


def test_entropy_curve_has_an_error_band_and_the_chosen_order(ax: Axes, spectrum: Spectrum) -> None:
    alphas = np.array([0.5, 1.0, 2.0, 3.0])
    plots.plot_entropy_curve(ax, spectrum, alphas, chosen=1.5)
    curve, ceiling, chosen = ax.get_lines()
    np.testing.assert_array_equal(curve.get_xdata(), alphas)
    np.testing.assert_array_equal(curve.get_ydata(), [spectrum.renyi_entropy(float(a)).value for a in alphas])
    assert set(ceiling.get_ydata()) == {np.log(spectrum.dim)}
    assert list(chosen.get_xdata()) == [1.5, 1.5]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["± 2 s.e.", "rule: α = 1.5"]


def test_band_of_an_estimate_is_two_standard_errors_wide(ax: Axes, estimated: Spectrum) -> None:
    plots.plot_entropy_curve(ax, estimated, np.array([1.0, 2.0]))
    estimates = [estimated.renyi_entropy(alpha) for alpha in (1.0, 2.0)]
    corners = ax.collections[0].get_paths()[0].vertices
    for alpha, estimate in zip((1.0, 2.0), estimates, strict=True):
        heights = corners[corners[:, 0] == alpha, 1]
        assert heights.max() == pytest.approx(estimate.value + 2 * estimate.standard_error)
        assert heights.min() == pytest.approx(estimate.value - 2 * estimate.standard_error)
    assert estimates[0].standard_error > 0


def test_curve_over_many_low_orders_warns_once(ax: Axes) -> None:
    estimated = estimate_spectrum(torch.diag(torch.logspace(0, -10, 500, dtype=torch.float64)), num_matvecs=40)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plots.plot_entropy_curve(ax, estimated, np.linspace(0.1, 2, 20))
    assert len(caught) == 1
    assert "the entropy of order 0.1 has a large standard error" in str(caught[0].message)


def test_histories_differ_in_name_and_colour(ax: Axes) -> None:
    histories = {
        name: History((1.0, 0.5), (0.5, 0.8), (1.1, 0.9), accuracy, num_gradients=2, seconds=1.0)
        for name, accuracy in {"SGD": (0.4, 0.6), "RSAM": (0.3, 0.7)}.items()
    }
    plots.plot_histories(ax, histories)
    lines = ax.get_lines()
    assert [line.get_label() for line in lines] == ["SGD", "RSAM"]
    assert [line.get_ydata().tolist() for line in lines] == [[0.4, 0.6], [0.3, 0.7]]
    assert [line.get_xdata().tolist() for line in lines] == [[1, 2], [1, 2]]
    assert [to_hex(line.get_color()).upper() for line in lines] == [plots.BLUE, plots.ORANGE]
    assert ax.get_ylabel() == "test accuracy"


def test_figure_has_a_png_representation(spectrum: Spectrum) -> None:
    assert spectrum.plot()._repr_png_()[0].startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda ax: plots.plot_spectrum(ax, ZEROS), ValueError, "all zero"),
        (lambda ax: plots.magnitude_grid(ZEROS), ValueError, "all zero"),
        (lambda ax: plots.plot_entropy_curve(ax, ZEROS, [1.0]), ValueError, "all zero"),
        (lambda ax: plots.plot_spectrum(ax, [1.0]), TypeError, "must be a Spectrum, got list"),
        (lambda ax: plots.magnitude_grid([1.0]), TypeError, "must be a Spectrum, got list"),
        (lambda ax: plots.plot_entropy_curve(ax, [1.0], [1.0]), TypeError, "must be a Spectrum, got list"),
    ],
)
def test_errors_name_the_cause(ax: Axes, call: Callable[[Axes], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(ax)


def test_any_number_of_histories_is_drawn():
    history = History((1.0, 0.5), (0.1, 0.2), (1.0, 0.9), (0.1, 0.3), num_gradients=2, seconds=0.0)
    axes = plots.new_figure().subplots()
    plots.plot_histories(axes, {f"training {i}": history for i in range(6)})
    assert len(axes.lines) == 6


def test_the_library_s_own_figures_are_described() -> None:
    spectrum = rl.Spectrum.from_eigenvalues([4.0, 1.0, 1.0, 0.1])
    history = rl.train(rl.models.mlp(3, 2), (torch.randn(8, 3), torch.arange(8) % 2), epochs=2, progress=False)
    curve = rl.perturbation.LossCurve(np.array([0.0, 1.0]), np.array([0.5, 2.0]))
    plane = rl.perturbation.LossPlane(np.arange(2.0), np.arange(2.0), np.array([[0.5, 1.0], [1.0, 2.0]]))
    for result in (spectrum, history, curve, plane):
        data, metadata = result.plot()._repr_png_()
        assert data.startswith(b"\x89PNG")
        assert len(metadata["alt"].split()) >= 8
    assert "the largest is 4" in spectrum.plot().alt
    assert f"to {history.train_loss[-1]:.2g}" in history.plot().alt


def test_a_figure_without_a_description_names_its_axes_and_curves() -> None:
    figure = rl.plots.new_figure(3, 2)
    axes = figure.subplots()
    axes.plot([0, 1], label="even")
    axes.set(title="shares", xlabel="rank", ylabel="share")
    assert figure._repr_png_()[1] == {"alt": "Figure. shares: share against rank: even"}
    figure.alt = "Two points."
    assert figure._repr_png_()[1] == {"alt": "Two points."}
