"""What every bound returns."""

from __future__ import annotations

import html
from dataclasses import dataclass, replace

from renyi_lab._utils.fields import check_fields
from renyi_lab._utils.validation import check_real


@dataclass(frozen=True, repr=False)
class Bound:
    """An upper bound on the expected loss, with everything that went into it.

    Attributes:
        name: Name of the bound.
        value: The bound, in loss units; ``float(bound)`` gives it.
        terms: Every number that entered or was computed on the way, by name.
        assumptions: What has to hold for the bound to hold with probability 1 − δ.
        source: Author, year, theorem.
        trivial_value: What is known without data, > 0; set it with `against`. Default 1.0, the loss's maximum.
        is_certificate: ``False`` where an assumption is known not to hold or a quantity is only estimated, so that the
            value is for comparison only.
    """

    name: str
    value: float
    terms: dict[str, float]
    assumptions: tuple[str, ...]
    source: str
    trivial_value: float = 1.0
    is_certificate: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        # A copy, as floats: a fraction could not be printed.
        terms = {name: check_real(name, number, allow_infinite=True) for name, number in self.terms.items()}
        object.__setattr__(self, "terms", terms)
        trivial_value = check_real("trivial_value", self.trivial_value, 0.0, open_minimum=True)
        object.__setattr__(self, "trivial_value", trivial_value)

    @property
    def vacuous(self) -> bool:
        """Whether the bound says no more than ``trivial_value`` does."""
        return self.value >= self.trivial_value

    def __float__(self) -> float:
        return self.value

    def against(self, trivial_value: float) -> Bound:
        """The same bound, which is vacuous unless it is below ``trivial_value``.

        Args:
            trivial_value: What is known without data, > 0, for instance the error of chance, 1 − 1/#classes.

        Raises:
            ValueError: A value that is not positive.

        Example:
            >>> bound = Bound("example", 0.95, {}, (), "")
            >>> bound.vacuous, bound.against(0.9).vacuous
            (False, True)
        """
        return replace(self, trivial_value=trivial_value)

    def with_terms(self, **terms: float) -> Bound:
        """The same bound with more terms to print.

        Args:
            terms: Numbers by name, which may be infinite.

        Raises:
            TypeError: A value that is not a real number.
            ValueError: A value that is NaN, or finite but beyond the largest float.
        """
        checked = {name: check_real(name, number, allow_infinite=True) for name, number in terms.items()}
        return replace(self, terms=self.terms | checked)

    def with_assumption(self, assumption: str) -> Bound:
        """The same bound with one more assumption to print."""
        return replace(self, assumptions=(*self.assumptions, assumption))

    def renamed(self, name: str) -> Bound:
        """The same bound under another name."""
        return replace(self, name=name)

    def as_comparison(self, reason: str) -> Bound:
        """The same bound, not a certificate for this ``reason``, which is printed among the assumptions."""
        return replace(self.with_assumption(reason), is_certificate=False)

    def _verdict(self) -> str:
        relation = "vacuous: not below" if self.vacuous else "below"
        kind = "" if self.is_certificate else "; a comparison, not a certificate"
        return f"expected loss ≤ {self.value:.4g} ({relation} the trivial {self.trivial_value:.4g}{kind})"

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
