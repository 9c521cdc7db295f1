"""Checkers of the exercises of `07_does_it_correlate.ipynb`: pooled τ, τ within families, and the price of choosing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from renyi_lab._utils.typing import FloatArray
from renyi_lab.exercises._feedback import TOLERANCE, Feedback, answer_of, explain, first_hint, number_of


def check_pooled_tau(two_of_four: Any, three_of_four: Any, ten_and_two: Any) -> Feedback:
    """Predict τ over families in each of which τ = 1, whereas every pair of models of different families is discordant.

    Args:
        two_of_four: τ over two families of four models.
        three_of_four: τ over three families of four models.
        ten_and_two: τ over a family of ten models and one of two.
    """
    between = "here only pairs of different families count; those within a family are concordant."
    cases: list[tuple[str, float, dict[str, float]]] = [
        (
            "two_of_four",
            (12 - 16) / 28,
            {
                "τ is no average over families: 16 pairs lie between them.": 1.0,
                between: -1.0,
                "sign: 12 − 16.": 1 / 7,
            },
        ),
        (
            "three_of_four",
            (18 - 48) / 66,
            {"there are three pairs of families, so 3 · 16 pairs between them.": (18 - 16) / 34, between: -1.0},
        ),
        (
            "ten_and_two",
            (46 - 20) / 66,
            {
                "the pair in the small family counts, too.": (45 - 20) / 65,
                between: -1.0,
                "sign: 46 − 20.": -26 / 66,
            },
        ),
    ]

    def check(index: int) -> Callable[[Any], str | None]:
        name, right, mistakes = cases[index]
        hints = {f"{name}: {hint}": wrong for hint, wrong in mistakes.items()}
        otherwise = f"{name}: count concordant pairs (within families) minus discordant ones (between), over all pairs."
        return lambda given: (
            _rounded(name, given[index], right) or explain(number_of(given[index]), right, hints, otherwise)
        )

    return first_hint(
        (two_of_four, three_of_four, ten_and_two),
        [check(index) for index in range(len(cases))],
        "the more families and the more equal their sizes, the more pairs lie between them, and decide the pooled τ.",
    )


def _rounded(name: str, given: Any, right: float) -> str | None:
    error = abs(number_of(given) - right)
    return f"{name}: right, but rounded; enter the fraction." if TOLERANCE < error <= 0.0051 else None


def check_within_tau(function: Callable[[FloatArray, FloatArray, Any], Any]) -> Feedback:
    """Check ``function(x, y, family)``: τ_b over the pairs of models of equal family only.

    Args:
        function: Your solution; takes two arrays and an array of names, all of equal length, and returns one number.
    """
    return first_hint(
        function,
        [_shifted_families, _unequal_families],
        "no difference between families can produce or hide such a τ.",
        signature="(x, y, family)",
    )


def _within(x: FloatArray, y: FloatArray, same: Any) -> float:
    a, b = (np.where(same, np.sign(values[:, None] - values), 0.0) for values in (x, y))
    return float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))


def _product_sum(x: FloatArray, y: FloatArray, same: Any) -> float:
    return float(np.where(same, np.sign(x[:, None] - x) * np.sign(y[:, None] - y), 0).sum())


def _within_hint(function: Callable[..., Any], x: FloatArray, y: FloatArray, family: Any) -> str | None:
    same = family[:, None] == family
    every = np.ones_like(same)
    parts = [family == name for name in np.unique(family)]
    taus = [_within(x[part], y[part], every[part][:, part]) for part in parts]
    all_pairs = _product_sum(x, y, same) / np.sqrt(
        (np.sign(x[:, None] - x) ** 2).sum() * (np.sign(y[:, None] - y) ** 2).sum()
    )
    tied = (
        "these pairs are the right ones, but tied ones do not count below: multiply the signs by the mask, as in τ_b."
    )
    mistakes = {
        "this is the pooled τ; leave out the pairs of different families.": _within(x, y, every),
        "this is τ over the pairs of different families; take the others.": _within(x, y, ~same),
        "this is the mean of the families' τ; every pair should count the same, so large families count more.": float(
            np.mean(taus)
        ),
        "pairs of different families were left out above, but not in the denominator.": float(all_pairs),
        tied: _product_sum(x, y, same) / float(same.sum() - len(x)),
        "this is a weighted mean of the families' τ; with ties it differs from one sum over all families.": float(
            np.average(taus, weights=[part.sum() * (part.sum() - 1) for part in parts])
        ),
    }
    return explain(
        number_of(answer_of(function, x.copy(), y.copy(), family.copy())),
        _within(x, y, same),
        mistakes,
        "set the signs of pairs of different families to 0, in x and in y, and use the formula of section 2.",
    )


def _shifted_families(function: Callable[..., Any]) -> str | None:
    x, y = np.array([1.0, 2, 3, 4, 11, 12, 13, 14]), np.array([21.0, 22, 24, 23, 1, 2, 3, 4])
    return _within_hint(function, x, y, np.array(["mlp"] * 4 + ["cnn"] * 4))


def _unequal_families(function: Callable[..., Any]) -> str | None:
    x, y = np.array([1.0, 1, 3, 5, 5, 6, 0, 9]), np.array([2.0, 1, 2, 5, 4, 6, 8, 3])
    return _within_hint(function, x, y, np.array(["mlp", "cnn", "mlp", "mlp", "mlp", "mlp", "cnn", "cnn"]))


def check_best_of_many(function: Callable[[FloatArray, float], Any]) -> Feedback:
    """Check ``function(shuffled, best)``: the p-value of the largest |τ| of several measures.

    Args:
        function: Your solution; takes an array of τ on shuffled gaps, one row per shuffle and one column per measure,
            and the τ of the measure that was chosen for its largest |τ|; returns (1 + number of shuffles in which some
            measure does at least as well) / (1 + number of shuffles).
    """
    return first_hint(
        function,
        [_best_of_four, _negative_best],
        "choosing the best of many is part of the procedure, so the shuffles have to choose, too.",
        signature="(shuffled, best)",
    )


def _p_value(shuffled: FloatArray, best: float) -> float:
    return float((1 + (np.abs(shuffled).max(axis=1) >= abs(best)).sum()) / (1 + len(shuffled)))


def _p_value_hint(function: Callable[..., Any], shuffled: FloatArray, best: float) -> str | None:
    size, count = np.abs(shuffled), len(shuffled)
    mistakes = {
        "this treats the measure as the only one: count the shuffles in which any of the measures does as well.": (
            1 + (size >= abs(best)).sum()
        )
        / (1 + size.size),
        "this is the share of single τ that do as well; take the largest |τ| of each shuffle first.": (
            size >= abs(best)
        ).mean(),
        "the observed gaps are one of the possible orders, too: add 1 above and below.": (
            size.max(axis=1) >= abs(best)
        ).mean(),
        "add 1 below as well as above.": (1 + (size.max(axis=1) >= abs(best)).sum()) / count,
        "the best is chosen by |τ|, so a large negative τ in a shuffle does as well: use absolute values.": (
            1 + (shuffled.max(axis=1) >= abs(best)).sum()
        )
        / (1 + count),
        "a shuffle that does exactly as well counts: ≥ instead of >.": (1 + (size.max(axis=1) > abs(best)).sum())
        / (1 + count),
        "the sign of best does not matter: use |best|.": (1 + (size.max(axis=1) >= best).sum()) / (1 + count),
        "one row is one shuffle: the largest of a row, max(axis=1).": (1 + (size.max(axis=0) >= abs(best)).sum())
        / (1 + shuffled.shape[1]),
        "inverted: count the shuffles that do at least as well, not those that do worse.": (
            1 + (size.max(axis=1) < abs(best)).sum()
        )
        / (1 + count),
    }
    return explain(
        number_of(answer_of(function, shuffled.copy(), best)),
        _p_value(shuffled, best),
        mistakes,
        "in each row take the largest |τ|; count the rows where it is at least |best|; then (1 + count)/(1 + rows).",
    )


def _shuffles() -> FloatArray:
    rows = np.random.default_rng(3).normal(scale=0.15, size=(39, 4)).clip(-0.9, 0.9)
    rows[0], rows[1] = (0.1, 0.2, 0.25, -0.1), (0.1, -0.25, 0.0, 0.2)  # exactly as good as `best` below
    return rows


def _best_of_four(function: Callable[..., Any]) -> str | None:
    return _p_value_hint(function, _shuffles(), 0.25)


def _negative_best(function: Callable[..., Any]) -> str | None:
    return _p_value_hint(function, _shuffles(), -0.25)
