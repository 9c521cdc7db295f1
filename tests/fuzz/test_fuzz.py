"""Random calls of everything public: none is answered by a raw error, a wrong value, changed state or a hang."""

from __future__ import annotations

import contextlib
import random
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from fuzz import cases
from fuzz.cases import Case, case_at, consumed, run
from fuzz.known import KNOWN_FAULTS
from fuzz.minimise import minimised
from fuzz.surface import Target, signature, targets
from fuzz.verdicts import names_an_argument

NUM_CASES, CHUNK = 500, 50


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, NUM_CASES, CHUNK))
def test_random_calls_are_answered(start: int) -> None:
    for index in range(start, start + CHUNK):
        case = case_at(0, index)
        failure, _ = run(case)
        if failure and (case.target.name, failure.kind) not in KNOWN_FAULTS:
            pytest.fail(f"{failure.kind}: {failure.message}\n{minimised(case, failure).reproduction}")


def test_a_case_is_the_same_whenever_it_is_made() -> None:
    assert [case_at(3, index) for index in range(40)] == [case_at(3, index) for index in range(40)]


def test_classes_methods_and_functions_of_every_module_are_found() -> None:
    names = {target.name for target in targets()}
    assert {"renyi_lab.train", "renyi_lab.Spectrum", "renyi_lab.Spectrum.density", "renyi_lab.bounds.catoni"} <= names
    assert len(names) > 400


def test_a_message_names_an_argument_of_the_call_and_not_of_another() -> None:
    target = next(target for target in targets() if target.name == "renyi_lab.bounds.maurer")
    assert names_an_argument("kl must be a real number, got 'a'.", target)
    assert not names_an_argument("alpha must be a real number, got 'a'.", target)
    assert not names_an_argument("mat1 and mat2 shapes cannot be multiplied", target)


@pytest.mark.parametrize("index", range(4))
def test_what_is_printed_of_a_case_runs_on_its_own(index: int) -> None:
    case = next(case for case in (case_at(index, number) for number in range(100)) if case.mode == "plausible")
    outcome, scope = run(case)[1], {}
    with pytest.raises(Exception) if outcome != "returned" else contextlib.nullcontext():  # noqa: PT011
        exec(case.reproduction, scope)
        consumed(scope["result"])


def leaks_random_numbers(alpha: float) -> float:
    return random.random()


def leaks_a_default(alpha: float) -> None:
    warnings.simplefilter("error")


def stops_raw(alpha: float) -> float:
    return [1.0][5]


def answers_raw(alpha: float) -> Any:
    return np.linalg.solve(np.zeros((1, 1)), np.ones(2))


def changes_its_argument(alpha: Any) -> None:
    alpha.mul_(2)


def never_returns(alpha: float) -> None:
    while True:
        pass


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (leaks_random_numbers, "changed state"),
        (leaks_a_default, "changed state"),
        (changes_its_argument, "changed state"),
        (stops_raw, "undocumented type"),
        (answers_raw, "raw message"),
        (never_returns, "hang"),
    ],
)
def test_planted_faults_are_found(function: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "LIMIT", 0.2)
    monkeypatch.setattr(torch, "planted", function, raising=False)
    monkeypatch.setattr(cases, "place", lambda path: "torch")
    target = Target("renyi_lab.planted", "function", function, (), signature(function))
    failure, _ = run(Case(0, 0, target, "plausible", "", (("alpha", "torch.ones(3)"),)))
    assert failure is not None
    assert failure.kind == kind


def test_a_reproduction_is_small_and_runs() -> None:
    target = next(target for target in targets() if target.name == "renyi_lab.bounds.maurer")
    arguments = (("empirical_loss", "0.1"), ("kl", "1.0"), ("num_samples", "100"), ("delta", "0.01"))
    case = Case(0, 0, target, "plausible", "", arguments)
    scope: dict[str, Any] = {}
    exec(case.reproduction, scope)
    assert scope["result"].value > 0.1
