"""The null distribution of the best of many and the split into halves, against SciPy and simulated studies."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from clustered_data import Design
from scipy.stats import kendalltau

from renyi_lab.study import NullDistribution, Study
from renyi_lab.study._selection import _shuffled_gaps, _with_values_of

SIZES = [3, 1, 2, 3, 3, 2, 1, 3]
SETTING = np.repeat(np.arange(8), SIZES)


def study_of(measures: dict[str, Any], gap: np.ndarray, setting: np.ndarray = SETTING) -> Study:
    frame = pd.DataFrame({**measures, "loss_gap": gap, "setting": setting})
    return Study.from_frame(frame, measures=list(measures), gaps=["loss_gap"], settings=["setting"])


def some_study() -> tuple[Study, np.ndarray, np.ndarray]:
    """Three measures, one with a missing value and ties, of eight settings of one to three models."""
    x = np.random.default_rng(0).normal(size=(3, 18))
    x[1] = x[1].round()
    x[1, 4] = np.nan
    gap = np.random.default_rng(1).normal(size=8)[SETTING] + 0.1 * x[0]
    return study_of({"a": x[0], "b": x[1], "c": x[2], "constant": np.ones(18)}, gap), x, gap


def test_shuffles_permute_the_means_of_settings_and_keep_deviations() -> None:
    gap = some_study()[2]
    means = np.array([gap[s == SETTING].mean() for s in range(8)])
    for shuffled in _shuffled_gaps(gap, SETTING, 20, np.random.default_rng(3)):
        new = np.array([shuffled[s == SETTING].mean() for s in range(8)])
        assert sorted(new) == pytest.approx(sorted(means))
        np.testing.assert_allclose(shuffled - new[SETTING], gap - means[SETTING], atol=1e-12)


def test_shuffled_gaps_have_the_ties_of_the_study() -> None:
    gap = some_study()[2].round()
    shuffled = _shuffled_gaps(gap, SETTING, 20, np.random.default_rng(3))
    for sums, gaps in zip(shuffled, _with_values_of(gap, shuffled), strict=True):
        assert sorted(gaps) == sorted(gap)
        assert (np.diff(gaps[np.argsort(sums, kind="stable")]) >= 0).all()
    one_model_each = np.arange(18)
    permuted = _shuffled_gaps(gap, one_model_each, 20, np.random.default_rng(3))
    np.testing.assert_array_equal(_with_values_of(gap, permuted), permuted)


def test_a_measure_of_few_models_does_not_count() -> None:
    study, x, gap = some_study()
    few = study_of({"a": x[0], "few": np.where(np.arange(18) < 4, x[2], np.nan)}, gap)
    assert few.null_distribution(num_permutations=20).num_measures == 1
    assert list(few.split_half(num_splits=20).winners) == ["a"]
    assert study.null_distribution(measures=["a"], num_permutations=20).quantile_95 < 1


def test_a_half_without_a_defined_tau_has_no_winner() -> None:
    gap = some_study()[2]
    split = study_of({"first setting": np.where(np.arange(18) < 2, 1.0, 0.0)}, gap).split_half(num_splits=20)
    assert split.winners == {"first setting": int(np.isfinite(split.chosen_taus).sum())}
    assert 0 < split.winners["first setting"] < 20
    assert math.isnan(split.held_out)  # it is constant on the other half
    assert "first setting won" in repr(split)


def test_the_null_distribution_is_that_of_the_largest_tau_of_shuffled_gaps() -> None:
    study, x, gap = some_study()
    null = study.null_distribution(num_permutations=30, seed=3)
    assert (null.num_measures, null.num_settings) == (3, 8)
    for value, shuffled in zip(null.values, _shuffled_gaps(gap, SETTING, 30, np.random.default_rng(3)), strict=True):
        taus = [kendalltau(row[np.isfinite(row)], shuffled[np.isfinite(row)]).statistic for row in x]
        assert value == pytest.approx(max(map(abs, taus)), abs=1e-12)
    one = study.null_distribution(measures=["b"], num_permutations=30, seed=3)
    assert (one.values <= null.values).all()
    assert null.median == np.median(null.values)
    assert null.quantile_95 == np.quantile(null.values, 0.95)
    assert repr(one).startswith("NullDistribution(loss gap, best of 1: median |τ| 0.")
    np.testing.assert_array_equal(
        one.values, study.null_distribution(measures=["b"], num_permutations=30, seed=3).values
    )


def test_p_values_count_the_observed_study() -> None:
    null = NullDistribution(np.array([0.1, 0.2, 0.3, 0.4]), 5, 10, "loss")
    assert [null.p_value(tau) for tau in (0.5, -0.4, 0.25, 0.0)] == [0.2, 0.4, 0.6, 1.0]
    assert [null.p_value(tau) for tau in (1, -1)] == [0.2, 0.2]


@pytest.mark.slow
def test_p_values_are_uniform_when_nothing_is_related() -> None:
    """With similar repeats and unequal settings; a shuffle of models would reject in about a third of the studies."""
    design = Design("", [3] * 8 + [2] * 4 + [1] * 4, 0.0)
    rng = np.random.default_rng(0)
    gaps = design.draw(rng, 200, design.sizes)[1]
    measures = [design.draw(rng, 200, design.sizes)[0] for _ in range(2)]
    setting = np.repeat(np.arange(16), design.sizes)
    p_values = []
    for first, second, gap in zip(*measures, gaps, strict=True):
        study = study_of({"first": first, "second": second}, gap, setting)
        best = max(abs(kendalltau(x, gap).statistic) for x in (first, second))
        p_values.append(study.null_distribution(num_permutations=99).p_value(best))
    for level in (0.1, 0.5):
        share = np.mean(np.array(p_values) <= level)
        assert abs(share - level) < 3.5 * math.sqrt(level * (1 - level) / 200)


def test_the_winner_of_one_half_is_evaluated_on_the_other() -> None:
    study, x, gap = some_study()
    split = study.split_half(num_splits=25, seed=4)
    order = np.random.default_rng(4).permuted(np.tile(np.arange(8), (25, 1)), axis=1)
    wins: dict[str, int] = {}
    for k in range(25):
        half = (order[k] < 4)[SETTING]
        taus = {}
        for name, row in zip("abc", x, strict=True):
            own, other = (part & np.isfinite(row) for part in (half, ~half))
            taus[name] = [float(kendalltau(row[part], gap[part]).statistic) for part in (own, other)]
        best = max(taus, key=lambda name: abs(taus[name][0]))
        wins[best] = wins.get(best, 0) + 1
        assert split.chosen_taus[k] == pytest.approx(taus[best][0], abs=1e-12)
        assert split.held_out_taus[k] == pytest.approx(taus[best][1] * np.sign(taus[best][0]), abs=1e-12)
    assert split.winners == wins
    assert list(split.winners.values()) == sorted(wins.values(), reverse=True)
    assert split.chosen == pytest.approx(np.abs(split.chosen_taus).mean())
    assert split.held_out == pytest.approx(split.held_out_taus.mean())
    assert "25 splits of 8 settings" in repr(split)


def test_noise_shrinks_to_zero_and_a_true_measure_does_not() -> None:
    rng = np.random.default_rng(5)
    gap = rng.normal(size=20)
    noise = study_of({f"noise {k}": rng.normal(size=20) for k in range(20)}, gap, np.arange(20))
    split = noise.split_half(num_splits=100)
    assert split.chosen > 0.4
    assert abs(split.held_out) < 0.25
    same = study_of({"same": gap}, gap, np.arange(20)).split_half(num_splits=10)
    assert (same.chosen, same.held_out, same.winners) == (pytest.approx(1), pytest.approx(1), {"same": 10})


def test_figures_show_the_numbers() -> None:
    study = some_study()[0]
    null, split = study.null_distribution(num_permutations=50), study.split_half(num_splits=20)
    figure = null.plot(-0.5)
    quantile, observed = (line.get_xdata()[0] for line in figure.axes[0].get_lines())
    assert (quantile, observed) == (null.quantile_95, 0.5)
    assert f"p = {null.p_value(0.5):.3f}" in figure.alt
    assert sum(patch.get_height() for patch in null.plot().axes[0].patches) == 50
    dots = split.plot().axes[0].get_lines()[0]
    np.testing.assert_array_equal(dots.get_ydata(), split.held_out_taus)


@pytest.mark.slow
def test_a_thousand_shuffles_of_every_measure_of_the_standard_study_are_the_default() -> None:
    study = Study.standard()
    table = study.kendall("error")
    null = study.null_distribution("error")
    assert len(null.values) == 1000
    assert null.num_measures == table["tau"].notna().sum()
    assert 0.1 < null.median < null.quantile_95 < 0.6


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s: s.null_distribution("test"), ValueError, "gap must be one of 'loss', 'error'"),
        (
            lambda s: s.null_distribution(measures=["d"]),
            ValueError,
            "there is no measure 'd'; available: 'a', 'b', 'c'",
        ),
        (lambda s: s.null_distribution(measures="a"), TypeError, r"sequence of names, got 'a'; write \['a'\]"),
        (lambda s: s.null_distribution(measures=3), TypeError, "sequence of names, got 3"),
        (lambda s: s.null_distribution(measures=[]), ValueError, "measures is empty"),
        (lambda s: s.null_distribution(measures=["constant"]), ValueError, "no measure has a defined τ"),
        (lambda s: s.null_distribution(num_permutations=0), ValueError, "num_permutations must be at least 1, got 0"),
        (lambda s: s.null_distribution(seed="a"), TypeError, "seed must be an integer, got 'a'"),
        (lambda s: s.split_half(seed=-1), ValueError, "seed must be at least 0, got -1"),
        (lambda s: s.kendall(seed=0.5), TypeError, "seed must be an integer, got 0.5"),
        (lambda s: s.split_half(num_splits=0), ValueError, "num_splits must be at least 1, got 0"),
        (lambda s: s.split_half(measures=["constant"]), ValueError, "no measure has a defined τ"),
        (lambda s: s.null_distribution(num_permutations=9).p_value(1.5), ValueError, r"tau must lie in \[-1, 1\]"),
        (
            lambda s: s.null_distribution(num_permutations=9).p_value(math.nan),
            ValueError,
            "tau must be finite, got nan",
        ),
    ],
)
def test_messages(call: Callable[[Study], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(some_study()[0])
