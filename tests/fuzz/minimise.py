"""A failing case made small: arguments that do not matter are left out or replaced by plausible ones."""

from __future__ import annotations

from dataclasses import replace

from fuzz.cases import Case, Failure, run
from fuzz.values import plausible


def minimised(case: Case, failure: Failure) -> Case:
    """The smallest case found that fails in the same way."""
    for name in [name for name, _ in case.arguments]:
        parameter = next((p for p in case.target.parameters if p.name == name), None)
        if parameter is None or parameter.kind is parameter.VAR_POSITIONAL:
            continue
        simpler = [] if parameter.default is parameter.empty else [tuple(a for a in case.arguments if a[0] != name)]
        for value in plausible(case.target.name, name, str(parameter.annotation))[:1]:
            simpler.append(tuple((key, value if key == name else old) for key, old in case.arguments))
        for arguments in simpler:
            smaller = replace(case, arguments=arguments)
            if arguments != case.arguments and same(run(smaller)[0], failure):
                case = smaller
                break
    return case


def same(found: Failure | None, failure: Failure) -> bool:
    """Whether two failures are of one kind and arise at one place."""
    return found is not None and found.kind == failure.kind and found.place == failure.place
