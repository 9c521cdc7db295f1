"""The checkers of notebook 07's exercises accept the solutions and explain typical mistakes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau

from renyi_lab.exercises import check_best_of_many, check_pooled_tau, check_within_tau


def pooled(*sizes: int) -> float:
    """τ over families of these sizes, rising within each and falling between them."""
    x = np.concatenate([100 * k + np.arange(size) for k, size in enumerate(sizes)])
    y = np.concatenate([-100 * k + np.arange(size) for k, size in enumerate(sizes)])
    return float(kendalltau(x, y).statistic)


def test_the_pooled_tau_of_three_cases_is_that_of_scipy() -> None:
    assert check_pooled_tau(pooled(4, 4), pooled(4, 4, 4), pooled(10, 2)).solved


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((1.0, 0, 0), "two_of_four: τ is no average"),
        ((-1.0, 0, 0), "two_of_four: here only pairs of different families count"),
        ((0.5, 0, 0), "two_of_four: count concordant"),
        ((-4 / 28, 2 / 34, 0), "three_of_four: there are three pairs"),
        ((-4 / 28, -30 / 66, 25 / 65), "ten_and_two: the pair in the small family"),
        ((-0.143, 0, 0), "two_of_four: right, but rounded"),
        (("a", 0, 0), "one number is expected"),
    ],
)
def test_mistakes_of_the_pooled_tau_are_explained(answer: Any, message: str) -> None:
    feedback = check_pooled_tau(*answer)
    assert feedback.status == "not yet"
    assert message in feedback.message


def signs(x: Any) -> Any:
    return np.sign(x[:, None] - x)


def within(x: Any, y: Any, family: Any) -> Any:
    same = family[:, None] == family
    a, b = signs(x) * same, signs(y) * same
    return (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())


def mean_of_families(x: Any, y: Any, family: Any) -> Any:
    return np.mean([kendalltau(x[family == name], y[family == name]).statistic for name in np.unique(family)])


def weighted_mean_of_families(x: Any, y: Any, family: Any) -> Any:
    parts = [family == name for name in np.unique(family)]
    pairs = [part.sum() * (part.sum() - 1) for part in parts]
    return np.average([kendalltau(x[part], y[part]).statistic for part in parts], weights=pairs)


def without_ties(x: Any, y: Any, family: Any) -> Any:
    same = family[:, None] == family
    return (signs(x) * signs(y) * same).sum() / (same.sum() - len(x))


def test_tau_within_families_is_accepted() -> None:
    assert check_within_tau(within).solved


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x, y, family: kendalltau(x, y).statistic, "pooled"),
        (without_ties, "tied ones do not count below"),
        (weighted_mean_of_families, "weighted mean"),
        (lambda x, y, family: within(x, y, np.arange(len(x)) * 0 + 1), "pooled"),
        (mean_of_families, "mean of the families"),
        (
            lambda x, y, family: (
                (signs(x) * signs(y) * (family[:, None] == family)).sum()
                / np.sqrt((signs(x) ** 2).sum() * (signs(y) ** 2).sum())
            ),
            "not in the denominator",
        ),
        (lambda x, y: 0.0, "called with"),
        (lambda x, y, family: None, ""),
    ],
)
def test_mistakes_of_tau_within_families_are_explained(function: Any, message: str) -> None:
    feedback = check_within_tau(function)
    assert not feedback.solved
    assert message in feedback.message


def p_value(shuffled: Any, best: float) -> Any:
    return (1 + (np.abs(shuffled).max(axis=1) >= abs(best)).sum()) / (1 + len(shuffled))


def test_the_p_value_of_the_best_is_accepted() -> None:
    assert check_best_of_many(p_value).solved


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda s, best: (1 + (np.abs(s) >= abs(best)).sum()) / (1 + s.size), "the only one"),
        (lambda s, best: (np.abs(s) >= abs(best)).mean(), "single τ"),
        (lambda s, best: (np.abs(s).max(axis=1) >= abs(best)).mean(), "add 1 above and below"),
        (lambda s, best: p_value(s, best) * (1 + len(s)) / len(s), "add 1 below"),
        (lambda s, best: (1 + (s.max(axis=1) >= abs(best)).sum()) / (1 + len(s)), "absolute values"),
        (lambda s, best: (1 + (np.abs(s).max(axis=1) > abs(best)).sum()) / (1 + len(s)), "instead of >"),
        (lambda s, best: (1 + (np.abs(s).max(axis=1) >= best).sum()) / (1 + len(s)), "use |best|"),
        (lambda s, best: (1 + (np.abs(s).max(axis=0) >= abs(best)).sum()) / (1 + s.shape[1]), "one row is one"),
        (lambda s, best: 1.5, "largest |τ|"),
    ],
)
def test_mistakes_of_the_p_value_are_explained(function: Any, message: str) -> None:
    feedback = check_best_of_many(function)
    assert feedback.status == "not yet"
    assert message in feedback.message
