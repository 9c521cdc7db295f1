"""A checker returns a status and a hint, never a traceback."""

from __future__ import annotations

import random
import sys
from typing import Any

import numpy as np
import pytest
import torch

import renyi_lab as rl
from renyi_lab.exercises import Feedback
from renyi_lab.exercises._feedback import (
    Hint,
    NotAttempted,
    answer_of,
    close,
    explain,
    first_hint,
    number_of,
    tensor_of,
)


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


@pytest.mark.parametrize(
    "answer",
    [
        [1.0, 2.0],
        (2.0,),
        "two",
        "2.0",
        2j,
        np.ones(3),
        np.array("2.0"),
        np.complex128(2),
        torch.ones(2),
        torch.tensor(2j),
        torch.ones((), device="meta"),
        {2.0},
        max,
        float,
    ],
)
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


def generator(x: Any) -> Any:
    yield x


async def coroutine(x: Any) -> Any:
    return x


def overwriting(x: Any) -> Any:
    x += 1
    return 2.0


def without_gradients(x: Any) -> float:
    torch.set_grad_enabled(False)
    return 2.0


def in_double(x: Any) -> float:
    torch.set_default_dtype(torch.float64)
    return 2.0


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (generator, "return instead of yield"),
        (coroutine, "return instead of yield or async"),
        (lambda x: (value for value in [x]), "a value is expected, got a generator"),
        (Feedback, "got the class Feedback"),
        (
            lambda: 2.0,
            "called with 1 argument, in this order, but yours takes ()",
        ),
        (lambda x, y: 2.0, "yours takes (x, y)"),
        (lambda x, *, y: 2.0, "yours takes (x, *, y)"),
        (overwriting, "x itself was changed"),
        (without_gradients, "leaves the gradient mode changed"),
        (in_double, "default dtype changed"),
        (lambda x: sys.exit(), "your code raised SystemExit"),
        (lambda x: raises(Unprintable())(), "your code raised Unprintable: "),
        (lambda x: raises(ValueError("one\ntwo"))(), "your code raised ValueError: one"),
        (lambda x: (lambda f: f(f))(lambda f: f(f)), "your code raised RecursionError"),
    ],
)
def test_what_goes_wrong_in_a_call_becomes_a_hint(function: Any, message: str) -> None:
    settings = torch.is_grad_enabled(), torch.get_default_dtype()
    for _ in range(2):
        feedback = first_hint(function, [lambda f: str(answer_of(f, torch.ones(2)))], "well done")
        assert feedback.status == "not yet"
        assert message in feedback.message
        assert "\n" not in feedback.message
    assert (torch.is_grad_enabled(), torch.get_default_dtype()) == settings


def test_the_number_of_threads_is_restored() -> None:
    threads = torch.get_num_threads()

    def with_more_threads(x: Any) -> float:
        torch.set_num_threads(threads + 1)
        return 2.0

    assert first_hint(with_more_threads, [lambda f: str(answer_of(f, torch.ones(2)))], "well done").message == "2.0"
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    "argument", [torch.ones(2), np.ones(2), [np.ones(2)], (torch.ones(2),), {"a": np.ones(2)}, torch.nn.Linear(2, 2)]
)
def test_overwritten_arguments_of_any_kind_are_noticed(argument: Any) -> None:
    def overwrite(value: Any) -> float:
        if isinstance(value, torch.nn.Module):
            torch.nn.init.zeros_(value.weight)
        elif isinstance(value, (list, tuple, dict)):
            overwrite(next(iter(value.values() if isinstance(value, dict) else value)))
        else:
            value[0] = 5
        return 2.0

    with pytest.raises(Hint, match="value itself was changed"):
        answer_of(overwrite, argument)
    assert answer_of(lambda value: 2.0, argument) == 2.0


def test_a_signature_is_named_where_the_attempt_takes_other_arguments() -> None:
    feedback = first_hint(lambda x: 2.0, [], "well done", signature="(theta, v)")
    assert "is called with (theta, v), in this order, but yours takes (x)" in feedback.message
    assert first_hint(lambda *args, **options: 2.0, [], "well done", signature="(theta, v)").solved
    assert first_hint(max, [], "well done", signature="(theta, v)").solved
    assert first_hint(rl.renyi_entropy, [], "well done", signature="(p, alpha)").solved


def test_random_states_are_restored_and_printing_is_allowed(capsys: pytest.CaptureFixture[str]) -> None:
    def draws() -> float:
        print("drawing")
        torch.rand(1), np.random.rand(1), random.random()
        return 2.0

    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    assert first_hint(draws, [returns_two], "well done").solved
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]
    assert "drawing" in capsys.readouterr().out


def test_a_list_that_contains_itself_gives_a_hint() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert first_hint(endless, [too_small], "well done").status == "not yet"


def test_answers_that_are_not_finite_are_named() -> None:
    assert explain(np.nan, 1.0, {}, "compare") == "your answer is NaN or infinite: compare"
    assert explain(np.nan, np.nan, {}, "compare") is None
    assert explain(np.nan, 1.0, {"divided by zero": np.nan}, "compare") == "divided by zero"
    assert explain(2.0, 1.0, {}, "compare") == "compare"


def test_text_and_complex_numbers_are_not_close_to_numbers() -> None:
    assert close([1, 2], [1.0, 2.0])
    assert not close("1.0", 1.0)
    assert not close(1 + 1j, 1.0)


def test_tensors_of_another_dtype_or_layout() -> None:
    with pytest.raises(Hint, match=r"floating-point numbers is expected, got dtype torch.int64"):
        tensor_of(torch.ones(2, dtype=torch.long), (2,))
    with pytest.raises(Hint, match=r"got dtype torch.complex64"):
        tensor_of(torch.ones(2, dtype=torch.complex64), (2,))
    with pytest.raises(Hint, match=r"the answer has dtype torch.float32, the arguments have torch.float64"):
        tensor_of(torch.ones(2), (2,), torch.float64)
    assert torch.equal(tensor_of(torch.ones(2, requires_grad=True), (2,)), torch.ones(2).double())
    assert torch.equal(tensor_of(torch.ones(2).to_sparse(), (2,)), torch.ones(2).double())


def test_otherwise_gives_the_attempt_once_it_is_solved_and_the_library_until_then() -> None:
    assert Feedback("solved").otherwise(max, min).function is max
    assert Feedback("not yet").otherwise(max, min).function is min
    assert Feedback("not attempted yet").otherwise(None, min).function is min
