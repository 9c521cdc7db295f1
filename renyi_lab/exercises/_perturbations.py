"""Checkers of `05_perturbations.ipynb`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from renyi_lab.exercises._feedback import Feedback, Hint, answer_of, first_hint, number_of

_TOLERANCE = 1e-5  # relative; answers in single precision pass
_RHO = 0.3


def check_equal_weight(function: Callable[[Tensor, Tensor, float], Any]) -> Feedback:
    """Check ``function(W, A, rho)``: the weight that does to ``h`` what ``W`` does to ``h + ρ A h``.

    ``W`` is the weight of a linear layer, ``(out, in)``, or of a one-dimensional convolution, ``(out, in, places)``,
    where ``A`` mixes the channels.
    """
    return first_hint(
        function,
        [_linear_weight, _weight_kept, _convolution_weight],
        "one line does both: A acts on the index over which W sums.",
    )


def _linear_weight(function: Callable[..., Any]) -> str | None:
    W, A = _normal(5, 4, seed=1), _normal(4, 4, seed=2)
    expected = W + _RHO * W @ A
    answer = _tensor_of(function, W, A, _RHO)
    if answer.shape != W.shape:
        return f"for W of shape {tuple(W.shape)} the result has shape {tuple(answer.shape)}; it has to replace W."
    if _close(answer, expected):
        return None
    if _close(answer, _RHO * W @ A):
        return "this is the change, ρWA; what is asked for is the whole weight, with W itself in it."
    if _close(answer, W + _RHO * W @ A.T):
        return "A is transposed: h is a column here, W (A h) = (W A) h. No transpose is needed."
    if _close(answer, W + W @ A):
        return "ρ has no effect so far."
    if _close(answer, W):
        return "this is W unchanged: multiply out W (h + ρ A h) and collect what stands before h."
    return "on a 5 × 4 weight it differs from what W (h + ρ A h) asks for: multiply out, and keep the order of W and A."


def _weight_kept(function: Callable[..., Any]) -> str | None:
    W, A = _normal(5, 4, seed=1), _normal(4, 4, seed=2)
    before = W.clone()
    _tensor_of(function, W, A, _RHO)
    return (
        None if torch.equal(W, before) else "W itself was changed: make a new tensor, without += or functions with _."
    )


def _convolution_weight(function: Callable[..., Any]) -> str | None:
    W, A, h = _normal(6, 4, 3, seed=3), _normal(4, 4, seed=4), _normal(2, 4, 9, seed=5)
    try:
        answer = _tensor_of(function, W, A, _RHO)
    except Hint as found:
        return f"a linear layer's weight is right. For a convolution's, of shape (6, 4, 3): {found}"
    if answer.shape != W.shape:
        return f"a linear layer's weight is right; a convolution's, {tuple(W.shape)}, becomes {tuple(answer.shape)}."
    mixed = torch.einsum("ij,njx->nix", A, h)
    if _close(nn.functional.conv1d(h, answer), nn.functional.conv1d(h + _RHO * mixed, W)):
        return None
    return (
        "a linear layer's weight is right. In a convolution's, (out, in, places), the channels are the middle index: "
        "that is where A belongs, the same at every place (torch.einsum)."
    )


def check_filter_normalized(function: Callable[[Tensor, Tensor], Any]) -> Feedback:
    """Check ``function(direction, weight)``: each filter ``direction[i]`` as long as ``weight[i]``.

    For a linear weight, ``(out, in)``, and a convolution's, ``(out, in, places)``; a filter of zeros stays zero.
    """
    return first_hint(
        function,
        [_linear_filters, _zero_filters, _convolution_filters],
        "along such a direction, a network with small weights and its rescaled twin look alike.",
    )


def _linear_filters(function: Callable[..., Any]) -> str | None:
    d, W = _normal(3, 4, seed=6), _normal(3, 4, seed=7) * torch.tensor([[1.0], [5.0], [0.2]], dtype=torch.float64)
    answer = _tensor_of(function, d, W)
    if answer.shape != d.shape:
        return f"for a direction of shape {tuple(d.shape)} the result has shape {tuple(answer.shape)}."
    if _close(answer, _with_lengths(d, W)):
        return None
    if _close(answer, d * W.norm() / d.norm()):
        return (
            "the tensor as a whole has the weight's length now; it is each row, direction[i], that should have its own."
        )
    if _close(answer, d / d.norm(dim=1, keepdim=True)):
        return "each row has length 1 now; give it the length of the weight's row."
    if _close(answer, d * W.norm(dim=1, keepdim=True)):
        return "rows are multiplied by the weight's lengths; divide by their own as well."
    if _close(answer, d * W.norm(dim=0, keepdim=True) / d.norm(dim=0, keepdim=True)):
        return "columns were normalised; a filter is what feeds one output: a row, direction[i]."
    return "row i of the result should point where direction[i] does, and be as long as weight[i]."


def _zero_filters(function: Callable[..., Any]) -> str | None:
    d, W = _normal(3, 4, seed=6), _normal(3, 4, seed=7)
    d[1] = 0.0
    answer = _tensor_of(function, d, W)
    if _close(answer, _with_lengths(d, W)):
        return None
    return "a filter of the direction that is all zero should stay zero, not become NaN: 0/0 needs care."


def _convolution_filters(function: Callable[..., Any]) -> str | None:
    d, W = _normal(3, 2, 4, seed=8), _normal(3, 2, 4, seed=9)
    try:
        answer = _tensor_of(function, d, W)
    except Hint as found:
        return f"a linear layer is right. For a convolution, of shape (3, 2, 4): {found}"
    if answer.shape == d.shape and _close(answer, _with_lengths(d, W)):
        return None
    return "a linear layer is right. A convolution's filter is all of weight[i]; it has one length (flatten)."


def check_ball_factors(doubled: Any, one_steep: Any, all_equal: Any) -> Feedback:
    """Predict rises of a quadratic loss at its minimum, over a ball of 98 dimensions.

    Args:
        doubled: By what factor the worst rise grows when the radius is doubled.
        one_steep: Worst rise divided by average rise, when one eigenvalue is 1 and the others are 0.
        all_equal: The same, when all 98 eigenvalues are 1.
    """
    return first_hint(
        (doubled, one_steep, all_equal),
        [_doubled, _one_steep, _all_equal],
        "all three. The ratio is (n + 2) λ_max / tr H: large where few of many directions are steep.",
    )


def _doubled(answers: tuple[Any, Any, Any]) -> str | None:
    factor = number_of(answers[0])
    if abs(factor - 4) <= _TOLERANCE:
        return None
    if abs(factor - 2) <= _TOLERANCE:
        return "doubled: at a minimum there is no slope, only curvature: the rise is ½ρ²λ, not ρ times something."
    return "doubled: the worst rise is ½ρ²λ_max; put in 2ρ."


def _one_steep(answers: tuple[Any, Any, Any]) -> str | None:
    ratio = number_of(answers[1])
    if abs(ratio - 100) <= 100 * _TOLERANCE:
        return None
    if abs(ratio - 98) <= 98 * _TOLERANCE:
        return "one_steep: this is the average over the ball's surface; over the whole ball it is ½ρ² tr H/(n + 2)."
    if abs(ratio - 0.01) <= _TOLERANCE:
        return "one_steep: upside down; the worst stands on top."
    return "one_steep: divide ½ρ²λ_max by ½ρ² tr H/(n + 2), with n = 98 and tr H = 1."


def _all_equal(answers: tuple[Any, Any, Any]) -> str | None:
    ratio = number_of(answers[2])
    if abs(ratio - 100 / 98) <= _TOLERANCE:
        return None
    if abs(ratio - 1) <= _TOLERANCE:
        return "all_equal: on the surface of the ball, yes. But the average is over the whole ball, its inside too."
    return "all_equal: the same formula, with tr H = 98."


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _tensor_of(function: Callable[..., Any], *arguments: Any) -> Tensor:
    answer = answer_of(function, *arguments)
    if not isinstance(answer, Tensor):
        raise Hint(f"a torch tensor is asked for, this is of type {type(answer).__name__}.")
    return answer.detach().double()


def _close(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool((one - other).abs().max() <= _TOLERANCE * other.abs().max())


def _with_lengths(direction: Tensor, weight: Tensor) -> Tensor:
    rows = []
    for d, w in zip(direction, weight, strict=True):
        rows.append(d * w.norm() / d.norm() if d.any() else d)
    return torch.stack(rows)
