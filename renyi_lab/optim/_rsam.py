"""Rényi sharpness-aware minimisation (RSAM; Zhang et al., arXiv:2510.07758, 2025), in three forms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from renyi_lab._utils.validation import check_choice, check_real
from renyi_lab.optim._base_optimizer import optional_limit
from renyi_lab.optim._shards import Shards
from renyi_lab.optim._sharpness_aware import SharpnessAware
from renyi_lab.optim._vectors import multiply_, scaled, split_like, unit_vector, zero_safe_ratio

# Heuristic: nearer to α = 1 the divergence is computed without cancellation; farther, float32 loses about one digit.
_NEAR_ONE = 0.1
# Heuristic: far beyond any use, and far from where |q|^{2α} cannot be computed in single precision.
LARGEST_ORDER = 1e6


class RSAM(SharpnessAware):
    """Step with the gradient at a point whose distance depends on how concentrated the squared gradient is.

        R_α = Σ_j |g_j|^{2α} / (Σ_j g_j²)^α,      D_α = log n − H_α(g²) = log n + log R_α / (α−1)

        "paper":        ε = −sign(1−α) · ρ · R_α/‖g‖² · g
        "divergence":   ε = ρ · D_α/‖g‖² · g
        "exact":        ε = −sign(1−α) · ρ · ∂R_α/∂g,  so that ∇L(θ+ε) = ∇[L − sign(1−α) ρ R_α] + O(ρ²)

    Squared gradient entries take the place of the Hessian's eigenvalues. The first two forms are SAM with a radius that
    depends on how spread the gradient is, ‖ε‖ = ρ R_α/‖g‖ or ρ D_α/‖g‖, and that grows without limit as the gradient
    vanishes unless ``max_norm`` caps it (at exactly g = 0, ε = 0). The exact form never moves along the gradient:
    R_α is scale-free, so ∂R_α/∂g ⟂ g.

    In the paper's form R_α ∈ [n^{1−α}, 1] for α > 1, but [1, n^{1−α}] for α < 1, where the sign makes ε go *down* the
    gradient: at α = 0.5 every ρ ≥ 0.1 that was tried diverged on MNIST-1D, or left the loss above that of guessing. In
    the divergence form ε goes up for every α, α = 1 included, and ρ from 0.06 to 0.14 trained there at α = 0.5, 1 and 2
    alike (at α = 2, ρ = 0.23 no longer did).

    Args:
        params: Parameters as for any torch optimizer; groups may have a ``rho`` and an ``alpha`` of their own (the sums
            run over all groups).
        base: Class of the optimizer that takes the step, or an instance on the same parameters. Default SGD.
        rho: ρ > 0, in loss units. Default 0.65, from the authors' example, for the paper's form; see above for the
            others.
        alpha: Order α in (0, 1e6] of the entropy; ≠ 1 except in the divergence form, ≥ ½ in the exact form. Default
            1.2, from the authors' example.
        form: ``"paper"`` (default), ``"divergence"`` or ``"exact"``.
        warmup_steps: Number of plain steps, one gradient each, before the first perturbed one. Default 0; the authors'
            example trains its first six epochs plain (``plain_epoch`` 5 with the test ``epoch > plain_epoch``).
        max_norm: Limit of ‖ε‖ over all parameters, > 0. Default: none, as in the paper.
        **options: ``max_grad_norm`` as in `SharpnessAware`; all others are passed to ``base``. The authors' SGD has lr
            0.1, momentum 0.9, weight decay 5e-4.

    Raises:
        ValueError: If the form does not take this α, or as in `SharpnessAware`.

    Source: Zhang et al., arXiv:2510.07758 (2025), for the paper's form.

    Example:
        >>> w = torch.tensor([3.0, 4.0], requires_grad=True, dtype=torch.float64)
        >>> optimizer = RSAM([w], torch.optim.SGD, rho=1.0, alpha=2.0, lr=1.0)
        >>> (0.5 * w @ w).backward(); optimizer.first_step()      # R_2 = (81 + 256)/625, ε = R_2/25 · (3, 4)
        >>> [round(x, 6) for x in w.tolist()]
        [3.064704, 4.086272]
    """

    def __init__(
        self,
        params: Iterable[Any],
        base: type[Optimizer] | Optimizer = torch.optim.SGD,
        rho: float = 0.65,
        alpha: float = 1.2,
        *,
        form: str = "paper",
        warmup_steps: int = 0,
        max_norm: float | None = None,
        **options: Any,
    ) -> None:
        self.form = check_choice("form", form, _FORMS)
        self.max_norm = optional_limit("max_norm", max_norm)
        alpha = check_order(alpha, form)
        super().__init__(params, base, rho, warmup_steps=warmup_steps, group_settings={"alpha": alpha}, **options)

    def check_group(self, group: dict[str, Any]) -> None:
        """Raise an error if the ``rho`` or the ``alpha`` of a group is out of range."""
        super().check_group(group)
        if "alpha" in group:
            check_order(group["alpha"], self.form)

    def perturbation(self, grads: list[Tensor], params: list[Tensor], groups: list[dict[str, Any]]) -> list[Tensor]:
        """ε by the chosen form; each group uses its own α, in sums over all parameters."""
        shards = Shards(grads)
        unit, norm = unit_vector(shards.joined(), shards.total)
        orders = dict.fromkeys(group["alpha"] for group in groups)  # in the same order in every process
        steps = {a: split_like(_FORMS[self.form](unit, norm, a, shards), shards.parts) for a in orders}
        epsilon = [steps[group["alpha"]][index] for index, group in enumerate(groups)]
        torch._foreach_mul_(epsilon, [group["rho"] for group in groups])
        return epsilon


def check_order(alpha: float, form: str) -> float:
    """Return α if the form of RSAM takes it, or raise ``ValueError``."""
    alpha = check_real("alpha", alpha, 0.0, LARGEST_ORDER, open_minimum=True)
    if alpha == 1.0 and form != "divergence":
        raise ValueError(
            f"alpha = 1 is refused in the {form} form: R_1 = 1 for every gradient and sign(1−alpha) = 0, so that "
            'nothing would be perturbed. Use form="divergence", or another alpha, such as 1.2.'
        )
    if alpha < 0.5 and form == "exact":
        raise ValueError(
            f"alpha = {alpha:g} is refused in the exact form: below 1/2 the derivative of |g|^(2·alpha) is infinite at "
            'g = 0. Use alpha ≥ 0.5, or form="divergence".'
        )
    return alpha


def _paper_step(unit: list[Tensor], norm: Tensor, alpha: float, shards: Shards) -> list[Tensor]:
    """ε/ρ = −sign(1−α) · R_α/‖g‖² · g."""
    return scaled(unit, _sign(alpha) * zero_safe_ratio(power_ratio(unit, alpha, shards), norm))


def _divergence_step(unit: list[Tensor], norm: Tensor, alpha: float, shards: Shards) -> list[Tensor]:
    """ε/ρ = D_α/‖g‖² · g."""
    return scaled(unit, zero_safe_ratio(divergence(unit, alpha, shards), norm))


def _exact_step(unit: list[Tensor], norm: Tensor, alpha: float, shards: Shards) -> list[Tensor]:
    """ε/ρ = −sign(1−α) · 2α/‖g‖ · [sign(q)|q|^{2α−1} − R_α q] with q = g/‖g‖."""
    direction = list(torch._foreach_abs(unit))
    torch._foreach_pow_(direction, 2 * alpha - 1)
    torch._foreach_mul_(direction, list(torch._foreach_sign(unit)))
    torch._foreach_sub_(direction, scaled(unit, power_ratio(unit, alpha, shards)))
    multiply_(direction, _sign(alpha) * 2 * alpha * zero_safe_ratio(torch.ones_like(norm), norm))
    return direction


_FORMS: dict[str, Callable[[list[Tensor], Tensor, float, Shards], list[Tensor]]] = {
    "paper": _paper_step,
    "divergence": _divergence_step,
    "exact": _exact_step,
}


def power_ratio(unit: list[Tensor], alpha: float, shards: Shards | None = None) -> Tensor:
    """R_α = Σ_j |g_j|^{2α} / (Σ_j g_j²)^α, which is Σ_j |q_j|^{2α} for q = g/‖g‖."""
    total = (shards or Shards(unit)).total
    powers = list(torch._foreach_abs(unit))
    torch._foreach_pow_(powers, 2 * alpha)
    return total(powers, 1)


def divergence(unit: list[Tensor], alpha: float, shards: Shards | None = None) -> Tensor:
    """D_α = log n − H_α(q²) ≥ 0, the Rényi divergence of q² from the uniform distribution, for q = g/‖g‖."""
    shards = shards or Shards(unit)
    log_n = math.log(shards.numel)
    excess = alpha - 1.0
    if abs(excess) < _NEAR_ONE:
        negative_entropy = _negative_entropy_near_one(unit, excess, shards)
    else:  # relative to the largest entry: in single precision |q|^{2α} vanishes from α ≈ 10 on
        largest = shards.total(unit, math.inf)
        relative = scaled(unit, zero_safe_ratio(torch.ones_like(largest), largest))
        norm = shards.total(relative, 2)
        negative_entropy = power_ratio(relative, alpha, shards).log() / excess - 2 * alpha / excess * norm.log()
    return torch.clamp(log_n + negative_entropy, min=0.0)


def _negative_entropy_near_one(unit: list[Tensor], excess: float, shards: Shards) -> Tensor:
    """−H_α(p) = log(1 + Σ p (p^{α−1} − 1)) / (α−1) with p = q²; at α = 1 its limit Σ p log p."""
    logs = list(torch._foreach_abs(unit))
    # At q = 0, p log p = 0 needs a finite logarithm.
    torch._foreach_clamp_min_(logs, [torch.finfo(tensor.dtype).tiny for tensor in unit])
    torch._foreach_log_(logs)
    torch._foreach_mul_(logs, 2.0)
    if excess != 0:
        torch._foreach_mul_(logs, excess)
        torch._foreach_expm1_(logs)
    torch._foreach_mul_(logs, list(torch._foreach_pow(unit, 2)))
    # All terms have one sign, so that the sum is the 1-norm.
    summed = shards.total(logs, 1)
    if excess == 0:
        return -summed
    return torch.log1p(summed if excess < 0 else -summed) / excess


def _sign(alpha: float) -> float:
    """−sign(1−α)."""
    return float((alpha > 1) - (alpha < 1))
