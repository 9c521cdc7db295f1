"""Checkers of `08_rsam.ipynb`, except that of the step of SAM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from renyi_lab.exercises._feedback import Feedback, answer_of, explain, first_hint, number_of, tensor_of

_RHO = 0.4


def check_power_ratio(function: Callable[[Tensor, float], Any]) -> Feedback:
    """Check ``function(g, alpha)``: the ratio ``R_α = Σ|g_j|^{2α} / (Σ g_j²)^α`` of a gradient.

    Args:
        function: Your solution; takes the gradient as a vector and the order, and returns one number.
    """
    feedback = first_hint(
        function,
        [_ratio_value, _ratio_of_zero_entries],
        "the entropy of the squared gradient is log(R_α)/(1 − α).",
        signature="(g, alpha)",
    )
    return feedback.otherwise(function, _power_ratio)


def check_paper_perturbation(function: Callable[[Tensor, float, float], Any]) -> Feedback:
    """Check ``function(g, rho, alpha)``: the perturbation ``−sign(1 − α) ρ R_α g/‖g‖²`` of RSAM's paper.

    Args:
        function: Your solution; takes the gradient as a vector, ``rho`` and the order, and returns a vector.
    """
    feedback = first_hint(
        function,
        [_paper_above_one, _paper_below_one, _paper_at_one, _paper_at_zero],
        "a multiple of g: up the gradient for alpha > 1, down for alpha < 1.",
        signature="(g, rho, alpha)",
    )
    return feedback.otherwise(function, _paper)


def check_divergence_perturbation(function: Callable[[Tensor, float, float], Any]) -> Feedback:
    """Check ``function(g, rho, alpha)``: the perturbation ``ρ (log n − H_α(g²)) g/‖g‖²``, for α = 1 as well.

    Args:
        function: Your solution; takes the gradient as a vector, ``rho`` and the order, and returns a vector.
    """
    return first_hint(
        function,
        [_divergence_value, _divergence_at_one, _divergence_of_even],
        "one formula for every order: it goes up the gradient, and vanishes where all entries are equally large.",
        signature="(g, rho, alpha)",
    )


def check_loss_scale(sam: Any, paper: Any, product: Any) -> Feedback:
    """Predict what happens when the loss is multiplied by 10.

    Args:
        sam: Factor by which the length of SAM's perturbation grows.
        paper: Factor by which the length of the paper's perturbation grows.
        product: Factor by which ``gᵀε`` of the paper's perturbation grows.
    """

    def one(index: int, right: float, mistakes: dict[str, float], otherwise: str) -> Callable[[Any], str | None]:
        return lambda given: explain(number_of(given[index]), right, mistakes, otherwise)

    return first_hint(
        (sam, paper, product),
        [
            one(0, 1.0, {"sam: g grows, but g/‖g‖ does not.": 10.0}, "sam: the length is ρ, whatever the gradient."),
            one(
                1,
                0.1,
                {
                    "paper: R_α is the same for 10 g, but ‖g‖ is not.": 1.0,
                    "paper: inverted; ‖g‖ is in the denominator.": 10.0,
                    "paper: one power of ‖g‖ cancels against that of g.": 0.01,
                },
                "paper: ‖ε‖ = ρ R_α/‖g‖, and R_α is the same for 10 g.",
            ),
            one(
                2,
                1.0,
                {"product: ε becomes shorter by as much as g becomes longer.": 10.0},
                "product: gᵀε = ± ρ R_α, in which no length of g remains.",
            ),
        ],
        "all three: SAM's ρ is a length, RSAM's ρ R_α a rise of the loss, to first order.",
    )


def check_constant(function: Callable[[int, float], Any]) -> Feedback:
    """Check ``function(n, alpha)``: the constant c with which ``R_α + c`` is zero where all entries are equally large.

    Args:
        function: Your solution; takes the number of parameters and the order, and returns one number.
    """
    return first_hint(
        function,
        [_constant_value],
        "with this constant the perturbation goes up the gradient for every order, below 1 as well.",
        signature="(n, alpha)",
    )


def _gradient(length: float = 3.0) -> Tensor:
    g = torch.tensor([2.0, -1.0, 0.5, 3.0, -0.1, 1.0], dtype=torch.float64)
    return torch.nn.functional.normalize(g, dim=0) * length


def _ratio_value(function: Callable[..., Any]) -> str | None:
    for alpha in (3.0, 0.5):
        g = _gradient()
        right, powers = _power_ratio(g, alpha), g.abs().pow(2 * alpha).sum()
        mistakes = {
            "the power is α; it is 2α, since g² takes the place of an eigenvalue.": _power_ratio(g.abs().sqrt(), alpha),
            "the denominator is missing: the sum of squares to the power α.": powers,
            "the denominator needs the power α.": powers / g.square().sum(),
            "the denominator is ‖g‖^α; it is ‖g‖^{2α} = (Σ g²)^α.": powers / g.norm() ** alpha,
            "this is the logarithm of R_α.": right.log(),
            "this is the entropy H_α(g²) = log(R_α)/(1 − α); return R_α itself.": right.log() / (1 - alpha),
        }
        hint = explain(
            number_of(answer_of(function, g.clone(), alpha)),
            right,
            mistakes,
            "sum |g|^{2α} over the entries (absolute values: g has both signs), divided by (sum of g²)^α.",
        )
        if hint is not None:
            return f"α = {alpha:g}: {hint}"
    return None


def _ratio_of_zero_entries(function: Callable[..., Any]) -> str | None:
    g = torch.tensor([3.0, 0.0, 0.0, 4.0], dtype=torch.float64)
    answer = number_of(answer_of(function, g.clone(), 0.5))
    return explain(answer, _power_ratio(g, 0.5), {}, "entries that are zero contribute nothing; avoid their logarithm.")


def _paper_above_one(function: Callable[..., Any]) -> str | None:
    g, alpha = _gradient(), 1.2
    right, ratio = _paper(g, _RHO, alpha), _power_ratio(g, alpha)
    mistakes = {
        "the factor R_α is missing: this is SAM's perturbation.": _RHO * g / g.norm(),
        "the factor R_α is missing.": _RHO * g / g.square().sum(),
        "divide by ‖g‖², not by ‖g‖.": _RHO * ratio * g / g.norm(),
        "divide by ‖g‖².": _RHO * ratio * g,
        "the factor ρ is missing.": right / _RHO,
        "the sign: for α > 1, 1 − α is negative, so that −sign(1 − α) is +1.": -right,
    }
    answer = tensor_of(answer_of(function, g.clone(), _RHO, alpha), g.shape)
    return explain(answer, right, mistakes, "ε = −sign(1 − α) · ρ · R_α · g / ‖g‖², a vector along g.")


def _paper_below_one(function: Callable[..., Any]) -> str | None:
    g, alpha = _gradient(), 0.5
    right = _paper(g, _RHO, alpha)
    mistakes = {"the sign: for α < 1, −sign(1 − α) is −1, down the gradient.": -right}
    answer = tensor_of(answer_of(function, g.clone(), _RHO, alpha), g.shape)
    return explain(answer, right, mistakes, "right for α = 1.2, but not for α = 0.5.")


def _paper_at_one(function: Callable[..., Any]) -> str | None:
    g = _gradient()
    answer = tensor_of(answer_of(function, g.clone(), _RHO, 1.0), g.shape)
    return explain(answer, torch.zeros_like(g), {}, "α = 1: sign(1 − α) is sign(0) = 0, so that ε = 0.")


def _paper_at_zero(function: Callable[..., Any]) -> str | None:
    g = torch.zeros(3, dtype=torch.float64)
    answer = tensor_of(answer_of(function, g.clone(), _RHO, 1.2), g.shape)
    return explain(answer, g, {}, "where g = 0 there is no direction: return zeros, not 0/0.")


def _divergence_value(function: Callable[..., Any]) -> str | None:
    for alpha in (2.0, 0.5):
        g = _gradient()
        right, entropy = _divergence(g, _RHO, alpha), _power_ratio(g, alpha).log() / (1 - alpha)
        mistakes = {
            "log n is missing.": -_RHO * entropy * g / g.square().sum(),
            "the sign: log n − H_α is positive, and ε goes up the gradient.": -right,
            "divide by ‖g‖², as in the paper's form.": right * g.norm(),
            "this is the paper's form, with R_α.": _paper(g, _RHO, alpha),
        }
        answer = tensor_of(answer_of(function, g.clone(), _RHO, alpha), g.shape)
        hint = explain(answer, right, mistakes, "ε = ρ · (log n − H_α(g²)) · g/‖g‖² with H_α = log(R_α)/(1 − α).")
        if hint is not None:
            return f"α = {alpha:g}: {hint}"
    return None


def _divergence_at_one(function: Callable[..., Any]) -> str | None:
    g = torch.cat([_gradient(), torch.zeros(1, dtype=torch.float64)])
    zero = torch.zeros_like(g)
    answer = tensor_of(answer_of(function, g.clone(), _RHO, 1.0), g.shape)
    hint = "H_1 is the Shannon entropy −Σ p log p of p = g²/Σg², where p = 0 contributes 0."
    return explain(answer, _divergence(g, _RHO, 1.0), {f"not zero at α = 1: {hint}": zero}, f"α = 1: {hint}")


def _divergence_of_even(function: Callable[..., Any]) -> str | None:
    g = torch.tensor([2.0, -2.0, 2.0], dtype=torch.float64)
    answer = tensor_of(answer_of(function, g.clone(), _RHO, 2.0), g.shape)
    return explain(answer, torch.zeros_like(g), {}, "entries of equal size have entropy log n, so that ε = 0.")


def _constant_value(function: Callable[..., Any]) -> str | None:
    for n, alpha in ((100, 2.0), (100, 0.5), (7, 1.2)):
        right = -(float(n) ** (1 - alpha))
        mistakes = {
            "the sign: R_α + c = 0.": -right,
            "this is minus R_α of a gradient with one entry; with n equal ones it differs.": -1.0,
            "the exponent: n · (1/n)^α = n^{1 − α}.": -(float(n) ** (alpha - 1)),
            "a sum of n equal terms: n · (1/n)^α.": -(float(n) ** -alpha),
        }
        answer = number_of(answer_of(function, n, alpha))
        hint = explain(answer, right, mistakes, "compute R_α for n entries of equal size; c is minus that.")
        if hint is not None:
            return hint
    return None


def _power_ratio(g: Tensor, alpha: float) -> Tensor:
    return g.abs().pow(2 * alpha).sum() / g.square().sum() ** alpha


def _paper(g: Tensor, rho: float, alpha: float) -> Tensor:
    if not g.any():
        return torch.zeros_like(g)
    sign = (alpha > 1) - (alpha < 1)
    return sign * rho * _power_ratio(g, alpha) * g / g.square().sum()


def _divergence(g: Tensor, rho: float, alpha: float) -> Tensor:
    p = g.square() / g.square().sum()
    entropy = torch.special.entr(p).sum() if alpha == 1 else _power_ratio(g, alpha).log() / (1 - alpha)
    return rho * (torch.tensor(float(g.numel())).log() - entropy) * g / g.square().sum()
