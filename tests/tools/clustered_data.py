"""Measures and gaps of made-up models in settings, whose true τ is known: for the coverage of intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from renyi_lab.study import Tau, kendall_tau


@dataclass(frozen=True)
class Design:
    """Settings with several models each, and the true τ between models of different settings.

    Measure and gap are sums of a part of the setting and a ``ratio`` times smaller part of the model. The parts of the
    setting are normal with a correlation that gives ``tau``, or with a spread of the gap that grows with the measure.
    """

    name: str
    sizes: Sequence[int]
    tau: float
    ties: bool = False
    uneven: bool = False
    ratio: float = 7.0

    def draw(self, rng: np.random.Generator, num_studies: int, sizes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Measure and gap of the models of several studies, each of shape ``(num_studies, sum(sizes))``."""
        rho = math.sin(math.pi / 2 * self.tau) * (1 + self.ratio**-2)  # of the sum it is then sin(π τ/2)
        u, other = rng.normal(size=(2, num_studies, len(sizes)))
        v = rho * u + math.sqrt(1 - rho**2) * other * (0.5 + 0.6 * np.abs(u) if self.uneven else 1)
        setting = np.repeat(np.arange(len(sizes)), sizes)
        x, y = (part[:, setting] + rng.normal(size=(num_studies, len(setting))) / self.ratio for part in (u, v))
        return (np.round(4 * x) / 4, np.round(4 * y) / 4) if self.ties else (x, y)

    def true_tau(self) -> float:
        """τ_b of pairs of models of different settings, from many pairs."""
        if not self.ties and not self.uneven:
            return self.tau
        x, y = (np.sign(np.diff(values)[:, 0]) for values in self.draw(np.random.default_rng(0), 1_000_000, (1, 1)))
        return float((x * y).mean() / math.sqrt((x**2).mean() * (y**2).mean()))


UNEQUAL = [3] * 7 + [2] * 6 + [1] * 5 + [6, 8]
DESIGNS = (
    *(Design(f"20 settings of 3, τ = {tau:g}", [3] * 20, tau) for tau in (0.0, 0.4, 0.7)),
    Design("20 settings of 3, ties", [3] * 20, 0.4, ties=True),
    Design("20 settings of 3, uneven spread", [3] * 20, 0.4, uneven=True),
    Design("20 settings of 3, less similar models", [3] * 20, 0.4, ratio=2.0),
    Design("20 settings of 1 to 8", UNEQUAL, 0.4),
    *(Design(f"10 settings of 3, τ = {tau:g}", [3] * 10, tau) for tau in (0.0, 0.4, 0.7)),
    Design("10 settings of 3, ties", [3] * 10, 0.7, ties=True),
)


def coverage(design: Design, num_studies: int, *, by_setting: bool = True, seed: int = 0) -> tuple[float, float]:
    """Share of simulated studies whose interval contains the true τ, and the mean width of the intervals."""
    x, y = design.draw(np.random.default_rng(seed), num_studies, design.sizes)
    settings = np.repeat(np.arange(len(design.sizes)), design.sizes).tolist() if by_setting else None
    true = design.true_tau()
    found: list[Tau] = [kendall_tau(a, b, settings=settings) for a, b in zip(x, y, strict=True)]
    hits = [tau.low <= true <= tau.high for tau in found]
    return float(np.mean(hits)), float(np.mean([tau.high - tau.low for tau in found]))
