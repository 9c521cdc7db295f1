"""What a checker answers: a verdict and a hint, never a traceback."""

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
    return None if number_of(answer_of(function)) == 2 else "2 is asked for"


def raises(error: BaseException) -> Any:
    def function() -> None:
        raise error

    return function


@pytest.mark.parametrize("attempt", [None, ..., (2, ...), [None], {"a": 1, "b": ...}, (1, [2, ...])])
def test_a_stub_left_as_it_was_counts_as_not_attempted(attempt: Any) -> None:
    feedback = first_hint(attempt, [too_small], "praise")
    assert feedback.status == "not attempted yet"
    assert not feedback.solved


@pytest.mark.parametrize("returned", [None, ..., (1, ...)])
def test_a_function_that_returns_nothing_counts_as_not_attempted(returned: Any) -> None:
    feedback = first_hint(lambda: returned, [returns_two], "praise")
    assert feedback == Feedback("not attempted yet", "the function returns nothing so far.")


def test_the_first_question_that_fails_gives_the_hint() -> None:
    questions = [too_small, too_large]
    assert first_hint(0, questions, "praise") == Feedback("not yet", "larger than 1")
    assert first_hint(4, questions, "praise") == Feedback("not yet", "smaller than 3")
    assert first_hint(2, questions, "praise") == Feedback("solved", "praise")
    assert first_hint(2, questions, "praise").solved


def test_an_error_of_the_attempt_becomes_a_hint_that_quotes_it() -> None:
    feedback = first_hint(raises(KeyError("theta")), [returns_two], "praise")
    assert feedback == Feedback("not yet", "your code raised KeyError: 'theta'")


def test_an_error_while_looking_at_the_answer_is_not_blamed_on_the_code() -> None:
    feedback = first_hint("two", [too_small], "praise")
    assert feedback.status == "not yet"
    assert "looking at your answer raised TypeError" in feedback.message


def test_an_interrupt_is_not_swallowed() -> None:
    with pytest.raises(KeyboardInterrupt):
        first_hint(raises(KeyboardInterrupt()), [returns_two], "praise")


def test_the_result_of_a_call_in_place_of_the_function_is_named() -> None:
    assert "pass its name, do not call it" in first_hint(2.0, [returns_two], "praise").message


@pytest.mark.parametrize("answer", [2, 2.0, np.float32(2), np.array(2.0), torch.tensor(2.0, requires_grad=True)])
def test_one_number_is_one_number_in_any_library(answer: Any) -> None:
    assert number_of(answer) == 2.0


@pytest.mark.parametrize("answer", [[1.0, 2.0], "two", np.ones(3), torch.ones(2)])
def test_what_is_not_one_number_is_named_in_the_hint(answer: Any) -> None:
    with pytest.raises(Hint, match="one number is asked for"):
        number_of(answer)


def test_blank_answers_end_the_questions() -> None:
    with pytest.raises(NotAttempted):
        answer_of(lambda x: None, 1)


def test_feedback_is_readable_as_text_and_safe_as_html() -> None:
    feedback = Feedback("not yet", "needs x < 1 & y")
    assert repr(feedback) == "not yet: needs x < 1 & y"
    assert "needs x &lt; 1 &amp; y" in feedback._repr_html_()
    assert repr(Feedback("solved")) == "solved"
