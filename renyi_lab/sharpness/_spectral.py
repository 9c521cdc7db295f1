"""Measures that are functions of a spectrum; they need no model."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from renyi_lab._utils.estimate import Estimate
from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_real
from renyi_lab.spectrum import Spectrum, check_spectrum

# Heuristic: the default weight decay of `train`, so that H + γI is the Hessian of the loss that is minimised.
REGULARIZATION = 5e-4
# Error of an eigenvalue relative to machine precision and the largest one. Heuristic: products of networks in single
# precision have errors of 1 to 10 times eps.
PRODUCT_ERROR = 10.0


def renyi_sharpness(spectrum: Spectrum, alpha: float) -> Estimate:
    r"""Rényi sharpness ``−H_α = −1/(1−α) · log Σ p_i^α`` with ``p_i = |λ_i| / Σ|λ_j|``, in nats.

    ``exp(H_1)`` is the effective rank, ``exp(H_2)`` the participation ratio.

    Invariance: ``H → cH``, hence for a single layer also a rescaling of the layers that leaves the function of a ReLU
    network unchanged; the spectrum of the whole network changes its shape under such a rescaling.

    Args:
        spectrum: Spectrum of the whole network or of one block.
        alpha: Order ``α`` in ``[0, inf]``.

    Raises:
        ValueError: The spectrum is all zero, or ``alpha`` is out of range.

    Source: Zhang et al., arXiv:2510.07758 (2025).

    Example:
        >>> renyi_sharpness(Spectrum.from_eigenvalues([3.0, 3.0]), 2.0).value == -math.log(2)
        True
    """
    return check_spectrum(spectrum).renyi_sharpness(alpha)


def trace(spectrum: Spectrum) -> Estimate:
    """``tr H = Σ λ_i``, in loss units per squared weight; ``n`` times the mean curvature.

    Invariance: rotations of weight space; not layer rescaling (``W → cW`` multiplies a block's trace by ``c⁻²``).

    Args:
        spectrum: Spectrum of the whole network or of one block.

    Source: Dinh et al. 2017, arXiv:1703.04933, who show that it can be changed at will by reparametrization.
    """
    return check_spectrum(spectrum).trace


def lambda_max(spectrum: Spectrum) -> Estimate:
    """``λ_max(H)``, the largest curvature; for an estimated spectrum a lower bound.

    The standard error of an estimate is the largest of the residual of its Ritz vector, its change since half the
    Lanczos steps, and how far a larger eigenvalue may hide; and ten times the rounding error of the products,
    ``10·eps·max|λ|``.

    Invariance: rotations of weight space; not layer rescaling (``c⁻²``).

    Args:
        spectrum: Spectrum of the whole network or of one block.

    Source: Keskar et al. 2017, arXiv:1609.04836: to second order it sets their sharpness.
    """
    value = check_spectrum(spectrum).max_eigenvalue
    if spectrum.sampling is None:
        return Estimate(value, 0.0, spectrum.num_matvecs)
    truncation = spectrum.sampling.top_error
    rounding = PRODUCT_ERROR * spectrum.sampling.eps * float(spectrum.magnitudes.max())
    return Estimate(value, math.hypot(truncation, rounding), spectrum.num_matvecs, truncation, rounding)


def frobenius_norm(spectrum: Spectrum) -> Estimate:
    """``‖H‖_F = √(Σ λ_i²)``.

    Invariance: rotations of weight space; not layer rescaling (``c⁻²``).

    Args:
        spectrum: Spectrum of the whole network or of one block.

    Source: standard; Rényi sharpness of order 2 is ``−H_2 = log(‖H‖_F² / (tr|H|)²)``.
    """
    squared = check_spectrum(spectrum).trace_of(np.square)
    value = math.sqrt(max(squared.value, 0.0))
    share = 1 / (2 * value) if value else 0.0
    return replace(
        squared,
        value=value,
        standard_error=share * squared.standard_error,
        truncation_error=share * squared.truncation_error,
        rounding_error=share * squared.rounding_error,
    )


def log_determinant(spectrum: Spectrum, regularization: float = REGULARIZATION) -> Estimate:
    """Regularised log-determinant ``log det(I + |H|/γ) = Σ log(1 + |λ_i|/γ)``, in nats.

    Without ``γ`` a single zero eigenvalue would make it −∞. It equals ``log det(γI + |H|) − n log γ``, so that flat
    directions contribute nothing.

    Invariance: rotations of weight space; not layer rescaling.

    Args:
        spectrum: Spectrum of the whole network or of one block.
        regularization: Regularisation ``γ > 0``. Default 5e-4 (heuristic: the default weight decay of `train`, which
            adds ``γI`` to ``H``).

    Raises:
        ValueError: ``regularization`` is not positive.

    Source: Jia & Su 2020, arXiv:1911.08192, for the log-determinant; they do not regularise it.
    """
    gamma = check_real("regularization", regularization, 0.0, open_minimum=True)
    smallest = np.finfo(np.float64).tiny

    def log_ratio(x: FloatArray) -> FloatArray:
        """``log(1 + |x|/γ)``, also where the quotient is beyond the largest float."""
        with np.errstate(over="ignore"):
            ratio = np.abs(x) / gamma
        beyond = np.log(np.maximum(np.abs(x), smallest)) - math.log(gamma)
        return np.asarray(np.where(np.isfinite(ratio), np.log1p(ratio), beyond))

    return check_spectrum(spectrum).trace_of(log_ratio)
