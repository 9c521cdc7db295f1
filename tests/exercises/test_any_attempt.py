"""Whatever a checker is given, it answers: no attempt ends with an error from inside the package."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from renyi_lab import exercises
from renyi_lab.exercises import Feedback

CHECKERS = [getattr(exercises, name) for name in exercises.__all__ if name.startswith("check_")]


class Odd:
    """Refuses to be a number, an array or a text."""

    def __float__(self) -> float:
        raise RuntimeError("no number")

    def __array__(self, *args: Any, **options: Any) -> Any:
        raise RuntimeError("no array")

    def __repr__(self) -> str:
        raise RuntimeError("no text")


VALUES = [
    None,
    ...,
    True,
    0,
    10**400,
    math.nan,
    -math.inf,
    1j,
    "text",
    b"bytes",
    Odd(),
    object(),
    (),
    [],
    {},
    {1, 2},
    (1, 2),
    [[1.0], [1.0, 2.0]],
    ["a", None],
    {"a": ...},
    np.ones(3),
    np.ones((0, 2)),
    np.array(["a"]),
    np.array([None, 1]),
    np.array(1j),
    np.ma.masked,
    torch.ones(3),
    torch.ones(3, dtype=torch.int64),
    torch.ones(3, dtype=torch.complex64),
    torch.ones(3, dtype=torch.bool),
    torch.ones(3, device="meta"),
    torch.ones(3).to_sparse(),
    torch.full((3, 3), torch.nan),
    torch.ones(3, requires_grad=True),
    torch.nn.Linear(2, 2),
    iter([1.0]),
    range(3),
    int,
    print,
]


def described(value: Any) -> str:
    return f"{type(value).__name__}-{value if isinstance(value, (int, float, str)) and value != 10**400 else ''}"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("value", VALUES, ids=described)
@pytest.mark.parametrize("check", CHECKERS, ids=lambda check: check.__name__)
def test_an_answer_of_any_kind_or_a_function_that_returns_it_is_answered(check: Callable[..., Any], value: Any) -> None:
    count = len(inspect.signature(check).parameters)
    for attempt in (value, lambda *arguments: value):
        for _ in range(2):
            feedback = check(*[attempt] * count)
            assert isinstance(feedback, Feedback)
            assert not feedback.solved, feedback
            assert "\n" not in repr(feedback)
            if feedback.function is not None:
                assert callable(feedback.function)
                assert feedback.function is not attempt
