"""What the explorers of Lanczos' method start from: an operator, or results of Lanczos that are there already."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from numpy.typing import ArrayLike

from renyi_lab.krylov import Tridiagonal
from renyi_lab.spectrum import Spectrum, exact_spectrum

# Up to here the true eigenvalues are computed unasked: a second or two of products. Our choice.
_SMALL = 1000


def is_results(source: Any) -> bool:
    """Whether ``source`` is meant to hold results of Lanczos rather than to be an operator."""
    return isinstance(source, (list, tuple, Iterator))


def tridiagonals(source: Iterable[Any]) -> list[Tridiagonal]:
    """The results of Lanczos in ``source``, checked to be such, to be there, and to be of one operator's size."""
    steps = list(source)
    if not steps:
        raise ValueError("source holds no Lanczos steps; pass what lanczos_steps yields, or an operator.")
    for step in steps:
        if not isinstance(step, Tridiagonal):
            raise TypeError(
                f"source must hold Tridiagonals, as lanczos_steps yields them, got {type(step).__name__}; "
                "a matrix goes in as a torch tensor or a NumPy array."
            )
    dims = {step.basis.shape[1] for step in steps}
    if len(dims) > 1:
        raise ValueError(f"source mixes operators of different sizes: {sorted(dims)}.")
    return steps


def exact_or_none(source: Any, dim: int, exact: Spectrum | ArrayLike | None) -> Spectrum | None:
    """The true spectrum as given, or computed where that takes a second or two."""
    if exact is None:
        known = isinstance(source, Tridiagonal) or is_results(source) or dim > _SMALL
        return None if known else exact_spectrum(source)
    spectrum = exact if isinstance(exact, Spectrum) else Spectrum.from_eigenvalues(exact)
    if spectrum.dim != dim:
        raise ValueError(f"exact must hold all {dim} eigenvalues, got {spectrum.dim}.")
    return spectrum
