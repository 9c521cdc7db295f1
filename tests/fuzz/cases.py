"""A case: one call of something public, made from a seed and an index, and what became of it."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import os
import re
import shutil
import signal
import tempfile
import unittest.mock
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import torch

from fuzz.objects import IMPORTS, INSTANCES, SHARED, definitions, namespace_for
from fuzz.oracles import wrong
from fuzz.state import fingerprint, global_state, seeded
from fuzz.surface import Target, targets
from fuzz.values import hostile, plausible
from fuzz.verdicts import verdict

for first_import in ("matplotlib.pyplot", "mnist1d.data", "pandas", "scipy.ndimage", "sklearn.model_selection"):
    with contextlib.suppress(ImportError):  # packages that set filters and environment when they are first imported
        importlib.import_module(first_import)
torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)  # imports parts of torch that do

# Seconds of processor time, not of the clock: the same on a busy machine.
LIMIT = 20.0
# Slower than a tenth of a second each, and drawn less often.
SLOW = re.compile(
    "Explorer|certify|bound_report|study|compar|Comparison|Report|Certificate|train|load_network|histor|Checkup|to_html"
)
CHANGES_ITS_ARGUMENTS = re.compile(
    r"\.train$|train_one_sam|step$|\.restore$|load_state_dict|Basis.append|add_param_group|statistics_once|collision_entropy|flatten$"
)
# A module of torch, whose weights are drawn from the global random numbers, as torch's own are.
DRAWS_RANDOM_NUMBERS = "renyi_lab.models.TwoLayer"
# The names of arguments that stand for `**options` and the like.
KEYWORDS = {"options": "lr", "base_kwargs": "lr", "settings": "lr", "axes": "architecture"}
MODES = {"plausible": 0, "one hostile": 1, "two hostile": 2, "all hostile": 99}


@dataclass(frozen=True)
class Case:
    """A call of ``target`` on ``owner``, an expression for methods, with ``arguments`` as pairs of name and source."""

    seed: int
    index: int
    target: Target
    mode: str
    owner: str
    arguments: tuple[tuple[str, str], ...]

    @property
    def call(self) -> str:
        """The call as source."""
        kinds = {parameter.name: parameter.kind for parameter in self.target.parameters}
        by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)
        starred = [p.name for p in self.target.parameters if p.kind is p.VAR_POSITIONAL]
        before = any(name in starred for name, _ in self.arguments)  # then those before it have no names either
        by_position = (*by_position, inspect.Parameter.POSITIONAL_OR_KEYWORD) if before else by_position
        text = [value if kinds.get(name) in by_position else f"{name}={value}" for name, value in self.arguments]
        path, _, name = self.target.name.rpartition(".")
        if self.target.kind == "property":
            return f"{self.owner}.{name}"
        return f"{self.owner or place(path)}.{name}({', '.join(text)})"

    @property
    def reproduction(self) -> str:
        """A few lines of Python that make the same call."""
        return f"{IMPORTS}{definitions(self.call)}result = {self.call}"


@dataclass(frozen=True)
class Failure:
    """Why a case failed: its ``kind``, a ``message`` for people, and the ``place`` in the code that it came from."""

    kind: str
    message: str
    place: str = ""


class Hang(BaseException):
    """The call took longer than allowed. No `Exception`: nothing in the package may catch it."""


def place(path: str) -> str:
    """A module or class of the package as source; modules that the package does not list are imported."""
    module, _, rest = path.removeprefix("renyi_lab").removeprefix(".").partition(".")
    if module in ("posterior", "training", "operators", "krylov", "spectrum", "cli"):
        return f"importlib.import_module('renyi_lab.{module}')" + (f".{rest}" if rest else "")
    return ".".join(part for part in ("rl", module, rest) if part)


def case_at(seed: int, index: int) -> Case:
    """The case of a seed and an index."""
    random = Random(f"{seed}-{index}")
    target = random.choice(targets())
    while SLOW.search(target.name) and random.random() > 0.15:
        target = random.choice(targets())
    mode = "plausible" if target.only_plausible else random.choices([*MODES], weights=[3, 5, 2, 1])[0]
    owner = owner_of(target, random) if target.kind in ("method", "property") else ""
    return Case(seed, index, target, mode, owner, arguments_of(target, random, MODES[mode]))


def owner_of(target: Target, random: Random) -> str:
    """An object that has the method: a prepared one, or what the constructor makes of plausible arguments."""
    known = {found.name for found in targets()}
    made = [owner for owner in target.owners if owner.rpartition(".")[2] in INSTANCES or owner in known]
    place_of_class = random.choice(made)
    name = place_of_class.rpartition(".")[2]
    if name in INSTANCES:
        return random.choice(INSTANCES[name])
    constructor = next(found for found in targets() if found.name == place_of_class)
    return Case(0, 0, constructor, "plausible", "", arguments_of(constructor, random, 0)).call


def arguments_of(target: Target, random: Random, num_hostile: int) -> tuple[tuple[str, str], ...]:
    """Values for all required parameters and some of the others; ``num_hostile`` of them are hostile."""
    required = [p for p in target.parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    optional = [p for p in target.parameters if p not in required]
    chosen = required + [p for p in optional if random.random() < 0.4]
    attacked = random.sample(list(target.parameters), min(num_hostile, len(target.parameters)))
    chosen = [p for p in target.parameters if p in chosen or p in attacked]
    found = []
    for parameter in chosen:
        values = plausible(target.name, parameter.name, str(parameter.annotation))
        attack = parameter in attacked or (not values and parameter in required)
        if not attack and not values:
            continue
        value = hostile(parameter, random) if attack else random.choice(values)
        repeats = 3 if parameter.kind is parameter.VAR_POSITIONAL and parameter.name == "widths" else 1
        named = KEYWORDS.get(parameter.name, "extra")
        name = named if parameter.kind is parameter.VAR_KEYWORD else parameter.name
        found += [(name, value)] * repeats
    if target.name.endswith("SAM") or target.name.endswith(("SAGM", "SharpnessAware")):
        found = list(dict([*found, ("lr", "0.1")]).items())
    return tuple(found)


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `Hang` after some seconds of processor time, where the system can."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)


@contextlib.contextmanager
def sandbox() -> Iterator[Path]:
    """A folder of its own as working directory, silence, and no warnings filter of the caller."""
    folder, before = Path(tempfile.mkdtemp()), Path.cwd()
    os.chdir(folder)
    try:
        silent = io.StringIO()
        with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield folder
    finally:
        os.chdir(before)
        shutil.rmtree(folder, ignore_errors=True)


def run(case: Case) -> tuple[Failure | None, str]:
    """Make the call; what is wrong with it, and its outcome: ``"returned"`` or the name of an exception's type."""
    with sandbox() as folder, seeded():
        namespace: dict[str, Any] = {}
        exec(IMPORTS, namespace)
        with unittest.mock.patch.object(tempfile, "tempdir", str(folder)):
            try:
                namespace = namespace_for(case.call, namespace)
                prepared = [eval(value, namespace) for _, value in case.arguments]
                owner = eval(case.owner, namespace) if case.owner else None
            except Exception as error:
                return Failure("the arguments cannot be made", f"{type(error).__name__}: {error}"), "none"
        namespace |= {f"argument{i}": value for i, value in enumerate(prepared)} | {"owner": owner}
        return _called(case, namespace)


