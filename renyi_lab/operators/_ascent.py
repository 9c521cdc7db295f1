r"""Maximization of the loss in a ball around the weights by the generalized power method.

From a random point of the sphere, ``u ← argmax_{‖u‖≤ρ} ⟨u, ∇L⟩`` is iterated and the best point kept. This is the limit
of projected gradient ascent for long steps: it has no step size, and where the loss is convex it never decreases from
one step to the next.

Source:
    Journée, Nesterov, Richtárik & Sepulchre 2010, arXiv:0811.4724.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from renyi_lab._utils.fields import check_fields
from renyi_lab._utils.validation import check_choice, check_instance, check_int, check_real, check_tensor, printed
from renyi_lab.operators._loss_surface import LossSurface

NUM_STEPS = 10  # Heuristic: see `renyi_lab.perturbation.worst_case_loss` for what more steps would find.


@dataclass(frozen=True, eq=False)
class Ascent:
    """Result of `ascend`.

    Attributes:
        base: Loss at the ball's centre.
        losses: Loss at the random starting point and after each step.
        perturbation: Flat perturbation ``ε`` with the largest finite loss, shape ``(n,)``; zero where no loss exceeds
            that at the centre.
    """

    base: float
    losses: tuple[float, ...]
    perturbation: Tensor

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def loss(self) -> float:
        """The largest loss found in the ball, including its centre."""
        return max([self.base, *(loss for loss in self.losses if math.isfinite(loss))])


def ascend(surface: LossSurface, scale: Tensor, norm: str, radius: float, num_steps: int, seed: int) -> Ascent:
    """Maximize the loss in the ball ``‖ε/scale‖ ≤ radius``.

    Args:
        surface: The loss and its gradient.
        scale: Non-negative weights of the norm, shape ``(n,)``.
        norm: ``"l2"`` or ``"linf"``.
        radius: Radius of the ball.
        num_steps: Number of steps, one gradient each.
        seed: Random seed for the starting point.

    Raises:
        TypeError: An argument of another type.
        ValueError: A number is out of range, ``scale`` has another shape or is negative, or no loss that was
            evaluated is finite.
    """
    check_instance("surface", surface, LossSurface, "such as LossSurface(operator)")
    if check_tensor("scale", scale, surface.start.device).shape != surface.start.shape or not bool((scale >= 0).all()):
        raise ValueError(f"scale must be non-negative, of shape {tuple(surface.start.shape)}, got {printed(scale)}.")
    check_choice("norm", norm, ("l2", "linf"))
    radius = check_real("radius", radius, 0.0)
    steps, base = check_int("num_steps", num_steps), surface.loss(surface.start)
    generator = torch.Generator().manual_seed(check_int("seed", seed, 0))
    direction = torch.randn(len(surface.start), generator=generator, dtype=surface.start.dtype, device="cpu")
    direction = direction.to(surface.start.device)
    best, highest, losses = torch.zeros_like(surface.start), base, []
    for step in range(steps + 1):
        epsilon = scale * extreme_point(direction, norm, radius)
        if step < steps:
            loss, gradient = surface.loss_and_gradient(surface.start + epsilon)
            direction = scale * gradient
        else:
            loss = surface.loss(surface.start + epsilon)
        losses.append(loss)
        if math.isfinite(loss) and loss > highest:
            best, highest = epsilon, loss
        if not bool(torch.isfinite(direction).all()):
            break
    if not any(map(math.isfinite, losses)):
        raise ValueError(f"the loss is finite nowhere that was tried in the ball of radius {radius:g}; lower rho.")
    return Ascent(base, tuple(losses), best)


def extreme_point(direction: Tensor, norm: str, radius: float) -> Tensor:
    """``argmax ⟨u, direction⟩`` over the ball ``‖u‖ ≤ radius``."""
    if norm == "linf":
        return radius * direction.sign()
    largest = direction.abs().max()
    if float(largest) == 0.0:
        return torch.zeros_like(direction)
    unit = direction / largest  # the square of the largest entry might not be representable
    point: Tensor = radius * unit / torch.linalg.vector_norm(unit)
    return point
