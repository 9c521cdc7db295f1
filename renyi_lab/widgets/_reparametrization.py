"""`ReparametrizationExplorer`: how rescaling the layers of a network changes its spectra, but not its function."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from typing import Any

import ipywidgets
import numpy as np

from renyi_lab._utils.estimate import Estimate
from renyi_lab._utils.figure import new_figure
from renyi_lab._utils.threads import one_thread
from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_instance, check_real, printed
from renyi_lab.operators import as_operator
from renyi_lab.plots import GREY, ORANGE
from renyi_lab.spectrum import QuadratureRule
from renyi_lab.widgets._base import Explorer
from renyi_lab.widgets._controls import float_slider
from renyi_lab.widgets._reduced import ReducedHessian, quiet_entropy
from renyi_lab.widgets._rescaling import DenseHessian, rescaling_structure

# Heuristic: the eigenvalues of a larger matrix take longer than the 50 ms at which a slider feels smooth.
_MAX_DENSE = 400
# Below, the entropy of an estimated spectrum says nothing.
_LOWEST_ESTIMATED = 0.5
# Smaller eigenvalues, relative to the largest, are rounding errors and not drawn.
_DEPTH = 1e-8
_WHOLE = "whole"
_REACH = 3  # sliders range from 2⁻³ to 2³. Heuristic: far enough for one layer to dominate.


class ReparametrizationExplorer(Explorer):
    """Rescaling the layers of a positively homogeneous network by scales whose product is 1.

    The function does not change, the block of ``W_l`` becomes ``c_l⁻² H_l`` and the whole Hessian ``D⁻¹ H D⁻¹``. Left:
    eigenvalue magnitudes of the whole network, before (grey) and now. Middle: the factor by which the largest magnitude
    of each block and of the whole has changed. Right: their Rényi entropies, before (grey rings) and now.

    Up to 400 rows all of it is exact. Above, the factors of the blocks and that their entropies do not change are
    exact, and the rest is estimated from about 1,300 Hessian products at construction: error bars are ± 2 standard
    errors, and the caption says what is estimated.

    Args:
        hessian: A `HessianOperator` of a network that `reparametrize` accepts, or a symmetric matrix with ``layers``.
        layers: For a matrix: number of rows per layer, by name and in order.
        alpha: Initial order, in ``[0, 4]``; above 400 rows in ``[0.5, 4]``.
        scales: Initial scales by layer name, in ``[1/8, 8]``. Default 1; the last layer's follows from the others.

    Raises:
        TypeError: ``hessian`` is neither an operator nor a matrix.
        ValueError: There are fewer than two layers, or above 400 rows more than 20, ``layers`` do not add up, the
            network cannot be rescaled, or a number is out of range.

    Source: Dinh et al. 2017, arXiv:1703.04933 (rescaling); Zhang et al., arXiv:2510.07758 (invariance).

    Example:
        >>> import torch
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
        exponents, blocks = rescaling_structure(operator, layers)
        exact = operator.dim <= _MAX_DENSE
        lowest = 0.0 if exact else _LOWEST_ESTIMATED
        names = list(blocks)
        self.sliders = _scale_sliders(names, {} if scales is None else scales)
        self.alpha = float_slider("α", check_real("alpha", alpha, lowest, 4.0), lowest, 4.0)
        self._source = (DenseHessian if exact else ReducedHessian)(operator, exponents, blocks)
        self._alpha_of_blocks = math.nan
        self._scales_of_spectrum = dict.fromkeys(names, 1.0)
        figure = new_figure(10.4, 3.3)
        left, middle, right = figure.subplots(1, 3, width_ratios=(5, 3, 3))
        self._draw_static(left, middle, right, operator.dim)
        (self.curve,) = left.plot([], [], color=ORANGE, label="now")
        (self.factors,) = middle.plot([], [], "o", color=ORANGE, markersize=8, clip_on=False)
        (self.old_bars,) = right.plot([], [], color=GREY, lw=5, alpha=0.5, solid_capstyle="butt")
        (self.bars,) = right.plot([], [], color=ORANGE, lw=1.5)
        (self.entropies,) = right.plot([], [], "o", color=ORANGE, markersize=6, clip_on=False)
        (self.rings,) = right.plot([], [], "o", color=GREY, markersize=11, markerfacecolor="none", clip_on=False)
        left.legend(loc="lower left", frameon=False)
        controls = [*self.sliders.values(), self.alpha]
        shows = (
            "Left: eigenvalue magnitudes of the whole Hessian in descending order, before and after rescaling. "
            "Middle: the factor by which the largest magnitude of the whole and of each layer's block has changed. "
            "Right: their Rényi entropies, before (rings) and after (dots)"
            + ("." if exact else ", with bars of ± 2 standard errors where they are estimated.")
        )
        moving = [self.old_bars, self.rings, self.curve, self.factors, self.bars, self.entropies]
        super().__init__(controls, figure, moving, shows=shows)

    @property
    def spectrum(self) -> QuadratureRule:
        """Spectrum of the whole network at the current scales; above 400 rows, an estimate in nodes and weights."""
        return self._source.now

    @property
    def scales(self) -> dict[str, float]:
        """The scale of each layer; their product is 1."""
        free = {name: slider.value for name, slider in list(self.sliders.items())[:-1]}
        return free | {list(self.sliders)[-1]: 1 / math.prod(free.values())}

    def _draw_static(self, left: Any, middle: Any, right: Any, dim: int) -> None:
        before, estimated = self._source.before, "" if self._source.is_exact else " (estimated)"
        largest = before.magnitudes.max()
        left.plot(*_ranked(before), color=GREY, lw=3, alpha=0.5, label=f"before{estimated}")
        steepest, span = 2.0 ** (2 * _REACH), 2.0 ** (2 * _REACH * (len(self.sliders) - 1))
        left.set(xscale="log", yscale="log", xlabel="rank", ylabel="|λ| of the whole network")
        left.set(ylim=(_floor(before.magnitudes) / steepest, 2 * steepest * largest), xlim=(0.8, 1.25 * dim))
        names = [_WHOLE, *self._source.blocks]
        middle.axvline(1.0, color=GREY, lw=0.8)
        middle.set(xscale="log", xlabel="factor of the largest |λ|", xlim=(1 / (1.5 * span), 1.5 * span))
        right.set(xlabel="H_α (nats)", xlim=(0, 1.05 * math.log(max(dim, 2))))
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
            self._source.move(np.log(list(scales.values())))
            self._scales_of_spectrum = scales
        self.curve.set_data(*_ranked(self.spectrum))
        growth = self.spectrum.magnitudes.max() / self._source.before.magnitudes.max()
        factors = [growth, *(scale**-2 for scale in scales.values())]
        self.factors.set_data(factors, range(len(factors)))
        whole = self._source.entropy(alpha)
        if alpha != self._alpha_of_blocks:  # the scales do not change these
            self._block_entropies = [quiet_entropy(block, alpha) for block in self._source.blocks.values()]
            self._alpha_of_blocks = alpha
        for estimates, dots, bars in (
            ([whole[0], *self._block_entropies], self.rings, self.old_bars),
            ([whole[1], *self._block_entropies], self.entropies, self.bars),
        ):
            dots.set_data([estimate.value for estimate in estimates], range(len(estimates)))
            bars.set_data(*_error_bars(estimates))
        return self._caption(scales, growth, *whole)

    def _caption(self, scales: Mapping[str, float], growth: float, before: Estimate, now: Estimate) -> str:
        shown = " · ".join(
            f"{html.escape(name)}: c = {scale:.3g}, λ × {scale**-2:.3g}" for name, scale in scales.items()
        )
        if self._source.is_exact:
            entropies, note = f"{before.value:.3f} to <b>{now.value:.3f}</b> nats", ""
        else:
            entropies = (
                f"{before.value:.2f} ± {before.standard_error:.2f} to "
                f"<b>{now.value:.2f} ± {now.standard_error:.2f}</b> nats"
            )
            note = (
                "<br>Exact: the factors of the blocks, and that their H<sub>α</sub> are unchanged. Estimated: all "
                "H<sub>α</sub> (± one standard error; bars: two), and the spectrum of the whole network."
            )
        return (
            f"same function · {shown}<br>whole network: H<sub>α</sub> from {entropies}, "
            f"largest |λ| × <b>{growth:.3g}</b>; every block: H<sub>α</sub> unchanged{note}"
        )


