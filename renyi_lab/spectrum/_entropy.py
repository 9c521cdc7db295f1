r"""Rényi entropy of a probability vector, in nats.

    H_α(p) = 1/(1−α) · log Σ_i p_i^α ,      0 ≤ α ≤ ∞

with the limits  α → 0: log #{p_i > 0} (Hartley),  α → 1: −Σ p_i log p_i (Shannon),
α = 2: −log Σ p_i² (collision),  α → ∞: −log max p_i (min-entropy).

Source: Rényi 1961, *On measures of entropy and information*; for a Hessian spectrum
Zhang et al., arXiv:2510.07758.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_real

# Below this distance from α = 1 the difference quotient is formed without cancellation; above it, the
# plain formula loses at most one digit. Our choice; the two branches agree to 1e-14 where they meet.
_NEAR_ONE = 0.1


# Closer to α = 1 than this, the influence is that at 1: off by a relative 1e-6 at most, while the quotient for α ≠ 1
# would lose ten digits and more. Our choice.
_INFLUENCE_NEAR_ONE = 1e-6


@overload
def renyi_entropy(p: Tensor, alpha: float) -> Tensor: ...
@overload
def renyi_entropy(p: NDArray[Any] | Sequence[float], alpha: float) -> float: ...
def renyi_entropy(p: Tensor | NDArray[Any] | Sequence[float], alpha: float) -> Tensor | float:
    r"""Rényi entropy ``H_α = 1/(1−α) · log Σ p_i^α`` of a non-negative vector, in nats.

    The vector is normalised to sum 1 inside, so any non-negative weights may be passed:
    ``H_α(c·p) = H_α(p)``. ``0 ≤ H_α ≤ log n``, and ``H_α`` never increases with ``alpha``.

    Args:
        p: Non-negative vector of shape ``(n,)``; a torch tensor (the result is differentiable), a NumPy
            array or a sequence. At ``p_i = 0`` and ``alpha ≤ 1``, where the derivative is infinite, the
            gradient holds only the finite part that comes from the normalisation.
        alpha: Order in ``[0, inf]``; 0, 1 and ``math.inf`` are the limits named in the module's text.

    Returns:
        A scalar tensor of ``p``'s dtype for a tensor, else a ``float``.

    Raises:
        TypeError: ``alpha`` is not a real number, or ``p`` is no vector of real numbers.
        ValueError: ``alpha`` is negative or NaN; ``p`` is empty, has a negative or non-finite entry,
            or is all zero.

    Example:
        >>> round(renyi_entropy([0.25, 0.25, 0.25, 0.25], alpha=2), 4)
        1.3863
        >>> renyi_entropy([0.5, 0.5, 0.0], alpha=0) == math.log(2)
        True
    """
    order = _check_alpha(alpha)
    values = _as_probability_weights(p)
    entropy = weighted_renyi_entropy(values, torch.ones_like(values), order)
    return entropy.to(p.dtype) if isinstance(p, Tensor) and p.is_floating_point() else _plain(p, entropy)


def effective_number(p: Tensor | NDArray[Any] | Sequence[float], alpha: float) -> Tensor | float:
    """Effective number of directions ``exp(H_α(p))``, between 1 (one-hot) and ``n`` (uniform).

    Known in ecology as the Hill number of order ``alpha`` (Hill 1973). Arguments and errors as in
    `renyi_entropy`.

    Example:
        >>> round(effective_number([2.0, 2.0, 0.0], alpha=1.5), 6)
        2.0
    """
    entropy = renyi_entropy(p, alpha)
    return entropy.exp() if isinstance(entropy, Tensor) else math.exp(entropy)


def escort_probabilities(p: NDArray[Any] | Sequence[float], alpha: float) -> FloatArray:
    """Escort distribution ``p_i^α / Σ_j p_j^α``: the weight that order ``alpha`` gives each entry.

    ``alpha = 0`` weighs all positive entries alike, ``alpha = 1`` returns ``p`` normalised, and
    ``alpha = inf`` leaves only the largest entries. Source: Beck & Schlögl 1993, chapter 9.
    Arguments and errors as in `renyi_entropy`.

    Example:
        >>> escort_probabilities([3.0, 1.0], alpha=2).round(2).tolist()
        [0.9, 0.1]
    """
    values = _as_probability_weights(p).detach().cpu().numpy()
    return weighted_escort(values, np.ones_like(values), _check_alpha(alpha))


def weighted_escort(values: FloatArray, multiplicities: FloatArray, alpha: float) -> FloatArray:
    """Escort shares ``w_k x_k^α / Σ w x^α`` where ``values[k]`` occurs ``multiplicities[k]`` times."""
    relative = values / values.max()
    powers = (relative == 1.0).astype(float) if math.isinf(alpha) else np.where(relative > 0, relative**alpha, 0.0)
    shares = multiplicities * powers
    return np.asarray(shares / shares.sum(), dtype=np.float64)


def weighted_renyi_entropy(values: Tensor, multiplicities: Tensor, alpha: float) -> Tensor:
    """Rényi entropy of a vector in which ``values[k]`` occurs ``multiplicities[k]`` times, in nats.

        H_α = 1/(1−α) · [log Σ_k w_k x_k^α − α log Σ_k w_k x_k]

    Multiplicities may be fractional, as in a quadrature rule for a spectrum. Nothing is checked here.
    """
    relative = values / values.detach().max()
    total = (multiplicities * relative).sum()
    if alpha == 0:
        # The vanishing term keeps the result differentiable, with the derivative 0 that it has between its jumps.
        return multiplicities[values.detach() > 0].sum().log() + 0 * total
    positive = (relative.detach() > 0) & (multiplicities > 0)
    p = relative[positive] / total
    weights = multiplicities[positive]
    if math.isinf(alpha):
        return -p.max().log()
    log_p = p.log()
    if alpha == 1:
        return -(weights * p * log_p).sum()
    excess = alpha - 1
    if abs(excess) < _NEAR_ONE:
        return -torch.log1p((weights * p * torch.expm1(excess * log_p)).sum()) / excess
    return torch.logsumexp(alpha * log_p + weights.log(), dim=0) / -excess


def entropy_influence(values: FloatArray, multiplicities: FloatArray, alpha: float) -> FloatArray:
    """Derivative of the weighted ``H_α`` by each multiplicity: what one more entry of that value would add, in nats.

    φ(x) = 1/(1−α) · [x^α / Σ w x^α − α x / Σ w x] ,      α → 1: φ = p (1 − log p − H_1)
    """
    relative = values / values.max()
    p = relative / (multiplicities @ relative)
    if abs(alpha - 1) < _INFLUENCE_NEAR_ONE:
        log_p = np.log(np.where(p > 0, p, 1.0))
        shannon = -float(multiplicities @ (p * log_p))
        return np.asarray(p * (1 - log_p - shannon))
    if math.isinf(alpha):
        return np.asarray(p)
    powers = np.where(relative > 0, relative, 0.0) ** alpha if alpha > 0 else (relative > 0).astype(float)
    return np.asarray((powers / (multiplicities @ powers) - alpha * p) / (1 - alpha))


def _check_alpha(alpha: float) -> float:
    try:
        return check_real("alpha", alpha, 0.0, math.inf, allow_infinite=True)
    except ValueError as error:
        raise ValueError(
            f"{error} Use 0 (Hartley), 1 (Shannon), math.inf (min-entropy) or any order between."
        ) from None


def _as_probability_weights(p: Any) -> Tensor:
    """``p`` as a checked vector in double precision (single on devices that lack it)."""
    values = p if isinstance(p, Tensor) else _as_tensor(p)
    if values.is_complex() or values.dtype == torch.bool:
        raise TypeError(f"p must hold real numbers, got dtype {values.dtype}.")
    if values.ndim != 1 or values.numel() == 0:
        raise ValueError(
            f"p must be a vector with at least one entry, got shape {tuple(values.shape)}; flatten it with "
            f"p.reshape(-1)."
        )
    values = values.to(torch.float32 if values.device.type == "mps" else torch.float64)
    detached = values.detach()
    if not bool(torch.isfinite(detached).all()):
        raise ValueError("p must be finite, but holds NaN or infinity; remove or repair those entries.")
    smallest, largest = float(detached.min()), float(detached.max())
    if smallest < 0:
        raise ValueError(
            f"p must be non-negative, got an entry {smallest:g}; for eigenvalues pass their absolute values."
        )
    if largest == 0:
        raise ValueError(
            "p is all zero, so it cannot be normalised to a distribution; pass at least one positive entry."
        )
    return values


def _as_tensor(p: Any) -> Tensor:
    try:
        array = np.asarray(p)
    except ValueError as error:
        raise ValueError(f"p must be a vector of numbers, but its entries differ in length: {error}") from error
    if array.dtype.kind not in "iuf":
        raise TypeError(f"p must hold real numbers, got dtype {array.dtype}.")
    # A copy: torch takes neither negative strides nor read-only memory.
    return torch.from_numpy(np.array(array, dtype=np.float64, order="C"))


def _plain(p: Any, entropy: Tensor) -> Tensor | float:
    return entropy if isinstance(p, Tensor) else float(entropy)
