"""The inputs of explorers: an operator or results of Lanczos, and spectra."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from renyi_lab._utils.arrays import real_array
from renyi_lab._utils.exclusive import exclusive
from renyi_lab._utils.typing import FloatArray
from renyi_lab.krylov import Tridiagonal
from renyi_lab.spectrum import Spectrum, exact_spectrum

# Up to this dimension the true eigenvalues are computed. Heuristic: a second or two of products.
_SMALL = 1000


def is_results(source: Any) -> bool:
    """Whether ``source`` holds results of Lanczos rather than being an operator."""
    return isinstance(source, (list, tuple, Iterator))


def tridiagonals(source: Iterable[Any]) -> list[Tridiagonal]:
    """The results of Lanczos in ``source``: at least one, all of the same dimension."""
    steps = list(source)
    if not steps:
        raise ValueError("source has no Lanczos steps; pass the results of lanczos_steps, or an operator.")
    for step in steps:
        if not isinstance(step, Tridiagonal):
            raise TypeError(
                f"source must contain Tridiagonals, the results of lanczos_steps, got {type(step).__name__}; "
                "pass a matrix as a torch tensor or a NumPy array."
            )
    dims = {step.basis.shape[1] for step in steps}
    if len(dims) > 1:
        raise ValueError(f"source has results of operators with different sizes: {sorted(dims)}.")
    return steps


def exact_or_none(source: Any, dim: int, exact: Spectrum | ArrayLike | None) -> Spectrum | None:
    """The true spectrum, given or computed in a second or two; otherwise ``None``."""
    if exact is None:
        known = isinstance(source, Tridiagonal) or is_results(source) or dim > _SMALL
        return None if known else exact_spectrum(source)
    spectrum = exact if isinstance(exact, Spectrum) else Spectrum.from_eigenvalues(real_array("exact", exact))
    if spectrum.dim != dim:
        raise ValueError(f"exact must contain all {dim} eigenvalues, got {spectrum.dim}.")
    return spectrum


def entropies(spectrum: Spectrum, alphas: FloatArray) -> FloatArray:
    """``H_α`` at every order, without the warnings about estimates at single orders."""
    with exclusive(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.array([spectrum.renyi_entropy(alpha).value for alpha in alphas.tolist()])
