r"""The worst and the average loss around a model's weights: in a ball ``‖ε‖ ≤ ρ``, or under Gaussian noise.

To second order at a minimum the worst rise is ``½ ρ² λ_max``, and the average over the ball ``½ ρ² tr H / (n + 2)``,
since few directions are steep. Under Gaussian noise of standard deviation ``ρ`` the average rise is ``½ ρ² tr H``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from renyi_lab._utils.fields import check_fields
from renyi_lab._utils.validation import (
    check_choice,
    check_instance,
    check_int,
    check_real,
    check_tensor,
    is_iterable,
    shown,
)
from renyi_lab.operators import NUM_STEPS, LossSurface, ModelOperator, ascend
from renyi_lab.perturbation._landscape import checked_vector

NUM_DRAWS = 16
_NOISE = {"ball": "over the ball of radius", "gaussian": "under Gaussian noise of standard deviation"}


@dataclass(frozen=True, eq=False)
class _PerturbedLoss:
    loss: float
    base_loss: float
    rho: float

    @property
    def rise(self) -> float:
        """``loss − base_loss``: never negative for a worst case, possibly negative for an average."""
        return self.loss - self.base_loss

    def __float__(self) -> float:
        return self.loss


@dataclass(frozen=True, eq=False, repr=False)
class WorstCase(_PerturbedLoss):
    """The largest loss that was found in a ball: a lower bound of the maximum.

    Attributes:
        loss: The largest loss.
        base_loss: Loss at the centre.
        rho: Radius of the ball.
        norm: ``"l2"`` or ``"linf"``.
        path: Loss after each step of the ascent.
        perturbation: ``ε`` of the largest loss, ``(n,)``; zero where no loss above that of the centre was found.
    """

    norm: str
    path: tuple[float, ...]
    perturbation: Tensor

    def __post_init__(self) -> None:
        check_fields(self)

    def __repr__(self) -> str:
        centre = f"{self.base_loss:.4g} at its centre"
        return f"WorstCase({self.loss:.4g} in the {self.norm} ball of radius {self.rho:g}, {centre})"


@dataclass(frozen=True, eq=False, repr=False)
class AverageCase(_PerturbedLoss):
    """The average loss under random perturbations of the weights.

    Attributes:
        loss: The average.
        base_loss: Loss at the centre.
        rho: Radius of the ball, or standard deviation of the Gaussian noise.
        noise: ``"ball"`` or ``"gaussian"``.
        standard_error: Standard error of the average, from the spread of the pairs (``inf`` for a single pair).
        draws: Mean loss of each pair ``θ ± ε``.
    """

    noise: str
    standard_error: float
    draws: tuple[float, ...]

    def __post_init__(self) -> None:
        check_fields(self)

    def __repr__(self) -> str:
        where = f"{_NOISE[self.noise]} {self.rho:g}, {self.base_loss:.4g} at its centre"
        return f"AverageCase({self.loss:.4g} ± {self.standard_error:.2g} {where})"


def worst_case_loss(
    operator: ModelOperator,
    rho: float,
    *,
    norm: str = "l2",
    scale: Tensor | None = None,
    num_steps: int = NUM_STEPS,
    seed: int = 0,
) -> WorstCase:
    """The largest loss in a ball, ``max_{‖ε/s‖_p ≤ ρ} L(θ + ε)``, found from below by projected gradient ascent.

    Each step goes to the point of the ball farthest along the gradient; the largest loss of all points counts, the
    centre included.

    Args:
        operator: A `HessianOperator`; its loss, frozen batches and parameters are used. The model is left unchanged.
        rho: Radius ``ρ > 0``, in units of the weights, or of ``scale``.
        norm: ``"l2"`` or ``"linf"`` (every weight by at most ``ρ``).
        scale: Scale ``s`` of each weight's perturbation, ``(n,)``, such as the weights' magnitudes; where it is 0 the
            weight stays fixed. ``None``: 1 for all.
        num_steps: Number of gradients, at least 1. Default 10 (heuristic: on three trained networks for MNIST-1D fifty
            found at most 0.1 % more). SAM itself takes one step from the centre.
        seed: Random seed for the starting point.

    Raises:
        ValueError: An argument is out of range, or no loss that was tried is finite.

    Source: Foret et al. 2021, arXiv:2010.01412 (one step); Keskar et al. 2017, arXiv:1609.04836 (``p = ∞``);
    Kwon et al. 2021, arXiv:2102.11600 (scaled by the weights).

    Example:
        >>> from renyi_lab.operators import HessianOperator
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> H = HessianOperator(model, torch.nn.MSELoss(), (torch.ones(1, 1), model.weight.detach().clone()))
        >>> worst_case_loss(H, 0.5)
        WorstCase(0.25 in the l2 ball of radius 0.5, 0 at its centre)
    """
    norm = check_choice("norm", norm, ("l2", "linf"))
    radius = check_real("rho", rho, 0.0, open_minimum=True)
    surface = LossSurface(operator)
    scales = torch.ones_like(surface.start) if scale is None else checked_vector("scale", scale, operator)
    ascent = ascend(surface, scales, norm, radius, num_steps, seed)
    return WorstCase(ascent.loss, ascent.base, radius, norm, ascent.losses, ascent.perturbation)


def average_case_loss(
    operator: ModelOperator, rho: float, *, noise: str = "ball", num_draws: int = NUM_DRAWS, seed: int = 0
) -> AverageCase:
    """The average loss under random perturbations, ``E L(θ + ε)``, with ``ε`` uniform in a ball or Gaussian.

    Draws come in pairs ``±ε``, which cancels the gradient's part of the error.

    Args:
        operator: A `HessianOperator`; its loss, frozen batches and parameters are used. The model is left unchanged.
        rho: Size ``ρ > 0`` of the perturbations, in units of the weights.
        noise: ``"ball"``: ``ε`` uniform in ``‖ε‖₂ ≤ ρ``; ``"gaussian"``: ``ε ~ N(0, ρ²I)``, of length about ``ρ√n``.
        num_draws: Number of pairs, at least 1. Default 16 (heuristic: standard errors of a few per cent of the rise).
        seed: Random seed for the draws.

    Raises:
        ValueError: An argument is out of range, or one of the losses is not finite.

    Source: Andriushchenko et al. 2023, arXiv:2302.07011, equation 2 (Gaussian).

    Example:
        >>> from renyi_lab.operators import HessianOperator
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> H = HessianOperator(model, torch.nn.MSELoss(), (torch.ones(1, 1), model.weight.detach().clone()))
        >>> result = average_case_loss(H, 3.0, num_draws=50)          # uniform in [−3, 3]: E ε² = 3
        >>> abs(result.loss - 3.0) < 4 * result.standard_error < 3.0
        True
    """
    size = check_real("rho", rho, 0.0, open_minimum=True)
    noise = check_choice("noise", noise, _NOISE)
    surface = LossSurface(operator)
    perturbations: Iterable[Tensor]
    if noise == "ball":
        perturbations = _ball_noise(surface, size, num_draws, seed)
    else:
        perturbations = (size * z for z in gaussian_noise(surface, num_draws, seed))
    average = average_over(surface, perturbations, size, noise)
    if not all(map(math.isfinite, average.draws)):
        raise ValueError(f"the loss is not finite {_NOISE[noise]} rho={size:g}; choose a smaller rho.")
    return average


def average_over(surface: LossSurface, perturbations: Iterable[Tensor], rho: float, noise: str) -> AverageCase:
    """The average loss over perturbations and their opposites; not finite where one of the losses is not.

    Args:
        surface: The loss.
        perturbations: Vectors ``(n,)``, at least one.
        rho: Their size, for the result.
        noise: Their kind, for the result.

    Raises:
        TypeError: ``surface`` is not a `LossSurface`, or a perturbation not a tensor.
        ValueError: There are no perturbations, or they have another shape.
    """
    check_instance("surface", surface, LossSurface, "such as LossSurface(operator)")
    if not is_iterable(perturbations):
        raise TypeError(f"perturbations must be a sequence of vectors, got {shown(perturbations)}.")
    start = surface.start
    draws = [(surface.loss(start + e) + surface.loss(start - e)) / 2 for e in _checked_vectors(perturbations, start)]
    if not draws:
        raise ValueError("perturbations is empty; pass at least one vector.")
    losses = torch.tensor(draws, dtype=torch.float64, device="cpu")
    error = float(losses.std()) / math.sqrt(len(draws)) if len(draws) > 1 else math.inf
    return AverageCase(float(losses.mean()), surface.loss(surface.start), rho, noise, error, tuple(draws))


def _checked_vectors(vectors: Iterable[Tensor], like: Tensor) -> Iterator[Tensor]:
    for vector in vectors:
        if check_tensor("each of perturbations", vector, like.device).shape != like.shape:
            raise ValueError(f"each of perturbations must be of shape {tuple(like.shape)}, got {tuple(vector.shape)}.")
        yield vector


def gaussian_noise(surface: LossSurface, num_draws: int, seed: int) -> Tensor:
    """Standard normal draws, ``(num_draws, n)``, in the dtype and on the device of the weights."""
    check_instance("surface", surface, LossSurface, "such as LossSurface(operator)")
    count = check_int("num_draws", num_draws)
    generator = torch.Generator().manual_seed(check_int("seed", seed, 0))
    noise = torch.randn(count, len(surface.start), generator=generator, dtype=surface.start.dtype, device="cpu")
    return noise.to(surface.start.device)


def _ball_noise(surface: LossSurface, radius: float, num_draws: int, seed: int) -> Iterator[Tensor]:
    """Draws ``(n,)``, uniform in the ball."""
    count, n = check_int("num_draws", num_draws), len(surface.start)
    generator = torch.Generator().manual_seed(check_int("seed", seed, 0))
    for _ in range(count):
        z = torch.randn(n, generator=generator, dtype=torch.float64, device="cpu")
        length = radius * float(torch.rand(1, generator=generator, dtype=torch.float64, device="cpu")) ** (1 / n)
        yield (length * z / z.norm()).to(surface.start.dtype).to(surface.start.device)
