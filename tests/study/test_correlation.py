"""Kendall's τ against SciPy and against counting by hand; intervals against resamples made by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau, norm, t

from renyi_lab.study import granulated_tau, kendall_tau
from renyi_lab.study._correlation import NUM_RESAMPLES
from renyi_lab.study._pairs import pair_sums, resampled_settings


def test_tau_equals_that_of_scipy_with_ties() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, 40), rng.integers(0, 6, 40)
    assert kendall_tau(x, y).value == pytest.approx(kendalltau(x, y).statistic, abs=1e-14)


def test_the_tau_of_a_resample_equals_that_of_scipy_without_pairs_of_copies() -> None:
    """Counted by hand: each copy of a setting is a setting of its own, and pairs between copies of one do not count."""
    rng = np.random.default_rng(1)
    codes = np.repeat(np.arange(5), [3, 1, 2, 4, 3])
    x, y = rng.normal(size=13).round(1), rng.normal(size=13).round(1)
    weights = resampled_settings(5, 40, seed=3)
    taus = pair_sums(x, y, codes).tau(weights)
    for tau, row in zip(taus, weights.astype(int), strict=True):
        drawn = [(s, copy, i) for s in range(5) for copy in range(row[s]) for i in np.flatnonzero(codes == s)]
        agree = x_pairs = y_pairs = 0.0
        for (s, copy, i), (other, other_copy, j) in itertools.combinations(drawn, 2):
            if s != other or copy == other_copy:
                agree += np.sign(x[i] - x[j]) * np.sign(y[i] - y[j])
                x_pairs += x[i] != x[j]
                y_pairs += y[i] != y[j]
        assert tau == pytest.approx(agree / math.sqrt(x_pairs * y_pairs), abs=1e-12)
    once = weights[:1] * 0 + [1, 0, 1, 1, 0]
    kept = np.isin(codes, [0, 2, 3])
    assert pair_sums(x, y, codes).tau(once)[0] == pytest.approx(kendalltau(x[kept], y[kept]).statistic, abs=1e-12)


def test_the_interval_has_the_stated_quantiles_of_the_resamples_and_depends_on_the_seed_only() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=30)
    y = x + rng.normal(size=30)
    settings = [f"setting {k // 3}" for k in range(30)]
    tau = kendall_tau(x, y, settings=settings, seed=5)
    resampled = pair_sums(x, y, np.arange(30) // 3).tau(resampled_settings(10, NUM_RESAMPLES, 5))
    level = norm.cdf(-t.ppf(0.975, 9))
    assert (tau.low, tau.high) == pytest.approx(tuple(np.quantile(resampled, [level, 1 - level])))
    assert tau.low < tau.value < tau.high
    assert (tau.num_models, tau.num_settings, tau.remark) == (30, 10, "")
    assert kendall_tau(x, y, settings=settings, seed=5) == tau
    assert kendall_tau(x, y, settings=settings, seed=6) != tau


def test_without_settings_every_model_is_its_own() -> None:
    x, y = np.random.default_rng(8).normal(size=(2, 20))
    assert kendall_tau(x, y) == kendall_tau(x, y, settings=list("abcdefghijklmnopqrst"))


def test_repeated_trainings_do_not_shorten_the_interval() -> None:
    x, y = np.random.default_rng(3).normal(size=(2, 12))
    once = kendall_tau(x, y)
    settings = np.repeat(np.arange(12), 5).tolist()
    five = kendall_tau(np.repeat(x, 5), np.repeat(y, 5), settings=settings)  # five identical trainings of each setting
    assert (five.value, five.low, five.high) == pytest.approx((once.value, once.low, once.high), abs=1e-12)
    as_independent = kendall_tau(np.repeat(x, 5), np.repeat(y, 5))
    assert as_independent.high - as_independent.low < 0.6 * (five.high - five.low)


@pytest.mark.parametrize(
    ("settings", "remark"),
    [
        (["a"] * 12, "no interval: 1 setting, at least 5 are needed"),
        ([1, 2, 3, 4] * 3, "no interval: 4 settings, at least 5 are needed"),
    ],
)
def test_few_settings_give_a_tau_without_an_interval(settings: list[object], remark: str) -> None:
    x, y = np.random.default_rng(3).normal(size=(2, 12))
    tau = kendall_tau(x, y, settings=settings)
    assert tau.value == pytest.approx(kendalltau(x, y).statistic)
    assert math.isnan(tau.low)
    assert math.isnan(tau.high)
    assert tau.remark == remark


def test_a_measure_that_differs_in_one_setting_has_no_interval() -> None:
    x = np.where(np.arange(30) < 3, 1.0, 0.0)
    tau = kendall_tau(x, np.random.default_rng(0).normal(size=30), settings=np.repeat(np.arange(10), 3).tolist())
    assert math.isfinite(tau.value)
    assert math.isnan(tau.low)
    assert tau.remark == "no interval: the measure or the gap differs in too few settings"


def test_equal_ranks_have_no_interval_of_width_zero() -> None:
    tau = kendall_tau(np.arange(9.0), np.arange(9.0) ** 3)
    assert (tau.value, tau.remark) == (pytest.approx(1), "no interval: every resample has the same τ")
    assert math.isnan(tau.high)


@pytest.mark.parametrize("which", ["measure", "gap"])
def test_tau_of_a_constant_is_undefined_with_a_remark(which: str) -> None:
    varying, constant = np.arange(9.0), np.full(9, 2.0)
    tau = kendall_tau(constant, varying) if which == "measure" else kendall_tau(varying, constant)
    assert math.isnan(tau.value)
    assert math.isnan(tau.low)
    assert tau.remark == f"the {which} is constant, so τ is undefined"


def test_models_without_a_finite_value_are_left_out_and_counted() -> None:
    x = np.array([1, 2, np.nan, 3, np.inf, 4, 6, 5.0])
    y = np.array([1, 2, -9, 3, -9, 4, 5, 6])
    tau = kendall_tau(x, y)
    assert (tau.num_models, tau.num_settings, tau.remark) == (6, 6, "2 models without a finite value left out")
    finite = np.isfinite(x)
    same = kendall_tau(x[finite], y[finite])
    assert (tau.value, tau.low, tau.high) == (same.value, same.low, same.high)
    paired = kendall_tau(x, y, settings=[1, 1, 2, 3, 2, 3, 4, 4])  # setting 2 has no finite model
    assert (paired.num_settings, paired.remark.split(";")[0]) == (3, "no interval: 3 settings, at least 5 are needed")
    assert paired.remark.endswith("2 models without a finite value left out")


def test_tau_of_too_few_models_is_undefined_with_a_remark() -> None:
    tau = kendall_tau([1, 2, 3], [1, 2, 3])
    assert math.isnan(tau.value)
    assert tau.remark == "3 models are too few"


def test_the_granulated_coefficient_is_that_of_jiang_et_al_on_a_full_grid() -> None:
    rng = np.random.default_rng(0)
    axes = {"lr": (0.1, 0.2, 0.3), "width": (10, 20, 30)}
    settings = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    x, y = rng.normal(size=9), rng.normal(size=9)
    square_x, square_y = x.reshape(3, 3), y.reshape(3, 3)  # rows: lr, columns: width
    psi_lr = np.mean([kendalltau(square_x[:, j], square_y[:, j]).statistic for j in range(3)])
    psi_width = np.mean([kendalltau(square_x[i], square_y[i]).statistic for i in range(3)])
    result = granulated_tau(x, y, settings, list(axes))
    assert result["lr"] == (pytest.approx(psi_lr), 3)
    assert result["width"] == (pytest.approx(psi_width), 3)


def test_a_measure_of_width_alone_has_a_high_tau_and_a_negative_granulated_coefficient() -> None:
    """τ is high because wide networks have large gaps; at a fixed width the measure ranks in the wrong order."""
    settings = [{"width": width, "lr": lr} for width in (10, 20, 30) for lr in (1, 2, 3)]
    gap = [10 * s["width"] + s["lr"] for s in settings]
    measure = [10 * s["width"] - s["lr"] for s in settings]
    assert kendall_tau(measure, gap).value == pytest.approx(0.5)
    assert granulated_tau(measure, gap, settings, ["width", "lr"]) == {"width": (1.0, 3), "lr": (-1.0, 3)}


def test_models_of_a_group_share_the_seed() -> None:
    settings = [{"lr": lr, "seed": seed} for seed in (0, 1) for lr in (1, 2)]
    assert granulated_tau([1, 2, 3, 4], [2, 3, 0, 1], settings, ["lr"])["lr"] == (1.0, 2)


def test_repeats_without_a_seed_share_a_group_and_are_not_compared_with_each_other() -> None:
    settings = [{"lr": lr} for lr in (1, 1, 2, 2)]
    assert granulated_tau([1, 2, 3, 4], [2, 1, 4, 3], settings, ["lr"])["lr"] == (1.0, 1)


def test_groups_without_a_defined_tau_do_not_count() -> None:
    settings = [{"lr": lr, "width": width} for width in (1, 2, 3) for lr in (1, 2)]
    x = [1.0, 2.0, 5.0, 5.0, 1.0, math.nan]
    result = granulated_tau(x, [1, 2, 1, 2, 1, 2], settings, ["lr"])
    assert result["lr"] == (1.0, 1)
    psi, groups = granulated_tau([1, 1], [1, 2], [{"lr": 1}, {"lr": 2}], ["lr"])["lr"]
    assert math.isnan(psi)
    assert groups == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kendall_tau([1, 2, 3, 4, 5], [1, 2, 3]), r"equal length.*\(5,\) and \(3,\)"),
        (lambda: kendall_tau(np.ones((5, 2)), np.ones((5, 2))), "vectors of equal length"),
        (lambda: kendall_tau([1, 2, 3], [1, 2, 3], settings=["a"]), "one value for each of 3 models, got 1"),
        (lambda: kendall_tau([1, 2], [1, 2], settings=[1, math.nan]), "holds NaN, which equals no other setting"),
        (lambda: kendall_tau([1, 2], [1, 2], settings=[1, pd.NA]), "holds NaN, which equals no other setting"),
        (lambda: granulated_tau([1, 2], [1, 2], [{"lr": 1}], ["lr"]), "one mapping for each of 2 models, got 1"),
    ],
)
def test_messages(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_settings_that_cannot_be_hashed_are_refused() -> None:
    for wrong in (np.float16(0.1), "ab", 3):
        with pytest.raises(TypeError, match="settings must hold one value for each of 2 models"):
            kendall_tau([1, 2], [1, 2], settings=wrong)
    with pytest.raises(TypeError, match=r"settings holds \{'lr': 1\}, which is not hashable; use tuples"):
        kendall_tau([1, 2], [1, 2], settings=[{"lr": 1}, {"lr": 2}])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"settings holds \(1, \[2\]\), which is not hashable"):
        kendall_tau([1, 2], [1, 2], settings=[(1, [2]), (1, [3])])
