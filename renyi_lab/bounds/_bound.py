"""What every bound returns."""

from __future__ import annotations

import html
from dataclasses import dataclass, replace

from renyi_lab._utils.validation import check_real


@dataclass(frozen=True, repr=False)
class Bound:
    """An upper bound on the expected loss, with everything that went into it.

    Args:
        name: what it is called.
        value: the bound, in loss units.
        terms: every number that entered or came out on the way.
        assumptions: what has to hold for the bound to hold with probability 1 − δ.
        trivial_value: what is known without any data: 1, the loss's maximum, or stricter, the error of chance.
        source: author, year, theorem.
    """

    name: str
    value: float
    terms: dict[str, float]
    assumptions: tuple[str, ...]
    trivial_value: float
    source: str

    def __post_init__(self) -> None:
        check_real("trivial_value", self.trivial_value, 0.0, open_minimum=True)

    @property
    def vacuous(self) -> bool:
        """Whether the bound says no more than ``trivial_value`` does."""
        return self.value >= self.trivial_value

    def __float__(self) -> float:
        return self.value

    def with_terms(self, **terms: float) -> Bound:
        """The same bound with more terms to print."""
        return replace(self, terms=self.terms | terms)

    def with_assumption(self, assumption: str) -> Bound:
        """The same bound with one more assumption to print."""
        return replace(self, assumptions=(*self.assumptions, assumption))

    def renamed(self, name: str) -> Bound:
        """The same bound under another name."""
        return replace(self, name=name)

    def _verdict(self) -> str:
        relation = "vacuous: not below" if self.vacuous else "below"
        return f"expected loss ≤ {self.value:.4g} ({relation} the trivial {self.trivial_value:.4g})"

    def __repr__(self) -> str:
        width = max(map(len, self.terms), default=0)
        lines = [f"{self.name}: {self._verdict()}"]
        lines += [f"  {key:<{width}}  {number:.6g}" for key, number in self.terms.items()]
        lines += [f"  assumes: {line}" for line in self.assumptions]
        return "\n".join([*lines, f"  source: {self.source}"])

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{html.escape(k)}</th><td>{v:.6g}</td></tr>" for k, v in self.terms.items())
        notes = "".join(f"<li>{html.escape(line)}</li>" for line in self.assumptions)
        return (
            f"<table><caption><b>{html.escape(self.name)}</b>: {html.escape(self._verdict())}</caption>{rows}</table>"
            f"<p>Assumes:</p><ul>{notes}</ul><p>Source: {html.escape(self.source)}</p>"
        )
