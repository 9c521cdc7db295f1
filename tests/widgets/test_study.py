"""`StudyExplorer` against the study's own tables."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from explorer_view import caption
from scipy.stats import kendalltau

from renyi_lab.study import Measurement, Record, Setting, Study
from renyi_lab.widgets import StudyExplorer


@pytest.fixture(scope="module")
def study() -> Study:
    return Study.standard()


@pytest.fixture(scope="module")
def module_explorer(study: Study) -> StudyExplorer:
    return StudyExplorer(study)


@pytest.fixture
def explorer(module_explorer: StudyExplorer) -> StudyExplorer:
    module_explorer.reset()
    return module_explorer


def toy(num_seeds: int = 6, **measures: Callable[[int], float]) -> Study:
    """Networks of one setting, whose gaps grow with the seed."""
    records = [
        Record(
            Setting(seed=seed),
            diverged=False,
            train_loss=0.01,
            train_accuracy=1.0,
            test_loss=1.0 + seed,
            test_accuracy=0.9 - 0.01 * seed,
            measurement=Measurement({name: f(seed) for name, f in measures.items()}),
        )
        for seed in range(num_seeds)
    ]
    return Study(tuple(records))


@pytest.mark.parametrize("gap", ["loss", "error"])
@pytest.mark.parametrize("measure", ["renyi_sharpness", "trace", "renyi_sharpness [last]", "parameter_norm"])
def test_every_row_is_that_of_the_study_s_table(study: Study, explorer: StudyExplorer, measure: str, gap: str) -> None:
    explorer.measure.value, explorer.gap.value, explorer.alpha.value = measure, gap, 0.5
    name = measure.replace("renyi_sharpness", "renyi_sharpness_0.5")
    for family in explorer.shown.options:
        part = study if family == "all" else study.select(architecture=family)
        expected = part.kendall(gap).loc[name]
        assert explorer.points[family].get_xdata()[0] == pytest.approx(expected["tau"])
        low, high = explorer.intervals[family].get_xdata()
        assert (low, high) == pytest.approx((expected["low"], expected["high"]), nan_ok=True)
        assert f"{family}: {expected['tau']:+.2f}" in caption(explorer)


def test_the_dots_are_the_ranks_of_the_shown_networks(study: Study, explorer: StudyExplorer) -> None:
    explorer.measure.value, explorer.shown.value = "trace", "mlp"
    x, y = explorer.dots["mlp"].get_data()
    expected = study.select(architecture="mlp").kendall("loss").loc["trace"]
    assert len(x) == expected["num_models"]
    assert kendalltau(x, y).statistic == pytest.approx(expected["tau"])
    assert (np.min(x), np.max(x)) == (0.0, 1.0)
    others = [line for name, line in explorer.dots.items() if name != "mlp"]
    assert all(len(line.get_xdata()) == 0 for line in others)
    explorer.shown.value = "all"
    assert sum(len(line.get_xdata()) for line in explorer.dots.values()) == len(study.kept)


def test_the_order_moves_only_measures_that_have_one(explorer: StudyExplorer) -> None:
    explorer.measure.value = "renyi_sharpness"
    assert not explorer.alpha.disabled
    before = explorer.tau.value
    explorer.alpha.value = 0.25
    assert explorer.tau.value != before
    assert "α = 0.25" in caption(explorer)
    explorer.measure.value = "trace"
    assert explorer.alpha.disabled
    before = explorer.tau.value
    explorer.alpha.value = 2.0
    assert explorer.tau.value == before
    assert "α" not in caption(explorer)


def test_another_axis_may_make_the_families(study: Study) -> None:
    explorer = StudyExplorer(study, "trace", gap="error", family="optimizer")
    assert set(explorer.shown.options) == {"all", "sgd", "adam"}
    expected = study.select(optimizer="adam").kendall("error").loc["trace", "tau"]
    assert explorer.tau_of("adam").value == pytest.approx(expected)


def test_one_setting_has_a_tau_but_no_interval_and_says_so() -> None:
    explorer = StudyExplorer(toy(rising=float, constant=lambda seed: 1.0))
    assert explorer.shown.options == ("mlp",)
    assert explorer.alpha is None
    assert explorer.tau.value == 1.0
    assert math.isnan(explorer.tau.low)
    assert "no interval: 1 setting" in caption(explorer)
    explorer.measure.value = "constant"
    assert "the measure is constant" in caption(explorer)
    explorer.reset()
    assert explorer.to_html()


def test_a_missing_value_is_left_out_and_counted() -> None:
    explorer = StudyExplorer(toy(rising=lambda seed: math.nan if seed == 2 else float(seed)))
    assert len(explorer.dots["mlp"].get_xdata()) == 5
    assert "1 models without a finite value left out" in caption(explorer)


def test_three_networks_are_too_few_for_a_tau() -> None:
    assert "3 models are too few" in caption(StudyExplorer(toy(3, rising=float)))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda study: (study.records,), TypeError, "study must be a Study, got tuple"),
        (lambda study: (dataclasses.replace(study, records=()),), ValueError, "is at a minimum"),
        (lambda study: (toy(),), ValueError, "study holds no measures"),
        (lambda study: (study, "sharpness"), ValueError, "measure must be one of"),
        (lambda study: (study, "trace", {"gap": "accuracy"}), ValueError, "gap must be one of 'loss', 'error'"),
        (lambda study: (study, "trace", {"alpha": 1.1}), ValueError, "alpha must be a recorded order, got 1.1"),
        (lambda study: (study, "trace", {"alpha": "1"}), TypeError, "alpha must be"),
        (lambda study: (study, "trace", {"family": "depth"}), ValueError, "family must be one of"),
        (
            lambda study: (toy(rising=float), "rising", {"alpha": 1.0}),
            ValueError,
            "no measure of this study",
        ),
    ],
)
def test_messages(study: Study, change: Any, error: type[Exception], message: str) -> None:
    arguments = change(study)
    options = arguments[-1] if isinstance(arguments[-1], dict) else {}
    with pytest.raises(error, match=message):
        StudyExplorer(*[a for a in arguments if not isinstance(a, dict)], **options)


def test_a_study_from_a_frame_with_one_gap() -> None:
    rows = [{"noise": n, "seed": s, "norm": n + 0.1 * s, "gap": n + 0.2 * s} for n in range(6) for s in range(2)]
    study = Study.from_frame(pd.DataFrame(rows), measures=["norm"], gaps={"error": "gap"}, settings=["noise", "seed"])
    explorer = StudyExplorer(study, family="seed")
    assert explorer.gap.options == ("error",)
    assert explorer.shown.options == ("all", "0", "1")
    assert explorer.tau.value == pytest.approx(study.kendall("error").loc["norm", "tau"])
    with pytest.raises(ValueError, match="family must be one of 'noise', 'seed', got 'architecture'"):
        StudyExplorer(study)


def named(first: str) -> Study:
    """Networks of two families, one with the given name, and a measure with a dollar sign in its name."""
    rows = [
        {"family": name, "lr": lr, "m$_{$": float(lr), "gap": float(lr)} for name in (first, "other") for lr in range(6)
    ]
    return Study.from_frame(pd.DataFrame(rows), measures=["m$_{$"], gaps={"loss": "gap"}, settings=["family", "lr"])


def test_names_are_neither_markup_nor_formulas() -> None:
    explorer = StudyExplorer(named("<b>$_{\\x$"), family="family")
    assert "&lt;b&gt;$_{\\x$: <b>+1.00</b>" in explorer.caption.value
    assert explorer.to_html()


def test_no_family_may_be_named_all() -> None:
    with pytest.raises(ValueError, match=r"'all', which stands for all networks; rename it"):
        StudyExplorer(named("all"), family="family")
