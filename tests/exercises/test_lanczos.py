"""The checkers of the Lanczos process accept its solutions and explain typical mistakes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from renyi_lab import matrix_with_spectrum
from renyi_lab.exercises import check_lanczos, check_orthogonalization


def reference(A: Any, v: Tensor, num_steps: int) -> tuple[Any, Tensor, float]:
    Q, T = torch.zeros(num_steps, len(v), dtype=v.dtype), np.zeros((num_steps + 1, num_steps + 1))
    q = v / v.norm()
    for j in range(num_steps):
        Q[j] = q
        w = A @ q
        T[j, j] = q @ w
        for _ in range(2):
            w = w - Q[: j + 1].T @ (Q[: j + 1] @ w)
        T[j, j + 1] = T[j + 1, j] = w.norm()
        q = w / w.norm()
    return T[:-1, :-1], Q, float(T[-1, -2])


def with_a_list(A: Any, v: Tensor, num_steps: int, passes: int = 2) -> tuple[Any, Tensor, float]:
    Q, diagonal, off_diagonal = [v / v.norm()], [], []
    for _ in range(num_steps):
        w = A @ Q[-1]
        diagonal.append(float(Q[-1] @ w))
        for q in passes * Q:
            w = w - (q @ w) * q
        off_diagonal.append(float(w.norm()))
        Q.append(w / off_diagonal[-1])
    inner = off_diagonal[:-1]
    return np.diag(diagonal) + np.diag(inner, 1) + np.diag(inner, -1), torch.stack(Q[:-1]), off_diagonal[-1]


def three_term(A: Any, v: Tensor, num_steps: int) -> tuple[Any, Tensor, float]:
    Q, diagonal, off_diagonal = [v / v.norm()], [], []
    for j in range(num_steps):
        w = A @ Q[-1]
        diagonal.append(float(Q[-1] @ w))
        w = w - diagonal[-1] * Q[-1] - (off_diagonal[-1] * Q[-2] if j else 0)
        off_diagonal.append(float(w.norm()))
        Q.append(w / off_diagonal[-1])
    inner = off_diagonal[:-1]
    return np.diag(diagonal) + np.diag(inner, 1) + np.diag(inner, -1), torch.stack(Q[:-1]), off_diagonal[-1]


def changed(change: Callable[[Any, Tensor, float], Any]) -> Callable[..., Any]:
    """The reference with changed results."""
    return lambda A, v, num_steps: change(*reference(A, v, num_steps))


def in_place_lanczos(A: Any, v: Tensor, num_steps: int) -> Any:
    v /= v.norm()
    return reference(A, v, num_steps)


def dense_only(A: Any, v: Tensor, num_steps: int) -> Any:
    return reference(A.double() if isinstance(A, Tensor) else A.T, v, num_steps)


def wasteful(A: Any, v: Tensor, num_steps: int) -> Any:
    T, Q, beta = reference(A, v, num_steps)
    for j in range(num_steps):
        T[j, j] = Q[j] @ (A @ Q[j])
    return T, Q, beta


def remembers(A: Any, v: Tensor, num_steps: int, first: dict[str, Any] = {}) -> Any:  # noqa: B006
    if num_steps == 5 or not first:
        first["result"] = reference(A, v, num_steps)
    T, Q, beta = first["result"]
    return T[:num_steps, :num_steps], Q[:num_steps], beta


@pytest.mark.parametrize("solution", [reference, with_a_list])
def test_the_lanczos_process_is_accepted_twice_and_then_used(solution: Callable[..., Any]) -> None:
    for _ in range(2):
        feedback = check_lanczos(solution)
        assert feedback.solved
        assert feedback.function is solution


def test_until_the_lanczos_process_is_solved_the_library_stands_in() -> None:
    function = check_lanczos(None).function
    assert function is not None
    A = matrix_with_spectrum(np.array([5.0, 4.0, 3.0, 2.0, 1.0, 0.5]))
    v = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for found, expected in zip(function(A, v, 3), reference(A, v, 3), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-12)
    assert check_lanczos(function).solved
    T, Q, _ = function(torch.eye(4, dtype=torch.float64), v[:4], 3)
    assert (T.shape, Q.shape) == ((3, 3), (3, 4)), "also where the Krylov space is exhausted"


def twice(w: Tensor, Q: Tensor) -> Tensor:
    for _ in range(2):
        w = w - Q.T @ (Q @ w)
    return w


def row_by_row_twice(w: Tensor, Q: Tensor) -> Tensor:
    for row in [*Q, *Q]:
        w = w - (row @ w) * row
    return w


def once(w: Tensor, Q: Tensor) -> Tensor:
    return w - Q.T @ (Q @ w)


def projection(w: Tensor, Q: Tensor) -> Tensor:
    return Q.T @ (Q @ w)


def normalized(w: Tensor, Q: Tensor) -> Tensor:
    return twice(w, Q) / twice(w, Q).norm()


def last_row_only(w: Tensor, Q: Tensor) -> Tensor:
    result = w
    for row in Q:
        result = w - (row @ w) * row
    return result


def in_place(w: Tensor, Q: Tensor) -> Tensor:
    for _ in range(2):
        w -= Q.T @ (Q @ w)
    return w


@pytest.mark.parametrize("solution", [twice, row_by_row_twice])
def test_orthogonalizing_twice_is_accepted(solution: Callable[..., Any]) -> None:
    assert check_orthogonalization(solution).solved


def stub(*arguments: Any) -> Any: ...


@pytest.mark.parametrize(
    ("check", "attempt", "message"),
    [
        (check_orthogonalization, once, "Remove the components a second time"),
        (check_orthogonalization, projection, "this is the part of w inside the span"),
        (check_orthogonalization, normalized, "of length 1"),
        (check_orthogonalization, last_row_only, "only the last row"),
        (check_orthogonalization, in_place, "itself was changed"),
        (check_orthogonalization, lambda w, Q: w, "this is w unchanged"),
        (check_orthogonalization, lambda w, Q: w + Q.T @ (Q @ w), "have been added"),
        (check_orthogonalization, lambda w, Q: Q @ w, "shape (40,) is expected, got Tensor of shape (5,)"),
        (check_orthogonalization, lambda w, Q: 0.5 * twice(w, Q), "not w minus"),
        (check_orthogonalization, lambda w, Q: w @ Q, "your code raised RuntimeError"),
        (check_orthogonalization, torch.eye(2), "a function is expected"),
        (check_lanczos, three_term, "a second time"),
        (check_lanczos, lambda A, v, m: with_a_list(A, v, m, passes=1), "a second time"),
        (check_lanczos, changed(lambda T, Q, beta: T), "three values are expected"),
        (check_lanczos, changed(lambda T, Q, beta: (T, Q)), "three values are expected"),
        (check_lanczos, changed(lambda T, Q, beta: (torch.from_numpy(T), Q, beta)), "T: a NumPy array"),
        (check_lanczos, changed(lambda T, Q, beta: (T[:-1, :-1], Q, beta)), "T: an array of shape (5, 5)"),
        (check_lanczos, changed(lambda T, Q, beta: (np.pad(T, (0, 1)), Q, beta)), "one row and column too many"),
        (check_lanczos, changed(lambda T, Q, beta: (T.astype(str), Q, beta)), "T holds"),
        (check_lanczos, changed(lambda T, Q, beta: (T.astype(np.float32), Q, beta)), "T is in float32"),
        (check_lanczos, changed(lambda T, Q, beta: (T, list(Q), beta)), "torch.stack"),
        (check_lanczos, changed(lambda T, Q, beta: (T, Q.T, beta)), "as columns"),
        (check_lanczos, changed(lambda T, Q, beta: (T, torch.cat([Q, Q[:1]]), beta)), "one vector too many"),
        (check_lanczos, changed(lambda T, Q, beta: (T, Q.numpy(), beta)), "a tensor of shape (5, 12)"),
        (check_lanczos, changed(lambda T, Q, beta: (T, Q.float(), beta)), "dtype=v.dtype"),
        (check_lanczos, changed(lambda T, Q, beta: (T, Q, [beta, beta])), "one number is expected"),
        (check_lanczos, changed(lambda T, Q, beta: (T, Q, None)), "not attempted yet"),
        (check_lanczos, changed(lambda T, Q, beta: (T, 3 * Q, beta)), "the first row of Q must be"),
        (check_lanczos, changed(lambda T, Q, beta: (T, torch.cat([Q[:1], 2 * Q[1:]]), beta)), "are not orthonormal"),
        (check_lanczos, changed(lambda T, Q, beta: (T, torch.cat([Q[:1], -Q[1:]]), beta)), "not those of the Lanczos"),
        (check_lanczos, changed(lambda T, Q, beta: (np.diag(np.diag(T)), Q, beta)), "only its diagonal"),
        (check_lanczos, changed(lambda T, Q, beta: (np.triu(T), Q, beta)), "above its diagonal only"),
        (check_lanczos, changed(lambda T, Q, beta: (T - np.diag(np.diag(T)), Q, beta)), "the diagonal holds"),
        (check_lanczos, changed(lambda T, Q, beta: (-T, Q, beta)), "T is not Q A Qᵀ yet"),
        (check_lanczos, changed(lambda T, Q, beta: (T, Q, T[-1, -2])), "beta is the last entry beside T's diagonal"),
        (check_lanczos, changed(lambda T, Q, beta: (T, Q, beta**2)), "beta must be the norm"),
        (check_lanczos, in_place_lanczos, "v itself was changed"),
        (check_lanczos, dense_only, "your code raised AttributeError"),
        (check_lanczos, wasteful, "one per step; this took 8"),
        (check_lanczos, remembers, "keep something between calls"),
        (check_lanczos, lambda A, v, m: 1 / 0, "your code raised ZeroDivisionError"),
        (check_lanczos, lambda A: A, "your code raised TypeError"),
        *(
            (check, blank, "not attempted yet")
            for check in (check_lanczos, check_orthogonalization)
            for blank in (None, ..., stub, lambda *_: ...)
        ),
    ],
)
def test_messages(check: Callable[[Any], Any], attempt: Any, message: str) -> None:
    feedback = check(attempt)
    assert not feedback.solved
    assert message in repr(feedback)
