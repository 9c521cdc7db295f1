"""Checkers of Kendall's τ and the bootstrap in `07_does_it_correlate.ipynb`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from renyi_lab._utils.typing import FloatArray
from renyi_lab.exercises._feedback import Feedback, Hint, answer_of, close, explain, first_hint, number_of

_NUM_RESAMPLES = 200
_LABELS = np.array(["c", "a", "a", "b", "a", "d", "a", "a", "a", "a", "b", "a"])  # one large group, three small ones


def check_kendall(function: Callable[[FloatArray, FloatArray], Any]) -> Feedback:
    """Check ``function(x, y)``: Kendall's τ_b of two vectors, which may have ties.

    Until it is solved, `Feedback.function` is the library's own version.

    Args:
        function: Your solution; takes two NumPy arrays of equal length and returns one number.
    """
    feedback = first_hint(
        function,
        [_without_ties, _with_ties],
        "a pair counts +1 if both differences have the same sign, −1 if not, and 0 for a tie.",
        signature="(x, y)",
    )
    return feedback.otherwise(function, _tau_b)


def _signs(x: FloatArray) -> FloatArray:
    return np.sign(x[:, None] - x)


def _tau_b(x: FloatArray, y: FloatArray) -> float:
    a, b = _signs(x), _signs(y)
    return float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))


def _tau_of(function: Callable[..., Any], x: FloatArray, y: FloatArray) -> float:
    return number_of(answer_of(function, x.copy(), y.copy()))


def _without_ties(function: Callable[..., Any]) -> str | None:
    x, y = np.array([0.3, 1.0, 8.0, 2.0, 4.0]), np.array([-2.0, 5.0, 30.0, 1.0, 3.0])
    x_ranks, y_ranks = (np.argsort(np.argsort(values)) for values in (x, y))
    concordant, pairs = 8, 10
    mistakes = {
        "this is Pearson's correlation, which depends on the sizes of the differences; use only their signs.": float(
            np.corrcoef(x, y)[0, 1]
        ),
        "this is Spearman's correlation of ranks; Kendall's counts pairs.": float(np.corrcoef(x_ranks, y_ranks)[0, 1]),
        "this is the share of concordant pairs; discordant ones must count −1.": concordant / pairs,
        "the sign is wrong: a pair whose differences have equal signs counts +1.": -_tau_b(x, y),
        "this is a sum over pairs; divide it by the square root of the two sums of squared signs.": 2.0 * concordant
        - pairs,
        "this is a sum over pairs, each counted twice; divide it.": 2.0 * (2 * concordant - pairs),
        "twice τ: the numerator counts each pair twice, the denominator once.": 2 * _tau_b(x, y),
        "half of τ: the denominator counts each pair twice, the numerator once.": _tau_b(x, y) / 2,
        "all n² pairs were counted in the denominator; a model has no pair with itself.": _tau_b(x, y) * 4 / 5,
    }
    return explain(
        _tau_of(function, x, y),
        _tau_b(x, y),
        mistakes,
        "for each pair multiply the signs of x_i − x_j and y_i − y_j, add up, and divide as in the formula.",
    )


def _with_ties(function: Callable[..., Any]) -> str | None:
    x, y = np.array([1.0, 1.0, 2.0, 3.0, 3.0, 3.0]), np.array([1.0, 2.0, 2.0, 1.0, 4.0, 5.0])
    products, pairs = (_signs(x) * _signs(y)).sum() / 2, len(x) * (len(x) - 1) / 2
    untied_x, untied_y = ((_signs(values) ** 2).sum() / 2 for values in (x, y))
    mistakes = {
        "without ties it is right. With ties this is τ_a: tied pairs do not belong in the denominator.": products
        / pairs,
        "without ties it is right. Here pairs tied in x or y were left out; count them separately for each.": products
        / (np.abs(_signs(x) * _signs(y)).sum() / 2),
        "without ties it is right. Both sums belong in the denominator, here only that of x counts.": products
        / untied_x,
        "without ties it is right. Both sums belong in the denominator, here only that of y counts.": products
        / untied_y,
        "without ties it is right. The denominator is the square root of the product of the two sums.": products
        / (untied_x * untied_y),
        "without ties it is right. A tied pair must count 0, not as discordant.": (
            2 * (_signs(x) * _signs(y) > 0).sum() / 2 - pairs
        )
        / pairs,
    }
    return explain(
        _tau_of(function, x, y),
        _tau_b(x, y),
        mistakes,
        "without ties it is right. For ties let np.sign be 0, in the numerator and in both sums below it.",
    )


def check_bootstrap(function: Callable[..., Any]) -> Feedback:
    """Check ``function(statistic, labels, num_resamples, rng)``: a bootstrap that resamples labels with their models.

    Until it is solved, `Feedback.function` is the library's own version.

    Args:
        function: Your solution. For each resample, draws as many labels as there are different ones, with replacement;
            calls ``statistic(rows)`` with the indices of all models of the drawn labels, those of a label drawn twice
            twice; returns an array of the ``num_resamples`` results. All randomness comes from ``rng``.
    """
    feedback = first_hint(
        function,
        [_resamples, _depends_on_rng],
        "models that belong together are drawn together; with a label for each model it is the ordinary bootstrap.",
        signature="(statistic, labels, num_resamples, rng)",
    )
    return feedback.otherwise(function, _bootstrap)


def _bootstrap(
    statistic: Callable[[Any], Any], labels: Any, num_resamples: int, rng: np.random.Generator
) -> FloatArray:
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    draws = rng.integers(len(groups), size=(num_resamples, len(groups)))
    return np.array([statistic(np.concatenate([groups[k] for k in draw])) for draw in draws])


def _run(function: Callable[..., Any], seed: int) -> FloatArray:
    """The number of times that each resample contains each model, one row per resample; raises `Hint`."""
    size = len(_LABELS)
    counts: list[Any] = []
    wrong: list[Any] = []

    def statistic(rows: Any) -> float:
        indices = np.asarray(rows)
        if indices.ndim != 1 or indices.dtype.kind not in "iu" or not np.isin(indices, np.arange(size)).all():
            wrong.append(indices)
            return float(len(wrong))
        counts.append(np.bincount(indices, minlength=size))
        return math.sqrt(len(counts))

    answer = answer_of(function, statistic, _LABELS.copy(), _NUM_RESAMPLES, np.random.default_rng(seed))
    if wrong:
        raise Hint(f"statistic takes a vector of indices of models, 0 to {size - 1}; it was called with another array.")
    if not counts:
        raise Hint("statistic was never called; call it once per resample.")
    values = answer if isinstance(answer, np.ndarray) else np.asarray(list(answer) if _is_sequence(answer) else [])
    if values.shape != (_NUM_RESAMPLES,):
        raise Hint(f"an array with one value per resample is expected, {_NUM_RESAMPLES} here, got {_form(answer)}.")
    if values.dtype.kind not in "biufO":
        raise Hint(f"an array of numbers is expected, got one of dtype {values.dtype}.")
    expected = np.arange(1, len(counts) + 1) ** 0.5
    if len(counts) != _NUM_RESAMPLES or not close(np.sort(values.astype(float)), expected):
        raise Hint("return what statistic gave, once for each resample, and call it for nothing else.")
    return np.asarray(counts)


def _resamples(function: Callable[..., Any]) -> str | None:
    counts, groups = _run(function, 0), [label == _LABELS for label in np.unique(_LABELS)]
    if any(np.ptp(counts[:, group], axis=1).any() for group in groups):
        return "models of one label appear different numbers of times: draw labels, and take all models of each."
    drawn = np.stack([counts[:, group][:, 0] for group in groups], axis=1)
    if (drawn <= 1).all() and (drawn.sum(1) < len(groups)).any():
        return "a label drawn twice must contribute its models twice; np.isin, for example, counts it once."
    if (drawn == 1).all():
        return "every label is drawn exactly once, so every resample is the original: draw with replacement."
    if (drawn.sum(1) == len(_LABELS)).all():
        return f"{len(_LABELS)} labels are drawn, one for each model; draw as many as there are different labels."
    if (drawn.sum(1) != len(groups)).any():
        return f"draw {len(groups)} labels per resample, as many as there are different ones."
    if (drawn == drawn[0]).all():
        return "every resample is the same; draw anew for each."
    means = drawn.mean(axis=0)  # 1 ± 0.06
    if np.abs(means - 1).max() > 0.4:
        often = str(np.unique(_LABELS)[means.argmax()])
        return (
            f"label {often!r} is drawn {means.max():.1f} times on average: draw from the different labels (np.unique)."
        )
    return None


def _depends_on_rng(function: Callable[..., Any]) -> str | None:
    first, again, other = (_run(function, seed) for seed in (1, 1, 2))
    if not np.array_equal(first, again) or np.array_equal(first, other):
        return "right, but the draws do not come from rng: use rng.integers or rng.choice."
    return None


def _is_sequence(answer: Any) -> bool:
    return isinstance(answer, (list, tuple)) and all(isinstance(value, (int, float, np.number)) for value in answer)


def _form(answer: Any) -> str:
    if isinstance(answer, np.ndarray):
        return f"an array of shape {answer.shape}"
    return f"{type(answer).__name__} of length {len(answer)}" if _is_sequence(answer) else type(answer).__name__
