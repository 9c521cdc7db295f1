"""Sharpness-aware minimisation (Foret, Kleiner, Mobahi & Neyshabur 2021, arXiv:2010.01412)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from renyi_lab.optim._vectors import unit_vector
from renyi_lab.optim.base import SharpnessAware


class SAM(SharpnessAware):
    """Step with the gradient at the worst point, to first order, of a ball of radius ρ.

        ε = ρ · g/‖g‖,   θ ← base step from θ with ∇L_S(θ + ε)

    Args:
        params: as for any torch optimizer.
        base: class, or instance on the same parameters, of the optimizer that takes the step.
        rho: radius ‖ε‖ > 0 in weight space. Default 0.05: Foret et al. 2021, section 3.1.
        warmup_steps: plain steps, one gradient each, before the first perturbed one. Default 0: as published.
        **base_kwargs: passed to ``base`` when it is a class.

    Source: Foret et al. 2021, equations 2 and 3. Their form per group of parameters, in one common norm.

    >>> w = torch.tensor([3.0, 4.0], requires_grad=True)
    >>> optimizer = SAM([w], torch.optim.SGD, rho=1.0, lr=1.0)
    >>> (0.5 * w @ w).backward(); optimizer.first_step(); w.tolist()     # g = (3, 4), ε = g/5
    [3.5999999046325684, 4.800000190734863]
    """

    def __init__(
        self,
        params: Iterable[Any],
        base: type[Optimizer] | Optimizer = torch.optim.SGD,
        rho: float = 0.05,
        *,
        warmup_steps: int = 0,
        **base_kwargs: Any,
    ) -> None:
        super().__init__(params, base, rho, warmup_steps=warmup_steps, **base_kwargs)

    def perturbation(self, grads: list[Tensor], params: list[Tensor], rhos: list[float]) -> list[Tensor]:
        """ε = ρ · g/‖g‖."""
        epsilon, _ = unit_vector(grads)
        torch._foreach_mul_(epsilon, rhos)
        return epsilon
