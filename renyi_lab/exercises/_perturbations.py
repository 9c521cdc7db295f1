"""Checkers of `05_perturbations.ipynb`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from renyi_lab.exercises._feedback import Feedback, answer_of, close, explain, first_hint, number_of, tensor_of
from renyi_lab.perturbation import weight_perturbation

_RHO = 0.3


def check_equal_weight(function: Callable[[Tensor, Tensor, float], Any]) -> Feedback:
    """Check ``function(W, A, rho)``: the weight that maps ``h`` to what ``W`` maps ``h + ρ A h`` to.

    Args:
        function: Your solution; ``W`` is the weight of a linear layer, ``(out, in)``, and ``A`` is ``(in, in)``.
    """
    feedback = first_hint(
        function,
        [_linear_weight],
        "one matrix product: A acts on the index over which W sums.",
    )
    return feedback.otherwise(function, _equal_weight)


def check_convolution_weight(function: Callable[[Tensor, Tensor, float], Any]) -> Feedback:
    """Check ``function(W, A, rho)`` for a one-dimensional convolution, where ``A`` mixes the channels of the input.

    Args:
        function: Your solution; ``W`` is the weight of a convolution, ``(out, in, places)``, and ``A`` is ``(in, in)``.
    """
    return first_hint(
        function,
        [_convolution_weight],
        "A acts on the channels, the index over which W sums, and equally at every place.",
    )


def check_kappa(function: Callable[[Tensor, Tensor, Tensor], Any]) -> Feedback:
    """Check ``function(W, h, p)``: the relative flatness ``κ`` of a last linear layer under cross-entropy.

    Args:
        function: Your solution; takes the weight ``(classes, n)``, the layer's inputs ``(N, n)`` and the predicted
            probabilities ``(N, classes)``.
    """
    feedback = first_hint(function, [_kappa_value], "the weights enter as the products ⟨w_s, w_t⟩.")
    return feedback.otherwise(function, _kappa)


def check_neuron_flatness(function: Callable[[Tensor, Tensor, Tensor], Any]) -> Feedback:
    """Check ``function(W, h, p)``: twice the average rise over ``ρ²`` for diagonal ``A`` of random signs.

    Args:
        function: Your solution; takes the weight ``(classes, n)``, the layer's inputs ``(N, n)`` and the predicted
            probabilities ``(N, classes)``.
    """
    return first_hint(
        function,
        [_neuron_value],
        "c² of h_j and c⁻² of the column of W cancel for every neuron by itself.",
    )


def _linear_weight(function: Callable[..., Any]) -> str | None:
    W, A = _normal(5, 4, seed=1), _normal(4, 4, seed=2)
    mistakes = {
        "this is the change, ρWA; the whole new weight is wanted, W included.": _RHO * W @ A,
        "A is transposed: h is a column here, so W (A h) = (W A) h without a transpose.": W + _RHO * W @ A.T,
        "ρ has no effect so far.": W + W @ A,
        "this is W unchanged: expand W (h + ρ A h) and collect the factor of h.": W,
    }
    answer = tensor_of(answer_of(function, W.clone(), A.clone(), _RHO), W.shape)
    return explain(answer, _equal_weight(W, A, _RHO), mistakes, "expand W (h + ρ A h), and keep the order of W and A.")


def _convolution_weight(function: Callable[..., Any]) -> str | None:
    W, A, h = _normal(6, 4, 3, seed=3), _normal(4, 4, seed=4), _normal(2, 4, 9, seed=5)
    answer = tensor_of(answer_of(function, W.clone(), A.clone(), _RHO), W.shape)
    mixed = torch.einsum("ij,njx->nix", A, h)
    if close(nn.functional.conv1d(h, answer), nn.functional.conv1d(h + _RHO * mixed, W)):
        return None
    mistakes = {
        "this is W unchanged; the part ρ W A is missing.": W,
        "this is the change alone; add W.": _equal_weight(W, A, _RHO) - W,
        "A is transposed: sum over the first index of A.": _equal_weight(W, A.T, _RHO),
    }
    otherwise = (
        "In a convolution weight, (out, in, places), the channels are the middle index: that is where A acts, equally "
        "at every place (torch.einsum)."
    )
    return explain(answer, _equal_weight(W, A, _RHO), mistakes, otherwise)


def _layer() -> dict[str, Tensor]:
    return {
        "W": _normal(3, 4, seed=10),
        "h": _normal(6, 4, seed=11) * torch.tensor([1.0, 2.0, 0.5, 1.0], dtype=torch.float64),
        "p": (2 * _normal(6, 3, seed=12)).softmax(dim=1),
    }


def _kappa_value(function: Callable[..., Any]) -> str | None:
    W, h, p = _layer().values()
    answer = number_of(answer_of(function, *_layer().values()))
    wanted, curvature = _kappa(W, h, p), torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    lengths, gram = h.square().sum(dim=1), W @ W.T
    per_sample = (curvature * gram).sum(dim=(1, 2))
    variances = (p * (1 - p) * gram.diagonal()).sum(dim=1)
    mistakes = {
        "the loss is a mean over samples: divide by their number.": wanted * len(h),
        "the factor ‖h‖² of every sample is missing.": float(per_sample.mean()),
        "‖h‖ enters squared.": float((lengths.sqrt() * per_sample).mean()),
        "average the product over samples, not its factors separately.": float(lengths.mean() * per_sample.mean()),
        "this counts the pairs s = t only; pairs of different outputs contribute −p_s p_t ⟨w_s, w_t⟩.": float(
            (lengths * variances).mean()
        ),
        "this is the trace of the layer's Hessian: the products ⟨w_s, w_t⟩ of the weights are missing.": float(
            (lengths * (1 - p.square().sum(dim=1))).mean()
        ),
    }
    return explain(answer, wanted, mistakes, "sum ⟨w_s, w_t⟩ · mean(‖h‖² (diag(p) − p pᵀ))_st over all s and t.")


def _neuron_value(function: Callable[..., Any]) -> str | None:
    W, h, p = _layer().values()
    answer = number_of(answer_of(function, *_layer().values()))
    curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    each = h.square() * torch.einsum("sj,ist,tj->ij", W, curvature, W)
    wanted = float(each.sum(dim=1).mean())
    mistakes = {
        "this is κ; with A diagonal, input j changes by ± ρ h_j and meets column j of W alone.": _kappa(W, h, p),
        "the entries of A are ±1, of variance 1: there is no 1/n here.": wanted / h.shape[1],
        "the loss is a mean over samples: divide by their number.": wanted * len(h),
        "leave the factor ½ ρ² out.": wanted / 2,
    }
    return explain(answer, wanted, mistakes, "sum h_j² · wᵀ (diag(p) − p pᵀ) w over the columns w of W, then average.")


def _equal_weight(W: Tensor, A: Tensor, rho: float) -> Tensor:
    return W + rho * weight_perturbation(W, A)


def _kappa(W: Tensor, h: Tensor, p: Tensor) -> float:
    spread = p @ W.square().sum(dim=1) - (p @ W).square().sum(dim=1)
    return float((h.square().sum(dim=1) * spread).mean())


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