def _scale_sliders(names: list[str], scales: Mapping[str, float]) -> dict[str, ipywidgets.FloatLogSlider]:
    check_instance("scales", scales, Mapping, "a scale by layer name")
    if unknown := [name for name in scales if name not in names[:-1]]:
        raise ValueError(f"scales has the key {printed(unknown[0])}; allowed are {names[:-1]}.")
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


def _floor(magnitudes: FloatArray) -> float:
    smallest: float = magnitudes[magnitudes > _DEPTH * magnitudes.max()].min()
    return smallest


def _ranked(rule: QuadratureRule) -> tuple[FloatArray, FloatArray]:
    """Ranks, in the middle of those that a node represents, and magnitudes, NaN where they are rounding errors."""
    order = np.argsort(-rule.magnitudes)
    magnitudes, weights = rule.magnitudes[order], rule.weights[order]
    drawn = np.where(magnitudes > _DEPTH * magnitudes[0], magnitudes, np.nan)  # NaN is not drawn
    return np.cumsum(weights) - weights / 2 + 0.5, drawn


def _error_bars(estimates: list[Estimate]) -> tuple[list[float], list[float]]:
    """Lines of ± 2 standard errors, with gaps between them."""
    across = [x for e in estimates for x in (e.value - 2 * e.standard_error, e.value + 2 * e.standard_error, math.nan)]
    return across, [float(row) for row in range(len(estimates)) for _ in range(3)]
