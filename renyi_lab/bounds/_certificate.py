"""What `certify` returns: several bounds that hold at once, and the best of them."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import nn

from renyi_lab._utils.fields import check_fields
from renyi_lab._utils.validation import check_instance
from renyi_lab.bounds._bound import Bound
from renyi_lab.posterior import GaussianPosterior

if TYPE_CHECKING:
    import pandas as pd

# The terms of a route's bound that add up to its value.
PARTS = ("from_measured_error", "from_draws", "from_confidence", "from_divergence")


@dataclass(frozen=True, eq=False)
class Route:
    """One way to a certificate.

    Attributes:
        name: One of ``"held-out"``, ``"noisy prior"``, ``"moved"`` and ``"curvature"``.
        certifies: Which classifier the bound is about, in words.
        bound: The bound; its terms ``from_measured_error``, ``from_draws``, ``from_confidence`` and
            ``from_divergence`` add up to the value.
        classifier: The network, or the Gaussian over networks, that the bound is about.
        test_error: Error of the classifier on the test set, ``None`` without one.
    """

    name: str
    certifies: str
    bound: Bound
    classifier: nn.Module | GaussianPosterior = field(repr=False)
    test_error: float | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, eq=False)
class Certificate:
    """Upper bounds on the 0–1 error of classifiers that `certify` trained: all hold at once with probability 1 − δ.

    Attributes:
        routes: The routes, in the order in which they were computed.
        delta: Probability of failure δ, of all routes together.
        num_prior_samples: Number of samples that the prior was trained on.
        num_bound_samples: Number of the other samples, which the bounds rest on.
        seconds: Time of the computation, in seconds.
    """

    routes: tuple[Route, ...]
    delta: float
    num_prior_samples: int
    num_bound_samples: int
    seconds: float

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def best(self) -> Route:
        """The route with the smallest bound; it needs no union bound, as all hold at once."""
        if not self.routes:
            raise ValueError("routes is empty, so there is no smallest bound.")
        return min(self.routes, key=lambda route: route.bound.value)

    @property
    def bound(self) -> Bound:
        """The smallest bound."""
        return self.best.bound

    @property
    def value(self) -> float:
        """The certified error: the smallest bound's value."""
        return self.bound.value

    def __float__(self) -> float:
        return self.value

    def __getitem__(self, name: str) -> Route:
        check_instance("name", name, str)
        found = [route for route in self.routes if route.name == name]
        if not found:
            raise KeyError(f"no route {name!r}; there are {[route.name for route in self.routes]}.")
        return found[0]

    def to_frame(self) -> pd.DataFrame:
        """One row per route: its bound, what it is made of, the divergence, and the test error beside it."""
        import pandas as pd

        rows = [
            {
                "bound": route.bound.value,
                **{part: route.bound.terms.get(part, float("nan")) for part in PARTS},
                "kl": route.bound.terms.get("kl", 0.0),
                "sigma": route.bound.terms.get("sigma", 0.0),
                "test_error": float("nan") if route.test_error is None else route.test_error,
            }
            for route in self.routes
        ]
        return pd.DataFrame(rows, index=pd.Index([route.name for route in self.routes], name="route"))

    def _summary(self) -> str:
        if not self.routes:
            return "no routes"
        best = self.best
        shown = "" if best.test_error is None else f", its test error is {best.test_error:.3g}"
        return (
            f"error ≤ {self.value:.3g} with probability {1 - self.delta:g} ({best.name}: {best.certifies}){shown}; "
            f"prior from {self.num_prior_samples} samples, bound from the {self.num_bound_samples} others"
        )

    def __repr__(self) -> str:
        # No seconds: a notebook's stored output has to be reproducible.
        return f"Certificate: {self._summary()}\n{self.to_frame().round(4).to_string()}\n{self._notes()}"

    def _notes(self) -> str:
        lines = [f"  {route.name} certifies {route.certifies}" for route in self.routes]
        lines.append("  assumes the samples are i.i.d.; all rows hold at once, so the smallest may be taken")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        notes = "".join(f"<li>{html.escape(line.strip())}</li>" for line in self._notes().splitlines())
        table = self.to_frame().round(4).to_html()
        return f"<p><b>Certificate</b>: {html.escape(self._summary())}</p>{table}<ul>{notes}</ul>"
