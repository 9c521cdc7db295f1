"""Measures that move the weights and look at the loss: worst case, average case, and the noise a minimum bears."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from renyi_lab._utils.estimate import Estimate
from renyi_lab._utils.validation import check_choice, check_int, check_real
from renyi_lab.operators import NUM_STEPS, LossSurface, ModelOperator, ascend

_NORMS = ("l2", "linf")
SAM_RADII = {"l2": 0.05, "linf": 0.001}
ASAM_RADII = {"l2": 0.5, "linf": 0.002}
NUM_DRAWS = 16
MAGNITUDE_FLOOR = 1e-3
_TOLERANCE = 0.02  # of the aimed-at rise; what is left is interpolated. Our choice.
_FIRST_SIGMA, _ROUGH_TOLERANCE = 0.01, 0.3  # any start will do: two draws say roughly how far off it is. Our choice.
_LARGEST_FACTOR = 10.0  # by which σ may change from one trial to the next. Our choice.
_MAX_TRIALS = 60  # enough to go 30 powers of ten up or down. Our choice.


def sam_sharpness(
    operator: ModelOperator,
    *,
    norm: str = "l2",
    rho: float | None = None,
    num_steps: int = NUM_STEPS,
    seed: int = 0,
) -> Estimate:
    """Worst-case rise of the loss in a ball, ``max_{‖ε‖_p ≤ ρ} L(θ+ε) − L(θ)``, from below.

    Invariance: none under layer rescaling (rotations of weight space for p = 2).

    Args:
        operator: A `HessianOperator`; its loss, frozen batches and parameters are used.
        norm: ``"l2"`` or ``"linf"``.
        rho: Radius > 0. Default 0.05 for ``"l2"`` (Foret et al. 2021, section 3.1), 0.001 for ``"linf"``
            (Andriushchenko et al. 2023 use 0.0005 to 0.004).
        num_steps: Gradients taken. Default 10, our choice: on three trained networks for MNIST-1D fifty found at
            most 0.1 % more. (One step from the centre is what SAM itself does.)
        seed: Of the starting point.

    Raises:
        ValueError: An argument out of range, or no finite loss in the ball.

    Source: Foret et al. 2021, arXiv:2010.01412; ``p = ∞``: Keskar et al. 2017, arXiv:1609.04836.
    """
    radius = _radius(norm, rho, SAM_RADII)
    surface = LossSurface(operator)
    return _worst_case(surface, torch.ones_like(surface.start), norm, radius, num_steps, seed)


def asam_sharpness(
    operator: ModelOperator,
    *,
    norm: str = "l2",
    rho: float | None = None,
    eta: float = 0.0,
    num_steps: int = NUM_STEPS,
    seed: int = 0,
) -> Estimate:
    """Worst-case rise of the loss in a ball that scales with the weights, ``max_{‖ε/T‖_p ≤ ρ} L(θ+ε) − L(θ)``.

    ``T = |θ| + η``, entry by entry. Found from below, as in `sam_sharpness`.

    Invariance: with ``η = 0`` every rescaling of layers or neurons that leaves a positively homogeneous network's
    function as it is; the search moves along, so that what it finds is invariant too.

    Args:
        operator: A `HessianOperator`; its loss, frozen batches and parameters are used.
        norm: ``"l2"`` or ``"linf"``.
        rho: Radius > 0. Default 0.5 for ``"l2"`` (Kwon et al. 2021, section 5), 0.002 for ``"linf"``
            (Andriushchenko et al. 2023 use 0.001 to 0.008).
        eta: ``η ≥ 0``. Default 0: exact invariance, as Andriushchenko et al. 2023; Kwon et al. 2021 train with 0.01.
        num_steps: Gradients taken; see `sam_sharpness`.
        seed: Of the starting point.

    Raises:
        ValueError: An argument out of range, or no finite loss in the ball.

    Source: Kwon et al. 2021, arXiv:2102.11600, equation 5; Andriushchenko et al. 2023, arXiv:2302.07011, equation 2.
    """
    radius = _radius(norm, rho, ASAM_RADII)
    surface = LossSurface(operator)
    scale = surface.start.abs() + check_real("eta", eta, 0.0)
    return _worst_case(surface, scale, norm, radius, num_steps, seed)


def average_case_sharpness(
    operator: ModelOperator, *, rho: float = 0.05, num_draws: int = NUM_DRAWS, seed: int = 0
) -> Estimate:
    """Average rise of the loss under Gaussian noise, ``E L(θ+ε) − L(θ)`` for ``ε ~ N(0, ρ²I)``.

    To second order it is ``½ρ² tr H``. Draws come in pairs ``±ε``, which cancels the gradient's part.

    Invariance: rotations of weight space; none under layer rescaling.

    Args:
        operator: A `HessianOperator`; its loss, frozen batches and parameters are used.
        rho: Standard deviation of each weight's noise, > 0. Default 0.05: the smallest that Andriushchenko et al. 2023
            use for ResNet-18.
        num_draws: Pairs of draws. Default 16, our choice: standard errors of 2 to 5 %
            on MNIST-1D.
        seed: Of the noise.

    Raises:
        ValueError: An argument out of range, or a loss that is not finite under this noise.

    Source: Andriushchenko et al. 2023, arXiv:2302.07011, equation 2.
    """
    sigma = check_real("rho", rho, 0.0, open_minimum=True)
    surface = LossSurface(operator)
    rises = _rises(surface, torch.full_like(surface.start, sigma), _noise(surface, num_draws, seed))
    if not bool(torch.isfinite(rises).all()):
        raise ValueError(f"the loss is not finite under noise of rho={sigma:g}; choose a smaller rho.")
    return _mean(rises)


def pac_bayes_flatness(
    operator: ModelOperator,
    *,
    increase: float = 0.1,
    magnitude_aware: bool = False,
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
) -> Estimate:
    """``1/σ²`` of the Gaussian noise on the weights that raises the loss by a set amount.

        σ :  E L(θ+ε) − L(θ) = increase,     ε_j ~ N(0, σ²)   or, magnitude-aware,   ε_j ~ N(0, σ²θ_j² + (10⁻³)²)

    To second order ``1/σ² = tr H / (2·increase)``. Small is flat. Draws come in pairs ``±ε``.

    Invariance: plain: rotations of weight space, none under layer rescaling. Magnitude-aware: layer and neuron
    rescaling of a positively homogeneous network, as far as the 10⁻³ is negligible.

    Args:
        operator: A `HessianOperator`; its loss, frozen batches and parameters are used.
        increase: Rise to reach, > 0, in loss units. Default 0.1: Jiang et al. 2019, there of the 0–1 error; the loss
            is ours, since it is smooth and fits regression too.
        magnitude_aware: Scale the noise with each weight.
        num_draws: Pairs of draws, the same for every σ. Default 16, our choice: standard errors of 2 to 5 %
            on MNIST-1D.
        seed: Of the noise.

    Raises:
        ValueError: An argument out of range, or no noise raises the loss by this much.

    Source: Jiang et al. 2019, arXiv:1912.02178, appendix C.5 (``pac-bayes-flatness``, ``pac-bayes-mag-flatness``).
    """
    target = check_real("increase", increase, 0.0, open_minimum=True)
    surface = LossSurface(operator)
    noise = _noise(surface, num_draws, seed)
    magnitudes = surface.start.abs() if magnitude_aware else torch.ones_like(surface.start)
    floor = MAGNITUDE_FLOOR if magnitude_aware else 0.0

    def rises(sigma: float, draws: Tensor) -> Tensor:
        return _rises(surface, (sigma * magnitudes).square().add(floor**2).sqrt(), draws)

    def few(sigma: float) -> Tensor:
        return rises(sigma, noise[:2])

    def all_of_them(sigma: float) -> Tensor:
        return rises(sigma, noise)

    roughly, *_ = _solve(few, target, _FIRST_SIGMA, _ROUGH_TOLERANCE)
    sigma, final, slope = _solve(all_of_them, target, roughly, _TOLERANCE)
    mean = _mean(final)
    if slope <= 0:
        return Estimate(sigma**-2, math.inf)
    value = (sigma + (target - mean.value) / slope) ** -2  # the last trial is near enough for one step of Newton's
    relative = 2 * mean.standard_error / (slope * sigma)  # d(1/σ²)/(1/σ²) = −2 dσ/σ and dσ = −d(rise)/slope
    return Estimate(value, value * relative)


def _radius(norm: str, rho: float | None, defaults: dict[str, float]) -> float:
    check_choice("norm", norm, _NORMS)
    return defaults[norm] if rho is None else check_real("rho", rho, 0.0, open_minimum=True)


def _worst_case(surface: LossSurface, scale: Tensor, norm: str, radius: float, num_steps: int, seed: int) -> Estimate:
    ascent = ascend(surface, scale, norm, radius, num_steps, seed)
    return Estimate(ascent.loss - ascent.base)


def _noise(surface: LossSurface, num_draws: int, seed: int) -> Tensor:
    """Standard normal ``(num_draws, n)``."""
    count = check_int("num_draws", num_draws)
    generator = torch.Generator().manual_seed(check_int("seed", seed, 0))
    noise = torch.randn(count, len(surface.start), generator=generator, dtype=surface.start.dtype)
    return noise.to(surface.start.device)


def _rises(surface: LossSurface, deviations: Tensor, noise: Tensor) -> Tensor:
    """``½[L(θ+ε) + L(θ−ε)] − L(θ)`` for each draw."""
    base = surface.loss(surface.start)
    means = [
        (surface.loss(surface.start + deviations * z) + surface.loss(surface.start - deviations * z)) / 2 for z in noise
    ]
    return torch.tensor(means, dtype=torch.float64) - base


def _mean(rises: Tensor) -> Estimate:
    count = len(rises)
    return Estimate(float(rises.mean()), float(rises.std()) / math.sqrt(count) if count > 1 else math.inf)


def _solve(
    rises: Callable[[float], Tensor], target: float, start: float, tolerance: float
) -> tuple[float, Tensor, float]:
    """``σ`` at which the mean rise is ``target``, the rises there, and the mean rise's derivative by ``σ``."""
    sigma, low, high, width = start, 0.0, math.inf, math.inf
    trials: list[tuple[float, float]] = []
    for _ in range(_MAX_TRIALS):
        found = rises(sigma)
        mean = float(found.mean())
        trials.append((sigma, mean))
        if abs(mean - target) <= tolerance * target:
            return sigma, found, _slope(rises, trials)
        low, high = (sigma, high) if mean < target else (low, sigma)
        # The rise grows like σ² as long as the loss is quadratic.
        factor = math.sqrt(target / mean) if math.isfinite(mean) and mean > 0 else math.inf if mean <= 0 else 0.0
        proposed = sigma * min(max(factor, 1 / _LARGEST_FACTOR), _LARGEST_FACTOR)
        width, before = math.log(high / low) if low > 0 else math.inf, width
        # Where it grows faster, such steps swing from one side to the other and hardly close in: bisect then.
        swinging = width > before / 2 and math.isfinite(width)
        sigma = math.sqrt(low * high) if swinging or not low < proposed < high else proposed
    raise ValueError(
        f"no Gaussian noise raises the loss by increase={target:g} (tried standard deviations "
        f"{min(s for s, _ in trials):.2g} to {max(s for s, _ in trials):.2g}); choose another increase."
    )


def _slope(rises: Callable[[float], Tensor], trials: list[tuple[float, float]]) -> float:
    (sigma, mean), *others = reversed(trials)
    finite = [(s, m) for s, m in others if math.isfinite(m) and s != sigma]
    if finite:
        s, m = min(finite, key=lambda trial: abs(trial[0] - sigma))
    else:
        s = 0.9 * sigma
        m = float(rises(s).mean())
    return (mean - m) / (sigma - s)
