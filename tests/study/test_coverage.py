"""Intervals by setting contain the true τ as often as they claim, on simulated studies with similar repeats."""

from __future__ import annotations

import pytest
from clustered_data import DESIGNS, Design, coverage


@pytest.mark.slow
@pytest.mark.parametrize("design", DESIGNS, ids=lambda design: design.name)
def test_intervals_by_setting_contain_the_true_tau(design: Design) -> None:
    assert coverage(design, 150)[0] >= 0.93


@pytest.mark.slow
def test_intervals_by_model_are_too_short() -> None:
    """The contrast that shows that the simulation is hard enough: repeats taken for independent models."""
    assert coverage(DESIGNS[1], 60, by_setting=False)[0] < 0.88
