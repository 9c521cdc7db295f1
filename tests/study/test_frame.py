"""`Study.from_frame`: networks that were trained and measured elsewhere."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from renyi_lab.study import Study

GAPS = {"loss": "gap", "error": "mistakes"}
NAMES: dict[str, Any] = {"measures": ["flat", "norm"], "gaps": GAPS, "settings": ["lr", "depth", "seed"]}


def networks() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = itertools.product((0.1, 0.2, 0.3), ("two", "six", "ten"), (0, 1))
    frame = pd.DataFrame(rows, columns=["lr", "depth", "seed"])
    effect = np.repeat(rng.normal(size=9), 2)
    for name in ("flat", "norm", "gap", "mistakes"):
        frame[name] = effect + rng.normal(size=18)
    frame["notes"] = "none"
    return frame


@pytest.mark.slow
def test_its_tables_equal_those_of_a_study_with_the_same_records() -> None:
    standard = Study.standard()
    frame = standard.to_frame()
    kept = frame[frame["status"] == "minimum"].sample(frac=1, random_state=0)  # the order of rows does not matter
    axes = list(standard.records[0].setting.stated)  # the others are empty columns
    names = ["trace", "parameter_norm", "renyi_sharpness_1.5"]
    study = Study.from_frame(kept, measures=names, gaps=["loss_gap", "error_gap"], settings=axes)
    assert study.num_settings == standard.num_settings
    for gap in ("loss", "error"):
        pd.testing.assert_frame_equal(study.kendall(gap), standard.kendall(gap).loc[names])
        pd.testing.assert_frame_equal(study.kendall_within(gap), standard.kendall_within(gap).loc[names])
        null, other = (s.null_distribution(gap, measures=names, num_permutations=50) for s in (study, standard))
        np.testing.assert_allclose(null.values, other.values)
        split, same = (s.split_half(gap, measures=names, num_splits=20) for s in (study, standard))
        assert (split.chosen, split.winners) == (pytest.approx(same.chosen), same.winners)


def test_everything_else_works_on_its_own_columns() -> None:
    frame = networks()
    study = Study.from_frame(frame, **NAMES)
    assert repr(study) == "Study(18 models from a frame, in 9 settings)"
    part = frame[(frame["depth"] == "six") & (frame["lr"] == 0.1)]
    assert study.select(depth="six", lr=0.1).to_frame()["loss_gap"].tolist() == part["gap"].tolist()
    assert study.to_frame().columns.tolist() == ["lr", "depth", "seed", "loss_gap", "error_gap", "flat", "norm"]
    assert study.kendall_within().columns.tolist() == ["lr", "depth", "mean"]
    assert study.kendall()["num_settings"].tolist() == [9, 9]
    assert len(study.plot().axes) == 1
    left, right = study.plot_measure("flat").axes
    assert sorted(left.get_lines()[0].get_ydata()) == sorted(frame["gap"])
    assert sorted(right.get_lines()[0].get_ydata()) == sorted(frame["mistakes"])
    assert "9 settings" in study.plot().alt
    assert study.null_distribution(num_permutations=20).num_measures == 2
    assert (study.num_diverged, study.num_dropped) == (0, 0)


def test_a_setting_may_be_called_status() -> None:
    frame = networks().rename(columns={"lr": "status"})
    study = Study.from_frame(frame, **{**NAMES, "settings": ["status", "depth", "seed"]})
    assert len(study.plot_measure("flat").axes[0].get_lines()[0].get_ydata()) == len(frame)


def test_a_measure_must_not_have_the_name_of_a_gap() -> None:
    frame = networks().rename(columns={"flat": "loss_gap"})
    with pytest.raises(ValueError, match="'loss_gap' is the name of a gap; give the measure or setting"):
        Study.from_frame(frame, **{**NAMES, "measures": ["loss_gap"]})


def test_one_gap_is_enough() -> None:
    study = Study.from_frame(networks(), measures=["flat"], gaps={"error": "mistakes"}, settings=["lr", "depth"])
    assert study.to_frame().columns.tolist() == ["lr", "depth", "error_gap", "flat"]
    assert len(study.plot().axes[0].containers) == 1
    assert len(study.plot_measure("flat").axes) == 1
    assert math.isfinite(study.kendall("error").loc["flat", "low"])
    with pytest.raises(ValueError, match="this study has no loss gap, only 'error'"):
        study.kendall("loss")


def test_repeats_need_no_seed() -> None:
    """Without a column of seeds, pairs of repeats do not count in Ψ; with it, only pairs with equal seeds do."""
    frame = pd.DataFrame({"lr": [1, 1, 2, 2], "seed": [0, 1, 0, 1], "m": [1, 4, 2, 3], "gap": [1, 2, 3, 4]})
    without = Study.from_frame(frame, measures=["m"], gaps={"loss": "gap"}, settings=["lr"])
    assert without.num_settings == 2
    assert without.kendall_within().loc["m", "lr"] == pytest.approx(0)
    frame["m"] = [1, 0, 2, 3]
    seeded = Study.from_frame(frame, measures=["m"], gaps={"loss": "gap"}, settings=["lr", "seed"])
    assert seeded.num_settings == 2
    assert seeded.kendall_within().loc["m", "lr"] == pytest.approx(1)


def test_missing_numbers_are_left_out_with_a_remark() -> None:
    frame = networks()
    frame.loc[3, "flat"] = np.nan
    frame.loc[5, "mistakes"] = np.inf
    frame["norm"] = frame["norm"].astype("Float64")
    frame.loc[4, "norm"] = pd.NA
    study = Study.from_frame(frame, **NAMES)
    assert study.kendall("loss")["num_models"].tolist() == [17, 17]
    assert study.kendall("error")["num_models"].tolist() == [16, 16]
    assert study.kendall("error").loc["flat", "remark"] == "2 models without a finite value left out"
    assert np.isfinite(study.null_distribution("error", num_permutations=50).values).all()
    assert math.isfinite(study.split_half("error", num_splits=10).held_out)


def test_one_setting_has_no_interval_and_says_so() -> None:
    frame = networks().assign(lr=0.1, depth="two", seed=range(18))
    study = Study.from_frame(frame, **NAMES)
    table = study.kendall()
    assert table["tau"].notna().all()
    assert table[["low", "high"]].isna().all(axis=None)
    assert set(table["remark"]) == {"no interval: 1 setting, at least 5 are needed"}
    assert len(study.plot().axes) == 1
    with pytest.raises(ValueError, match="null distribution needs at least 5 settings with a finite gap, got 1"):
        study.null_distribution()
    with pytest.raises(ValueError, match="split into halves needs at least 8 settings with a finite gap, got 1"):
        study.split_half()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"measures": ["flt"]}, ValueError, "measures names 'flt', which is not a column.*did you mean 'flat'"),
        (
            {"measures": "flat"},
            TypeError,
            r"measures must be a list of column names.*write measures=\['flat'\]",
        ),
        ({"measures": []}, ValueError, "measures is empty"),
        ({"measures": [0]}, TypeError, "measures must hold names of columns as strings, got 0"),
        ({"measures": ["flat", "flat"]}, ValueError, "measures names 'flat' twice"),
        ({"measures": ["gap"]}, ValueError, "gaps names 'gap' and so does measures; a column has one role"),
        ({"measures": ["notes"]}, TypeError, "measures names 'notes', which must hold real numbers.*'none'"),
        ({"gaps": {"test": "gap"}}, ValueError, "gaps has the key 'test'; a gap is 'loss'.*or 'error'"),
        ({"gaps": ["gap"]}, ValueError, r"gaps names 'gap'; a gap is 'loss'.*gaps=\{'loss': 'gap'\}"),
        ({"gaps": {}}, ValueError, "gaps is empty"),
        ({"gaps": {"loss": "no"}}, ValueError, "gaps names 'no', which is not a column"),
        ({"gaps": "gap"}, TypeError, r"gaps must say which gap a column holds, got 'gap'.*gaps=\{'loss': 'gap'\}"),
        ({"settings": []}, ValueError, "settings is empty.*no rows can be told apart.*numbers the rows"),
        ({"settings": {"lr"}}, TypeError, "settings must be a list of column names, not {'lr'}; got a set"),
        ({"settings": ["seed"]}, ValueError, "settings names only 'seed'"),
        ({"settings": ["lr", "seed"]}, ValueError, "rows 0 and 2 have equal settings and the same seed"),
    ],
)
def test_messages_for_names(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Study.from_frame(networks(), **{**NAMES, **change})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda f: f.iloc[:0], ValueError, "frame has 0 rows and 8 columns"),
        (lambda f: f.to_dict(), TypeError, "frame must be a pandas DataFrame, got dict"),
        (lambda f: pd.concat([f, f[["flat"]]], axis=1), ValueError, "several columns named 'flat'"),
        (lambda f: f.assign(lr=[np.nan, *f["lr"][1:]]), ValueError, r"'lr', which has no value in row 0 \(of 1\)"),
        (
            lambda f: f.assign(depth=[[2]] * 18),
            TypeError,
            r"'depth', which holds \[2\]; use numbers, strings",
        ),
        (lambda f: f.assign(depth=[(1, [2])] * 18), TypeError, r"'depth', which holds \(1, \[2\]\); use numbers"),
        (lambda f: pd.concat({"run": f}, axis=1), ValueError, "frame has 2 levels of column names; make one name"),
        (
            lambda f: f.rename(columns={"flat": 0}),
            ValueError,
            r"measures names 'flat', which is not a column of the frame; Columns: .*, 0, 'norm'",
        ),
    ],
)
def test_messages_for_frames(change: Callable[[pd.DataFrame], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Study.from_frame(change(networks()), **NAMES)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.select(width=3), "'width' is not an axis of a grid; .*Axes: lr, depth, seed"),
        (lambda s: s.select(depth="one"), "no training has depth='one'; available: 'six', 'ten', 'two'"),
        (lambda s: s.with_minimum(0.5), "models from a frame have no training accuracy"),
        (lambda s: s.plot_alpha(), "measure must be a recorded curve, got 'renyi_sharpness'; available: none"),
    ],
)
def test_messages_of_a_study_from_a_frame(call: Callable[[Study], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(Study.from_frame(networks(), **NAMES))
