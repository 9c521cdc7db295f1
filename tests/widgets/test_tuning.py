"""`TuningExplorer` against the records that it shows."""

from __future__ import annotations

import copy
import re
from typing import Any

import numpy as np
import pytest
from explorer_view import caption

from renyi_lab.widgets import TuningExplorer


def setting(lr: float, rho: float | None, mean: float, error: float = 0.01) -> dict[str, Any]:
    return {"lr": lr, "rho": rho, "accuracy": {"mean": mean, "error": error}}


TUNING = [
    {"base": "SGD", "method": "plain", "settings": [setting(0.1, None, 0.6), setting(0.2, None, 0.62)]},
    {
        "base": "SGD",
        "method": "SAM",
        "settings": [
            setting(0.1, 1.0, 0.64),
            setting(0.1, 0.5, 0.65, 0.02),
            setting(0.2, 0.5, 0.66),
            setting(0.2, 1.0, 0.7, 0.03),
        ],
    },
    {"base": "Adam", "method": "plain", "settings": [setting(0.01, None, 0.5)]},
]


@pytest.fixture
def explorer() -> TuningExplorer:
    return TuningExplorer(TUNING)


def test_curves_bars_and_dots_are_those_of_the_records(explorer: TuningExplorer) -> None:
    np.testing.assert_allclose(explorer.left["SAM"].line.get_xydata(), [[0.5, 0.66], [1.0, 0.7]])
    np.testing.assert_allclose(explorer.left["SAM"].bars.get_xydata()[3:5], [[1.0, 0.67], [1.0, 0.73]])
    np.testing.assert_allclose(explorer.left["plain"].line.get_ydata(), [0.62, 0.62])
    np.testing.assert_allclose(explorer.right["SAM"].line.get_xydata(), [[0.1, 0.65], [0.2, 0.7]])
    np.testing.assert_allclose(explorer.dots["SAM"].get_xydata(), [[0.2, 0.7]])
    assert "SAM 0.700 ± 0.030 (rate 0.2, ρ 1)" in caption(explorer)
    assert "plain 0.620 ± 0.010 (rate 0.2)" in caption(explorer)


def test_the_rate_is_relative_to_the_best_of_each_method(explorer: TuningExplorer) -> None:
    before = explorer.picture.value
    explorer.rate.value = "½"
    assert explorer.picture.value != before
    np.testing.assert_allclose(explorer.left["SAM"].line.get_xydata(), [[0.5, 0.65], [1.0, 0.64]])
    np.testing.assert_allclose(explorer.dots["plain"].get_xydata(), [[0.1, 0.6]])
    explorer.rate.value = "4"
    assert len(explorer.left["SAM"].line.get_xdata()) == 0
    assert "SAM: rate 0.8 was not tried" in caption(explorer)
    explorer.reset()
    assert explorer.picture.value == before


def test_a_base_without_a_method_shows_the_others(explorer: TuningExplorer) -> None:
    explorer.base.value = "Adam"
    assert len(explorer.left["SAM"].line.get_xdata()) == 0
    assert len(explorer.right["SAM"].line.get_xdata()) == 0
    assert caption(explorer) == "plain 0.500 ± 0.010 (rate 0.01)"


def test_a_control_without_a_value_is_refused(explorer: TuningExplorer) -> None:
    with pytest.raises(ValueError, match="base: none is selected"):
        explorer.base.value = None


def test_a_page_shows_every_base(explorer: TuningExplorer) -> None:
    page = explorer.to_html()
    assert "SGD" in page
    assert "Adam" in page


def changed(index: int, key: str, value: Any) -> list[dict[str, Any]]:
    records = copy.deepcopy(TUNING)
    records[index]["settings"][0][key] = value
    return records


@pytest.mark.parametrize(
    ("tuning", "error", "message"),
    [
        ([], ValueError, "tuning is empty"),
        ("text", TypeError, "tuning must be a sequence of dictionaries, got str"),
        ({"base": "SGD"}, TypeError, "got dict"),
        ([1], TypeError, "tuning[0] must be a dictionary with base, method and settings"),
        ([{"base": "SGD"}], TypeError, "KeyError 'method'"),
        ([{"base": "SGD", "method": "SAM", "settings": []}], ValueError, "tuning[0] (SAM over SGD) has no settings"),
        ([TUNING[0], TUNING[0]], ValueError, "tuning[1]: plain over SGD occurs twice"),
        (changed(1, "rho", None), ValueError, "tuning[1] (SAM over SGD) has settings with rho and without"),
        (changed(1, "rho", 0.5), ValueError, "tuning[1] (SAM over SGD) has the same lr and rho twice"),
        (changed(1, "lr", 0.0), ValueError, "lr of tuning[1] must lie in (0"),
        (changed(1, "rho", "1"), TypeError, "rho of tuning[1] must be a real number"),
        (changed(0, "accuracy", {"mean": 62.0, "error": 1.0}), ValueError, "mean accuracy of tuning[0]"),
        ([{**TUNING[0], "method": str(k)} for k in range(6)], ValueError, "at most 5 can be told apart"),
    ],
)
def test_messages(tuning: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        TuningExplorer(tuning)
