"""Kendall's τ against SciPy and against counting by hand; intervals against their coverage."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import kendalltau

from renyi_lab.study import granulated_tau, kendall_tau
from renyi_lab.study._correlation import _resampled_taus


def test_tau_equals_that_of_scipy_with_ties() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, 40), rng.integers(0, 6, 40)
    assert kendall_tau(x, y).value == pytest.approx(kendalltau(x, y).statistic, abs=1e-15)


def test_the_tau_of_a_resample_equals_that_of_scipy() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=15).round(1), rng.normal(size=15).round(1)
    taus = _resampled_taus(x, y, seed=3)
    counts = np.random.default_rng(3).multinomial(15, np.full(15, 1 / 15), size=len(taus))
    for k in range(50):
        drawn = np.repeat(np.arange(15), counts[k])
        assert taus[k] == pytest.approx(kendalltau(x[drawn], y[drawn]).statistic, abs=1e-12)


def test_the_interval_has_the_quantiles_of_the_resamples_and_depends_on_the_seed_only() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=30)
    y = x + rng.normal(size=30)
    tau = kendall_tau(x, y, seed=5)
    assert (tau.low, tau.high) == pytest.approx(tuple(np.quantile(_resampled_taus(x, y, 5), [0.025, 0.975])))
    assert tau.low < tau.value < tau.high
    assert kendall_tau(x, y, seed=5) == tau
    assert kendall_tau(x, y, seed=6) != tau


@pytest.mark.slow
def test_the_interval_has_about_its_nominal_coverage() -> None:
    rng = np.random.default_rng(4)
    true = 2 / math.pi * math.asin(0.6)  # of a normal pair with correlation 0.6
    hits = 0
    for k in range(60):
        x, noise = rng.normal(size=(2, 60))
        tau = kendall_tau(x, 0.6 * x + 0.8 * noise, seed=k)
        hits += tau.low <= true <= tau.high
    assert hits >= 50  # 57 expected, less the percentile method's bias; three standard deviations of a binomial are 5


@pytest.mark.parametrize("which", ["measure", "gap"])
def test_tau_of_a_constant_is_undefined_with_a_remark(which: str) -> None:
    varying, constant = np.arange(9.0), np.full(9, 2.0)
    tau = kendall_tau(constant, varying) if which == "measure" else kendall_tau(varying, constant)
    assert math.isnan(tau.value)
    assert math.isnan(tau.low)
    assert tau.remark == f"the {which} is constant, so τ is undefined"


def test_models_without_a_finite_value_are_left_out_and_counted() -> None:
    x = np.array([1, 2, np.nan, 3, np.inf, 4, 5.0])
    tau = kendall_tau(x, np.array([1, 2, -9, 3, -9, 4, 5]))
    assert (tau.num_models, tau.remark) == (5, "2 models without a finite value left out")
    assert tau.value == pytest.approx(1)


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
        (lambda: granulated_tau([1, 2], [1, 2], [{"lr": 1}], ["lr"]), "one mapping for each of 2 models, got 1"),
    ],
)
def test_messages(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
