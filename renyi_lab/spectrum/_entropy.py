r"""Rényi entropy of a probability vector, in nats.

    H_α(p) = 1/(1−α) · log Σ_i p_i^α ,      0 ≤ α ≤ ∞

with the limits  α → 0: log #{p_i > 0} (Hartley),  α → 1: −Σ p_i log p_i (Shannon),
α = 2: −log Σ p_i² (collision),  α → ∞: −log max p_i (min-entropy).

Its exponential is the effective number of entries, known as the Hill number: exp(H_1) of singular values is their
effective rank, exp(H_2) is the participation ratio.

Sources: Rényi 1961, *On measures of entropy and information*; Hill 1973 (effective numbers); Roy & Vetterli 2007
(effective rank); for a Hessian spectrum Zhang et al., arXiv:2510.07758 (2025).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from renyi_lab._utils.arrays import real_array
from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_real, is_iterable
from renyi_lab.spectrum._weighted_entropy import weighted_escort, weighted_renyi_entropy


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
        alpha: Order in ``[0, inf]``: 0 Hartley, 1 Shannon, 2 collision, ``math.inf`` min-entropy.

    Returns:
        A scalar tensor of ``p``'s dtype for a tensor, else a ``float``.

    Raises:
        TypeError: ``alpha`` is not a real number, or ``p`` does not hold real numbers.
        ValueError: ``alpha`` is negative or NaN; ``p`` is not a vector, is empty, has a negative or non-finite
            entry, or is all zero.

    Example:
        >>> round(renyi_entropy([0.25, 0.25, 0.25, 0.25], alpha=2), 4)
        1.3863
        >>> renyi_entropy([0.5, 0.5, 0.0], alpha=0) == math.log(2)
        True
    """
    order = check_alpha(alpha)
    values = _as_probability_weights(p)
    entropy = weighted_renyi_entropy(values, torch.ones_like(values), order)
    if not isinstance(p, Tensor):
        return float(entropy)
    return entropy.to(p.dtype) if p.is_floating_point() else entropy


def effective_number(p: Tensor | NDArray[Any] | Sequence[float], alpha: float) -> Tensor | float:
    """Effective number of entries ``exp(H_α(p))``, between 1 (one-hot) and ``n`` (uniform).

    The Hill number of order ``alpha`` in ecology. For singular values ``p``, order 1 is the effective rank; order 2 is
    the participation ratio ``(Σ p)² / Σ p²``; order 0 counts the positive entries.

    Args:
        p: Non-negative vector of shape ``(n,)``, as in `renyi_entropy`.
        alpha: Order in ``[0, inf]``, as in `renyi_entropy`.

    Returns:
        A scalar tensor of ``p``'s dtype for a tensor, else a ``float``.

    Raises:
        TypeError, ValueError: As in `renyi_entropy`.

    Source: Hill 1973; Roy & Vetterli 2007 for the effective rank.

    Example:
        >>> round(effective_number([2.0, 2.0, 0.0], alpha=1.5), 6)
        2.0
    """
    entropy = renyi_entropy(p, alpha)
    return entropy.exp() if isinstance(entropy, Tensor) else math.exp(entropy)


def escort_probabilities(p: NDArray[Any] | Sequence[float], alpha: float) -> FloatArray:
    """Escort distribution ``p_i^α / Σ_j p_j^α``: the weight that order ``alpha`` gives each entry.

    ``alpha = 0`` gives all positive entries the same weight, ``alpha = 1`` returns ``p`` normalised, and
    ``alpha = inf`` leaves only the largest entries.

    Args:
        p: Non-negative vector of shape ``(n,)``, as in `renyi_entropy`.
        alpha: Order in ``[0, inf]``, as in `renyi_entropy`.

    Returns:
        Escort probabilities ``(n,)``, which sum to 1.

    Raises:
        TypeError, ValueError: As in `renyi_entropy`.

    Source: Beck & Schlögl 1993, chapter 9.

    Example:
        >>> escort_probabilities([3.0, 1.0], alpha=2).round(2).tolist()
        [0.9, 0.1]
    """
    values = _as_probability_weights(p).detach().cpu().numpy()
    return weighted_escort(values, np.ones_like(values), check_alpha(alpha))


def check_alpha(alpha: float, name: str = "alpha") -> float:
    """Return the order as a ``float`` in ``[0, inf]``, or raise an error that names the special orders."""
    try:
        return check_real(name, alpha, 0.0, math.inf, allow_infinite=True)
    except ValueError as error:
        raise ValueError(
            f"{error} Use 0 (Hartley), 1 (Shannon), math.inf (min-entropy) or any order between."
        ) from None


def check_alphas(alphas: Any, name: str = "alpha") -> list[float] | None:
    """Return several orders as floats, each checked by `check_alpha`; ``None`` if ``alphas`` is a single value.

    Args:
        alphas: A sequence or a vector of orders.
        name: What messages call it; entries are ``name[0]``, ``name[1]`` and so on.

    Raises:
        TypeError: An entry is not a number, or the order of the entries is not defined.
        ValueError: No entry, a matrix, or an entry that is negative or NaN.
    """
    single = isinstance(alphas, (str, bytes)) or not is_iterable(alphas)
    if single or (isinstance(alphas, (np.ndarray, Tensor)) and alphas.ndim == 0):
        return None
    if isinstance(alphas, (Set, Mapping)):
        raise TypeError(
            f"{name} must be a number or a sequence of numbers, got a {type(alphas).__name__}; use sorted(...)."
        )
    if isinstance(alphas, Tensor):
        if alphas.layout is not torch.strided or alphas.device.type == "meta":
            raise TypeError(f"{name} must be a dense tensor with values, got {alphas.layout} on {alphas.device}.")
        if alphas.is_quantized:
            raise TypeError(f"{name} must hold real numbers, got dtype {alphas.dtype}.")
    if isinstance(alphas, (np.ndarray, Tensor)) and alphas.ndim > 1:
        raise ValueError(f"{name} must be a number or a vector, got shape {tuple(alphas.shape)}; use {name}.ravel().")
    entries = alphas.tolist() if isinstance(alphas, (np.ndarray, Tensor)) else list(alphas)
    if not entries:
        raise ValueError(f"{name} is empty; give at least one order, such as [0.5, 1, 2].")
    return [check_alpha(entry, f"{name}[{place}]") for place, entry in enumerate(entries)]


def _as_probability_weights(p: Any) -> Tensor:
    """``p`` as a checked vector in double precision (single on devices that lack it)."""
    values = p if isinstance(p, Tensor) else torch.from_numpy(real_array("p", p))
    if values.is_complex() or values.dtype == torch.bool or values.is_quantized:
        raise TypeError(f"p must hold real numbers, got dtype {values.dtype}.")
    if values.layout is not torch.strided or values.device.type == "meta":
        raise TypeError(f"p must be a dense tensor with values, got {values.layout} on {values.device}.")
    if values.ndim != 1 or values.numel() == 0:
        raise ValueError(
            f"p must be a vector with at least one entry, got shape {tuple(values.shape)}; flatten it with "
            f"p.reshape(-1)."
        )
    values = values.to(torch.float32 if values.device.type == "mps" else torch.float64)
    detached = values.detach()
    if not bool(torch.isfinite(detached).all()):
        raise ValueError("p must be finite, but holds NaN or infinity; remove or fix those entries.")
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
