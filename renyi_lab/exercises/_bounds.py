"""Checkers of `06_generalization_bounds.ipynb`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from renyi_lab._utils.bernoulli_kl import kl_bernoulli, kl_inverse_lower, kl_inverse_upper
from renyi_lab._utils.typing import FloatArray
from renyi_lab.exercises._feedback import Feedback, Hint, answer_of, close, explain, first_hint, number_of
from renyi_lab.spectrum import renyi_entropy

_NEARLY = 1e-2  # an inverse this close was found by the right method, with too few halvings
_CLEARLY = 0.05  # nats: a difference must be visible in numbers printed with two decimals
_SAME_TRACE = 1e-3  # relative: traces that agree in three digits


def check_kl_inverse(function: Callable[[float, float], Any]) -> Feedback:
    """Check ``function(q, c)``: the largest ``p`` with ``kl(q‖p) ≤ c``, to six digits.

    Args:
        function: Your solution; takes an observed mean in [0, 1] and a budget in nats, and returns one number.
    """
    feedback = first_hint(
        function,
        [_inverse_inside, _inverse_near_one, _inverse_at_the_ends],
        "every bound of this notebook goes through this function.",
        signature="(q, c)",
    )
    return feedback.otherwise(function, kl_inverse_upper)


def _inverse_inside(function: Callable[..., Any]) -> str | None:
    for q, c in ((0.1, 0.05), (0.3, 0.2)):
        answer = number_of(answer_of(function, q, c))
        mistakes = {
            "this is q + √(c/2), which is larger: a bound of kl from below. Solve kl(q‖p) = c itself.": (
                q + math.sqrt(c / 2)
            ),
            "this is the solution below q; search between q and 1.": kl_inverse_lower(q, c),
            "q and p are swapped: it is kl(q‖p), the mean over q of log(q/p).": _swapped_inverse(q, c),
            "logarithms are natural here; this is for base 2.": kl_inverse_upper(q, c * math.log(2)),
            "this is the value of kl(q‖c) or the like; a p between q and 1 is wanted, with kl(q‖p) = c.": (
                kl_bernoulli(q, c)
            ),
        }
        right = kl_inverse_upper(q, c)
        otherwise = f"at q = {q}, c = {c} it should be {right:.4f}: halve an interval in which kl(q‖p) passes c."
        if not close(answer, right) and abs(answer - right) < _NEARLY and not _matches(answer, mistakes):
            return f"close, but off by {abs(answer - right):.1g}: halve the interval more often, 50 times."
        hint = explain(answer, right, mistakes, otherwise)
        if hint is not None:
            return hint
    return None


def _matches(answer: float, mistakes: dict[str, float]) -> bool:
    return any(close(answer, wrong) for wrong in mistakes.values())


def _swapped_inverse(q: float, c: float) -> float:
    low, high = q, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if kl_bernoulli(middle, q) <= c else (low, middle)
    return low


def _inverse_near_one(function: Callable[..., Any]) -> str | None:
    q, c = 0.02, 30.0
    answer = _at(function, q, c, f"for a large budget, q = {q}, c = {c:g}")
    return explain(
        answer, kl_inverse_upper(q, c), {}, f"right in the middle; at q = {q}, c = {c:g} p is nearly 1. Search up to 1."
    )


def _inverse_at_the_ends(function: Callable[..., Any]) -> str | None:
    for q, c in ((0.0, 0.05), (1.0, 0.05), (0.2, 0.0)):
        answer = _at(function, q, c, f"at q = {q:g}, c = {c:g}")
        hint = explain(
            answer,
            kl_inverse_upper(q, c),
            {},
            f"right in the middle; at q = {q:g}, c = {c:g} it should be {kl_inverse_upper(q, c):.4f}. The term 0 log 0 "
            "counts as 0.",
        )
        if hint is not None:
            return hint
    return None


def _at(function: Callable[..., Any], q: float, c: float, where: str) -> float:
    try:
        return number_of(answer_of(function, q, c))
    except Hint as found:
        raise Hint(f"right in the middle; {where}: {found} (The term 0 log 0 counts as 0.)") from None


def check_gaussian_kl(function: Callable[[Tensor, Tensor, Tensor, Tensor], Any]) -> Feedback:
    """Check ``function(mean_q, variance_q, mean_p, variance_p)``: KL(Q‖P) of Gaussians with diagonal covariances.

    Args:
        function: Your solution; takes four vectors of equal length and returns the divergence in nats.
    """
    feedback = first_hint(
        function,
        [_same_variance, _same_mean, _both],
        "with equal variances only the distance is left; with equal means only the variances are.",
        signature="(mean_q, variance_q, mean_p, variance_p)",
    )
    return feedback.otherwise(function, _gaussian_kl)


def _gaussian_kl(mean_q: Tensor, variance_q: Tensor, mean_p: Tensor, variance_p: Tensor) -> float:
    ratio = variance_q / variance_p
    return 0.5 * float((ratio - 1 - ratio.log() + (mean_q - mean_p) ** 2 / variance_p).sum())


def _gaussians() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(30)
    mean_q, mean_p = torch.randn(2, 5, dtype=torch.float64, generator=generator)
    variance_q, variance_p = torch.rand(2, 5, dtype=torch.float64, generator=generator) + 0.2
    return mean_q, variance_q, mean_p, variance_p


def _same_variance(function: Callable[..., Any]) -> str | None:
    m, _, k, w = _gaussians()
    squares, n = (m - k) ** 2, len(m)
    half = 0.5 * float((squares / w).sum())
    mistakes = {
        "with equal variances: the factor ½ is missing.": 2 * half,
        "with equal variances this should be the squared distance over twice the variance; n/2 too much. The −1 of "
        "each dimension is missing.": half + n / 2,
        "the variance of P is not in it: the distance counts in units of the noise.": 0.5 * float(squares.sum()),
        "this divides by the variance's root or square: the arguments are variances, σ².": (
            0.5 * float((squares / w**2).sum())
        ),
        "the mean over the dimensions was taken; the divergence is a sum.": half / n,
        "the means have no effect so far.": 0.0,
    }
    answer = number_of(answer_of(function, m, w.clone(), k, w.clone()))
    return explain(answer, half, mistakes, "with equal variances it should be ½ Σ (difference of the means)²/variance.")


def _same_mean(function: Callable[..., Any]) -> str | None:
    m, v, _, w = _gaussians()
    r = v / w
    right = _gaussian_kl(m, v, m, w)
    mistakes = {
        "right for equal variances; here they differ, and they have no effect so far.": 0.0,
        "this is KL(P‖Q): the mean is over Q, so that P's variance stands in the denominator.": (
            _gaussian_kl(m, w, m, v)
        ),
        "the logarithm has the wrong sign: it is log(variance_p / variance_q).": 0.5 * float((r - 1 + r.log()).sum()),
        "the logarithm of the variances is missing.": 0.5 * float((r - 1).sum()),
        "the ratio of the variances is missing; only its logarithm is there.": -0.5 * float(r.log().sum()),
        "a factor ½ is missing before the part with the variances.": 2 * right,
        "the arguments are variances, σ², not standard deviations.": _gaussian_kl(m, v**2, m, w**2),
    }
    answer = number_of(answer_of(function, m, v, m.clone(), w))
    return explain(
        answer,
        right,
        mistakes,
        "right for equal variances; for equal means it is ½ Σ (r − 1 − log r), r = v_Q/v_P.",
    )


def _both(function: Callable[..., Any]) -> str | None:
    m, v, k, w = _gaussians()
    swapped = _gaussian_kl(m, v, k, w) + 0.5 * float(((m - k) ** 2 * (1 / v - 1 / w)).sum())
    answer = number_of(answer_of(function, m, v, k, w))
    return explain(
        answer,
        _gaussian_kl(m, v, k, w),
        {"the distance is divided by the variance of Q; it is P's.": swapped},
        "right when means or variances agree, not when both differ: add the two parts.",
    )


def check_samples_needed(held_out: Any, pac_bayes: Any) -> Feedback:
    """Predict how many samples without a single mistake certify an error below 1 %, at δ = 0.05.

    Args:
        held_out: Number of samples for the exact binomial tail of one fixed network.
        pac_bayes: The same for the PAC-Bayes bound with KL = 0 and an exactly known loss of zero.
    """
    return first_hint(
        (held_out, pac_bayes),
        [_held_out_needed, _pac_bayes_needed],
        "both. The difference is log(2√N), the price of a statement about all posteriors at once.",
    )


def _held_out_needed(given: tuple[Any, Any]) -> str | None:
    right = math.ceil(math.log(0.05) / math.log(0.99))
    mistakes = {
        "held_out: this is log(1/δ)/0.01; without the approximation log(1 − p) ≈ −p it is a little less.": math.ceil(
            math.log(20) / 0.01
        ),
        "held_out: this is Hoeffding's inequality, log(1/δ)/(2·0.01²); for so small an error the binomial tail is far "
        "better.": math.ceil(math.log(20) / (2 * 0.01**2)),
        "held_out: one sample short; at N = 298 the tail is still above 0.05.": right - 1,
        "held_out: this is 1/0.01; with 100 samples an error of 1 % goes unnoticed every third time.": 100,
    }
    return explain(
        number_of(given[0]), right, mistakes, "held_out: the smallest N with (1 − 0.01)^N ≤ 0.05, an integer."
    )


def _pac_bayes_needed(given: tuple[Any, Any]) -> str | None:
    def needed(log_term: Callable[[int], float]) -> int:
        return next(n for n in range(2, 10_000) if -math.expm1(-log_term(n) / n) <= 0.01)

    mistakes = {
        "pac_bayes: this is the held-out bound again; its log(1/δ) becomes log(2√N/δ).": needed(lambda n: math.log(20)),
        "pac_bayes: the 2 of log(2√N/δ) is missing.": needed(lambda n: math.log(math.sqrt(n) / 0.05)),
        "pac_bayes: the square root of log(2√N/δ) is missing.": needed(lambda n: math.log(2 * n / 0.05)),
        "pac_bayes: the loss is exact here, so all of δ is for the samples: log(2√N/δ), not log(4√N/δ).": needed(
            lambda n: math.log(4 * math.sqrt(n) / 0.05)
        ),
    }
    right = needed(lambda n: math.log(2 * math.sqrt(n) / 0.05))
    otherwise = "pac_bayes: kl(0‖p) = −log(1 − p), so the smallest N with −N log 0.99 ≥ log(2√N/0.05); try values of N."
    answer = number_of(given[1])
    if answer != right and abs(answer - right) <= 1:
        return "pac_bayes: off by one; check that N itself satisfies the inequality and N − 1 does not."
    return explain(answer, right, mistakes, otherwise)


def check_best_prior_variance(function: Callable[[Tensor, Tensor], Any]) -> Feedback:
    """Check ``function(difference, variance_q)``: the one prior variance σ² that makes KL(Q‖P) smallest.

    Args:
        function: Your solution; takes the differences of the means and the variances of ``Q``, two vectors, and returns
            one number. ``P`` has the variance σ² in every dimension.
    """
    return first_hint(
        function,
        [_best_variance],
        "it depends on the posterior, and so on the data: choose it from a grid, and pay for the grid.",
        signature="(difference, variance_q)",
    )


def _best_variance(function: Callable[..., Any]) -> str | None:
    mean_q, v, mean_p, _ = _gaussians()
    d = mean_q - mean_p
    right = float((v + d**2).mean())
    mistakes = {
        "this ignores Q's own variances: P must cover Q's noise as well as its shift.": float((d**2).mean()),
        "this ignores the shift of the mean.": float(v.mean()),
        "the sum over the dimensions was taken; divide by their number.": float((v + d**2).sum()),
        "this is the standard deviation σ; the variance σ² is wanted.": math.sqrt(right),
        "the differences must be squared.": float((v + d.abs()).mean()),
    }
    answer = number_of(answer_of(function, d, v))
    return explain(answer, right, mistakes, "set the derivative of ½ Σ [log σ² + (v + d²)/σ²] by σ² to zero.")


def check_entropy_against_determinant(first: Any, second: Any) -> Feedback:
    """Check two spectra of equal trace: ``H_2(first) > H_2(second)``, but ``log|first| < log|second|``.

    Args:
        first: Positive eigenvalues of the first spectrum.
        second: As many positive eigenvalues of the second spectrum, with the same sum.
    """
    return first_hint(
        (first, second),
        [_entropy_against_determinant],
        "H_2 is dominated by the large eigenvalues, the log-determinant by the small ones: neither orders the other.",
    )


def _entropy_against_determinant(pair: tuple[Any, Any]) -> str | None:
    p, q = (_positive(name, values) for name, values in zip(("first", "second"), pair, strict=True))
    if len(p) != len(q):
        return f"both spectra need as many eigenvalues; first has {len(p)}, second {len(q)}."
    if abs(p.sum() - q.sum()) > _SAME_TRACE * q.sum():
        return f"the traces differ, {p.sum():.4g} and {q.sum():.4g}: multiply one spectrum by a number."
    entropy = float(renyi_entropy(p, 2.0) - renyi_entropy(q, 2.0))
    determinant = float(np.log(p).sum() - np.log(q).sum())
    if entropy > _CLEARLY and determinant < -_CLEARLY:
        return None
    if entropy < -_CLEARLY and determinant > _CLEARLY:
        return "they disagree, but in the opposite direction: swap first and second."
    shown = f"H_2 differs by {entropy:+.2f}, log|H| by {determinant:+.2f}"
    if entropy > _CLEARLY:
        return f"{shown}: now make one eigenvalue of first tiny; H_2 hardly changes, its logarithm does."
    return f"{shown}: first needs a larger H_2, more even large eigenvalues, by at least {_CLEARLY}."


def _positive(name: str, values: Any) -> FloatArray:
    try:
        spectrum = np.asarray(values, dtype=float)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # RuntimeError: a tensor that requires gradients
        raise Hint(f"{name}: a list of numbers is expected.") from None
    if spectrum.ndim != 1 or spectrum.size == 0 or not (np.isfinite(spectrum) & (spectrum > 0)).all():
        raise Hint(f"{name}: a list of positive finite numbers is expected; the logarithm of zero is infinite.")
    return spectrum
