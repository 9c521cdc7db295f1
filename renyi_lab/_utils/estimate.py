"""A number that says how sure it is and what it cost."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error and its cost.

    Attributes:
        value: The estimate; ``float(estimate)`` gives it.
        standard_error: One standard error, 0 for an exact value.
        num_matvecs: Matrix-vector products spent on the spectrum behind it.
        truncation_error: The part of the standard error that comes from too few Lanczos steps rather than from too
            few probes.
    """

    value: float
    standard_error: float = 0.0
    num_matvecs: int = 0
    truncation_error: float = 0.0

    @property
    def sampling_error(self) -> float:
        """The part of the standard error that comes from too few probes."""
        if math.isinf(self.standard_error):
            return math.inf
        return math.sqrt(max(self.standard_error**2 - self.truncation_error**2, 0.0))

    def __float__(self) -> float:
        return self.value

    def __format__(self, specification: str) -> str:
        return f"{self.value:{specification}} ± {self.standard_error:{specification}}"

    def __repr__(self) -> str:
        cost = f", {self.num_matvecs} products" if self.num_matvecs else ""
        return f"Estimate({self.value:.6g} ± {self.standard_error:.2g}{cost})"
