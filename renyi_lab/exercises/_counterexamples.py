"""Checkers of `09_when_sharpness_fails.ipynb`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from renyi_lab.counterexamples import minimal_trace
from renyi_lab.exercises._feedback import Feedback, Hint, answer_of, explain, first_hint, number_of, tensor_of

_RHO = 0.3


def check_output_gradients(function: Callable[[Tensor, Tensor, Tensor], Any]) -> Feedback:
    """Check ``function(x, W, w)``: the derivatives ``(U, A)`` of ``f = w · relu(W x)``, for every sample.

    Args:
        function: Your solution; takes the inputs ``(n, d)``, the first layer ``(m, d)`` and the second ``(m,)``, and
            returns ``U = ∂f/∂w`` and ``A = ∂f/∂Z`` with ``Z = x Wᵀ``, both ``(n, m)``.
    """
    feedback = first_hint(
        function,
        [_gradients_hint],
        "with them, the gradient of sample i is the pair of A_i x_iᵀ, a matrix of rank one, and U_i.",
        signature="(x, W, w)",
    )
    return feedback.otherwise(function, _output_gradients)


def check_one_sam_point(function: Callable[..., Any]) -> Feedback:
    """Check ``function(Z, w, U, A, e, lengths, rho)``: where SAM with batch size 1 looks, for every sample.

    Args:
        function: Your solution; takes the pre-activations ``(n, m)``, the second layer ``(m,)``, the derivatives ``U``
            and ``A`` of the output, the errors ``e = f − y`` ``(n,)``, the squared lengths ``‖x_i‖²`` ``(n,)`` and ρ.
            Returns the perturbed pre-activations and the perturbed second layers, both ``(n, m)``.
    """
    feedback = first_hint(
        function,
        [_point_hint],
        "n perturbed networks, and none of their first layers was written down.",
        signature="(Z, w, U, A, e, lengths, rho)",
    )
    return feedback.otherwise(function, _one_sam_point)


def check_gram_eigenvalues(function: Callable[[Tensor, Tensor, Tensor], Any]) -> Feedback:
    """Check ``function(U, A, x)``: the eigenvalues of ``(2/n) [U Uᵀ + (A Aᵀ) ∘ (x xᵀ)]``, in ascending order.

    Args:
        function: Your solution; takes the derivatives of the output, ``(n, m)``, and the inputs ``(n, d)``; returns
            ``n`` numbers.
    """
    feedback = first_hint(
        function,
        [_gram_hint],
        "all that is not zero in the spectrum of the Hessian at interpolation.",
        signature="(U, A, x)",
    )
    return feedback.otherwise(function, _gram_eigenvalues)


def check_minimal_trace(function: Callable[[int, bool], Any]) -> Feedback:
    """Check ``function(d, bias)``: the smallest trace of the Hessian of a network that interpolates ``y = ±1``.

    Args:
        function: Your solution; takes the number of features and whether the first layer has biases.
    """
    return first_hint(
        function, [_trace_hint], "no network of this kind that fits ±1 has a smaller one.", signature="(d, bias)"
    )


def check_rescaled_unit(eigenvalue: Any, trace: Any, effective: Any) -> Feedback:
    """Predict what the rescaling of one unit does to the memorizing network with 100 samples.

    Args:
        eigenvalue: Factor by which the eigenvalue of the unit's sample grows, for ``c = 2``.
        trace: Factor by which the trace grows.
        effective: ``exp(H_∞) = tr H / λ_max`` afterwards.
    """
    first = {
        "eigenvalue: that is one of the two parts alone; the other becomes c² times smaller.": 4.0,
        "eigenvalue: the two parts were equal before, so average their factors instead of adding them.": 4.25,
        "eigenvalue: the function stays the same, the two parts of the gradient do not.": 1.0,
    }
    second = {"trace: only one of the 100 eigenvalues grows.": 2.125, "trace: the other 99 stay.": 0.02125}
    second["trace: this is the new sum in units of an old eigenvalue; divide by the old sum."] = 101.125
    inverted = "effective: inverted; divide the trace by λ_max."
    third = {"effective: 100 was the number before.": 100.0, inverted: 2.125 / 101.125}
    return first_hint(
        (eigenvalue, trace, effective),
        [
            lambda given: explain(number_of(given[0]), 2.125, first, "eigenvalue: proportional to s² + ‖x̃‖²/s²."),
            lambda given: explain(number_of(given[1]), 1.01125, second, "trace: 99 eigenvalues stay, one changes."),
            lambda given: explain(number_of(given[2]), 101.125 / 2.125, third, "effective: (99 + v)/v, not rounded."),
        ],
        "one unit, written in other units, halves the effective number of directions; the function is the same.",
    )


def _pair_of(answer: Any, what: str) -> list[Any]:
    if not isinstance(answer, (tuple, list)) or len(answer) != 2:
        raise Hint(f"return two tensors, {what}; got {type(answer).__name__}.")
    return list(answer)


def _network() -> tuple[Tensor, Tensor, Tensor]:
    return _normal(5, 3, seed=30), _normal(4, 3, seed=31), _normal(4, seed=32)


def _gradients_hint(function: Callable[..., Any]) -> str | None:
    x, W, w = _network()
    pair = _pair_of(answer_of(function, x.clone(), W.clone(), w.clone()), "U and A")
    (U, A), Z = _output_gradients(x, W, w), x @ W.T
    found_U, found_A = (tensor_of(part, U.shape) for part in pair)
    of_U = {
        "the two are exchanged: return U, then A.": A,
        "U is the hidden layer after the ReLU, not before.": Z,
        "U is a derivative with respect to w, so w does not occur in it.": U * w,
    }
    of_A = {
        "A: the derivative of the ReLU is missing; units that are off have none.": w.expand_as(A),
        "A: the derivative of relu(z) is 1 or 0, not relu(z).": U * w,
        "A: the weight w_j of each unit is missing.": (Z > 0).double(),
        "A: the derivative of relu(z) is 0, not −1, where z < 0.": w * Z.sign(),
    }
    hint = explain(found_U, U, of_U, "U_ij = relu(Z_ij), with Z = x Wᵀ.")
    return hint or explain(found_A, A, of_A, "A_ij = w_j where Z_ij > 0, and 0 elsewhere.")


def _point_hint(function: Callable[..., Any]) -> str | None:
    x, W, w = _network()
    U, A = _output_gradients(x, W, w)
    Z, lengths, e = x @ W.T, x.square().sum(1), _normal(5, seed=33)
    arguments = (Z, w, U, A, e, lengths)
    pair = _pair_of(answer_of(function, *(part.clone() for part in arguments), _RHO), "of Z and of w")
    wanted_Z, wanted_w = _one_sam_point(*arguments, _RHO)
    found_Z, found_w = (tensor_of(part, Z.shape) for part in pair)
    step = _RHO / (A.square().sum(1) * lengths + U.square().sum(1)).sqrt()
    signed, long = (step * e.sign())[:, None], lengths[:, None]
    without_first = (_RHO * e.sign() / (A.square().sum(1) + U.square().sum(1)).sqrt())[:, None]
    hints = {
        "the two are exchanged: return the moved Z, then the moved w.": wanted_w,
        "of Z: add the step to Z itself.": signed * long * A,
        "of Z: the length of the perturbation is ρ; the factor ρ is missing.": Z + signed / _RHO * long * A,
        "of Z: the factor is the squared length ‖x_i‖², not ‖x_i‖.": Z + signed * long.sqrt() * A,
        "the sign of the error is missing: where f is too small, move it down.": Z + step[:, None] * long * A,
        "this step goes down the loss; SAM looks uphill.": Z - signed * long * A,
        "x_i meets x_i: the change of W is a multiple of A_i x_iᵀ, so that of Z_i has the factor ‖x_i‖².": (
            Z + signed * A
        ),
        "N_i² is ‖A_i‖²‖x_i‖² + ‖U_i‖²: the length of A_i x_iᵀ is ‖A_i‖‖x_i‖.": Z + without_first * long * A,
        "the length is ρ: the size of e_i cancels, its sign stays.": Z + (step * e)[:, None] * long * A,
        "divide by N_i, not by N_i².": Z + signed * step[:, None] / _RHO * long * A,
        "this is Z without a perturbation.": Z,
    }
    hint = explain(found_Z, wanted_Z, hints, "of Z: Z_i + ρ sign(e_i) ‖x_i‖² A_i / N_i, N_i² = ‖A_i‖²‖x_i‖² + ‖U_i‖².")
    of_w = {
        "of w: here no input is involved, so that there is no factor ‖x_i‖².": w + signed * long * U,
        "of w: add the step to w itself.": signed * U,
        "of w: this step goes down the loss; SAM looks uphill.": w - signed * U,
        "of w: the sign of the error is missing.": w + step[:, None] * U,
    }
    return (
        hint
        or explain(found_w, wanted_w, of_w, "of w: w + ρ sign(e_i) U_i / N_i, one row for every sample.")
        or _no_gradient_hint(function)
    )


def _no_gradient_hint(function: Callable[..., Any]) -> str | None:
    """A sample on which every unit is off has no gradient: it is not moved."""
    Z, w, zero = -torch.ones(1, 2, dtype=torch.float64), torch.ones(2, dtype=torch.float64), torch.zeros(1, 2).double()
    one = torch.ones(1, dtype=torch.float64)
    pair = _pair_of(answer_of(function, Z, w, zero, zero.clone(), one, 3 * one, _RHO), "of Z and of w")
    otherwise = "where U_i and A_i are zero, nothing moves: avoid 0/0."
    pairs = zip(pair, (Z, w.expand(1, 2)), strict=True)
    return next(
        (hint for part, wanted in pairs if (hint := explain(tensor_of(part, (1, 2)), wanted, {}, otherwise))), None
    )


def _gram_hint(function: Callable[..., Any]) -> str | None:
    x, W, w = _network()
    U, A = _output_gradients(x, W, w)
    answer = tensor_of(answer_of(function, U.clone(), A.clone(), x.clone()), (len(x),))
    wanted = _gram_eigenvalues(U, A, x)

    of, second, first, inputs = _eigenvalues, U @ U.T, A @ A.T, x @ x.T
    mistakes = {
        "the largest comes first; ascending order is wanted.": wanted.flip(0),
        "the factor 2/n of the mean squared loss is missing.": of(second + first * inputs),
        "the factor is 2/n: the second derivative of (f − y)² is 2.": wanted / 2,
        "the loss is a mean: divide by n.": wanted * len(x),
        "∘ is the product entry by entry (*), not a matrix product (@).": of(2 / len(x) * (second + first @ inputs)),
        "the inputs are missing: the gradient in W is A_i x_iᵀ.": of(2 / len(x) * (second + first)),
        "this is the first layer alone; U Uᵀ is missing.": of(2 / len(x) * first * inputs),
        "this is the second layer alone.": of(2 / len(x) * second),
        "U and A are exchanged; the inputs belong to A.": of(2 / len(x) * (first + second * inputs)),
    }
    return explain(answer, wanted, mistakes, "form the n × n matrix of the formula, then torch.linalg.eigvalsh.")


def _trace_hint(function: Callable[..., Any]) -> str | None:
    for d, bias in ((15, True), (16, False), (30, True)):
        length = math.sqrt(d + bias)
        mistakes = {
            "with biases x̃ has one feature more, a 1.": 4 * math.sqrt(d),
            "without biases x̃ is x.": 4 * math.sqrt(d + 1),
            "this is the least value of s² + ‖x̃‖²/s²; tr H is twice its mean.": 2 * length,
            "‖x̃‖ is the square root of the number of features.": 4 * length**2,
            "the two terms are equal at the minimum: add both.": length,
            "this is s = 1; choose the s for which s² + ‖x̃‖²/s² is smallest.": 2 * (1 + length**2),
        }
        answer = number_of(answer_of(function, d, bias))
        otherwise = "s² + ‖x̃‖²/s² is least for s² = ‖x̃‖; tr H = 2 · mean(s² + ‖x̃‖²/s²)."
        if (hint := explain(answer, minimal_trace(d, bias=bias), mistakes, otherwise)) is not None:
            return hint
    return None


def _output_gradients(x: Tensor, W: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    return (x @ W.T).clamp_min(0.0), w * (x @ W.T > 0)


def _one_sam_point(
    Z: Tensor, w: Tensor, U: Tensor, A: Tensor, e: Tensor, lengths: Tensor, rho: float
) -> tuple[Tensor, Tensor]:
    N = (A.square().sum(1) * lengths + U.square().sum(1)).sqrt()
    step = torch.where(N > 0, rho * e.sign() / N, 0.0)[:, None]
    return Z + step * lengths[:, None] * A, w + step * U


def _gram_eigenvalues(U: Tensor, A: Tensor, x: Tensor) -> Tensor:
    return _eigenvalues(2 / len(x) * (U @ U.T + (A @ A.T) * (x @ x.T)))


def _eigenvalues(matrix: Tensor) -> Tensor:
    eigenvalues: Tensor = torch.linalg.eigvalsh(matrix)
    return eigenvalues


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
