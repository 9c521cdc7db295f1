"""How the rows of a Hessian depend on the scales of layers, and the rescaled Hessian of a small network, exactly."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from renyi_lab._utils.estimate import Estimate
from renyi_lab._utils.parameters import flatten
from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_int
from renyi_lab.operators import LinearOperator, ModelOperator
from renyi_lab.perturbation import reparametrize, scalable_layers
from renyi_lab.spectrum import Spectrum
from renyi_lab.widgets._reduced import quiet_entropy


class DenseHessian:
    """Spectra of a rescaled Hessian that is diagonalised at every move; the interface of `ReducedHessian`.

    Args:
        operator: The Hessian ``H``.
        exponents: ``E`` in ``log d = E log c``, ``(n, layers)``.
        blocks: Rows of each layer's weights.

    Raises:
        ValueError: ``H`` is zero.
    """

    is_exact = True

    def __init__(
        self, operator: LinearOperator, exponents: FloatArray, blocks: Mapping[str, NDArray[np.int64]]
    ) -> None:
        dense = operator.to_dense().double().cpu().numpy()
        if not dense.any():
            raise ValueError("hessian is all zero, so it has no entropy.")
        self._matrix: FloatArray = (dense + dense.T) / 2
        self._exponents = exponents
        self.before = self.now = _spectrum(self._matrix)
        self.blocks = {name: _spectrum(self._matrix[np.ix_(rows, rows)]) for name, rows in blocks.items()}

    def move(self, log_scales: FloatArray) -> None:
        """Compute the spectrum at the given logarithms of all scales."""
        inverse = np.exp(-self._exponents @ log_scales)
        self.now = _spectrum(self._matrix * inverse[:, None] * inverse)

    def entropy(self, alpha: float) -> tuple[Estimate, Estimate]:
        """``H_α`` of the whole before and after rescaling."""
        return quiet_entropy(self.before, alpha), quiet_entropy(self.now, alpha)


def rescaling_structure(
    operator: LinearOperator, layers: Mapping[str, int] | None
) -> tuple[FloatArray, dict[str, NDArray[np.int64]]]:
    """How rows depend on the scales, ``log d = E log c`` with ``E`` of (n, layers), and the rows of each block."""
    if isinstance(operator, ModelOperator):
        if layers is not None:
            raise ValueError("layers is for a matrix; a HessianOperator has its own.")
        return _structure_of_model(operator)
    if not layers:
        raise ValueError("a matrix needs layers in the order of its rows, as in layers={'first': 200, 'second': 120}.")
    sizes = {name: check_int(f"layers[{name!r}]", size) for name, size in layers.items()}
    if sum(sizes.values()) != operator.dim:
        raise ValueError(f"layers must add up to the matrix's {operator.dim} rows, got {sum(sizes.values())}.")
    owners = np.repeat(np.arange(len(sizes)), list(sizes.values()))
    rows = {name: np.flatnonzero(owners == index) for index, name in enumerate(_at_least_two(list(sizes)))}
    return np.eye(len(sizes))[owners], rows


def _structure_of_model(operator: ModelOperator) -> tuple[FloatArray, dict[str, NDArray[np.int64]]]:
    """Measured on `reparametrize`, with all parameters 1 and one layer at a time doubled."""
    names = _at_least_two([n for n in scalable_layers(operator.model) if f"{n}.weight" in operator.parameter_names])
    ones = copy.deepcopy(operator.model)
    with torch.no_grad():
        for parameter in ones.parameters():
            parameter.fill_(1.0)
    exponents = np.zeros((operator.dim, len(names)))
    for column, name in enumerate(names[:-1]):
        doubled = dict(reparametrize(ones, {name: 2.0, names[-1]: 0.5}).named_parameters())
        factors = flatten(doubled[parameter] for parameter in operator.parameter_names)
        exponents[:, column] = factors.double().log2().cpu().numpy()
    # The effect of the last scale is contained in those of the others, which determine it.
    ends = np.cumsum([parameter.numel() for parameter in operator.parameters.values()])
    starts = dict(zip(operator.parameter_names, zip([0, *ends[:-1]], ends, strict=True), strict=True))
    return exponents, {name: np.arange(*starts[f"{name}.weight"]) for name in names}


def _at_least_two(names: list[str]) -> list[str]:
    if len(names) < 2:
        raise ValueError(f"rescaling needs at least two layers, got {names}.")
    return names


def _spectrum(matrix: FloatArray) -> Spectrum:
    # Unlike NumPy's, torch's eigenvalues are computed on as many threads as torch is told to use.
    return Spectrum.from_eigenvalues(torch.linalg.eigvalsh(torch.from_numpy(matrix)))
