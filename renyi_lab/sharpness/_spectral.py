"""Measures that are functions of a spectrum: no model is asked again."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from renyi_lab._utils.estimate import Estimate
from renyi_lab._utils.validation import check_real
from renyi_lab.spectrum import Spectrum, check_spectrum

# The weight decay that `train` uses by default, so that H + γI is the Hessian of the loss that is really minimised.
# Our choice.
REGULARIZATION = 5e-4


def renyi_sharpness(spectrum: Spectrum, alpha: float) -> Estimate:
    r"""Rényi sharpness ``−H_α = −1/(1−α) · log Σ p_i^α`` with ``p_i = |λ_i| / Σ|λ_j|``, in nats.

    Invariance: ``H → cH``, so for a single layer also a rescaling of the layers that leaves a ReLU network's function
    as it is; the spectrum of the whole network changes its shape under such a rescaling.

    Args:
        spectrum: Of the whole network or of one block.
        alpha: Order in ``[0, inf]``.

    Raises:
        ValueError: An all-zero spectrum, or ``alpha`` out of range.

    Source: Zhang et al., arXiv:2510.07758.

    Example:
        >>> renyi_sharpness(Spectrum.from_eigenvalues([3.0, 3.0]), 2.0).value == -math.log(2)
        True
    """
    return check_spectrum(spectrum).renyi_sharpness(alpha)


def trace(spectrum: Spectrum) -> Estimate:
    """``tr H = Σ λ_i``, in loss units per squared weight; ``n`` times the mean curvature.

    Invariance: rotations of weight space; not layer rescaling (``W → cW`` multiplies a block's by ``c⁻²``).

    Source: Dinh et al. 2017, arXiv:1703.04933, for what is wrong with it.
    """
    return check_spectrum(spectrum).trace


def lambda_max(spectrum: Spectrum) -> Estimate:
    """``λ_max(H)``, the steepest curvature; for an estimated spectrum from below.

    The standard error of an estimate is how much the last few Lanczos steps still moved it (0 when converged).
    Invariance: rotations of weight space; not layer rescaling (``c⁻²``).

    Source: Keskar et al. 2017, arXiv:1609.04836, whose sharpness it is to second order.
    """
    value = check_spectrum(spectrum).max_eigenvalue
    if spectrum.sampling is None:
        return Estimate(value, 0.0, spectrum.num_matvecs)
    change = abs(value - spectrum.sampling.rules[0].max_eigenvalue)
    return Estimate(value, change, spectrum.num_matvecs, change)


def frobenius_norm(spectrum: Spectrum) -> Estimate:
    """``‖H‖_F = √(Σ λ_i²)``.

    Invariance: rotations of weight space; not layer rescaling (``c⁻²``).

    Source: standard; with the trace it makes the order 2: ``−H_2 = log(‖H‖_F² / (tr|H|)²)``.
    """
    squared = check_spectrum(spectrum).trace_of(np.square)
    value = math.sqrt(max(squared.value, 0.0))
    share = 1 / (2 * value) if value else 0.0
    return replace(
        squared,
        value=value,
        standard_error=share * squared.standard_error,
        truncation_error=share * squared.truncation_error,
    )


def log_determinant(spectrum: Spectrum, regularization: float = REGULARIZATION) -> Estimate:
    """Regularised log-determinant ``log det(I + |H|/γ) = Σ log(1 + |λ_i|/γ)``, in nats.

    Without ``γ`` a single zero eigenvalue would make it −∞. It equals ``log det(γI + |H|) − n log γ``, so that flat
    directions count nothing.

    Invariance: rotations of weight space; not layer rescaling.

    Args:
        spectrum: Of the whole network or of one block.
        regularization: ``γ > 0``. Default 5e-4, our choice: the weight decay of `train`, which adds it to ``H``.

    Source: Jia & Su 2020, arXiv:1911.09295, for the log-determinant; the regularisation is ours.
    """
    gamma = check_real("regularization", regularization, 0.0, open_minimum=True)
    return check_spectrum(spectrum).trace_of(lambda x: np.log1p(np.abs(x) / gamma))
