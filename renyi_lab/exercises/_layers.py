"""The test matrix of checkers on Hessians with a block for each layer."""

from __future__ import annotations

import numpy as np

from renyi_lab._utils.typing import FloatArray

LAYER_SIZES = (4, 3, 2)


def layered_hessian() -> FloatArray:
    """A symmetric matrix whose blocks, of `LAYER_SIZES` rows, have negative eigenvalues."""
    half = np.random.default_rng(0).standard_normal((sum(LAYER_SIZES), sum(LAYER_SIZES)))
    return np.asarray(half + half.T, dtype=np.float64)
