"""The noise on the weights that a minimum tolerates, as in PAC-Bayesian bounds."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from renyi_lab._utils.estimate import Estimate
from renyi_lab._utils.validation import check_flag, check_real
from renyi_lab.operators import LossSurface, ModelOperator
from renyi_lab.perturbation import NUM_DRAWS, AverageCase, average_over, gaussian_noise

MAGNITUDE_FLOOR = 1e-3
_TOLERANCE = 0.02  # Of the target rise. Heuristic: near enough for one step of Newton's method.
_FIRST_SIGMA, _ROUGH_TOLERANCE = 0.01, 0.3  # Heuristic: two draws suffice for the order of magnitude, from any start.
_LARGEST_FACTOR = 10.0  # Of the change of σ in one trial. Heuristic: the rise is not quadratic over wider ranges.
_MAX_TRIALS = 60  # Heuristic: enough for 30 powers of ten up or down.


def pac_bayes_flatness(
    operator: ModelOperator,
    *,
    increase: float = 0.1,
    magnitude_aware: bool = False,
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
) -> Estimate:
    """``1/σ²`` of the Gaussian noise on the weights that raises the loss by a set amount; small is flat.

        σ :  E L(θ+ε) − L(θ) = increase,     ε_j ~ N(0, σ²)   or, magnitude-aware,   ε_j ~ N(0, σ²θ_j² + (10⁻³)²)

    To second order ``1/σ² = tr H / (2·increase)``. Draws come in pairs ``±ε``.

    Invariance: plain: rotations of weight space, none under layer rescaling. Magnitude-aware: layer and neuron
    rescaling of a positively homogeneous network, as far as the 10⁻³ is negligible.

    Args:
        operator: A `HessianOperator`; its loss, frozen batches and parameters are used.
        increase: Target rise of the loss, > 0. Default 0.1: Jiang et al. 2019, who take the 0–1 error; the loss is
            smooth and is defined for regression too.
        magnitude_aware: Whether the noise is proportional to each weight.
        num_draws: Number of pairs, at least 1, the same for every σ. Default 16 (heuristic: standard errors of 2 to
            5 % on MNIST-1D).
        seed: Random seed for the noise.

    Raises:
        ValueError: An argument is out of range, or no noise raises the loss by this much.

    Source: Jiang et al. 2019, arXiv:1912.02178, appendix C.5 (``pac-bayes-flatness``, ``pac-bayes-mag-flatness``).
    """
    target = check_real("increase", increase, 0.0, open_minimum=True)
    magnitude_aware = check_flag("magnitude_aware", magnitude_aware)
    surface = LossSurface(operator)
    noise = gaussian_noise(surface, num_draws, seed)
    magnitudes = surface.start.abs() if magnitude_aware else torch.ones_like(surface.start)
    floor = MAGNITUDE_FLOOR if magnitude_aware else 0.0

    def under(sigma: float, draws: Tensor = noise) -> AverageCase:
        deviations = (sigma * magnitudes).square().add(floor**2).sqrt()
        return average_over(surface, (deviations * z for z in draws), sigma, "gaussian")

    rough, *_ = _solve(lambda sigma: under(sigma, noise[:2]), target, _FIRST_SIGMA, _ROUGH_TOLERANCE)
    sigma, final, slope = _solve(under, target, rough, _TOLERANCE)
    if slope <= 0:
        return Estimate(sigma**-2, math.inf)
    value = (sigma + (target - final.rise) / slope) ** -2  # one step of Newton's method
    relative = 2 * final.standard_error / (slope * sigma)  # d(1/σ²)/(1/σ²) = −2 dσ/σ and dσ = −d(rise)/slope
    return Estimate(value, value * relative)


def _solve(
    average: Callable[[float], AverageCase], target: float, start: float, tolerance: float
) -> tuple[float, AverageCase, float]:
    """``σ`` at which the average rise is ``target``, the average there, and the derivative of its rise by ``σ``."""
    sigma, low, high, width = start, 0.0, math.inf, math.inf
    trials: list[tuple[float, float]] = []
    for _ in range(_MAX_TRIALS):
        found = average(sigma)
        rise = found.rise
        trials.append((sigma, rise))
        if abs(rise - target) <= tolerance * target:
            return sigma, found, _slope(average, trials)
        low, high = (sigma, high) if rise < target else (low, sigma)
        # The rise grows like σ² as long as the loss is quadratic.
        factor = math.sqrt(target / rise) if math.isfinite(rise) and rise > 0 else math.inf if rise <= 0 else 0.0
        proposed = sigma * min(max(factor, 1 / _LARGEST_FACTOR), _LARGEST_FACTOR)
        width, before = math.log(high / low) if low > 0 else math.inf, width
        # Where it grows faster, such steps alternate between the two sides and hardly converge: bisect then.
        alternating = width > before / 2 and math.isfinite(width)
        sigma = math.sqrt(low * high) if alternating or not low < proposed < high else proposed
    raise ValueError(
        f"no Gaussian noise raises the loss by increase={target:g} (tried standard deviations "
        f"{min(s for s, _ in trials):.2g} to {max(s for s, _ in trials):.2g}); choose another increase."
    )


def _slope(average: Callable[[float], AverageCase], trials: list[tuple[float, float]]) -> float:
    (sigma, rise), *others = reversed(trials)
    finite = [(s, r) for s, r in others if math.isfinite(r) and s != sigma]
    if finite:
        s, r = min(finite, key=lambda trial: abs(trial[0] - sigma))
    else:
        s = 0.9 * sigma
        r = average(s).rise
    return (rise - r) / (sigma - s)