def _called(case: Case, namespace: dict[str, Any]) -> tuple[Failure | None, str]:
    names = tuple((name, f"argument{i}") for i, (name, _) in enumerate(case.arguments))
    call = replace(case, arguments=names, owner="owner" if case.owner else "").call
    inputs, before = fingerprint(namespace_values(namespace)), global_state()
    failure, outcome, result = None, "returned", None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        try:
            with time_limit(LIMIT):
                result = consumed(eval(call, namespace))
        except Hang:
            return Failure("hang", f"more than {LIMIT:g} s of processor time"), "hang"
        except Exception as error:
            outcome, found = type(error).__name__, verdict(error, case.target)
            failure = Failure(*found) if found else None
        changed = [] if filters == list(warnings.filters) else ["the filters of warnings"]
    after = global_state()
    changed += [name for name in before if before[name] != after[name]]
    if case.target.name == DRAWS_RANDOM_NUMBERS and outcome == "returned":
        changed.remove("torch's random numbers")
    if not CHANGES_ITS_ARGUMENTS.search(case.target.name) and fingerprint(namespace_values(namespace)) != inputs:
        changed += ["an argument"]
    raw = [str(w.message) for w in caught if re.search(r" encountered in |invalid value|overflow", str(w.message))]
    if changed:
        failure = Failure("changed state", f"changed {', '.join(changed)}")
    elif failure is None and raw:
        failure = Failure("raw warning", raw[0])
    elif failure is None and outcome == "returned":
        try:
            found = wrong(case, result, namespace)
        except Exception as error:  # a result that cannot be shown, or is not what the reference expects
            found = f"{type(error).__name__} of the result: {error}"
        failure = Failure("wrong value", found) if found else None
    return failure, outcome


def namespace_values(namespace: dict[str, Any]) -> dict[str, Any]:
    """The objects of a case, without modules, functions and what is shared."""
    return {name: value for name, value in namespace.items() if name not in SHARED and not name.startswith("_")}


def consumed(result: Any) -> Any:
    """``result``; of an iterator the first item, and a context manager is entered and left."""
    if inspect.isgenerator(result):
        return next(result, None)
    if isinstance(result, contextlib.AbstractContextManager) and not isinstance(result, io.IOBase):
        with result:
            return None
    return result
