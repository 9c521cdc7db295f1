"""Variants of RSAM that optim_accuracy.py compares and that are not part of the package; each docstring defines ε."""

from __future__ import annotations

import torch
from torch import Tensor

from renyi_lab.optim import RSAM, SharpnessAware
from renyi_lab.optim._rsam import divergence
from renyi_lab.optim._vectors import multiply_, scaled, total, unit_vector, zero_safe_ratio


class _Variant(SharpnessAware):
    def __init__(self, params, base=torch.optim.SGD, rho=0.1, alpha=2.0, **options):
        super().__init__(params, base, rho, group_settings={"alpha": alpha}, **options)

    def perturbation(self, grads: list[Tensor], params: list[Tensor], groups: list[dict]) -> list[Tensor]:
        epsilon = self.step_over_rho(grads, params, groups[0]["alpha"])
        torch._foreach_mul_(epsilon, [group["rho"] for group in groups])
        return epsilon


class AdaptiveRSAM(_Variant):
    """ε = ρ · D_α(Tg)/‖Tg‖² · T²g with ASAM's T = |θ| + 0.01."""

    def step_over_rho(self, grads: list[Tensor], params: list[Tensor], alpha: float) -> list[Tensor]:
        scales = torch._foreach_add(torch._foreach_abs(params), 0.01)
        unit, norm = unit_vector(torch._foreach_mul(grads, scales))
        epsilon = scaled(unit, zero_safe_ratio(divergence(unit, alpha), norm))
        torch._foreach_mul_(epsilon, scales)
        return epsilon


class LayerwiseRSAM(_Variant):
    """ε_l = ρ · D_α(g_l)/‖g‖ · g_l/‖g‖: the divergence of each tensor's gradient."""

    def step_over_rho(self, grads: list[Tensor], params: list[Tensor], alpha: float) -> list[Tensor]:
        unit, norm = unit_vector(grads)
        own = [divergence(unit_vector([grad])[0], alpha) for grad in grads]
        return [q * zero_safe_ratio(d, norm) for q, d in zip(unit, own, strict=True)]


class RadiusRSAM(_Variant):
    """ε = ρ · D_α · g/‖g‖: the radius follows the divergence, but no longer 1/‖g‖."""

    def step_over_rho(self, grads: list[Tensor], params: list[Tensor], alpha: float) -> list[Tensor]:
        unit, _ = unit_vector(grads)
        return scaled(unit, divergence(unit, alpha))


class MixedRSAM(_Variant):
    """ε = ρ · (g/‖g‖ + e/‖e‖) with e the exact form's step: SAM's direction plus the entropy's, orthogonal to it."""

    def step_over_rho(self, grads: list[Tensor], params: list[Tensor], alpha: float) -> list[Tensor]:
        unit, _ = unit_vector(grads)
        exact = RSAM([torch.nn.Parameter(torch.zeros(1))], alpha=alpha, form="exact", rho=1.0)
        epsilon = exact.perturbation(grads, params, [{"alpha": alpha, "rho": 1.0}] * len(grads))
        multiply_(epsilon, zero_safe_ratio(torch.ones(()), total(epsilon, 2)))
        torch._foreach_add_(epsilon, unit)
        return epsilon


def with_schedule(optimizer: SharpnessAware, total_steps: int, factor) -> SharpnessAware:
    """Set ρ to ``factor(share of the steps done)`` times its initial value before each step."""
    rho = optimizer.param_groups[0]["rho"]

    def update(*_: object) -> None:
        for group in optimizer.param_groups:
            group["rho"] = rho * factor(min(1.0, optimizer.steps_taken / total_steps))

    update()
    optimizer.register_step_post_hook(update)
    return optimizer
