r"""The worst and the average loss in a ball of weights around a model, ``‖ε‖ ≤ ρ``.

To second order at a minimum the worst rise is ``½ ρ² λ_max``, and the average over the ball ``½ ρ² tr H / (n + 2)``: of
the directions that there are, few are steep.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from renyi_lab._utils.validation import check_choice, check_int, check_real
from renyi_lab.operators import NUM_STEPS, LossSurface, ModelOperator, ascend


@dataclass(frozen=True, eq=False)
class WorstCase:
    """The largest loss that was found in a ball: a lower bound of the largest that there is.

    Attributes:
        loss: The largest loss.
        base_loss: Loss at the centre.
        rho: Radius of the ball.
        norm: ``"l2"`` or ``"linf"``.
        path: Loss after each step of the climb.
        perturbation: ``ε`` of the largest loss, ``(n,)``; zero where nothing above the centre was found.
    """

    loss: float
    base_loss: float
    rho: float
    norm: str
    path: tuple[float, ...] = field(repr=False)
    perturbation: Tensor = field(repr=False)

    @property
    def rise(self) -> float:
        """``loss − base_loss ≥ 0``."""
        return self.loss - self.base_loss

    def __float__(self) -> float:
        return self.loss

    def __repr__(self) -> str:
        centre = f"{self.base_loss:.4g} at its centre"
        return f"WorstCase({self.loss:.4g} in the {self.norm} ball of radius {self.rho:g}, {centre})"


@dataclass(frozen=True, eq=False)
class AverageCase:
    """The average loss over a ball, from random draws.

    Attributes:
        loss: The average.
        standard_error: Of the average, from the pairs' spread (``inf`` for a single pair).
        base_loss: Loss at the centre.
        rho: Radius of the ball.
        draws: Mean loss of each pair ``θ ± ε``.
    """

    loss: float
    standard_error: float
    base_loss: float
    rho: float
    draws: tuple[float, ...] = field(repr=False)

    @property
    def rise(self) -> float:
        """``loss − base_loss``; negative where the average lies below the centre."""
        return self.loss - self.base_loss

    def __float__(self) -> float:
        return self.loss

    def __repr__(self) -> str:
        return (
            f"AverageCase({self.loss:.4g} ± {self.standard_error:.2g} over the ball of radius {self.rho:g}, "
            f"{self.base_loss:.4g} at its centre)"
        )


def worst_case_loss(
    operator: ModelOperator, rho: float, *, norm: str = "l2", num_steps: int = NUM_STEPS, seed: int = 0
) -> WorstCase:
    """The largest loss in a ball, ``max_{‖ε‖_p ≤ ρ} L(θ + ε)``, found from below by projected gradient ascent.

    Each step goes to the point of the ball farthest along the gradient (`renyi_lab.sharpness.sam_sharpness` climbs the
    same way); the best of all points counts, the centre included.

    Args:
        operator: A `HessianOperator`; its loss, frozen batches and parameters are used. The model is left as it was.
        rho: Radius ``ρ > 0``, in units of the weights.
        norm: ``"l2"`` or ``"linf"`` (every weight by at most ``ρ``).
        num_steps: Gradients taken. Default 10, as in `renyi_lab.sharpness.sam_sharpness`: on three trained networks for
            MNIST-1D fifty found at most 0.1 % more.
        seed: Of the starting point.

    Raises:
        ValueError: An argument out of range, or no finite loss in the ball.

    Source: Foret et al. 2021, arXiv:2010.01412 (one step); Keskar et al. 2017, arXiv:1609.04836 (``p = ∞``).

    Example:
        >>> from renyi_lab.operators import HessianOperator
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> H = HessianOperator(model, torch.nn.MSELoss(), (torch.ones(1, 1), model.weight.detach().clone()))
        >>> worst_case_loss(H, 0.5)
        WorstCase(0.25 in the l2 ball of radius 0.5, 0 at its centre)
    """
    radius = check_real("rho", rho, 0.0, open_minimum=True)
    norm = check_choice("norm", norm, ("l2", "linf"))
    surface = LossSurface(operator)
    ascent = ascend(surface, torch.ones_like(surface.start), norm, radius, num_steps, seed)
    return WorstCase(ascent.loss, ascent.base, radius, norm, ascent.losses, ascent.perturbation)


def average_case_loss(operator: ModelOperator, rho: float, *, num_draws: int = 16, seed: int = 0) -> AverageCase:
    """The average loss over a ball, ``E L(θ + ε)`` for ``ε`` uniform in ``‖ε‖₂ ≤ ρ``.

    Draws come in pairs ``±ε``, which cancels the gradient's part of the error. (`average_case_sharpness` in
    `renyi_lab.sharpness` takes Gaussian noise, whose length grows with ``√n``.)

    Args:
        operator: As in `worst_case_loss`.
        rho: Radius ``ρ > 0``, in units of the weights.
        num_draws: Pairs of draws. Default 16, our choice: standard errors of some per cent of the rise.
        seed: Of the draws.

    Raises:
        ValueError: An argument out of range, or a loss that is not finite.

    Example:
        >>> from renyi_lab.operators import HessianOperator
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> H = HessianOperator(model, torch.nn.MSELoss(), (torch.ones(1, 1), model.weight.detach().clone()))
        >>> result = average_case_loss(H, 3.0, num_draws=50)          # uniform in [−3, 3]: E ε² = 3
        >>> abs(result.loss - 3.0) < 4 * result.standard_error < 3.0
        True
    """
    radius = check_real("rho", rho, 0.0, open_minimum=True)
    count, seed = check_int("num_draws", num_draws), check_int("seed", seed, 0)
    surface = LossSurface(operator)
    generator, n = torch.Generator().manual_seed(seed), len(surface.start)
    means = []
    for _ in range(count):
        z = torch.randn(n, generator=generator, dtype=torch.float64)
        length = radius * float(torch.rand(1, generator=generator, dtype=torch.float64)) ** (1 / n)
        epsilon = (length * z / z.norm()).to(surface.start.dtype).to(surface.start.device)
        means.append((surface.loss(surface.start + epsilon) + surface.loss(surface.start - epsilon)) / 2)
    losses = torch.tensor(means, dtype=torch.float64)
    if not bool(torch.isfinite(losses).all()):
        raise ValueError(
            f"the loss is not finite everywhere in the ball of radius rho={radius:g}; choose a smaller rho."
        )
    error = float(losses.std()) / math.sqrt(count) if count > 1 else math.inf
    return AverageCase(float(losses.mean()), error, surface.loss(surface.start), radius, tuple(means))
