"""Checkers of `03_lanczos_and_slq.ipynb`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from renyi_lab._utils.typing import FloatArray
from renyi_lab.exercises._feedback import Feedback, answer_of, explain, first_hint, number_of, tensor_of


def check_orthogonalization(function: Callable[[Tensor, Tensor], Any]) -> Feedback:
    """Check ``function(w, Q)``: the part of ``w`` orthogonal to the orthonormal rows of ``Q``, to working precision.

    The second test vector has only a part in 10¹⁰ outside the span of the rows, as happens in the Lanczos method when a
    Ritz pair has converged.

    Args:
        function: Your solution; takes tensors of shape ``(n,)`` and ``(k, n)``.
    """
    return first_hint(
        function,
        [_projection, _arguments_unchanged, _cancellation],
        "orthogonal to rounding even after ten digits have cancelled, so that no ghost eigenvalues appear.",
    )


def _projection(function: Callable[..., Any]) -> str | None:
    rows, inside, outside = _rows_and_directions()
    w = inside + 0.5 * outside
    mistakes = {
        "this is the part of w inside the span; subtract it from w.": inside,
        "this is w unchanged: subtract its components (Q @ w), each times its row.": w,
        "the components have been added; subtract them.": w + inside,
        "right direction, but of length 1: keep the length, the Lanczos method needs it as β.": outside,
        "only the last row was removed; does the loop start from w each time?": w - (rows[-1] @ w) * rows[-1],
    }
    answer = tensor_of(answer_of(function, w.clone(), rows.clone()), w.shape)
    return explain(answer, 0.5 * outside, mistakes, "not w minus its components along the rows yet.")


def _arguments_unchanged(function: Callable[..., Any]) -> str | None:
    rows, inside, outside = _rows_and_directions()
    w = inside + outside
    given = w.clone(), rows.clone()
    answer_of(function, *given)
    if torch.equal(given[0], w) and torch.equal(given[1], rows):
        return None
    return "right, but w or Q was overwritten: -= works in place, write w = w - ... instead."


def _cancellation(function: Callable[..., Any]) -> str | None:
    rows, inside, outside = _rows_and_directions()
    answer = tensor_of(answer_of(function, inside + 1e-10 * outside, rows.clone()), rows.shape[1:])
    cosine = float((rows @ answer).norm() / answer.norm())
    if cosine <= 1e-12:
        return None
    return (
        "right in exact arithmetic, but when nearly all of w is in the span, the result is not orthogonal to it "
        f"(cosine {cosine:.0e}): the rounding error of the large part remains. Remove the components a second time."
    )


def check_probes_needed(function: Callable[[FloatArray, float], Any]) -> Feedback:
    """Check ``function(eigenvalues, relative_error)``: probes until ``tr H`` has that relative standard error.

    One probe has the variance ``2n/(n+2)·(Σλ² − (Σλ)²/n)``; the mean of ``p`` probes has a ``p``-th of it.

    Args:
        function: Your solution; returns a whole number of at least 1.
    """
    return first_hint(
        function,
        [_smallest_number, _at_least_one],
        "the few large eigenvalues dominate the variance: without them a handful of probes would suffice.",
    )


def _smallest_number(function: Callable[..., Any]) -> str | None:
    for eigenvalues, tolerance in (([4.0, 2.0] + [0.1] * 58, 0.1), (list(range(1, 101)), 0.01)):
        values = np.array(eigenvalues, dtype=float)
        n, total, squares = len(values), values.sum(), (values**2).sum()
        factor, centred = 2 * n / (n + 2), squares - total**2 / n
        needed = factor * centred / (tolerance * total) ** 2
        mistakes = {
            "rounded down: with this many the error is still a little too large; round up.": math.floor(needed),
            "not a whole number; round up to the next one.": needed,
            "p probes divide the variance by p, not the standard error: compare squares.": math.ceil(math.sqrt(needed)),
            "the term (Σλ)²/n is missing: a multiple of the identity has no variance.": math.ceil(
                factor * squares / (tolerance * total) ** 2
            ),
            "the error is a share of the trace: compare with (relative_error · Σλ)².": math.ceil(
                factor * centred / tolerance**2
            ),
            "relative_error must be squared, together with the trace.": math.ceil(
                factor * centred / (tolerance * total**2)
            ),
        }
        hint = explain(
            number_of(answer_of(function, values.copy(), tolerance)),
            math.ceil(needed),
            mistakes,
            "not yet; solve variance / p = (relative_error · trace)² for p, and round up.",
        )
        if hint:
            return hint
    return None


def _at_least_one(function: Callable[..., Any]) -> str | None:
    if number_of(answer_of(function, np.full(8, 2.0), 0.1)) >= 1:
        return None
    return "for equal eigenvalues the variance is zero, but an estimate needs at least one probe: max(1, ...)."


def _rows_and_directions() -> tuple[Tensor, Tensor, Tensor]:
    """Five orthonormal rows in 40 dimensions, a vector in their span, and a unit vector orthogonal to them."""
    gaussian = torch.randn(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = torch.linalg.qr(gaussian).Q.T.contiguous()
    return rows[:5].clone(), torch.tensor([3.0, -1.0, 2.0, 0.5, 1.0], dtype=torch.float64) @ rows[:5], rows[5].clone()
