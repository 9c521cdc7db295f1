"""Rényi sharpness-aware minimisation (Zhang, Sun, Zhang & Liu, ICLR 2026, arXiv:2510.07758)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from renyi_lab._validation import check_real
from renyi_lab.optim._vectors import multiply_, total, unit_vector, zero_safe_ratio
from renyi_lab.optim.base import SharpnessAware


class RSAM(SharpnessAware):
    """Step with the gradient at a point whose distance follows how concentrated the squared gradient is.

        R_α = Σ_j |g_j|^{2α} / (Σ_j g_j²)^α,      ε = −sign(1−α) · ρ · R_α/‖g‖² · g

    Squared gradient entries stand in for the Hessian's eigenvalues: −H_α(g²) = −log R_α / (1−α). Since
    ‖ε‖ = ρ R_α/‖g‖, this is SAM with a radius that adapts to how spread the gradient is, and that grows without
    limit as the gradient vanishes (at exactly g = 0, ε = 0).

    For α > 1, R_α ∈ [n^{1−α}, 1]. For α < 1 it lies in [1, n^{1−α}], the sign makes ε go *down* the gradient, and
    ρ has to be far smaller: at α = 0.5 every ρ ≥ 0.1 that we tried diverged on MNIST-1D.

    Args:
        params: as for any torch optimizer.
        base: class, or instance on the same parameters, of the optimizer that takes the step.
        rho: ρ > 0, in loss units. Default 0.65: the authors' example.
        alpha: order α > 0 of the entropy, ≠ 1. Default 1.2: the authors' example.
        warmup_steps: plain steps, one gradient each, before the first perturbed one. Default 0; the authors' example
            trains its first 5 epochs plain.
        **base_kwargs: passed to ``base`` when it is a class; the authors' SGD has lr 0.1, momentum 0.9, weight
            decay 5e-4.

    Raises:
        ValueError: α ≤ 0 or α = 1, besides what `SharpnessAware` refuses.

    >>> w = torch.tensor([3.0, 4.0], requires_grad=True, dtype=torch.float64)
    >>> optimizer = RSAM([w], torch.optim.SGD, rho=1.0, alpha=2.0, lr=1.0)
    >>> (0.5 * w @ w).backward(); optimizer.first_step()      # R_2 = (81 + 256)/625, ε = R_2/25 · (3, 4)
    >>> [round(x, 6) for x in w.tolist()]
    [3.064704, 4.086272]
    """

    _pickled = (*SharpnessAware._pickled, "alpha")

    def __init__(
        self,
        params: Iterable[Any],
        base: type[Optimizer] | Optimizer = torch.optim.SGD,
        rho: float = 0.65,
        alpha: float = 1.2,
        *,
        warmup_steps: int = 0,
        **base_kwargs: Any,
    ) -> None:
        self.alpha = check_real("alpha", alpha, 0.0, open_minimum=True)
        if self.alpha == 1.0:
            raise ValueError(
                "alpha = 1 is refused: R_1 = 1 for every gradient and sign(1−alpha) = 0, so that nothing would be "
                "perturbed. Take an alpha beside it, such as 1.2, the authors' example."
            )
        super().__init__(params, base, rho, warmup_steps=warmup_steps, **base_kwargs)

    def perturbation(self, grads: list[Tensor], params: list[Tensor], rhos: list[float]) -> list[Tensor]:
        """ε = −sign(1−α) · ρ · R_α/‖g‖² · g = ±ρ · R_α/‖g‖ · q with q = g/‖g‖."""
        epsilon, norm = unit_vector(grads)
        ascent = 1.0 if self.alpha > 1 else -1.0
        multiply_(epsilon, ascent * zero_safe_ratio(power_ratio(epsilon, self.alpha), norm))
        torch._foreach_mul_(epsilon, rhos)
        return epsilon


def power_ratio(unit: list[Tensor], alpha: float) -> Tensor:
    """R_α = Σ_j |g_j|^{2α} / (Σ_j g_j²)^α of a gradient given as q = g/‖g‖, where it is Σ_j |q_j|^{2α}."""
    powers = list(torch._foreach_abs(unit))
    torch._foreach_pow_(powers, 2 * alpha)
    return total(powers, 1)
