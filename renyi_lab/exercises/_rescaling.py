"""Checker of `04_renyi_sharpness.ipynb` on the Hessian of a rescaled network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from renyi_lab._utils.typing import FloatArray
from renyi_lab.exercises._attempts import described
from renyi_lab.exercises._feedback import Feedback, Hint, answer_of, close, explain, first_hint
from renyi_lab.exercises._layers import LAYER_SIZES, layered_hessian

_SCALES = (4.0, 0.5, 0.5)


def check_rescaled_hessian(function: Callable[[FloatArray, list[int], list[float]], Any]) -> Feedback:
    """Check ``function(hessian, sizes, scales)``: the Hessian after the parameters of block ``l`` are multiplied by
    ``scales[l]`` without a change of the network's function.

    The feedback's ``function`` is yours once it is solved, and otherwise one that computes ``D⁻¹HD⁻¹``.

    Args:
        function: Your solution; ``sizes`` lists how many rows of the matrix belong to each block.
    """
    checks = [_rescaled_blocks, _rescaled_rest]
    success = "D⁻¹HD⁻¹: each block gets one factor and keeps its sharpness; the factors differ, so the whole does not."
    return first_hint(function, checks, success).otherwise(function, _rescaled_hessian)


def _rescaled_hessian(hessian: FloatArray, sizes: Sequence[int], scales: Sequence[float]) -> FloatArray:
    d = np.repeat(np.asarray(scales, dtype=np.float64), sizes)
    return np.asarray(hessian, dtype=np.float64) / d[:, None] / d


def _rescaled(function: Callable[..., Any]) -> FloatArray:
    answer = answer_of(function, layered_hessian(), list(LAYER_SIZES), list(_SCALES))
    expected = f"a matrix of shape {(sum(LAYER_SIZES),) * 2} is expected, got"
    if isinstance(answer, Tensor) and answer.requires_grad:
        raise Hint("the answer is a tensor that requires gradients; return answer.detach(), or use NumPy.")
    try:
        found = np.asarray(answer)
    except (TypeError, ValueError, RuntimeError):
        raise Hint(f"{expected} {described(answer)}.") from None
    if found.ndim == 2 and found.dtype.kind not in "biuf":
        raise Hint(f"real numbers are expected, got {found.dtype}.")
    if found.shape != (sum(LAYER_SIZES),) * 2:
        raise Hint(f"{expected} {described(answer)}.")
    if not np.isfinite(found).all():
        raise Hint("the matrix holds NaN or infinity; every scale is a positive number.")
    return found.astype(np.float64)


def _rescaled_blocks(function: Callable[..., Any]) -> str | None:
    found, hessian, scales = _rescaled(function), layered_hessian(), np.repeat(_SCALES, LAYER_SIZES)
    within = _same_layer()
    if close(found[within], _rescaled_hessian(hessian, LAYER_SIZES, _SCALES)[within]):
        return None
    if close(found, hessian * scales[:, None] * scales):
        return "DHD: larger weights make the loss *flatter* in them, since a step of the same length changes less."
    if close(found, hessian / scales[:, None]) or close(found, hessian / scales):
        return "scaled from one side only, so it is not symmetric: a second derivative involves two weights."
    if close(found[within], (hessian / scales)[within]):
        return "one factor 1/c for each derivative: how many derivatives are in an entry of the Hessian?"
    return "consider one weight: L does not change when w = c·v, so ∂/∂w = c⁻¹ ∂/∂v. What does that do twice?"


def _rescaled_rest(function: Callable[..., Any]) -> str | None:
    found, hessian = _rescaled(function), layered_hessian()
    between = ~_same_layer()
    mistakes = {
        "the blocks are right; the entries between two layers scale too, once for each of the two.": hessian[between],
        "the blocks are right, but entries between two layers are not zero.": np.zeros(between.sum()),
    }
    right = _rescaled_hessian(hessian, LAYER_SIZES, _SCALES)[between]
    return explain(
        found[between], right, mistakes, "the blocks are right; an entry of layers k and l has one derivative for each."
    )


def _same_layer() -> Any:
    """Which entries of the matrix belong to two weights of the same layer."""
    layers = np.repeat(range(len(LAYER_SIZES)), LAYER_SIZES)
    return layers[:, None] == layers
