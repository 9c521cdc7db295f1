"""The checkers of notebook 07's core functions accept solutions and explain typical mistakes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from renyi_lab.exercises import check_bootstrap, check_kendall

NOT_ATTEMPTED = "not attempted yet"
Signs = Callable[[Any], Any]


def signs(x: Any) -> Any:
    return np.sign(x[:, None] - x)


def kendall(x: Any, y: Any) -> Any:
    a, b = signs(x), signs(y)
    return (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())


def loops(x: Any, y: Any) -> float:
    top = in_x = in_y = 0
    for i in range(len(x)):
        for j in range(i):
            a, b = np.sign(x[i] - x[j]), np.sign(y[i] - y[j])
            top, in_x, in_y = top + a * b, in_x + a * a, in_y + b * b
    return float(top / (in_x * in_y) ** 0.5)


@pytest.mark.parametrize("function", [kendall, loops, lambda x, y: stats.kendalltau(x, y).statistic])
def test_kendall_is_accepted(function: Any) -> None:
    feedback = check_kendall(function)
    assert feedback.solved, feedback
    assert feedback.function is function


def test_until_then_the_function_is_that_of_scipy() -> None:
    x, y = np.array([1.0, 2, 2, 3, 5]), np.array([2.0, 1, 1, 3, 3])
    feedback = check_kendall(lambda x, y: ...)
    assert feedback.status == NOT_ATTEMPTED
    assert feedback.function is not None
    assert feedback.function(x, y) == pytest.approx(stats.kendalltau(x, y).statistic)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x, y: np.corrcoef(x, y)[0, 1], "Pearson"),
        (lambda x, y: stats.spearmanr(x, y).statistic, "Spearman"),
        (lambda x, y: -kendall(x, y), "the sign is wrong"),
        (lambda x, y: (signs(x) * signs(y) > 0).sum() / (len(x) * (len(x) - 1)), "share of concordant pairs"),
        (lambda x, y: (signs(x) * signs(y)).sum() / 2, "divide it by"),
        (lambda x, y: (signs(x) * signs(y)).sum(), "each counted twice"),
        (lambda x, y: (signs(x) * signs(y)).mean(), "no pair with itself"),
        (lambda x, y: (signs(x) * signs(y)).sum() / (len(x) * (len(x) - 1)), "τ_a"),
        (lambda x, y: (signs(x) * signs(y)).sum() / np.abs(signs(x) * signs(y)).sum(), "tied in x or y"),
        (lambda x, y: stats.somersd(x, y).statistic, "only that of x"),
        (lambda x, y: stats.somersd(y, x).statistic, "only that of y"),
        (lambda x, y: [kendall(x, y)], "one number is expected"),
        (lambda x: 0.0, "called with"),
        (lambda x, y: np.nan, "NaN"),
        (lambda x, y: (x.sort(), kendall(x, y))[1], "x itself was changed"),
    ],
)
def test_mistakes_of_kendall_are_explained(function: Any, message: str) -> None:
    feedback = check_kendall(function)
    assert feedback.status == "not yet"
    assert message in feedback.message


def bootstrap(statistic: Any, labels: Any, num_resamples: int, rng: Any) -> Any:
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    values = []
    for _ in range(num_resamples):
        draw = rng.choice(len(groups), size=len(groups))
        values.append(statistic(np.concatenate([groups[k] for k in draw])))
    return np.array(values)


def variant(draw: Callable[[Any, Any], Any]) -> Any:
    """A bootstrap whose rows are ``draw(labels, rng)``."""

    def function(statistic: Any, labels: Any, num_resamples: int, rng: Any) -> Any:
        return np.array([statistic(np.asarray(draw(labels, rng))) for _ in range(num_resamples)])

    return function


def rows_of(labels: Any, drawn: Any) -> Any:
    return np.concatenate([np.flatnonzero(labels == label) for label in drawn])


def mean_only(statistic: Any, labels: Any, num_resamples: int, rng: Any) -> Any:
    return bootstrap(statistic, labels, num_resamples, rng).mean()


def one_more(statistic: Any, labels: Any, num_resamples: int, rng: Any) -> Any:
    return bootstrap(statistic, labels, num_resamples + 1, rng)


def calls_twice(statistic: Any, labels: Any, num_resamples: int, rng: Any) -> Any:
    statistic(np.arange(len(labels)))
    return bootstrap(statistic, labels, num_resamples, rng)


def same_draw(statistic: Any, labels: Any, num_resamples: int, rng: Any) -> Any:
    rows = rows_of(labels, rng.choice(np.unique(labels), size=4))
    return np.array([statistic(rows) for _ in range(num_resamples)])


def as_list(*arguments: Any) -> list[float]:
    return list(bootstrap(*arguments))


@pytest.mark.parametrize("function", [bootstrap, as_list])
def test_a_bootstrap_of_groups_is_accepted(function: Any) -> None:
    assert check_bootstrap(function).solved, check_bootstrap(function)


def test_the_library_s_bootstrap_is_accepted_and_resamples_models_with_a_label_each() -> None:
    library = check_bootstrap(None).function
    assert library is not None
    assert check_bootstrap(library).solved
    values = np.random.default_rng(0).normal(size=200)
    means = library(lambda rows: values[rows].mean(), np.arange(200), 1000, np.random.default_rng(1))
    assert means.std() == pytest.approx(values.std() / 200**0.5, rel=0.1)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (variant(lambda labels, rng: rng.integers(len(labels), size=len(labels))), "different numbers of times"),
        (variant(lambda labels, rng: rows_of(labels, rng.permutation(np.unique(labels)))), "with replacement"),
        (variant(lambda labels, rng: rows_of(labels, rng.choice(labels, size=4))), "label 'a' is drawn 2."),
        (variant(lambda labels, rng: rows_of(labels, rng.choice(labels, size=len(labels)))), "one for each model"),
        (variant(lambda labels, rng: rows_of(labels, rng.choice(np.unique(labels), size=3))), "draw 4 labels"),
        (
            variant(lambda labels, rng: np.flatnonzero(np.isin(labels, rng.choice(np.unique(labels), size=4)))),
            "drawn twice",
        ),
        (variant(lambda labels, rng: rows_of(labels, np.random.choice(np.unique(labels), size=4))), "from rng"),
        (
            variant(lambda labels, rng: rows_of(labels, np.random.default_rng().choice(np.unique(labels), size=4))),
            "from rng",
        ),
        (variant(lambda labels, rng: rng.choice(labels, size=4)), "vector of indices"),
        (lambda *given: bootstrap(*given).astype(str), "array of numbers"),
        (mean_only, "one value per resample"),
        (one_more, "one value per resample"),
        (calls_twice, "call it for nothing else"),
        (same_draw, "every resample is the same"),
        (lambda statistic, labels, num_resamples, rng: np.zeros(num_resamples), "never called"),
        (lambda statistic, labels, num_resamples: 0, "called with"),
    ],
)
def test_mistakes_of_the_bootstrap_are_explained(function: Any, message: str) -> None:
    feedback = check_bootstrap(function)
    assert feedback.status == "not yet"
    assert message in feedback.message


def test_the_random_state_of_numpy_is_not_moved() -> None:
    np.random.seed(0)
    before = np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    check_bootstrap(variant(lambda labels, rng: rows_of(labels, np.random.choice(np.unique(labels), size=4))))
    assert np.array_equal(before, np.random.get_state()[1])  # type: ignore[index]
