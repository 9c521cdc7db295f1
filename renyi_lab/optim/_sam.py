"""Sharpness-aware minimisation and its variants: SAM, ASAM, FisherSAM and SAGM, each with the formula of its step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from renyi_lab._utils.validation import check_real
from renyi_lab.optim._shards import Shards, local_parts
from renyi_lab.optim._sharpness_aware import SharpnessAware
from renyi_lab.optim._vectors import unit_vector, widened


class SAM(SharpnessAware):
    """Step with the gradient at the worst point, to first order, of a ball of radius ρ.

        ε = ρ · g/‖g‖,   θ ← base step from θ with ∇L_S(θ + ε)

    Args:
        params: Parameters as for any torch optimizer; groups may have a ``rho`` of their own.
        base: Class of the optimizer that takes the step, or an instance on the same parameters. Default SGD.
        rho: Radius ‖ε‖ > 0 in weight space. Default 0.05 (Foret et al. 2021, section 3.1).
        **options: ``warmup_steps`` and ``max_grad_norm`` as in `SharpnessAware`; all others are passed to ``base``.

    Source: Foret, Kleiner, Mobahi & Neyshabur 2021 (arXiv:2010.01412), equations 2 and 3; one norm over all groups.

    Example:
        >>> w = torch.tensor([3.0, 4.0], requires_grad=True, dtype=torch.float64)
        >>> optimizer = SAM([w], torch.optim.SGD, rho=1.0, lr=1.0)
        >>> (0.5 * w @ w).backward(); optimizer.first_step(); w.tolist()     # g = (3, 4), ε = g/5
        [3.6, 4.8]
    """

    def __init__(
        self,
        params: Iterable[Any],
        base: type[Optimizer] | Optimizer = torch.optim.SGD,
        rho: float = 0.05,
        **options: Any,
    ) -> None:
        super().__init__(params, base, rho, **options)

    def perturbation(self, grads: list[Tensor], params: list[Tensor], groups: list[dict[str, Any]]) -> list[Tensor]:
        """ε = ρ · g/‖g‖."""
        shards = Shards(grads)
        epsilon, _ = unit_vector(shards.parts, shards.total)
        torch._foreach_mul_(epsilon, _rhos(groups))
        return epsilon


class _EllipsoidSAM(SharpnessAware):
    """The steepest ascent to first order within ‖ε/T‖ ≤ ρ, for a positive diagonal T: ε = ρ · T²g/‖Tg‖."""

    def __init__(
        self, params: Iterable[Any], base: type[Optimizer] | Optimizer, rho: float, eta: float, **options: Any
    ) -> None:
        self.eta = check_real("eta", eta, 0.0)
        super().__init__(params, base, rho, **options)

    def scales(self, grads: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        """The diagonal of T, as new tensors."""
        raise NotImplementedError

    def perturbation(self, grads: list[Tensor], params: list[Tensor], groups: list[dict[str, Any]]) -> list[Tensor]:
        """ε = ρ · T²g/‖Tg‖."""
        shards = Shards(grads)
        scales = self.scales(shards.parts, local_parts(params))
        epsilon, _ = unit_vector(list(torch._foreach_mul(widened(shards.parts), scales)), shards.total)
        torch._foreach_mul_(epsilon, scales)
        torch._foreach_mul_(epsilon, _rhos(groups))
        return epsilon


class ASAM(_EllipsoidSAM):
    """SAM in a ball that scales with the weights, so that rescaling a layer changes little.

        T = |θ| + η (entrywise),   ε = ρ · T²g/‖Tg‖

    Args:
        params: As in `SAM`.
        base: As in `SAM`.
        rho: Radius ‖ε/T‖ > 0. Default 0.5 (Kwon et al. 2021, section 5, CIFAR-10).
        eta: η ≥ 0, which lets weights at 0 move. Default 0.01 (Kwon et al. 2021, section 5).
        **options: As in `SAM`.

    Source: Kwon, Kim, Park & Choi 2021 (arXiv:2102.11600), algorithm 1 with the entrywise T. (The authors' code leaves
    biases unscaled; here every entry is scaled, as in their text.)

    Example:
        >>> w = torch.tensor([3.0, 4.0], requires_grad=True, dtype=torch.float64)
        >>> optimizer = ASAM([w], torch.optim.SGD, rho=0.5, eta=1.0, lr=1.0)
        >>> w.sum().backward(); optimizer.first_step()      # T = (4, 5), g = (1, 1), ε = (16, 25)/(2√41)
        >>> [round(x, 6) for x in w.tolist()]
        [4.24939, 5.952172]
    """

    def __init__(
        self,
        params: Iterable[Any],
        base: type[Optimizer] | Optimizer = torch.optim.SGD,
        rho: float = 0.5,
        eta: float = 0.01,
        **options: Any,
    ) -> None:
        super().__init__(params, base, rho, eta, **options)

    def scales(self, grads: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        """T = |θ| + η."""
        return list(torch._foreach_add(torch._foreach_abs(widened(params)), self.eta))


class FisherSAM(_EllipsoidSAM):
    """SAM in a ball measured by the Fisher information, here its diagonal estimate from the batch's gradient.

        F = diag(1 + η g²),   ε = ρ · F⁻¹g / √(gᵀF⁻¹g)

    Args:
        params: As in `SAM`.
        base: As in `SAM`.
        rho: Radius √(εᵀFε) > 0, the paper's γ. Default 0.1 (Kim et al. 2022, section 5).
        eta: Weight η ≥ 0 of the Fisher information; 0 is SAM. Default 1.0 (Kim et al. 2022, section 5).
        **options: As in `SAM`.

    Source: Kim, Li, Hu & Hospedales 2022 (arXiv:2206.04920), equation 12 with the gradient-magnitude estimate of F.

    Example:
        >>> w = torch.tensor([3.0, 4.0], requires_grad=True, dtype=torch.float64)
        >>> optimizer = FisherSAM([w], torch.optim.SGD, rho=1.0, eta=1.0, lr=1.0)
        >>> w[0].backward(); optimizer.first_step()          # g = (1, 0), F = (2, 1), ε = (1/2)/√(1/2)
        >>> [round(x, 6) for x in w.tolist()]
        [3.707107, 4.0]
    """

    def __init__(
        self,
        params: Iterable[Any],
        base: type[Optimizer] | Optimizer = torch.optim.SGD,
        rho: float = 0.1,
        eta: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(params, base, rho, eta, **options)

    def scales(self, grads: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        """T = F^(−1/2), so that T²g/‖Tg‖ = F⁻¹g/√(gᵀF⁻¹g)."""
        fisher = torch._foreach_mul(torch._foreach_pow(widened(grads), 2), self.eta)
        return list(torch._foreach_pow(torch._foreach_add(fisher, 1.0), -0.5))


class SAGM(SharpnessAware):
    """Sharpness-aware gradient matching: lower the loss and the perturbed loss together, and let their gradients agree.

        minimise L(θ) + L(θ + ρ g/‖g‖ − αg):   ε = (ρ/‖g‖ − α) · g,   step with ½ [∇L(θ) + ∇L(θ + ε)]

    Args:
        params: As in `SAM`.
        base: As in `SAM`.
        rho: Radius ρ > 0 of the perturbation. Default 0.05 (the authors' code).
        alpha: Length α ≥ 0 of the step back down the gradient (no Rényi order). Default 0.001 (the authors' code).
        **options: As in `SAM`.

    Source: Wang, Zhang, Lei & Zhang 2023 (arXiv:2303.10353), equation 9. The mean of the two gradients, as in the
    authors' code, and not the sum, so that the learning rate means the same as for the base.

    Example:
        >>> w = torch.tensor([3.0, 4.0], requires_grad=True, dtype=torch.float64)
        >>> optimizer = SAGM([w], torch.optim.SGD, rho=1.0, alpha=0.1, lr=1.0)
        >>> (0.5 * w @ w).backward(); optimizer.first_step()         # g = (3, 4), ε = (1/5 − 0.1) g
        >>> [round(x, 6) for x in w.tolist()]
        [3.3, 4.4]
    """

    def __init__(
        self,
        params: Iterable[Any],
        base: type[Optimizer] | Optimizer = torch.optim.SGD,
        rho: float = 0.05,
        alpha: float = 0.001,
        **options: Any,
    ) -> None:
        self.alpha = check_real("alpha", alpha, 0.0)
        super().__init__(params, base, rho, **options)

    def perturbation(self, grads: list[Tensor], params: list[Tensor], groups: list[dict[str, Any]]) -> list[Tensor]:
        """ε = ρ · g/‖g‖ − αg."""
        shards = Shards(grads)
        epsilon, _ = unit_vector(shards.parts, shards.total)
        torch._foreach_mul_(epsilon, _rhos(groups))
        torch._foreach_sub_(epsilon, widened(shards.parts), alpha=self.alpha)
        return epsilon

    def combine(self, params: list[Tensor], first: list[Tensor]) -> None:
        """∇ = ½ [∇L(θ) + ∇L(θ + ε)]."""
        pairs = [(param.grad, before) for param, before in zip(params, first, strict=True) if param.grad is not None]
        seconds, firsts = (local_parts(grads) for grads in zip(*pairs, strict=True)) if pairs else ([], [])
        for second, before in zip(seconds, firsts, strict=True):
            second.lerp_(before, 0.5)


def _rhos(groups: list[dict[str, Any]]) -> list[float]:
    return [group["rho"] for group in groups]
