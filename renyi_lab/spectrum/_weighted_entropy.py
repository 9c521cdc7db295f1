"""Rényi entropy of a vector whose entries occur several times, as the nodes of a spectrum do, and its derivative."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from renyi_lab._utils.arrays import finite_array
from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_instance, check_real, check_tensor

# Below this distance from α = 1 the difference quotient is formed without cancellation. Heuristic: above it, the plain
# formula loses at most one digit; the two branches agree to 1e-14 where they meet.
_NEAR_ONE = 0.1
# Closer to α = 1 than this, the influence is taken at 1. Heuristic: it is off by a relative 1e-6 at most, while the
# quotient for α ≠ 1 would lose ten digits and more.
_INFLUENCE_NEAR_ONE = 1e-6


def weighted_escort(values: FloatArray, multiplicities: FloatArray, alpha: float) -> FloatArray:
    """Escort probabilities ``w_k x_k^α / Σ w x^α`` of a vector in which entries occur several times.

    Args:
        values: Non-negative entries ``x``, not all zero, ``(k,)``.
        multiplicities: How often each occurs, ``w ≥ 0``, ``(k,)``; fractions are allowed.
        alpha: Order in ``[0, inf]``.

    Returns:
        Total escort probability of the copies of each entry, ``(k,)``.

    Raises:
        ValueError: Shapes that differ, entries that are negative, not finite or all zero, or an order below 0.
    """
    values, multiplicities, alpha = _checked(values, multiplicities, alpha)
    powers = _powers(values, alpha)
    shares = multiplicities * powers
    return np.asarray(shares / _positive(shares.sum()), dtype=np.float64)


def _checked(values: Any, multiplicities: Any, alpha: Any) -> tuple[FloatArray, FloatArray, float]:
    """The three arguments; multiplicities may be negative, as single weights of an estimate are."""
    entries = finite_array("values", values, None)
    counts = finite_array("multiplicities", multiplicities, len(entries))
    if not (entries >= 0).all() or not entries.any():
        raise ValueError("values must be non-negative and not all zero.")
    return entries, counts, check_real("alpha", alpha, 0.0, allow_infinite=True)


def _positive(total: Any) -> float:
    if not total > 0:
        raise ValueError(f"multiplicities must give positive sums of the values and their powers, got {total:g}.")
    return float(total)


def _powers(values: FloatArray, alpha: float) -> FloatArray:
    """``(x / max x)^α`` with ``0^0 = 0``, also where the ratio is too small for a number but its power is not."""
    relative = values / values.max()
    if math.isinf(alpha):
        return np.asarray(relative == 1.0, dtype=np.float64)
    logarithms = np.log(values, where=values > 0, out=np.full(values.shape, -np.inf))
    small = (relative < _smallest_ratio(np.finfo(np.float64))) & (values > 0)
    powers = np.where(relative > 0, relative, 0.0) ** alpha if alpha > 0 else (values > 0).astype(float)
    with np.errstate(over="ignore"):  # α of 1e308
        powers[small] = np.exp(alpha * (logarithms[small] - logarithms.max()))
    return np.asarray(powers)


def _smallest_ratio(info: Any) -> float:
    """The smallest number that has all its digits, and so has its product with what it is compared with."""
    return float(info.tiny / info.eps)


def weighted_renyi_entropy(values: Tensor, multiplicities: Tensor, alpha: float) -> Tensor:
    """Rényi entropy of a vector in which ``values[k]`` occurs ``multiplicities[k]`` times, in nats.

        H_α = 1/(1−α) · [log Σ_k w_k x_k^α − α log Σ_k w_k x_k]

    Args:
        values: Non-negative entries ``x``, not all zero, ``(k,)``.
        multiplicities: How often each occurs, ``(k,)``; fractions are allowed, as in a quadrature rule, and negative
            ones as long as the two sums are positive.
        alpha: Order in ``[0, inf]``.

    Returns:
        A scalar tensor, differentiable in both; NaN where a sum is not positive.

    Raises:
        TypeError: ``values`` or ``multiplicities`` is not a real tensor.
        ValueError: As for `weighted_escort`.
    """
    check_instance("values", values, Tensor)
    check_tensor("multiplicities", multiplicities, values.device)
    alpha = _checked(values, multiplicities, alpha)[2]
    relative = values / values.detach().max()
    total = (multiplicities * relative).sum()
    if alpha == 0:
        # The vanishing term keeps the result differentiable, with the derivative 0 that it has between its jumps.
        return multiplicities[values.detach() > 0].sum().log() + 0 * total
    positive = (values.detach() > 0) & (multiplicities != 0)
    p = relative[positive] / total
    weights = multiplicities[positive]
    if math.isinf(alpha):
        return -p.max().log()
    log_p = _log_ratios(values[positive], p, total)
    if alpha == 1:
        return -(weights * p * log_p).sum()
    excess = alpha - 1
    if abs(excess) < _NEAR_ONE:
        return -torch.log1p((weights * p * torch.expm1(excess * log_p)).sum()) / excess
    # As log-sum-exp, but for weights of any sign; α/(1−α) first, since α log p may be beyond the largest number.
    largest = log_p.detach().max()
    powers = (alpha * (log_p - largest)).exp()
    return (weights * powers).sum().log() / -excess - alpha / excess * largest


def _log_ratios(values: Tensor, p: Tensor, total: Tensor) -> Tensor:
    """``log p``; as a difference of logarithms where the ratio ``p`` is too small to have all its digits."""
    small = p.detach() < _smallest_ratio(torch.finfo(p.dtype))
    if not bool(small.any()):
        return p.log()
    difference = values.log() - values.detach().max().log() - total.log()
    return torch.where(small, difference, torch.where(small, torch.ones_like(p), p).log())


def entropy_influence(values: FloatArray, multiplicities: FloatArray, alpha: float) -> FloatArray:
    """Derivative of the weighted ``H_α`` by each multiplicity: what one more entry of that value would add, in nats.

        φ(x) = 1/(1−α) · [x^α / Σ w x^α − α x / Σ w x] ,      α → 1: φ = p (1 − log p − H_1)

    Args:
        values: Non-negative entries ``x``, not all zero, ``(k,)``.
        multiplicities: How often each occurs, ``w ≥ 0``, ``(k,)``; fractions are allowed.
        alpha: Order in ``[0, inf]``.

    Returns:
        Influence ``φ`` of each entry, ``(k,)``.

    Raises:
        ValueError: As for `weighted_escort`.
    """
    values, multiplicities, alpha = _checked(values, multiplicities, alpha)
    relative = values / values.max()
    p = relative / _positive(multiplicities @ relative)
    if abs(alpha - 1) < _INFLUENCE_NEAR_ONE:
        log_p = np.log(np.where(p > 0, p, 1.0))
        shannon = -float(multiplicities @ (p * log_p))
        return np.asarray(p * (1 - log_p - shannon))
    if math.isinf(alpha):
        return np.asarray(p)
    powers = _powers(values, alpha)
    return np.asarray((powers / _positive(multiplicities @ powers) - alpha * p) / (1 - alpha))


def spectral_entropy(nodes: FloatArray, weights: FloatArray, alpha: float, signed: bool) -> float:
    """``H_α`` of the magnitudes of the nodes; ``signed``: normalised by ``tr H`` in place of ``tr |H|``."""
    magnitudes = np.abs(nodes)
    entropy = float(weighted_renyi_entropy(torch.from_numpy(magnitudes), torch.from_numpy(weights), alpha))
    if not signed:
        return entropy
    trace = float(weights @ nodes)
    if trace <= 0:
        raise ValueError(
            'the trace is too uncertain for normalization="signed"; use a larger num_matvecs, or "absolute".'
        )
    # Written as a correction, it vanishes without rounding where no node is negative.
    return entropy + alpha / (1 - alpha) * math.log(float(weights @ magnitudes) / trace)


def spectral_influence(nodes: FloatArray, weights: FloatArray, alpha: float, trace: float | None) -> FloatArray:
    """Derivative of `spectral_entropy` by each weight; ``trace``: that of the signed normalisation, if it is used."""
    magnitudes = np.abs(nodes)
    if trace is None:
        return entropy_influence(magnitudes, weights, alpha)
    if alpha == 1 or math.isinf(alpha):
        raise ValueError(f'normalization="signed" is defined for finite alpha other than 1, got {alpha:g}.')
    if trace <= 0:
        raise ValueError(f'normalization="signed" needs a positive trace, got {trace:g}; use "absolute".')
    correction = magnitudes / float(weights @ magnitudes) - nodes / trace
    return entropy_influence(magnitudes, weights, alpha) + alpha / (1 - alpha) * correction
