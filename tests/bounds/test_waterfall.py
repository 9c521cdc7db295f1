"""The parts of a bound add up to it, and its picture shows them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from renyi_lab import bounds
from renyi_lab.plots import new_figure

SAMPLED = bounds.sampled_pac_bayes(0.04, 5.0, 1000, num_draws=2000, choices=3)


@pytest.mark.parametrize(
    "bound",
    [
        SAMPLED,
        bounds.sampled_pac_bayes(0.04, 0.0, 1000, num_draws=None),
        bounds.langford_seeger(0.1, 20.0, 500),
        bounds.isotropic_pac_bayes(0.05, 0.2, 0.05, 1000, num_draws=100, num_sigmas=4),
        bounds.held_out(35, 1000),
        bounds.held_out(0, 100),
    ],
    ids=lambda bound: bound.name,
)
def test_the_parts_are_not_negative_and_add_up_to_the_bound(bound: bounds.Bound) -> None:
    parts = bounds.waterfall(bound)
    assert min(parts.values()) >= 0
    assert sum(parts.values()) == pytest.approx(bound.value, abs=1e-12)


def test_the_parts_follow_the_two_steps_of_the_bound() -> None:
    after_draws = bounds.kl_inverse_upper(0.04, math.log(4 * 3 / 0.05) / 2000)
    log_term = math.log(4 * math.sqrt(1000) * 3 / 0.05)
    confident = bounds.kl_inverse_upper(after_draws, log_term / 1000)
    wanted = [0.04, after_draws - 0.04, confident - after_draws, SAMPLED.value - confident]
    assert list(bounds.waterfall(SAMPLED).values()) == pytest.approx(wanted, abs=1e-12)
    assert SAMPLED.value == bounds.kl_inverse_upper(after_draws, (5.0 + log_term) / 1000)


def test_it_is_the_isotropic_bound_at_its_divergence() -> None:
    isotropic = bounds.isotropic_pac_bayes(0.05, 0.2, 0.05, 1000, num_draws=100, num_sigmas=4)
    general = bounds.sampled_pac_bayes(0.05, 0.2 / (2 * 0.05**2), 1000, num_draws=100, choices=4)
    assert general.value == isotropic.value


def test_an_exact_loss_has_no_part_for_draws_and_no_divergence_none_for_it() -> None:
    parts = bounds.waterfall(bounds.sampled_pac_bayes(0.04, 0.0, 1000, num_draws=None))
    assert (parts["measured"], parts["+ draws"], parts["+ divergence"]) == (0.04, 0.0, 0.0)
    parts = bounds.waterfall(bounds.held_out(35, 1000))
    assert (parts["measured"], parts["+ draws"], parts["+ divergence"]) == (0.035, 0.0, 0.0)


def test_the_bars_of_the_picture_are_the_parts() -> None:
    axes = new_figure().subplots()
    bounds.plot_waterfall(axes, {"first": SAMPLED, "second": bounds.held_out(35, 1000)}, trivial_value=0.9)
    ends = np.array([bar.get_x() + bar.get_width() for bar in axes.patches]).reshape(4, 2)
    assert ends[-1].tolist() == pytest.approx([SAMPLED.value, bounds.held_out(35, 1000).value])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["first", "second"]
    assert axes.lines[0].get_xdata() == [0.9, 0.9]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: bounds.waterfall(0.3), TypeError, "bound must be a Bound"),
        (lambda: bounds.waterfall(bounds.maurer(0.1, 5.0, 100)), ValueError, "is not a sum"),
        (lambda: bounds.plot_waterfall(new_figure().subplots(), {}), ValueError, "bounds is empty"),
        (
            lambda: bounds.plot_waterfall(new_figure().subplots(), {"a": SAMPLED}, trivial_value=1.5),
            ValueError,
            "trivial_value must lie in",
        ),
        (lambda: bounds.sampled_pac_bayes(1.5, 0.0, 100, num_draws=None), ValueError, "bounded loss"),
        (lambda: bounds.sampled_pac_bayes(0.5, 0.0, 100, num_draws=0), ValueError, "num_draws must be at least 1"),
        (lambda: bounds.sampled_pac_bayes(0.5, 0.0, 100, num_draws=5, choices=0), ValueError, "choices"),
    ],
)
def test_messages(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
