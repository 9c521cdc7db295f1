r"""Climbing to the largest loss in a ball around the weights.

By the generalised power method: from a random point of the ball's surface, ``u ← argmax_{‖u‖≤ρ} ⟨u, ∇L⟩`` again and
again, the best point kept. It is projected gradient ascent with steps so long that only the gradient's direction
counts: it has no step size, and where the loss is convex it never falls from one step to the next (Journée et al. 2010,
arXiv:0811.4724).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from renyi_lab._utils.validation import check_int
from renyi_lab.operators._loss_surface import LossSurface

NUM_STEPS = 10


@dataclass(frozen=True, eq=False)
class Ascent:
    """Where a climb has led.

    Attributes:
        base: Loss at the ball's centre.
        losses: After each step, in order; the first at the random starting point.
        perturbation: ``ε`` of the largest finite loss, flat; zero where none exceeds that of the centre.
    """

    base: float
    losses: tuple[float, ...]
    perturbation: Tensor

    @property
    def loss(self) -> float:
        """The largest loss that was found in the ball, its centre included."""
        return max(self.base, *(loss for loss in self.losses if math.isfinite(loss)))


def ascend(surface: LossSurface, scale: Tensor, norm: str, radius: float, num_steps: int, seed: int) -> Ascent:
    """Climb in the ball ``‖ε/scale‖ ≤ radius`` (``norm`` is ``"l2"`` or ``"linf"``) with ``num_steps`` gradients.

    Raises:
        ValueError: ``num_steps`` or ``seed`` is out of range, or no loss that was tried is finite.
    """
    steps, base = check_int("num_steps", num_steps), surface.loss(surface.start)
    generator = torch.Generator().manual_seed(check_int("seed", seed, 0))
    direction = torch.randn(len(surface.start), generator=generator, dtype=surface.start.dtype)
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
    unit = direction / largest  # first by the largest entry, whose square would not be representable
    point: Tensor = radius * unit / torch.linalg.vector_norm(unit)
    return point
