"""The tour with two epochs instead of sixty."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from renyi_lab import choose_alpha, plots
from renyi_lab._utils.threads import one_thread
from renyi_lab.cli import _tour
from renyi_lab.cli._tour import ALPHAS, Tour, run_tour, tour_figure

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def short_tour() -> Tour:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_tour, "_QUICK_EFFORT", (2, 150, 2))
        patch.setattr(_tour, "_WARMUP_EPOCHS", 1)
        with one_thread():  # results of several threads differ in the last bits from run to run
            return run_tour(quick=True)


def test_every_number_is_that_of_the_trained_network(short_tour: Tour) -> None:
    assert list(short_tour.histories) == ["SGD", "RSAM"]
    for name, history in short_tour.histories.items():
        assert len(history.test_accuracy) == 2
        assert short_tour.test_results[name].accuracy == pytest.approx(history.test_accuracy[-1], abs=1e-6)
        assert short_tour.train_results[name].accuracy > 0.2  # 0.35 and more; guessing gives 0.1
    steps = 32  # 4,000 samples in batches of 128, the last one smaller
    assert short_tour.histories["SGD"].num_gradients == 2 * steps
    assert short_tour.histories["RSAM"].num_gradients == 3 * steps, "one epoch of SGD, one of two gradients per step"
    assert short_tour.seconds > 0


def test_the_spectrum_covers_all_parameters_within_the_number_of_products(short_tour: Tour) -> None:
    spectrum = short_tour.spectrum
    assert spectrum.dim == 40 * 100 + 100 + 100 * 100 + 100 + 100 * 10 + 10
    assert 0 < spectrum.num_matvecs <= 150
    entropies = [spectrum.renyi_entropy(alpha).value for alpha in ALPHAS]
    assert entropies == sorted(entropies, reverse=True)
    assert 0 < entropies[-1] < entropies[0] < np.log(spectrum.dim)
    assert short_tour.choice == choose_alpha(spectrum)


def test_the_bound_is_above_the_training_error(short_tour: Tour) -> None:
    assert 1 - short_tour.train_results["SGD"].accuracy < short_tour.bound.value <= 1


def test_the_figure_shows_the_spectrum_the_entropy_curve_and_both_trainings(short_tour: Tour) -> None:
    left, middle, right = tour_figure(short_tour).axes
    assert left.get_lines()[0].get_xdata().max() == short_tour.spectrum.last_rule.magnitudes.max()
    curve = middle.get_lines()[0]
    at_two = np.interp(2.0, curve.get_xdata(), curve.get_ydata())
    assert at_two == pytest.approx(short_tour.spectrum.renyi_entropy(2.0).value, abs=1e-3)
    assert [line.get_color() for line in right.get_lines()] == [plots.BLUE, plots.ORANGE]
    for line, history in zip(right.get_lines(), short_tour.histories.values(), strict=True):
        assert tuple(line.get_ydata()) == history.test_accuracy


def test_the_same_seed_gives_the_same_tour_and_global_random_states_are_restored(
    short_tour: Tour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_tour, "_QUICK_EFFORT", (2, 150, 2))
    monkeypatch.setattr(_tour, "_WARMUP_EPOCHS", 1)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    with one_thread():
        again = run_tour(quick=True)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
    assert again.histories == short_tour.histories
    np.testing.assert_array_equal(again.spectrum.nodes, short_tour.spectrum.nodes)
    assert again.bound.value == short_tour.bound.value


def test_the_quick_tour_learns(short_tour: Tour) -> None:
    result = run_tour(quick=True)
    # 0.85 and 0.64; other instruction sets change them by 0.02.
    assert result.train_results["SGD"].accuracy > 0.75
    assert result.test_results["RSAM"].accuracy > 0.55
    assert len(result.histories["SGD"].test_accuracy) == 20
