"""A checker returns a status and a hint, never a traceback."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from renyi_lab.exercises import Feedback
from renyi_lab.exercises._feedback import Hint, NotAttempted, answer_of, first_hint, number_of


def too_small(attempt: float) -> str | None:
    return None if attempt > 1 else "larger than 1"


def too_large(attempt: float) -> str | None:
    return None if attempt < 3 else "smaller than 3"


def returns_two(function: Any) -> str | None:
    return None if number_of(answer_of(function)) == 2 else "2 is expected"


def raises(error: BaseException) -> Any:
    def function() -> None:
        raise error

    return function


@pytest.mark.parametrize("attempt", [None, ..., (2, ...), [None], {"a": 1, "b": ...}, (1, [2, ...])])
def test_an_unchanged_stub_counts_as_not_attempted(attempt: Any) -> None:
    feedback = first_hint(attempt, [too_small], "well done")
    assert feedback.status == "not attempted yet"
    assert not feedback.solved


@pytest.mark.parametrize("returned", [None, ..., (1, ...)])
def test_a_function_that_returns_nothing_counts_as_not_attempted(returned: Any) -> None:
    feedback = first_hint(lambda: returned, [returns_two], "well done")
    assert feedback == Feedback("not attempted yet", "the function returns nothing so far.")


def test_the_first_failing_check_gives_the_hint() -> None:
    checks = [too_small, too_large]
    assert first_hint(0, checks, "well done") == Feedback("not yet", "larger than 1")
    assert first_hint(4, checks, "well done") == Feedback("not yet", "smaller than 3")
    assert first_hint(2, checks, "well done") == Feedback("solved", "well done")
    assert first_hint(2, checks, "well done").solved


def test_an_error_of_the_attempt_becomes_a_hint() -> None:
    feedback = first_hint(raises(KeyError("theta")), [returns_two], "well done")
    assert feedback == Feedback("not yet", "your code raised KeyError: 'theta'")


def test_an_error_while_checking_an_answer_becomes_a_hint() -> None:
    feedback = first_hint("two", [too_small], "well done")
    assert feedback.status == "not yet"
    assert "checking your answer raised TypeError" in feedback.message


def test_an_interrupt_is_raised() -> None:
    with pytest.raises(KeyboardInterrupt):
        first_hint(raises(KeyboardInterrupt()), [returns_two], "well done")


def test_a_result_instead_of_a_function_gives_a_hint() -> None:
    assert "pass its name, do not call it" in first_hint(2.0, [returns_two], "well done").message


@pytest.mark.parametrize("answer", [2, 2.0, np.float32(2), np.array(2.0), torch.tensor(2.0, requires_grad=True)])
def test_scalars_of_any_library_are_numbers(answer: Any) -> None:
    assert number_of(answer) == 2.0


@pytest.mark.parametrize("answer", [[1.0, 2.0], "two", np.ones(3), torch.ones(2)])
def test_other_answers_are_not_numbers(answer: Any) -> None:
    with pytest.raises(Hint, match="one number is expected"):
        number_of(answer)


def test_blank_answers_count_as_not_attempted() -> None:
    with pytest.raises(NotAttempted):
        answer_of(lambda x: None, 1)


def test_feedback_is_plain_text_and_escaped_html() -> None:
    feedback = Feedback("not yet", "needs x < 1 & y")
    assert repr(feedback) == "not yet: needs x < 1 & y"
    assert "needs x &lt; 1 &amp; y" in feedback._repr_html_()
    assert repr(Feedback("solved")) == "solved"
