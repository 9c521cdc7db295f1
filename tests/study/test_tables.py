"""Tables and figures of a study against SciPy on records without a training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau
from small_study import made_up_record, made_up_study

from renyi_lab.study import Study, kendall_tau
from renyi_lab.study._table import markdown_table


def test_kendall_uses_the_models_at_a_minimum_and_the_chosen_gap() -> None:
    rng = np.random.default_rng(0)
    sharp, loss, error = rng.uniform(size=(3, 12)).round(3).tolist()
    result = made_up_study(sharp, loss, error)
    bad = made_up_record(seed=99, train_accuracy=0.9, test_loss=50.0, measurement=result.records[0].measurement)
    result = Study((*result.records, bad))
    assert repr(result).startswith("Study(13 trainings: 12 at a minimum (training accuracy ≥ 0.97), 1 dropped, 0 div")
    for gap, values in (("loss", loss), ("error", error)):
        table = result.kendall(gap, alphas=(0.5,))
        assert table["tau"].to_dict() == {
            "curve_0.5": pytest.approx(kendalltau(sharp, values).statistic),
            "curve_by_rule": pytest.approx(-kendalltau(sharp, values).statistic),
            "sharp": pytest.approx(kendalltau(sharp, values).statistic),
        }
        assert table["num_models"].tolist() == [12] * 3
    assert result.with_minimum(0.5).kendall()["num_models"].tolist() == [13] * 6


def test_correlations_do_not_depend_on_the_order_of_the_records() -> None:
    study = made_up_study(
        [1.0, 3.0, 2.0, 5.0, 4.0, 6.0], [1.0, 2.0, 3.0, 5.0, 6.0, 4.0], [0.1, 0.3, 0.2, 0.4, 0.6, 0.5]
    )
    reversed_study = replace(study, records=study.records[::-1])
    pd.testing.assert_frame_equal(reversed_study.kendall("error"), study.kendall("error"))


def test_a_constant_measure_has_a_remark_and_is_missing_from_the_figure() -> None:
    result = made_up_study([1.0] * 8, list(range(8)), list(np.linspace(0, 0.5, 8)))
    assert "constant" in result.kendall().loc["sharp", "remark"]
    assert len(result.plot().axes[0].get_yticklabels()) == 6


def test_intervals_resample_settings_and_one_setting_has_none(finished: tuple[Study, Path]) -> None:
    study = finished[0].with_minimum(0)  # four settings of three seeds
    assert study.num_settings == 4
    table = study.kendall("error")
    assert set(table["num_settings"]) == {4}
    assert set(table["remark"]) == {"no interval: 4 settings, at least 5 are needed"}
    seeds = made_up_study([1.0, 3.0, 2.0, 5.0, 4.0], [1.0, 2.0, 3.0, 5.0, 4.0], [0.1, 0.3, 0.2, 0.4, 0.5])
    assert seeds.num_settings == 1
    assert seeds.kendall()["tau"].notna().all()
    assert seeds.kendall()["low"].isna().all()
    assert seeds.tau_against_alpha(measure="curve")["remark"].str.startswith("no interval: 1 setting").all()
    assert "(no interval: 1 setting, at least 5 are needed) |" in markdown_table(seeds)


def test_the_interval_of_a_table_is_that_of_the_settings_without_the_seed() -> None:
    study = Study.standard().select(architecture="mlp")
    settings = [(s.width, s.optimizer, s.lr, s.batch_size, s.weight_decay) for s in (r.setting for r in study.kept)]
    x, y = zip(*((r.measurement.values["trace"], r.loss_gap) for r in study.kept), strict=True)
    row = study.kendall("loss").loc["trace"]
    tau = kendall_tau(x, y, settings=settings)
    assert (row["tau"], row["low"], row["high"], row["num_settings"]) == (
        tau.value,
        tau.low,
        tau.high,
        len(set(settings)),
    )


def test_tau_against_alpha_has_every_order() -> None:
    gaps = [0.0, 0.3, 0.1, 0.5, 0.4, 0.9]
    curve = made_up_study(list(range(6)), gaps, gaps[::-1]).tau_against_alpha(measure="curve")
    assert curve.index.tolist() == [0.5, 1.0, 1.5, 2.0]
    expected = kendalltau(range(6), gaps).statistic
    assert curve["tau"].tolist() == pytest.approx([expected, expected, expected, -expected])


def test_the_seed_is_not_a_hyperparameter(finished: tuple[Study, Path]) -> None:
    table = finished[0].with_minimum(0).kendall_within("error")
    assert table.columns.tolist() == ["width", "lr", "mean"]
    assert table["mean"].tolist() == pytest.approx(table[["width", "lr"]].mean(axis=1).tolist())


def test_select_keeps_the_trainings_with_the_given_values(finished: tuple[Study, Path]) -> None:
    part = finished[0].select(lr=0.3, seed=2)
    assert [(r.setting.lr, r.setting.seed, r.setting.width) for r in part.records] == [(0.3, 2, 24), (0.3, 2, 32)]


def test_figures_show_the_numbers_of_the_tables() -> None:
    rng = np.random.default_rng(3)
    result = made_up_study(*rng.uniform(size=(3, 9)).round(3).tolist())
    loss, error = result.plot().axes[0].containers
    np.testing.assert_array_equal(loss.lines[0].get_xdata(), result.kendall("loss")["tau"])
    np.testing.assert_array_equal(error.lines[0].get_xdata(), result.kendall("error")["tau"])
    left, right = result.plot_measure("sharp").axes
    np.testing.assert_array_equal(left.get_lines()[0].get_ydata(), result.to_frame(alphas=())["loss_gap"])
    np.testing.assert_array_equal(right.get_lines()[0].get_ydata(), result.to_frame(alphas=())["error_gap"])
    curve = result.plot_alpha("curve").axes[0].get_lines()[0]
    np.testing.assert_array_equal(curve.get_ydata(), result.tau_against_alpha(measure="curve")["tau"])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s: s.kendall(alphas=0.5), TypeError, r"alphas must be a sequence of numbers, got 0\.5; write \[0\.5\]"),
        (lambda s: s.kendall(alphas=[3]), ValueError, "alphas holds 3, where curve was not.*: 0.5, 1, 1.5, 2"),
        (lambda s: s.kendall("test"), ValueError, "gap must be one of 'loss', 'error'"),
        (lambda s: s.tau_against_alpha(), ValueError, "recorded curve, got 'renyi_sharpness'; available: 'curve'"),
        (lambda s: s.plot_measure("blunt"), ValueError, "there is no measure 'blunt'; available: 'curve_0.5'"),
        (lambda s: s.select(lr=0.7), ValueError, r"no training has lr=0\.7; available: 0\.1"),
        (lambda s: s.select(depth=3), ValueError, "'depth' is not an axis"),
    ],
)
def test_messages(call: Callable[[Study], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(made_up_study([1.0] * 5, [1.0] * 5, [1.0] * 5))
