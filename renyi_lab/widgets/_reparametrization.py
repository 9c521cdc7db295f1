"""`ReparametrizationExplorer`: how rescaling the layers of a network changes its spectra, but not its function."""

from __future__ import annotations

import copy
import html
import math
from collections.abc import Mapping
from typing import Any

import ipywidgets
import numpy as np
import torch
from numpy.typing import NDArray

from renyi_lab._utils.figure import new_figure
from renyi_lab._utils.parameters import flatten
from renyi_lab._utils.threads import one_thread
from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_int, check_real
from renyi_lab.operators import LinearOperator, ModelOperator, as_operator
from renyi_lab.perturbation import reparametrize, scalable_layers
from renyi_lab.plots import GREY, ORANGE
from renyi_lab.spectrum import Spectrum
from renyi_lab.widgets._base import Explorer
from renyi_lab.widgets._controls import float_slider

# Heuristic: the eigenvalues of a larger matrix take longer than the 50 ms at which a slider feels smooth.
_MAX_DIM = 400
# Smaller eigenvalues, relative to the largest, are rounding errors and not drawn.
_DEPTH = 1e-8
_WHOLE = "whole"
_REACH = 3  # sliders range from 2⁻³ to 2³. Heuristic: far enough for one layer to dominate.


class ReparametrizationExplorer(Explorer):
    """Rescaling the layers of a positively homogeneous network by scales whose product is 1.

    The function does not change, the block of ``W_l`` becomes ``c_l⁻² H_l`` and the whole Hessian ``D⁻¹ H D⁻¹``, both
    in closed form from the initial Hessian. Left: eigenvalue magnitudes of the whole network, before (grey) and now.
    Middle: the factor by which the largest magnitude of each block and of the whole has changed. Right: their Rényi
    entropies, before (grey rings) and now.

    Args:
        hessian: A `HessianOperator` of a network that `reparametrize` accepts, or a symmetric matrix with ``layers``.
            At most 400 rows, so that updates are fast.
        layers: For a matrix: number of rows per layer, by name and in order.
        alpha: Initial order, in ``[0, 4]``.
        scales: Initial scales by layer name, in ``[1/8, 8]``. Default 1; the last layer's follows from the others.

    Raises:
        TypeError: ``hessian`` is neither an operator nor a matrix.
        ValueError: There are too many rows or fewer than two layers, ``layers`` do not add up, the network cannot be
            rescaled, or a scale is out of range.

    Source: Dinh et al. 2017, arXiv:1703.04933 (rescaling); Zhang et al., arXiv:2510.07758 (invariance).

    Example:
        >>> hessian = torch.diag(torch.tensor([4.0, 1.0, 2.0, 2.0]))
        >>> explorer = ReparametrizationExplorer(hessian, layers={"first": 2, "second": 2}, alpha=2.0)
        >>> explorer.sliders["first"].value = 2.0
        >>> explorer.spectrum.nodes.tolist()
        [0.25, 1.0, 8.0, 8.0]
    """

    def __init__(
        self,
        hessian: Any,
        layers: Mapping[str, int] | None = None,
        *,
        alpha: float = 1.0,
        scales: Mapping[str, float] | None = None,
    ) -> None:
        operator = as_operator(hessian)
        if operator.dim > _MAX_DIM:
            raise ValueError(
                f"hessian has {operator.dim} rows, but updates are fast for at most {_MAX_DIM}; use a smaller network, "
                "or reparametrize(model, scales) and estimate_spectrum for single scales."
            )
        exponents, self._blocks = _structure(operator, layers)
        self._exponents = exponents
        dense = operator.to_dense().double().cpu().numpy()
        self._hessian: FloatArray = (dense + dense.T) / 2
        names = list(self._blocks)
        self.sliders = _scale_sliders(names, scales or {})
        self.alpha = float_slider("α", check_real("alpha", alpha, 0.0, 4.0), 0.0, 4.0)
        self._before = {_WHOLE: _spectrum(self._hessian)} | {
            name: _spectrum(self._hessian[np.ix_(rows, rows)]) for name, rows in self._blocks.items()
        }
        if not dense.any():
            raise ValueError("hessian is all zero, so it has no entropy.")
        self.spectrum = self._before[_WHOLE]
        """Spectrum of the whole network at the current scales."""
        self._scales_of_spectrum = dict.fromkeys(names, 1.0)
        figure = new_figure(10.4, 3.3)
        left, middle, right = figure.subplots(1, 3, width_ratios=(5, 3, 3))
        self._draw_static(left, middle, right)
        ranks = np.arange(1, operator.dim + 1)
        (self.curve,) = left.plot(ranks, np.full(operator.dim, np.nan), color=ORANGE, label="now")
        (self.factors,) = middle.plot([], [], "o", color=ORANGE, markersize=8, clip_on=False)
        (self.entropies,) = right.plot([], [], "o", color=ORANGE, markersize=6, clip_on=False)
        (self.rings,) = right.plot([], [], "o", color=GREY, markersize=11, markerfacecolor="none", clip_on=False)
        left.legend(loc="lower left", frameon=False)
        controls = [*self.sliders.values(), self.alpha]
        shows = (
            "Left: eigenvalue magnitudes of the whole Hessian in descending order, before and after rescaling. "
            "Middle: the factor by which the largest magnitude of the whole and of each layer's block has changed. "
            "Right: their Rényi entropies, before (rings) and after (dots)."
        )
        super().__init__(controls, figure, [self.rings, self.curve, self.factors, self.entropies], shows=shows)

    @property
    def scales(self) -> dict[str, float]:
        """The scale of each layer; their product is 1."""
        free = {name: slider.value for name, slider in list(self.sliders.items())[:-1]}
        return free | {list(self.sliders)[-1]: 1 / math.prod(free.values())}

    def _draw_static(self, left: Any, middle: Any, right: Any) -> None:
        magnitudes = np.sort(self._before[_WHOLE].magnitudes)[::-1]
        left.plot(np.arange(1, len(magnitudes) + 1), _drawable(magnitudes), color=GREY, lw=3, alpha=0.5, label="before")
        steepest, span = 2.0 ** (2 * _REACH), 2.0 ** (2 * _REACH * (len(self.sliders) - 1))
        left.set(xscale="log", yscale="log", xlabel="rank", ylabel="|λ| of the whole network")
        left.set(ylim=(_floor(magnitudes) / steepest, 2 * steepest * magnitudes[0]))
        names = [_WHOLE, *self._blocks]
        middle.axvline(1.0, color=GREY, lw=0.8)
        middle.set(xscale="log", xlabel="factor of the largest |λ|", xlim=(1 / (1.5 * span), 1.5 * span))
        right.set(xlabel="H_α (nats)", xlim=(0, 1.05 * math.log(max(self._before[_WHOLE].dim, 2))))
        for axes in (middle, right):
            axes.set(yticks=range(len(names)), ylim=(len(names) - 0.5, -0.5))
            axes.grid(axis="y", color="0.9")
        middle.set_yticklabels(names)
        right.set_yticklabels([])
        for axes in (left, middle, right):
            axes.spines[["top", "right"]].set_visible(False)

    @one_thread()  # on a busy machine, two threads take ten times as long for some hundred numbers
    def _update(self) -> str:
        scales, alpha = self.scales, self.alpha.value
        last = list(self.sliders)[-1]
        self.sliders[last].value = scales[last]  # follows the others
        if scales != self._scales_of_spectrum:  # it does not depend on alpha, and takes most of the time
            inverse = np.exp(-self._exponents @ np.log([scales[name] for name in self._blocks]))
            self.spectrum = _spectrum(self._hessian * inverse[:, None] * inverse)
            self._scales_of_spectrum = scales
        self.curve.set_ydata(_drawable(np.sort(self.spectrum.magnitudes)[::-1]))
        whole = self.spectrum.magnitudes.max() / self._before[_WHOLE].magnitudes.max()
        factors = [whole, *(scales[name] ** -2 for name in self._blocks)]
        self.factors.set_data(factors, range(len(factors)))
        before = [_entropy(spectrum, alpha) for spectrum in self._before.values()]
        # The entropies of blocks do not change.
        now = [_entropy(self.spectrum, alpha), *before[1:]]
        self.rings.set_data(before, range(len(before)))
        self.entropies.set_data(now, range(len(now)))
        shown = " · ".join(
            f"{html.escape(name)}: c = {scale:.3g}, λ × {scale**-2:.3g}" for name, scale in scales.items()
        )
        return (
            f"same function · {shown}<br>whole network: H<sub>α</sub> from {before[0]:.3f} to <b>{now[0]:.3f}</b> "
            f"nats, largest |λ| × <b>{whole:.3g}</b>; every block: H<sub>α</sub> unchanged"
        )


