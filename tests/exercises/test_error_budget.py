"""The checker of the error budget accepts what the laws give and explains typical mistakes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from renyi_lab.exercises import check_error_budget


def test_the_answers_of_the_laws_are_accepted_twice() -> None:
    covered = norm.cdf(0) - norm.cdf(-4)  # |2 + z| ≤ 2
    for _ in range(2):
        assert check_error_budget(4, 8 ** (1 / 1.5), covered).solved
    assert check_error_budget(np.float64(4), 4.0, 0.5).solved


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ((2, 4, 0.5), "by √2 only"),
        ((0.25, 4, 0.5), "invert the factor"),
        ((16, 4, 0.5), "halves the error twice"),
        ((5, 4, 0.5), "falls like 1/√k"),
        ((4, 8, 0.5), "right for p = 1"),
        ((4, np.sqrt(8), 0.5), "min(α, 1) is 1 here"),
        ((4, 8**1.5, 0.5), "that is 8^p"),
        ((4, 64, 0.5), "the law of probes"),
        ((4, 0.25, 0.5), "more steps are needed"),
        ((4, 3, 0.5), "factor^−p = 1/8"),
        ((4, 4, 0.95), "without a bias"),
        ((4, 4, 0.05), "the share outside"),
        ((4, 4, 0), "single ones scatter"),
        ((4, 4, 50), "not a percentage"),
        ((4, 4, 0.7), "|2 + z| ≤ 2"),
        ((4, 4, float("nan")), "NaN or infinite"),
        (("four", 4, 0.5), "one number is expected"),
        ((..., 4, 0.5), "not attempted yet"),
        ((4, 4, None), "not attempted yet"),
    ],
)
def test_messages(answers: tuple[Any, Any, Any], message: str) -> None:
    feedback = check_error_budget(*answers)
    assert not feedback.solved
    assert message in repr(feedback)
