"""Checkers of `04_renyi_sharpness.ipynb`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from renyi_lab._utils.typing import FloatArray
from renyi_lab.exercises._feedback import Feedback, Hint, answer_of, first_hint, number_of
from renyi_lab.spectrum import Spectrum, renyi_entropy

_TOLERANCE = 1e-6
_SIZES = (4, 3, 2)
_SCALES = (4.0, 0.5, 0.5)


def check_layer_sharpness(function: Callable[[FloatArray, list[int], float], Any]) -> Feedback:
    """Check ``function(hessian, sizes, alpha)``: Rényi sharpness of each layer's block, in order, as a list."""
    return first_hint(
        function,
        [_one_layer, _later_layers, _each_order],
        "each layer's block has its own spectrum, its own p, its own sharpness; nothing between two layers is heard.",
    )


def check_rescaled_hessian(function: Callable[[FloatArray, list[int], list[float]], Any]) -> Feedback:
    """Check ``function(hessian, sizes, scales)``: the Hessian after the weights of layer ``l`` became ``c_l`` times as
    large and the function stayed.
    """
    return first_hint(
        function,
        [_rescaled_shape, _rescaled_blocks, _rescaled_rest, _not_in_place],
        "D⁻¹HD⁻¹: a block gets one factor, so its shape stays; the blocks' factors differ, so the whole's does not.",
    )


def check_too_many_directions(eigenvalues: Any) -> Feedback:
    """Check a list of eigenvalues of positive sum for which ``normalization="signed"`` counts more directions at
    α = ½ than there are eigenvalues.
    """
    return first_hint(
        eigenvalues,
        [_signed_defined, _signed_exceeds],
        "with a signed sum the p_i add up to more than one, and an 'effective number' above n means nothing any more.",
    )


def _hessian() -> FloatArray:
    """Symmetric, with negative eigenvalues in its blocks, and nothing in it special."""
    half = np.random.default_rng(0).standard_normal((sum(_SIZES), sum(_SIZES)))
    return np.asarray(half + half.T, dtype=np.float64)


def _blocks(hessian: FloatArray, sizes: Sequence[int]) -> list[FloatArray]:
    ends = np.cumsum(sizes)
    return [hessian[end - size : end, end - size : end] for size, end in zip(sizes, ends, strict=True)]


def _sharpness(values: Any, alpha: float) -> float:
    return -float(renyi_entropy(np.abs(np.asarray(values, dtype=np.float64)).reshape(-1), alpha))


def _numbers(answer: Any, count: int) -> list[float]:
    if not hasattr(answer, "__len__"):
        raise Hint(f"a list of {count} numbers is asked for, one a layer; this is of type {type(answer).__name__}.")
    if len(answer) != count:
        raise Hint(f"there are {count} layers, so {count} numbers are asked for, not {len(answer)}.")
    return [number_of(value) for value in answer]


def _one_layer(function: Callable[..., Any]) -> str | None:
    hessian = _hessian()[: _SIZES[0], : _SIZES[0]]
    (found,) = _numbers(answer_of(function, hessian.copy(), [_SIZES[0]], 2.0), 1)
    values = np.asarray(np.linalg.eigvalsh(hessian), dtype=np.float64)
    if abs(found - _sharpness(values, 2.0)) <= _TOLERANCE:
        return None
    if abs(found + _sharpness(values, 2.0)) <= _TOLERANCE:
        return "this is the entropy; sharpness is its negative, so that few curved directions mean sharp."
    if abs(found - _sharpness(np.diag(hessian), 2.0)) <= _TOLERANCE:
        return "the diagonal is not the spectrum: take the block's eigenvalues, np.linalg.eigvalsh(block)."
    if abs(found - _sharpness(hessian, 2.0)) <= _TOLERANCE:
        return "these are the block's entries; its eigenvalues are asked for, np.linalg.eigvalsh(block)."
    if abs(found - _signed_sharpness(values)) <= _TOLERANCE or np.isnan(found):
        return "this block has negative eigenvalues: take magnitudes before you divide by their sum."
    return f"with a single layer the answer should be −H_α of its {_SIZES[0]} eigenvalues' magnitudes."


def _signed_sharpness(values: FloatArray) -> float:
    p = values / values.sum()
    return float(np.log((p**2).sum()))


