"""A number with its standard error and its cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

from renyi_lab._utils.fields import check_fields


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error and its cost.

    Attributes:
        value: The estimate; ``float(estimate)`` returns it.
        standard_error: One standard error, 0 for an exact value.
        num_matvecs: Number of matrix-vector products spent.
        truncation_error: The part of the standard error due to the limited number of Lanczos steps.
        rounding_error: The part due to rounding, which hides small eigenvalues.
        data_error: The part due to the limited number of samples, if it was estimated. What remains of the standard
            error is due to the limited number of probes.
    """

    value: float
    standard_error: float = 0.0
    num_matvecs: int = 0
    truncation_error: float = 0.0
    rounding_error: float = 0.0
    data_error: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def sampling_error(self) -> float:
        """The part of the standard error due to the limited number of probes."""
        if math.isinf(self.standard_error):
            return math.inf
        others = self.truncation_error**2 + self.rounding_error**2 + self.data_error**2
        return math.sqrt(max(self.standard_error**2 - others, 0.0))

    def __float__(self) -> float:
        return self.value

    def __format__(self, specification: str) -> str:
        return f"{self.value:{specification}} ± {self.standard_error:{specification}}"

    def __repr__(self) -> str:
        cost = f", {self.num_matvecs} products" if self.num_matvecs else ""
        return f"Estimate({self.value:.6g} ± {self.standard_error:.2g}{cost})"
