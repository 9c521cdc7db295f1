"""Signs of τ over families and data sets, on records without a training and on the shipped ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kendalltau
from small_study import made_up_record

from renyi_lab.study import DATA_SETS, Measurement, Study, sign_table, tau_by_family

NUM_MODELS = 10


def family(architecture: str, noise: float, signs: Sequence[int], names: Sequence[str], seed: int) -> list:
    """Models with as many measures as signs, each the sign times the gap plus noise."""
    rng = np.random.default_rng(seed)
    gaps = rng.permutation(NUM_MODELS) / NUM_MODELS
    values = {name: sign * gaps + noise * rng.normal(size=NUM_MODELS) for name, sign in zip(names, signs, strict=True)}
    return [
        made_up_record(
            architecture=architecture,
            lr=0.01 * (k + 1),  # every model a setting of its own
            test_loss=0.1 + gap,
            test_accuracy=1 - gap,
            measurement=Measurement({name: float(value[k]) for name, value in values.items()}),
        )
        for k, gap in enumerate(gaps)
    ]


NAMES = ("up", "down", "turning", "up [first]")
STUDIES = {
    "one": Study((*family("mlp", 0.15, (1, -1, 1, 1), NAMES, 0), *family("cnn1d", 0.15, (1, -1, 1, 1), NAMES, 1))),
    "two": Study(tuple(family("mlp", 0.15, (1, -1, -1, 1, 1), (*NAMES, "only here"), 2))),
}


def test_tau_by_family_has_the_tau_of_scipy_for_every_part_and_the_measures_that_all_share() -> None:
    table = tau_by_family(STUDIES, "error")
    assert table.index.names == ["measure", "data set", "architecture"]
    assert table.index.get_level_values("measure").unique().tolist() == ["up", "down", "turning"]
    for (measure, study, architecture), row in table.iterrows():
        records = STUDIES[study].select(architecture=architecture).records
        values = [record.measurement.values[measure] for record in records]
        assert row["tau"] == pytest.approx(kendalltau(values, [record.error_gap for record in records]).statistic)
        assert row["low"] - 1e-12 <= row["tau"] <= row["high"] + 1e-12
        assert row["num_models"] == NUM_MODELS


def test_a_sign_is_kept_only_if_every_part_has_it() -> None:
    table = sign_table(STUDIES)
    assert table["sign"].to_dict() == {"up": "+", "down": "−", "turning": "mixed"}
    assert table["num_parts"].tolist() == [3] * 3
    taus = tau_by_family(STUDIES)["tau"].groupby(level="measure", sort=False)
    assert table["smallest"].tolist() == taus.min().tolist()
    assert table["largest"].tolist() == taus.max().tolist()


def test_a_sign_is_certain_if_every_interval_excludes_zero() -> None:
    strong = Study(tuple(family("mlp", 0.1, (1,), ("a",), 3)))
    weak = Study(tuple(family("mlp", 1.0, (1,), ("a",), 7)))
    taus = tau_by_family({"strong": strong, "weak": weak})
    assert taus["low"].iloc[0] > 0 > taus["low"].iloc[1]
    assert taus["tau"].iloc[1] > 0
    both = sign_table({"strong": strong, "weak": weak}).loc["a"]
    assert (both["sign"], both["certain"], both["positive"], both["negative"]) == ("+", False, 1, 0)
    alone = sign_table({"strong": strong}).loc["a"]
    assert (alone["sign"], alone["certain"], alone["positive"], alone["negative"]) == ("+", True, 1, 0)


def test_an_undefined_tau_has_no_sign() -> None:
    constant = [replace(r, measurement=Measurement({"a": 1.0})) for r in family("mlp", 0, (1,), ("a",), 0)]
    row = sign_table({"one": Study(tuple(constant))}).loc["a"]
    assert (row["sign"], row["certain"]) == ("mixed", False)


@pytest.mark.parametrize("gap", ["loss", "error"])
def test_the_standard_studies_have_six_parts_and_every_whole_network_measure(gap: str) -> None:
    table = sign_table({name: Study.standard(data_set=name) for name in DATA_SETS}, gap)
    assert table["num_parts"].tolist() == [6] * len(table)
    assert {"renyi_sharpness_1.5", "trace", "parameter_norm", "average_case_sharpness"} <= set(table.index)
    assert set(table["sign"]) <= {"+", "−", "mixed"}
    assert ((table["positive"] + table["negative"]) <= 6).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: sign_table(STUDIES["one"]), TypeError, r"studies must map names to studies.*got Study"),
        (lambda: sign_table({"one": 3}), TypeError, "studies must map names to studies"),
        (lambda: sign_table({}), ValueError, "studies is empty"),
        (lambda: sign_table({"none": Study(())}), ValueError, "study 'none' has no records"),
        (
            lambda: sign_table({k: Study(tuple(family("mlp", 1, (1,), (k,), 0))) for k in ("a", "b")}),
            ValueError,
            "the studies share no measure of the whole network",
        ),
        (lambda: sign_table(STUDIES, "test"), ValueError, "gap must be one of 'loss', 'error'"),
        (
            lambda: sign_table({"one": Study(tuple(made_up_record(train_accuracy=0.5, seed=k) for k in range(5)))}),
            ValueError,
            "study 'one' has no model of architecture 'mlp' at a minimum",
        ),
    ],
)
def test_messages(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
