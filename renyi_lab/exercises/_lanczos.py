"""Checkers of `03_lanczos_and_slq.ipynb`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from renyi_lab._utils.typing import FloatArray
from renyi_lab.exercises._feedback import Feedback, Hint, answer_of, first_hint, number_of

_TOLERANCE = 1e-9


def check_orthogonalization(function: Callable[[Tensor, Tensor], Any]) -> Feedback:
    """Check ``function(w, Q)``: what of ``w`` is orthogonal to the orthonormal rows of ``Q``, to working precision.

    Tried on an ordinary vector, and on one of which only a part in 10¹⁰ lies outside the rows' span, as happens in
    Lanczos' method when a Ritz pair has converged.
    """
    return first_hint(
        function,
        [_removes_the_projection, _leaves_its_arguments, _orthogonal_after_cancellation],
        "orthogonal to rounding even after ten digits have cancelled: no ghost comes back past this.",
    )


def _removes_the_projection(function: Callable[..., Any]) -> str | None:
    rows, inside, outside = _rows_and_directions()
    w = inside + 0.5 * outside
    answer = _vector(answer_of(function, w.clone(), rows.clone()), len(w))
    mistakes = {
        "this is the part of w inside the span; it is the rest that is asked for: subtract.": inside,
        "w came back as it was: subtract its components (Q @ w), each times its row.": w,
        "the components have been added; subtract them.": w + inside,
        "right direction, but of length 1: leave the length, Lanczos' method needs it as β.": outside,
        "only the last row's component was removed; all rows count (does the loop start from w each time?).": (
            w - (rows[-1] @ w) * rows[-1]
        ),
    }
    return _named(answer, 0.5 * outside, mistakes, "not w minus its components along the rows yet.")


def _leaves_its_arguments(function: Callable[..., Any]) -> str | None:
    rows, inside, outside = _rows_and_directions()
    w = inside + outside
    given = w.clone(), rows.clone()
    answer_of(function, *given)
    if torch.equal(given[0], w) and torch.equal(given[1], rows):
        return None
    return "right, but w or Q was overwritten: -= works in place, write w = w - ... instead."


def _orthogonal_after_cancellation(function: Callable[..., Any]) -> str | None:
    rows, inside, outside = _rows_and_directions()
    answer = _vector(answer_of(function, inside + 1e-10 * outside, rows.clone()), rows.shape[1])
    cosine = float((rows @ answer).norm() / answer.norm())
    if cosine <= 1e-12:
        return None
    return (
        "right on paper, but when nearly all of w lies in the span, what is left still leans on it "
        f"(cosine {cosine:.0e}): rounding of the large part stays behind. Remove the components a second time."
    )


def check_probes_needed(function: Callable[[FloatArray, float], Any]) -> Feedback:
    """Check ``function(eigenvalues, relative_error)``: probes until ``tr H`` has that relative standard error.

    One probe has the variance ``2n/(n+2)·(Σλ² − (Σλ)²/n)``; the mean of ``p`` probes a ``p``-th of it.
    """
    return first_hint(
        function,
        [_is_the_smallest_number, _needs_one_probe_for_a_multiple_of_the_identity],
        "the few large eigenvalues make the noise: without them a handful of probes would do.",
    )


def _is_the_smallest_number(function: Callable[..., Any]) -> str | None:
    for eigenvalues, tolerance in (([4.0, 2.0] + [0.1] * 58, 0.1), (list(range(1, 101)), 0.01)):
        values = np.array(eigenvalues, dtype=float)
        answer = number_of(answer_of(function, values.copy(), tolerance))
        n, total, squares = len(values), values.sum(), (values**2).sum()
        centred = squares - total**2 / n
        wanted = 2 * n / (n + 2) * centred / (tolerance * total) ** 2
        mistakes = {
            "rounded down: with this many the error is still a little too large; round up.": math.floor(wanted),
            "not a whole number; round up to the next one.": wanted,
            "the mean of p probes has the variance divided by p, not the standard error: compare squares.": math.ceil(
                math.sqrt(wanted)
            ),
            "the term (Σλ)²/n is missing: a probe of fixed length sees a multiple of the identity without noise.": (
                math.ceil(2 * n / (n + 2) * squares / (tolerance * total) ** 2)
            ),
            "the error is to be a share of the trace: compare with (relative_error · Σλ)².": math.ceil(
                2 * n / (n + 2) * centred / tolerance**2
            ),
            "relative_error goes in squared, as the variance does.": math.ceil(
                2 * n / (n + 2) * centred / (tolerance * total**2)
            ),
        }
        for hint, value in {"": math.ceil(wanted), **mistakes}.items():
            if math.isclose(answer, value, rel_tol=_TOLERANCE):
                if hint:
                    return hint
                break
        else:
            return "not yet; solve variance / p = (relative_error · trace)² for p, and round up."
    return None


def _needs_one_probe_for_a_multiple_of_the_identity(function: Callable[..., Any]) -> str | None:
    if number_of(answer_of(function, np.full(8, 2.0), 0.1)) >= 1:
        return None
    return "for equal eigenvalues there is no noise at all; but fewer than one probe cannot be had: max(1, ...)."


def _rows_and_directions() -> tuple[Tensor, Tensor, Tensor]:
    """Five orthonormal rows in 40 dimensions, a vector in their span, and a unit vector orthogonal to them."""
    gaussian = torch.randn(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = torch.linalg.qr(gaussian).Q.T.contiguous()
    return rows[:5].clone(), torch.tensor([3.0, -1.0, 2.0, 0.5, 1.0], dtype=torch.float64) @ rows[:5], rows[5].clone()


def _named(answer: Tensor, right: Tensor, mistakes: dict[str, Tensor], otherwise: str) -> str | None:
    for hint, value in {"": right, **mistakes}.items():
        if torch.allclose(answer, value, rtol=_TOLERANCE, atol=_TOLERANCE):
            return hint or None
    return otherwise


def _vector(answer: Any, size: int) -> Tensor:
    if not isinstance(answer, Tensor) or answer.shape != (size,):
        shape = f" of shape {tuple(answer.shape)}" if hasattr(answer, "shape") else ""
        raise Hint(f"a tensor of shape ({size},) is asked for, this is of type {type(answer).__name__}{shape}.")
    return answer.detach().double()
