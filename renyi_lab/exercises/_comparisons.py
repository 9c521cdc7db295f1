"""Checkers of `08b_sam_family.ipynb` on fair comparisons: equal cost, and the lead of the best of several."""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist
from typing import Any

from renyi_lab.exercises._feedback import Feedback, Hint, answer_of, explain, first_hint, number_of


def check_equal_gradients(sam: Any, with_plain_epochs: Any, every_fifth: Any) -> Feedback:
    """Check the numbers of epochs that cost as many gradients as 60 epochs of plain SGD.

    Args:
        sam: Epochs of SAM.
        with_plain_epochs: Epochs in all, when the first ten are plain and the others SAM's.
        every_fifth: Epochs, when every fifth step is SAM's and the others are plain.
    """
    return first_hint(
        (sam, with_plain_epochs, every_fifth),
        [_epochs],
        "the fewer second gradients, the more steps the same budget allows.",
    )


def check_chance_of_lead(function: Callable[[int, float], Any]) -> Feedback:
    """Check ``function(num_methods, threshold)``: the probability that at least one of equal methods seems to lead.

    Args:
        function: Your solution; ``threshold`` is in standard errors. Each method's difference to the baseline is taken
            to be normal with mean 0, independent of the others.
    """
    return first_hint(
        function,
        [_chances],
        "nineteen methods without any effect give a lead of two standard errors in more than one of three experiments.",
        signature="(num_methods, threshold)",
    )


def _epochs(answers: tuple[Any, Any, Any]) -> str | None:
    names = ("sam", "with_plain_epochs", "every_fifth")
    values = [_named_number(name, answer) for name, answer in zip(names, answers, strict=True)]
    wanted: tuple[tuple[float, dict[str, float], str], ...] = (
        (30.0, {"a SAM step costs two gradients, not one.": 60.0, "half of 60, not twice.": 120.0}, "60 = 2 · epochs."),
        (
            35.0,
            {
                "these are SAM's epochs; the ten plain ones count as well.": 25.0,
                "the ten plain epochs cost one gradient per step.": 30.0,
            },
            "10 + 2 (epochs − 10) = 60.",
        ),
        (
            50.0,
            {"five steps cost six gradients, not ten.": 30.0, "the fifth step costs two gradients.": 60.0},
            "five steps, one of them SAM's, cost six gradients.",
        ),
    )
    for name, value, (right, mistakes, otherwise) in zip(names, values, wanted, strict=True):
        hint = explain(value, right, mistakes, otherwise)
        if hint is not None:
            return f"{name}: {hint}"
    return None


def _named_number(name: str, answer: Any) -> float:
    try:
        return number_of(answer)
    except Hint as hint:
        raise Hint(f"{name}: {hint}") from None


def _chances(function: Callable[..., Any]) -> str | None:
    for num_methods, threshold in ((1, 2.0), (4, 2.0), (19, 2.0), (4, 0.0), (3, 1.0)):
        answer = number_of(answer_of(function, num_methods, threshold))
        below = NormalDist().cdf(threshold)
        mistakes = {
            "this is the probability of no lead: subtract it from 1.": below**num_methods,
            "this is the probability that all methods lead.": (1 - below) ** num_methods,
            "this is for one method; of several, one is enough.": 1 - below,
            "a sum of probabilities counts experiments with two leads twice: use the probability of no lead.": (
                num_methods * (1 - below)
            ),
            "a lead is a difference above the threshold; one below −threshold is none.": (
                1 - (2 * below - 1) ** num_methods
            ),
        }
        hint = explain(
            answer, 1 - below**num_methods, mistakes, "no method leads if each stays below; they are independent."
        )
        if hint is not None:
            return f"{num_methods} methods, threshold {threshold:g}: {hint}"
    return None
