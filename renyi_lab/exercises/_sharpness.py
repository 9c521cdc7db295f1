"""Checkers of `04_renyi_sharpness.ipynb`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from renyi_lab._utils.typing import FloatArray
from renyi_lab.exercises._feedback import Feedback, Hint, answer_of, close, explain, first_hint, number_of
from renyi_lab.spectrum import Spectrum, renyi_entropy

_SIZES = (4, 3, 2)
_SCALES = (4.0, 0.5, 0.5)


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


def check_rescaled_hessian(function: Callable[[FloatArray, list[int], list[float]], Any]) -> Feedback:
    """Check ``function(hessian, sizes, scales)``: the Hessian after multiplying the weights of layer ``l`` by ``c_l``
    without changing the network's function.

    Args:
        function: Your solution; ``sizes`` lists how many rows of the matrix belong to each layer.
    """
    return first_hint(
        function,
        [_rescaled_shape, _rescaled_blocks, _rescaled_rest, _matrix_unchanged],
        "D⁻¹HD⁻¹: each block gets one factor and keeps its sharpness; the factors differ, so the whole does not.",
    )


def check_too_many_directions(eigenvalues: Any) -> Feedback:
    """Check a list of eigenvalues of positive sum for which ``normalization="signed"`` counts more directions at
    α = ½ than there are eigenvalues.

    Args:
        eigenvalues: At least two numbers.
    """
    return first_hint(
        eigenvalues,
        [_signed_defined, _signed_exceeds],
        "with a signed sum the p_i add up to more than one, and an 'effective number' above n has no meaning.",
    )


def _hessian() -> FloatArray:
    """A symmetric matrix whose blocks have negative eigenvalues."""
    half = np.random.default_rng(0).standard_normal((sum(_SIZES), sum(_SIZES)))
    return np.asarray(half + half.T, dtype=np.float64)


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
    hessian = _hessian()[: _SIZES[0], : _SIZES[0]]
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
    answer = _layers(function, hessian, _SIZES[:1], 2.0)[0]
    return explain(answer, right, mistakes, f"the answer should be −H_α of the {_SIZES[0]} eigenvalues' magnitudes.")


def _later_layers(function: Callable[..., Any]) -> str | None:
    hessian, sizes = _hessian(), list(_SIZES)
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
    hessian = _hessian()
    for alpha in (0.5, 1.0):
        right = [_sharpness(np.linalg.eigvalsh(block), alpha) for block in _blocks(hessian, _SIZES)]
        if not close(_layers(function, hessian, _SIZES, alpha), right):
            return f"right at α = 2, wrong at α = {alpha:g}; rl.renyi_entropy computes every order, including limits."
    return None


def _rescaled(function: Callable[..., Any]) -> FloatArray:
    answer = answer_of(function, _hessian(), list(_SIZES), list(_SCALES))
    return np.asarray(answer, dtype=np.float64)


def _rescaled_shape(function: Callable[..., Any]) -> str | None:
    shape, expected = _rescaled(function).shape, (sum(_SIZES),) * 2
    return None if shape == expected else f"a matrix of shape {expected} is expected, got shape {shape}."


def _rescaled_blocks(function: Callable[..., Any]) -> str | None:
    found, hessian, scales = _rescaled(function), _hessian(), np.repeat(_SCALES, _SIZES)
    within = _same_layer()
    if close(found[within], (hessian / scales[:, None] / scales)[within]):
        return None
    if close(found, hessian * scales[:, None] * scales):
        return "DHD: larger weights make the loss *flatter* in them, since a step of the same length changes less."
    if close(found, hessian / scales[:, None]) or close(found, hessian / scales):
        return "scaled from one side only, so it is not symmetric: a second derivative involves two weights."
    if close(found[within], (hessian / scales)[within]):
        return "one factor 1/c for each derivative: how many derivatives are in an entry of the Hessian?"
    return "consider one weight: L does not change when w = c·v, so ∂/∂w = c⁻¹ ∂/∂v. What does that do twice?"


def _rescaled_rest(function: Callable[..., Any]) -> str | None:
    found, hessian, scales = _rescaled(function), _hessian(), np.repeat(_SCALES, _SIZES)
    between = ~_same_layer()
    mistakes = {
        "the blocks are right; the entries between two layers scale too, once for each of the two.": hessian[between],
        "the blocks are right, but entries between two layers are not zero.": np.zeros(between.sum()),
    }
    right = (hessian / scales[:, None] / scales)[between]
    return explain(
        found[between], right, mistakes, "the blocks are right; an entry of layers k and l has one derivative for each."
    )


def _same_layer() -> Any:
    """Which entries of the matrix belong to two weights of the same layer."""
    layers = np.repeat(range(len(_SIZES)), _SIZES)
    return layers[:, None] == layers


def _matrix_unchanged(function: Callable[..., Any]) -> str | None:
    hessian = _hessian()
    answer_of(function, hessian, list(_SIZES), list(_SCALES))
    if np.array_equal(hessian, _hessian()):
        return None
    return "right, but the matrix that was passed in is overwritten; make a new one."


def _eigenvalues(answer: Any) -> FloatArray:
    values = np.array([number_of(value) for value in np.asarray(answer, dtype=object).reshape(-1)])
    if not np.isfinite(values).all() or len(values) < 2:
        raise Hint("at least two finite numbers are expected.")
    return values


def _signed_defined(answer: Any) -> str | None:
    values = _eigenvalues(answer)
    if values.min() >= 0:
        return "without negative eigenvalues the signed sum is the sum of magnitudes, and nothing can go wrong."
    if values.sum() <= 0:
        return f"their sum is {values.sum():g}: not positive, so the signed version is not even defined."
    return None


def _signed_exceeds(answer: Any) -> str | None:
    values = _eigenvalues(answer)
    entropy = Spectrum.from_eigenvalues(values).renyi_entropy(0.5, normalization="signed").value
    if entropy > np.log(len(values)):
        return None
    return (
        f"it counts {np.exp(entropy):.2f} directions of {len(values)}, so far not too many: bring the sum closer to "
        "zero, or the magnitudes closer together."
    )