def _structure(
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


def _scale_sliders(names: list[str], scales: Mapping[str, float]) -> dict[str, ipywidgets.FloatLogSlider]:
    if unknown := [name for name in scales if name not in names[:-1]]:
        raise ValueError(f"scales has the key {unknown[0]!r}; allowed are {names[:-1]}.")
    low, high = 2.0**-_REACH, 2.0**_REACH
    sliders = {
        name: ipywidgets.FloatLogSlider(
            value=check_real(f"scales[{name!r}]", scales.get(name, 1.0), low, high),
            base=2, min=-_REACH, max=_REACH, step=0.1, description=name, readout_format=".3g",
        )
        for name in names[:-1]
    }  # fmt: skip
    reach = _REACH * (len(names) - 1)
    sliders[names[-1]] = ipywidgets.FloatLogSlider(
        value=1.0, base=2, min=-reach, max=reach, step=0.1, description=names[-1], readout_format=".3g", disabled=True
    )
    return sliders


def _spectrum(matrix: FloatArray) -> Spectrum:
    # Unlike NumPy's, torch's eigenvalues are computed on as many threads as torch is told to use.
    return Spectrum.from_eigenvalues(torch.linalg.eigvalsh(torch.from_numpy(matrix)))


def _entropy(spectrum: Spectrum, alpha: float) -> float:
    return spectrum.renyi_entropy(alpha).value if spectrum.magnitudes.any() else math.nan


def _floor(magnitudes: FloatArray) -> float:
    smallest: float = magnitudes[magnitudes > _DEPTH * magnitudes[0]].min()
    return smallest


def _drawable(magnitudes: FloatArray) -> FloatArray:
    """NaN, which is not drawn, where a magnitude is rounding error relative to the largest."""
    return np.where(magnitudes > _DEPTH * magnitudes[0], magnitudes, np.nan)
