"""`AlphaExplorer`: which eigenvalues the order α is sensitive to."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from renyi_lab._utils.figure import new_figure
from renyi_lab._utils.validation import check_real
from renyi_lab.plots import BLUE, GREY, ORANGE, magnitude_grid
from renyi_lab.spectrum import Spectrum, weighted_escort
from renyi_lab.widgets._base import Explorer
from renyi_lab.widgets._controls import float_slider
from renyi_lab.widgets._sources import entropies

_CURVE_POINTS = 81


class AlphaExplorer(Explorer):
    """Rényi entropy, effective number of directions and the weight of every eigenvalue as functions of the order α.

    Left: ``H_α`` against α with the current order marked. Right: the cumulative share ``w |λ|^α / Σ w |λ|^α`` of the
    magnitudes, over the density of the spectrum.

    Args:
        spectrum: A `Spectrum`, or all eigenvalues as a vector.
        alpha: Initial order, in ``[0, max_alpha]``.
        max_alpha: Right end of the slider, positive. Default 4 (heuristic: larger orders hardly change the entropy).

    Example:
        >>> explorer = AlphaExplorer(Spectrum.from_eigenvalues([4.0, 1.0, 1.0, 0.1]), alpha=1.0)
        >>> explorer.alpha.value = 2.0
        >>> round(explorer.entropy, 3)
        0.726
    """

    def __init__(self, spectrum: Spectrum | ArrayLike, alpha: float = 1.0, max_alpha: float = 4.0) -> None:
        spectrum = spectrum if isinstance(spectrum, Spectrum) else Spectrum.from_eigenvalues(spectrum)
        self.spectrum = spectrum
        limit = check_real("max_alpha", max_alpha, 0.0, open_minimum=True)
        self.alpha = float_slider("α", check_real("alpha", alpha, 0.0, limit), 0.0, limit)
        rule = spectrum.last_rule
        order = np.argsort(rule.magnitudes)
        self._magnitudes, self._weights = rule.magnitudes[order], rule.weights[order]
        figure = new_figure(8.6, 3.1)
        left, right = figure.subplots(1, 2)
        alphas = np.linspace(0, limit, _CURVE_POINTS)
        left.plot(alphas, entropies(spectrum, alphas), color=BLUE)
        left.set(xlabel="α", ylabel="H_α (nats)", xlim=(0, limit), ylim=(0, 1.08 * np.log(max(spectrum.dim, 2))))
        (self.marker,) = left.plot([], [], "o", color=ORANGE, markersize=9, clip_on=False)
        grid = magnitude_grid(spectrum, 200)
        density = spectrum.density(grid, scale="log")
        right.fill_between(grid, density / density.max(), color=GREY, alpha=0.3, lw=0, label="density (scaled)")
        (self.shares,) = right.plot([], [], color=ORANGE, drawstyle="steps-mid", label="share at this α, cumulative")
        right.set(xscale="log", xlabel="|λ|", ylabel="share of the sum", ylim=(0, 1.05), xlim=(grid[0], grid[-1]))
        right.legend(loc="upper left", fontsize="small")
        shows = (
            "Left: a falling curve of the Rényi entropy H_α against the order α, with a dot at the current α. "
            "Right: the cumulative share of the eigenvalue magnitudes in the sum of |λ|^α, over the density of the "
            "spectrum."
        )
        super().__init__([self.alpha], figure, [self.marker, self.shares], shows=shows)

    @property
    def entropy(self) -> float:
        """``H_α`` at the slider's α, in nats."""
        return self.spectrum.renyi_entropy(float(self.alpha.value)).value

    def _update(self) -> str:
        alpha = self.alpha.value
        estimate = self.spectrum.renyi_entropy(alpha)
        shares = weighted_escort(self._magnitudes, self._weights, alpha)
        self.marker.set_data([alpha], [estimate.value])
        self.shares.set_data(self._magnitudes, np.cumsum(shares))
        top = f"the largest eigenvalue alone carries {shares[-1]:.1%} of the sum"
        return (
            f"H<sub>α</sub> = <b>{estimate:.3f}</b> nats · effective number of directions "
            f"<b>{np.exp(estimate.value):,.1f}</b> of {self.spectrum.dim:,} · {top}"
        )
