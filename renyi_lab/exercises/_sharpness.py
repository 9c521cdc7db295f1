"""Checkers of `04_renyi_sharpness.ipynb` on the entropy of spectra."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from renyi_lab._utils.typing import FloatArray
from renyi_lab.exercises._attempts import described
from renyi_lab.exercises._feedback import Feedback, Hint, NotAttempted, answer_of, close, explain, first_hint, number_of
from renyi_lab.exercises._layers import LAYER_SIZES, layered_hessian
from renyi_lab.spectrum import renyi_entropy

_VALUES = np.array([4.0, -1.0, 0.5, 0.25])


def check_renyi_sharpness(function: Callable[[FloatArray, float], Any]) -> Feedback:
    """Check ``function(eigenvalues, alpha)``: Rényi sharpness ``−H_α`` of the shares ``|λ_i| / Σ|λ_j|``, in nats.

    The feedback's ``function`` is yours once it is solved, and otherwise one that uses `renyi_lab.renyi_entropy`.

    Args:
        function: Your solution; takes an array of eigenvalues and an order above 0, returns a number.
    """
    checks = [_of_positive_values, _of_negative_values, _at_one, _of_zeros, _plain_number]
    success = "minus the entropy of the shares, at every order, with zero and negative eigenvalues."
    return first_hint(function, checks, success).otherwise(function, _sharpness)


def check_layer_sharpness(function: Callable[[FloatArray, list[int], float], Any]) -> Feedback:
    """Check ``function(hessian, sizes, alpha)``: Rényi sharpness of the block of each layer, in order, as a list.

    Args:
        function: Your solution; ``sizes`` lists how many rows of the matrix belong to each layer.
    """
    return first_hint(
        function,
        [_one_layer, _later_layers, _each_order],
        "each layer's block has its own spectrum, p and sharpness; entries between two layers have no effect.",
    )


def _single(function: Callable[..., Any], values: FloatArray, alpha: float) -> float:
    return number_of(answer_of(function, values.copy(), alpha))


def _of_positive_values(function: Callable[..., Any]) -> str | None:
    values = np.array([4.0, 1.0, 1.0])
    right = _sharpness(values, 2.0)
    mistakes = {
        "this is the entropy; sharpness is its negative, so that few curved directions mean sharp.": -right,
        "this is in bits; take the natural logarithm for nats.": right / math.log(2),
        "this is the effective number of directions; take its logarithm, and minus that.": math.exp(-right),
        "divide the eigenvalues by their sum first: the shares p sum to 1.": math.log((values**2).sum()),
        "one logarithm, of the sum: Σ p^α is inside it.": float(2 * np.log(values / 6).sum()),
    }
    hint = f"at α = 2, −H_α of the eigenvalues 4, 1, 1 should be log Σ p² = {right:.4f}."
    return explain(_single(function, values, 2.0), right, mistakes, hint)


def _of_negative_values(function: Callable[..., Any]) -> str | None:
    signed = float(np.log(((_VALUES / _VALUES.sum()) ** 2).sum()))
    mistakes = {
        "one eigenvalue is negative: take magnitudes before you divide by their sum.": signed,
        "the result is NaN: one eigenvalue is negative, take magnitudes before anything else.": math.nan,
    }
    hint = "wrong at α = 2 for eigenvalues of which one is negative: p = |λ| / Σ|λ|."
    if found := explain(_single(function, _VALUES, 2.0), _sharpness(_VALUES, 2.0), mistakes, hint):
        return found
    right = _sharpness(_VALUES, 0.5)
    mistakes = {"right at α = 2, where the factor 1/(1 − α) is −1; at α = ½ it is 2, and missing.": -right / 2}
    return explain(_single(function, _VALUES, 0.5), right, mistakes, "right at α = 2, wrong at α = ½.")


def _at_one(function: Callable[..., Any]) -> str | None:
    hint = "right at α = 2 and ½; at α = 1 the formula is 0/0, and its limit is −H₁ = Σ p log p. Treat it by itself."
    try:
        found = _single(function, _VALUES, 1.0)
    except NotAttempted:
        return hint
    except Hint as error:
        return f"{hint} ({error})"
    return None if close(found, _sharpness(_VALUES, 1.0)) else hint


def _of_zeros(function: Callable[..., Any]) -> str | None:
    values = np.append(_VALUES, [0.0, 0.0])
    for alpha in (1.0, 0.5):
        if not close(_single(function, values, alpha), _sharpness(values, alpha)):
            return f"wrong at α = {alpha:g} when two eigenvalues are 0: they add nothing; leave them out of the sum."
    return None


def _plain_number(function: Callable[..., Any]) -> str | None:
    answer = answer_of(function, _VALUES.copy(), 2.0)
    if isinstance(answer, (int, float, np.number)) or getattr(answer, "shape", None) == ():
        return None
    return (
        f"right, but the notebook calculates with the result, and this is a {described(answer)}: return a plain number "
        "(of an Estimate, its .value)."
    )


def _blocks(hessian: FloatArray, sizes: Sequence[int]) -> list[FloatArray]:
    ends = np.cumsum(sizes)
    return [hessian[end - size : end, end - size : end] for size, end in zip(sizes, ends, strict=True)]


def _sharpness(values: Any, alpha: float) -> float:
    return -float(renyi_entropy(np.abs(np.asarray(values, dtype=np.float64)).reshape(-1), alpha))


def _layers(function: Callable[..., Any], hessian: FloatArray, sizes: Sequence[int], alpha: float) -> list[float]:
    answer, count = answer_of(function, hessian.copy(), list(sizes), alpha), len(sizes)
    if not hasattr(answer, "__len__"):
        raise Hint(f"a list of {count} numbers is expected, one per layer, got {type(answer).__name__}.")
    if len(answer) != count:
        raise Hint(f"there are {count} layers, so {count} numbers are expected, got {len(answer)}.")
    return [number_of(value) for value in answer]


def _one_layer(function: Callable[..., Any]) -> str | None:
    hessian = layered_hessian()[: LAYER_SIZES[0], : LAYER_SIZES[0]]
    values = np.linalg.eigvalsh(hessian)
    signed = float(np.log(((values / values.sum()) ** 2).sum()))
    right = _sharpness(values, 2.0)
    mistakes = {
        "this is the entropy; sharpness is its negative, so that few curved directions mean sharp.": -right,
        "the diagonal is not the spectrum: take np.linalg.eigvalsh(block).": _sharpness(np.diag(hessian), 2.0),
        "these are the entries of the block: take np.linalg.eigvalsh(block).": _sharpness(hessian, 2.0),
        "this block has negative eigenvalues: take magnitudes before you divide by their sum.": signed,
        "the result is NaN: this block has negative eigenvalues, take magnitudes before anything else.": np.nan,
    }
    answer = _layers(function, hessian, LAYER_SIZES[:1], 2.0)[0]
    return explain(
        answer, right, mistakes, f"the answer should be −H_α of the {LAYER_SIZES[0]} eigenvalues' magnitudes."
    )


def _later_layers(function: Callable[..., Any]) -> str | None:
    hessian, sizes = layered_hessian(), list(LAYER_SIZES)
    found = np.array(_layers(function, hessian, sizes, 2.0))
    right = np.array([_sharpness(np.linalg.eigvalsh(block), 2.0) for block in _blocks(hessian, sizes)])
    slices = np.split(np.linalg.eigvalsh(hessian), np.cumsum(sizes)[:-1])
    wrong = next((layer for layer in range(len(sizes)) if not close(found[layer], right[layer])), 0)
    mistakes = {
        "eigenvalues of the whole matrix belong to no layer: first take the block, then its eigenvalues.": (
            [_sharpness(part, 2.0) for part in slices]
        ),
        "every block starts in the corner so far: the second one starts where the first one ends.": (
            [_sharpness(np.linalg.eigvalsh(hessian[:size, :size]), 2.0) for size in sizes]
        ),
    }
    return explain(
        found, right, mistakes, f"layer {wrong + 1} of sizes {sizes} is wrong: which rows and columns belong to it?"
    )


def _each_order(function: Callable[..., Any]) -> str | None:
    hessian = layered_hessian()
    for alpha in (0.5, 1.0):
        right = [_sharpness(np.linalg.eigvalsh(block), alpha) for block in _blocks(hessian, LAYER_SIZES)]
        if not close(_layers(function, hessian, LAYER_SIZES, alpha), right):
            return f"right at α = 2, wrong at α = {alpha:g}; rl.renyi_entropy computes every order, including limits."
    return None
