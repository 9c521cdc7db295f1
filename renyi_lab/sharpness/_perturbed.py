"""Rise of the loss under perturbed weights: worst case, adaptive worst case, and average case."""

from __future__ import annotations

from renyi_lab._utils.estimate import Estimate
from renyi_lab._utils.validation import check_choice, check_real
from renyi_lab.operators import NUM_STEPS, ModelOperator
from renyi_lab.perturbation import NUM_DRAWS, average_case_loss, worst_case_loss
from renyi_lab.sharpness._norms import weights

SAM_RADII = {"l2": 0.05, "linf": 0.001}
ASAM_RADII = {"l2": 0.5, "linf": 0.002}


def sam_sharpness(
    operator: ModelOperator,
    *,
    norm: str = "l2",
    rho: float | None = None,
    num_steps: int = NUM_STEPS,
    seed: int = 0,
) -> Estimate:
    """Worst-case rise of the loss in a ball, ``max_{‖ε‖_p ≤ ρ} L(θ+ε) − L(θ)``, a lower bound by `worst_case_loss`.

    Invariance: none under layer rescaling (rotations of weight space for p = 2).

    Args:
        operator: A `HessianOperator`; its loss, frozen batches and parameters are used.
        norm: ``"l2"`` or ``"linf"``.
        rho: Radius ``ρ > 0``, in units of the weights. Default 0.05 for ``"l2"`` (Foret et al. 2021, section 3.1),
            0.001 for ``"linf"`` (Andriushchenko et al. 2023 use 0.0005 to 0.004).
        num_steps: Number of gradients, at least 1. Default 10 (heuristic: on three trained networks for MNIST-1D fifty
            found at most 0.1 % more). SAM itself takes one step from the centre.
        seed: Random seed for the starting point.

    Raises:
        ValueError: An argument is out of range, or no loss that was tried is finite.

    Source: Foret et al. 2021, arXiv:2010.01412; ``p = ∞``: Keskar et al. 2017, arXiv:1609.04836.
    """
    radius = _radius(norm, rho, SAM_RADII)
    return Estimate(worst_case_loss(operator, radius, norm=norm, num_steps=num_steps, seed=seed).rise)


def asam_sharpness(
    operator: ModelOperator,
    *,
    norm: str = "l2",
    rho: float | None = None,
    eta: float = 0.0,
    num_steps: int = NUM_STEPS,
    seed: int = 0,
) -> Estimate:
    """Worst-case rise of the loss in a ball that scales with the weights, ``max_{‖ε/T‖_p ≤ ρ} L(θ+ε) − L(θ)``.

    ``T = |θ| + η``, entry by entry. A lower bound by `worst_case_loss`.

    Invariance: with ``η = 0`` every rescaling of layers or neurons that leaves a positively homogeneous network's
    function unchanged; the search is rescaled too, so that its result is invariant.

    Args:
        operator: A `HessianOperator`; its loss, frozen batches and parameters are used.
        norm: ``"l2"`` or ``"linf"``.
        rho: Radius ``ρ > 0``, relative to the weights. Default 0.5 for ``"l2"`` (Kwon et al. 2021, section 5), 0.002
            for ``"linf"`` (Andriushchenko et al. 2023 use 0.001 to 0.008).
        eta: Offset ``η ≥ 0``. Default 0: exact invariance (Andriushchenko et al. 2023). Kwon et al. 2021 train with
            0.01.
        num_steps: Number of gradients, at least 1. Default 10, as in `sam_sharpness`.
        seed: Random seed for the starting point.

    Raises:
        ValueError: An argument is out of range, or no loss that was tried is finite.

    Source: Kwon et al. 2021, arXiv:2102.11600, equation 5; Andriushchenko et al. 2023, arXiv:2302.07011, equation 2.
    """
    radius = _radius(norm, rho, ASAM_RADII)
    scale = weights(operator).abs() + check_real("eta", eta, 0.0)
    return Estimate(worst_case_loss(operator, radius, norm=norm, scale=scale, num_steps=num_steps, seed=seed).rise)


def average_case_sharpness(
    operator: ModelOperator, *, rho: float = 0.05, num_draws: int = NUM_DRAWS, seed: int = 0
) -> Estimate:
    """Average rise of the loss under Gaussian noise, ``E L(θ+ε) − L(θ)`` for ``ε ~ N(0, ρ²I)``, by `average_case_loss`.

    To second order it is ``½ρ² tr H``.

    Invariance: rotations of weight space; none under layer rescaling.

    Args:
        operator: A `HessianOperator`; its loss, frozen batches and parameters are used.
        rho: Standard deviation ``ρ > 0`` of the noise on each weight. Default 0.05: the smallest that Andriushchenko et
            al. 2023 use for ResNet-18.
        num_draws: Number of pairs ``±ε``, at least 1. Default 16 (heuristic: standard errors of 2 to 5 % on MNIST-1D).
        seed: Random seed for the noise.

    Raises:
        ValueError: An argument is out of range, or a loss is not finite under this noise.

    Source: Andriushchenko et al. 2023, arXiv:2302.07011, equation 2.
    """
    average = average_case_loss(operator, rho, noise="gaussian", num_draws=num_draws, seed=seed)
    return Estimate(average.rise, average.standard_error)


def _radius(norm: str, rho: float | None, defaults: dict[str, float]) -> float:
    return defaults[check_choice("norm", norm, defaults)] if rho is None else rho
