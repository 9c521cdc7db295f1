"""A Gaussian over a network's weights that is sampled exactly and whose divergence from a prior is known exactly.

    Q = N(θ, (I/σ² + βC)⁻¹),   C = Σ_k μ_k u_k u_kᵀ   (`LowRankCurvature`, from Lanczos)

Because the precision is isotropic plus low rank, a draw needs no iteration,

    θ + σ [ z + Σ_k (1/√(1+σ²βμ_k) − 1) u_k u_kᵀz ],   z ~ N(0, I),

and the divergence in a bound belongs to the very distribution that is drawn from. (A Lanczos approximation of
(I/σ² + βH)^{-1/2} z for each z would be closer to H, but not a Gaussian, and its divergence would be unknown. Rounding
a draw to the network's precision is part of the network: it changes which function the draw gives, not the bound.)
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from renyi_lab._utils.data_sets import Pair
from renyi_lab._utils.exclusive import exclusive
from renyi_lab._utils.model_checks import check_module
from renyi_lab._utils.parameters import flatten, select_parameters, unflatten
from renyi_lab._utils.validation import check_finite, check_instance, check_real
from renyi_lab.posterior._gibbs import GibbsError, mean_error
from renyi_lab.posterior._low_rank import LowRankCurvature

_SIGMAS = (1e-70, 1e70)  # so that squares of ratios, and their products with squared distances, are numbers


class GaussianPosterior:
    """N(θ, (I/σ² + βC)⁻¹) over the trainable weights of a network, all else of which is fixed.

    The network is copied, so training it further changes nothing here.

    Args:
        model: Network whose trainable weights are the mean θ.
        sigma: Standard deviation σ of the noise, in units of the weights, from 1e-70 to 1e70.
        curvature: C at θ, from `leading_curvature` of a `GGNOperator` or `HessianOperator` over all trainable
            parameters. Default ``None``: isotropic, N(θ, σ²I).
        beta: Weight β ≥ 0 of the curvature in the precision. Default 0.0: isotropic.

    Raises:
        TypeError: A model or curvature of the wrong kind.
        ValueError: No trainable weight, weights that are not finite, a curvature of another size, a β without
            curvature, or a number out of range.
    """

    def __init__(
        self, model: nn.Module, sigma: float, curvature: LowRankCurvature | None = None, beta: float = 0.0
    ) -> None:
        check_module(model)
        self.sigma = check_real("sigma", sigma, *_SIGMAS)
        self.beta = check_real("beta", beta, 0.0)
        with exclusive():  # another thread may have moved the weights for a while
            self.model = copy.deepcopy(model)
        self._parameters = select_parameters(self.model)
        self.mean = flatten(self._parameters.values()).double().cpu()
        check_finite("the mean of the weights", self.mean, "training diverged; lower its learning rate.")
        if curvature is None:
            if self.beta:
                raise ValueError(f"beta={self.beta:g} needs a curvature; make one with leading_curvature(GGN).")
            curvature = LowRankCurvature(
                torch.zeros(0, dtype=torch.float64, device="cpu"),
                torch.zeros(0, self.dim, dtype=torch.float64, device="cpu"),
            )
        if not isinstance(curvature, LowRankCurvature):
            raise TypeError(f"curvature must be a LowRankCurvature, got {type(curvature).__name__}.")
        if curvature.dim != self.dim:
            raise ValueError(f"curvature is of {curvature.dim} parameters, the model has {self.dim} trainable ones.")
        self.curvature = curvature
        self._directions = curvature.directions.cpu()
        self._x = self.sigma**2 * self.beta * curvature.eigenvalues.cpu()
        if not bool(torch.isfinite(self._x).all()):
            raise ValueError(f"beta={self.beta:g} times sigma² and the curvature overflows; lower beta or sigma.")

    @property
    def dim(self) -> int:
        """Number of trainable weights ``n``."""
        return len(self.mean)

    def sample(self, generator: torch.Generator) -> Tensor:
        """One draw of all weights, ``(n,)``, in double precision on the CPU."""
        check_instance("generator", generator, torch.Generator)
        z = torch.randn(self.dim, generator=generator, dtype=torch.float64, device="cpu")
        if len(self._x):
            z += ((1 + self._x).rsqrt() - 1) * (self._directions @ z) @ self._directions
        return self.mean + self.sigma * z

    def kl(self, prior: GaussianPosterior) -> float:
        """KL(Q‖P) in nats from an isotropic P = N(θ₀, σ₀²I) over the same network.

            ½ [ n(v − 1 − log v) + Σ_k (log(1+x_k) − v x_k/(1+x_k)) + ‖θ−θ₀‖²/σ₀² ],   x = σ²βμ, v = σ²/σ₀²

        Args:
            prior: The prior P, a `GaussianPosterior` without curvature.

        Raises:
            TypeError: Something else as prior.
            ValueError: A prior that is not isotropic, or another network: other shapes, frozen weights or buffers,
                which both must share for the divergence to be finite.
        """
        if not isinstance(prior, GaussianPosterior):
            raise TypeError(f"prior must be a GaussianPosterior, got {type(prior).__name__}.")
        if bool(prior._x.any()):
            raise ValueError("prior must be isotropic: make it without curvature.")
        self._check_same_network(prior)
        v = (self.sigma / prior.sigma) ** 2
        x = self._x
        curved = float((torch.log1p(x) - v * x / (1 + x)).sum())
        distance = float((self.mean - prior.mean).square().sum()) / prior.sigma**2
        return max(0.0, 0.5 * (self.dim * (v - 1 - math.log(v)) + curved + distance))

    def _check_same_network(self, other: GaussianPosterior) -> None:
        shapes = [{name: p.shape for name, p in each._parameters.items()} for each in (self, other)]
        fixed = [
            {name: t for name, t in each.model.state_dict().items() if name not in each._parameters}
            for each in (self, other)
        ]
        if shapes[0] != shapes[1] or fixed[0].keys() != fixed[1].keys():
            raise ValueError("prior must be over the same trainable weights of the same network.")
        for name, tensor in fixed[0].items():
            if not torch.equal(tensor.cpu(), fixed[1][name].cpu()):
                raise ValueError(
                    f"{name!r} differs between posterior and prior, but is not random in either, so their divergence "
                    "is infinite: keep batch-norm statistics and frozen weights as the prior has them."
                )

    def gibbs_error(
        self,
        data_set: Dataset[Any] | Pair,
        num_draws: int = 100,
        *,
        block_size: int | None = None,
        seed: int = 0,
        progress: bool | None = False,
    ) -> GibbsError:
        """Measure E_Q[0–1 error on the data set] with independent draws; `GibbsError.upper_limit` bounds it.

        With ``block_size`` each draw of weights is measured on one block of samples only. The mean is the same, but
        there are as many more draws for the same work, and the upper limit is that much closer.

        Args:
            data_set: Data set of (input, class index), or a pair of tensors (x, y).
            num_draws: Number of draws, at least one per block (rounded up to full rounds over the blocks). Default
                100, as in `renyi_lab.gibbs_error`.
            block_size: Samples per block; blocks differ by one at most. Default ``None``: all samples.
            seed: Random seed for the draws.
            progress: Show a bar; ``None``: in a terminal or notebook. Default ``False``.

        Raises:
            TypeError: A data set of the wrong kind.
            ValueError: An empty data set, scores that are not (batch, classes), or an argument outside its range.
        """
        return mean_error(self.model, self._draw, data_set, num_draws, self.sigma, seed, block_size, progress)

    def _draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """One draw as a state of the network."""
        parameters = self._parameters
        parts = unflatten(self.sample(generator), parameters.values())
        return {name: part.to(p.device, p.dtype) for (name, p), part in zip(parameters.items(), parts, strict=True)}

    def __repr__(self) -> str:
        return f"GaussianPosterior(dim={self.dim}, sigma={self.sigma:g}, beta={self.beta:g}, rank={len(self._x)})"
