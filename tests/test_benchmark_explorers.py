"""The benchmark of the explorers leaves none out, and moves each control over its whole range."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import ipywidgets
import pytest

from renyi_lab import Spectrum, widgets


@pytest.fixture
def explorers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parent / "benchmarks"))
    return importlib.import_module("explorers")


def test_every_explorer_is_measured(explorers: ModuleType) -> None:
    assert set(explorers.EXPLORERS) == set(widgets.__all__) - {"Explorer"}


def test_a_control_is_moved_from_end_to_end(explorers: ModuleType) -> None:
    assert explorers.stops(ipywidgets.IntSlider(2, min=1, max=4)) == [1, 2, 3, 4]
    floats = explorers.stops(ipywidgets.FloatSlider(0.0, min=-1.0, max=3.0))
    assert (floats[0], floats[-1], len(floats)) == (-1.0, 3.0, 41)
    logarithmic = explorers.stops(ipywidgets.FloatLogSlider(1.0, base=10, min=-2, max=1))
    assert logarithmic[0] == pytest.approx(0.01)
    assert logarithmic[-1] == pytest.approx(10.0)
    assert explorers.stops(ipywidgets.ToggleButtons(options=["a", "b"]))[:2] == ["a", "b"]


def test_every_move_that_changes_a_value_is_timed_once_per_round(explorers: ModuleType) -> None:
    explorer = widgets.AlphaExplorer(Spectrum.from_eigenvalues([4.0, 1.0, 0.5]), alpha=0.0)
    wall, processor = explorers.milliseconds(explorer, rounds=1)
    assert len(wall) == len(processor) == 40, "the first stop is where the slider stands already"
    assert min(wall) > 0
