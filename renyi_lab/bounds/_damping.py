"""A positive definite substitute for a trained network's spectrum, which has negative and vanishing eigenvalues."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np

from renyi_lab._utils.validation import check_real
from renyi_lab.spectrum import QuadratureRule, Spectrum, check_spectrum

Rule = TypeVar("Rule", bound=QuadratureRule)


def positive_definite(spectrum: Spectrum, damping: float) -> Spectrum:
    """The spectrum of H₊ + ηI: negative eigenvalues clipped at zero, then all raised by the damping η.

    That of an estimated spectrum is an estimate too, with standard errors.

    On the basin of H₊ + ηI the quadratic loss of H itself is never larger than that of H₊ + ηI, so the level-set bound
    stays a bound; what negative eigenvalues add to it is `negative_ratio` times the basin's height.

    Args:
        spectrum: Spectrum of any symmetric matrix H.
        damping: η > 0, in units of the eigenvalues.

    Raises:
        TypeError: Something that is not a `Spectrum`.
        ValueError: η ≤ 0.

    Example:
        >>> positive_definite(Spectrum.from_eigenvalues([-1.0, 0.0, 2.0]), 0.5).nodes.tolist()
        [0.5, 0.5, 2.5]
    """
    check_spectrum(spectrum)
    eta = check_real("damping", damping, 0.0, open_minimum=True)

    def damped(rule: Rule) -> Rule:
        return replace(rule, nodes=rule.nodes.clip(min=0) + eta)

    sampling = spectrum.sampling
    if sampling is not None:
        sampling = replace(sampling, levels=tuple(map(damped, sampling.levels)), last=damped(sampling.last))
    return replace(damped(spectrum), sampling=sampling)


def negative_ratio(spectrum: Spectrum, damping: float) -> float:
    """|λ_min|/η for a negative λ_min, else 0: how far the loss falls below its value at the minimum, in heights.

    Where λ_min < 0 the basin of H₊ + ηI reaches ½‖δ‖² = r/η, so the loss falls by r |λ_min|/η at most. Arguments and
    errors as for `positive_definite`.
    """
    check_spectrum(spectrum)
    eta = check_real("damping", damping, 0.0, open_minimum=True)
    return max(0.0, -_smallest(spectrum)) / eta


def log_determinant(spectrum: Spectrum) -> float:
    """log|H| = Σ w log λ of a positive definite spectrum.

    Args:
        spectrum: Spectrum of H ≻ 0.

    Raises:
        TypeError: Something that is not a `Spectrum`.
        ValueError: An eigenvalue that is not positive.
    """
    check_spectrum(spectrum)
    if _smallest(spectrum) <= 0:
        raise ValueError(
            f"the spectrum has an eigenvalue {_smallest(spectrum):.3g}, so it has no log-determinant: "
            "take positive_definite(spectrum, damping), which clips and damps, and states what that costs."
        )
    counted = spectrum.weights != 0  # those of repeated eigenvalues may be negative
    return float(spectrum.weights[counted] @ np.log(spectrum.nodes[counted]))


def _smallest(spectrum: Spectrum) -> float:
    return float(spectrum.nodes[spectrum.weights != 0].min())
