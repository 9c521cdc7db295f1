"""One result of a check-up."""

from __future__ import annotations

from dataclasses import dataclass

from renyi_lab._utils.fields import check_fields

OK, WARNING, PROBLEM = "ok", "warning", "problem"


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        name: What was checked, such as ``"dead units"``.
        status: ``"ok"``; ``"warning"``: the numbers are right, but say less than they seem to; ``"problem"``: they are
            wrong, or do not exist.
        message: What was measured and, unless ``status`` is ``"ok"``, what it means and what to do.
    """

    name: str
    status: str
    message: str

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def is_ok(self) -> bool:
        """Whether nothing was found."""
        return self.status == OK


def ok(name: str, message: str) -> Finding:
    """A finding without consequences."""
    return Finding(name, OK, message)


def warning(name: str, message: str) -> Finding:
    """A finding that limits what may be claimed."""
    return Finding(name, WARNING, message)


def problem(name: str, message: str) -> Finding:
    """A finding that makes the numbers wrong."""
    return Finding(name, PROBLEM, message)
