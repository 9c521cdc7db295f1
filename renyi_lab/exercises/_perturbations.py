"""Checkers of `05_perturbations.ipynb`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from renyi_lab.exercises._feedback import Feedback, Hint, answer_of, close, explain, first_hint, number_of, tensor_of

_RHO = 0.3


def check_equal_weight(function: Callable[[Tensor, Tensor, float], Any]) -> Feedback:
    """Check ``function(W, A, rho)``: the weight that maps ``h`` to what ``W`` maps ``h + ρ A h`` to.

    Args:
        function: Your solution; ``W`` is the weight of a linear layer, ``(out, in)``, or of a one-dimensional
            convolution, ``(out, in, places)``, where ``A`` mixes the channels.
    """
    return first_hint(
        function,
        [_linear_weight, _weight_unchanged, _convolution_weight],
        "one line covers both: A acts on the index over which W sums.",
    )


def _linear_weight(function: Callable[..., Any]) -> str | None:
    W, A = _normal(5, 4, seed=1), _normal(4, 4, seed=2)
    mistakes = {
        "this is the change, ρWA; the exercise asks for the new weight, W included.": _RHO * W @ A,
        "A is transposed: h is a column here, so W (A h) = (W A) h without a transpose.": W + _RHO * W @ A.T,
        "ρ has no effect so far.": W + W @ A,
        "this is W unchanged: expand W (h + ρ A h) and collect the factor of h.": W,
    }
    answer = tensor_of(answer_of(function, W.clone(), A, _RHO), W.shape)
    return explain(answer, W + _RHO * W @ A, mistakes, "expand W (h + ρ A h), and keep the order of W and A.")


def _weight_unchanged(function: Callable[..., Any]) -> str | None:
    W, A = _normal(5, 4, seed=1), _normal(4, 4, seed=2)
    answer_of(function, W, A, _RHO)
    if torch.equal(W, _normal(5, 4, seed=1)):
        return None
    return "right, but W itself was changed: make a new tensor, without += or functions with a trailing _."


def _convolution_weight(function: Callable[..., Any]) -> str | None:
    W, A, h = _normal(6, 4, 3, seed=3), _normal(4, 4, seed=4), _normal(2, 4, 9, seed=5)
    answer = _for_convolution(function, W.shape, W.clone(), A, _RHO)
    mixed = torch.einsum("ij,njx->nix", A, h)
    if close(nn.functional.conv1d(h, answer), nn.functional.conv1d(h + _RHO * mixed, W)):
        return None
    return (
        "a linear weight is right. In a convolution weight, (out, in, places), the channels are the middle index: "
        "that is where A acts, equally at every place (torch.einsum)."
    )


def check_filter_normalized(function: Callable[[Tensor, Tensor], Any]) -> Feedback:
    """Check ``function(direction, weight)``: each filter ``direction[i]`` scaled to the length of ``weight[i]``.

    Args:
        function: Your solution; takes two linear weights, ``(out, in)``, or two convolution weights,
            ``(out, in, places)``. A filter of zeros stays zero.
    """
    return first_hint(
        function,
        [_linear_filters, _zero_filters, _convolution_filters],
        "along such directions, a network and its rescaled version have the same loss curves.",
    )


def _linear_filters(function: Callable[..., Any]) -> str | None:
    d, W = _normal(3, 4, seed=6), _normal(3, 4, seed=7) * torch.tensor([[1.0], [5.0], [0.2]], dtype=torch.float64)
    rows, columns = {"dim": 1, "keepdim": True}, {"dim": 0, "keepdim": True}
    mistakes = {
        "the tensor as a whole has the right length; each row, direction[i], needs its own.": d * W.norm() / d.norm(),
        "each row has length 1; give it the length of the weight's row.": d / d.norm(**rows),
        "rows are multiplied by the lengths of the weight's rows; also divide by their own.": d * W.norm(**rows),
        "columns were normalized; a filter is a row, direction[i].": d * W.norm(**columns) / d.norm(**columns),
    }
    answer = tensor_of(answer_of(function, d.clone(), W), d.shape)
    return explain(
        answer, _with_lengths(d, W), mistakes, "row i needs the direction of direction[i], the length of weight[i]."
    )


def _zero_filters(function: Callable[..., Any]) -> str | None:
    d, W = _normal(3, 4, seed=6), _normal(3, 4, seed=7)
    d[1] = 0.0
    answer = tensor_of(answer_of(function, d.clone(), W), d.shape)
    return explain(answer, _with_lengths(d, W), {}, "a filter of zeros should stay zero, not become NaN: avoid 0/0.")


def _convolution_filters(function: Callable[..., Any]) -> str | None:
    d, W = _normal(3, 2, 4, seed=8), _normal(3, 2, 4, seed=9)
    answer = _for_convolution(function, d.shape, d.clone(), W)
    return explain(
        answer, _with_lengths(d, W), {}, "a linear weight is right. A convolution filter is all of weight[i] (flatten)."
    )


def check_ball_factors(doubled: Any, one_steep: Any, all_equal: Any) -> Feedback:
    """Predict rises of a quadratic loss at its minimum, over a ball of 98 dimensions.

    Args:
        doubled: Factor by which the worst rise grows when the radius is doubled.
        one_steep: Worst rise divided by average rise, when one eigenvalue is 1 and the others are 0.
        all_equal: The same ratio when all 98 eigenvalues are 1.
    """
    slope = {"doubled: at a minimum the slope is zero, so the rise is ½ρ²λ, not proportional to ρ.": 2.0}
    sphere = {
        "one_steep: this is the average over the sphere; over the ball it is ½ρ² tr H/(n + 2).": 98.0,
        "one_steep: inverted; divide the worst by the average.": 0.01,
    }
    one = {"all_equal: on the sphere, yes. But the average is over the ball, including its inside.": 1.0}
    return first_hint(
        (doubled, one_steep, all_equal),
        [
            lambda given: explain(
                number_of(given[0]), 4.0, slope, "doubled: the worst rise is ½ρ²λ_max; substitute 2ρ."
            ),
            lambda given: explain(
                number_of(given[1]),
                100.0,
                sphere,
                "one_steep: divide ½ρ²λ_max by ½ρ² tr H/(n + 2); n = 98 and tr H = 1.",
            ),
            lambda given: explain(number_of(given[2]), 100 / 98, one, "all_equal: the same formula, with tr H = 98."),
        ],
        "all three. The ratio is (n + 2) λ_max / tr H: large where few of many directions are steep.",
    )


def _for_convolution(function: Callable[..., Any], shape: torch.Size, *arguments: Any) -> Tensor:
    try:
        return tensor_of(answer_of(function, *arguments), shape)
    except Hint as found:
        raise Hint(f"a linear weight is right. For a convolution weight of shape {tuple(shape)}: {found}") from None


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _with_lengths(direction: Tensor, weight: Tensor) -> Tensor:
    rows = [d * w.norm() / d.norm() if d.any() else d for d, w in zip(direction, weight, strict=True)]
    return torch.stack(rows)