def _later_layers(function: Callable[..., Any]) -> str | None:
    hessian, sizes = _hessian(), list(_SIZES)
    found = np.array(_numbers(answer_of(function, hessian.copy(), sizes, 2.0), len(sizes)))
    expected = np.array([_sharpness(np.linalg.eigvalsh(block), 2.0) for block in _blocks(hessian, sizes)])
    if np.allclose(found, expected, atol=_TOLERANCE):
        return None
    slices = np.split(np.linalg.eigvalsh(hessian), np.cumsum(sizes)[:-1])
    if np.allclose(found, [_sharpness(part, 2.0) for part in slices], atol=_TOLERANCE):
        return "eigenvalues of the whole matrix belong to no layer: cut out the block first, then take its eigenvalues."
    first_only = [_sharpness(np.linalg.eigvalsh(hessian[:size, :size]), 2.0) for size in sizes]
    if np.allclose(found, first_only, atol=_TOLERANCE):
        return "every block starts in the corner so far: the second one starts where the first one ends."
    wrong = int(np.flatnonzero(~np.isclose(found, expected, atol=_TOLERANCE))[0])
    return f"layer {wrong + 1} of sizes {sizes} is wrong: which rows and columns of the matrix are its own?"


def _each_order(function: Callable[..., Any]) -> str | None:
    hessian, sizes = _hessian(), list(_SIZES)
    for alpha in (0.5, 1.0):
        found = _numbers(answer_of(function, hessian.copy(), sizes, alpha), len(sizes))
        expected = [_sharpness(np.linalg.eigvalsh(block), alpha) for block in _blocks(hessian, sizes)]
        if not np.allclose(found, expected, atol=_TOLERANCE):
            return f"right at α = 2, wrong at α = {alpha:g}; rl.renyi_entropy knows all orders, the limits too."
    return None


def _rescaled(function: Callable[..., Any]) -> FloatArray:
    answer = answer_of(function, _hessian(), list(_SIZES), list(_SCALES))
    return np.asarray(answer, dtype=np.float64)


def _inverse_scales() -> FloatArray:
    return np.repeat(1 / np.array(_SCALES), _SIZES)


def _rescaled_shape(function: Callable[..., Any]) -> str | None:
    shape, expected = _rescaled(function).shape, (sum(_SIZES),) * 2
    return None if shape == expected else f"a matrix of shape {expected} is asked for, this has shape {shape}."


def _rescaled_blocks(function: Callable[..., Any]) -> str | None:
    found, hessian, d = _rescaled(function), _hessian(), _inverse_scales()
    pairs = zip(_blocks(found, _SIZES), _blocks(hessian, _SIZES), _SCALES, strict=True)
    if all(np.allclose(now, before / c**2) for now, before, c in pairs):
        return None
    if np.allclose(found, hessian / d[:, None] / d):
        return "DHD: larger weights make the loss *flatter* in them, since a step of the same length changes less."
    if np.allclose(found, hessian * d[:, None]) or np.allclose(found, hessian * d):
        return "scaled from one side only, so it is not symmetric any more: a second derivative has two weights in it."
    if all(
        np.allclose(now, before / c)
        for now, before, c in zip(_blocks(found, _SIZES), _blocks(hessian, _SIZES), _SCALES, strict=True)
    ):
        return "one factor 1/c for each derivative: how many derivatives are in an entry of the Hessian?"
    return "look at one weight: L stays the same when w = c·v, so ∂/∂w = c⁻¹ ∂/∂v. What does that do twice?"


def _rescaled_rest(function: Callable[..., Any]) -> str | None:
    found, hessian, d = _rescaled(function), _hessian(), _inverse_scales()
    if np.allclose(found, hessian * d[:, None] * d):
        return None
    layers = np.repeat(range(len(_SIZES)), _SIZES)
    between = layers[:, None] != layers
    if np.allclose(found[between], hessian[between]):
        return "the blocks are right; the entries between two layers scale too, once for each of the two."
    if np.allclose(found[between], 0):
        return "the blocks are right, but entries between two layers are not zero: a weight of each layer is in them."
    return "the blocks are right; an entry of layers k and l has one derivative by each: which factor does that make?"


def _not_in_place(function: Callable[..., Any]) -> str | None:
    hessian = _hessian()
    answer_of(function, hessian, list(_SIZES), list(_SCALES))
    if np.array_equal(hessian, _hessian()):
        return None
    return "right, but the matrix that was passed in is overwritten; make a new one."


def _eigenvalues(answer: Any) -> FloatArray:
    values = np.array([number_of(value) for value in np.asarray(answer, dtype=object).reshape(-1)])
    if not np.isfinite(values).all() or len(values) < 2:
        raise Hint("at least two finite numbers are asked for.")
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
