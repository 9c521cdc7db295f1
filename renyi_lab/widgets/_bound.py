"""`BoundExplorer`: what a PAC-Bayes bound is made of, and how it depends on σ, N, δ and α."""

from __future__ import annotations

import math
from collections.abc import Sequence

import ipywidgets
import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from renyi_lab._utils.figure import new_figure
from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_delta, check_int, check_real, check_reals
from renyi_lab.bounds import Bound, laplace_kl, plot_waterfall, renyi_laplace_kl, sampled_pac_bayes, waterfall
from renyi_lab.plots import GREY
from renyi_lab.spectrum import Spectrum
from renyi_lab.widgets._base import Explorer
from renyi_lab.widgets._controls import float_slider, nearest

# Ranges of the sliders, made wider where an initial value lies outside. Heuristic: from a handful of samples to a
# million, and from a failure in a million to one in two.
_SAMPLES, _DELTAS, _MAX_ALPHA = (10, 10**6), (1e-6, 0.5), 4.0
_MAX_SAMPLES = 10**12  # Heuristic: more than any data set holds.
_MAX_TICKS = 6  # of the axis of σ. Heuristic: their labels do not touch.
_EXACT, _RENYI = "exact KL", r"KL from $H_\alpha$"


class BoundExplorer(Explorer):
    """The PAC-Bayes bound of a Gaussian posterior, its four parts, and the bound against ``σ``.

    ``P = N(θ₀, σ²I)`` and ``Q = N(θ, (I/σ² + βH)⁻¹)``, with negative eigenvalues of ``H`` clipped at zero. Left:
    the bound as a sum of measured error, draws, confidence and divergence, with the exact divergence and with its
    bound from the trace and ``H_α`` (and the effective number of parameters, which is taken as exact). Right: both
    bounds at every ``σ`` of the grid. Above the dashed line a bound is vacuous. Choosing ``σ`` from the grid is
    paid for by a union bound, unless the box is not ticked.

    Args:
        spectrum: Spectrum of ``H``, a `Spectrum` or all eigenvalues as a vector; not all zero.
        sigmas: Grid of ``σ > 0``, ascending, at least two, fixed before the data are seen.
        losses: Loss of ``Q`` in [0, 1] at each ``σ``, averaged over draws: `renyi_lab.gibbs_error` or
            `GaussianPosterior.gibbs_error` measures it.
        squared_distance: ``‖θ−θ₀‖² ≥ 0``.
        num_samples: Initial number ``N ≥ 2`` of samples. Another one asks what the bound would be if ``N`` samples
            gave the same losses.
        num_draws: Number of independent draws at each ``σ``, or ``None`` when the losses are exact.
        beta: Weight ``β ≥ 0`` of the curvature in the posterior's precision. Default 0: ``Q`` has the prior's noise.
        delta: Initial probability of failure ``δ`` in (0, 1). Default 0.05 (customary).
        alpha: Initial order in (0, 4]. Default 2.
        sigma: Initial ``σ``, rounded to the grid. Default: that of the smallest bound.
        trivial_value: Value in (0, 1] at which the bound is vacuous, such as the error of chance. Default 1.

    Raises:
        TypeError: An argument of another type.
        ValueError: An argument out of range, ``losses`` of another length, or a spectrum that is all zero or has no
            positive eigenvalue.

    Example:
        >>> explorer = BoundExplorer(
        ...     [4.0, 1.0], [0.05, 0.1], [0.02, 0.10], squared_distance=0.04, num_samples=1000, num_draws=None
        ... )
        >>> explorer.sigma.value, round(explorer.bound.value, 3)
        (0.05, 0.056)
        >>> explorer.num_samples.value = 100_000
        >>> round(explorer.bound.value, 3)
        0.023
    """

    def __init__(
        self,
        spectrum: Spectrum | ArrayLike,
        sigmas: Sequence[float],
        losses: Sequence[float],
        *,
        squared_distance: float,
        num_samples: int,
        num_draws: int | None,
        beta: float = 0.0,
        delta: float = 0.05,
        alpha: float = 2.0,
        sigma: float | None = None,
        trivial_value: float = 1.0,
    ) -> None:
        self._spectrum = _clipped(spectrum)
        self._sigmas, self._losses = _grid(sigmas, losses)
        self._distance = check_real("squared_distance", squared_distance, 0.0)
        self._draws = None if num_draws is None else check_int("num_draws", num_draws)
        self._beta = check_real("beta", beta, 0.0)
        self._trivial = check_real("trivial_value", trivial_value, 0.0, 1.0, open_minimum=True)
        self._set_divergences()
        self.num_samples = _log_slider("N", check_int("num_samples", num_samples, 2, _MAX_SAMPLES), *_SAMPLES, ".0f")
        self.delta = _log_slider("δ", check_delta(delta), *_DELTAS, ".2g")
        alpha = check_real("alpha", alpha, 0.0, _MAX_ALPHA, open_minimum=True)
        self.alpha = float_slider("α", alpha, min(0.1, alpha), _MAX_ALPHA)
        self.pay = ipywidgets.Checkbox(value=True, description="pay for the grid of σ", indent=False)
        grid = self._sigmas.tolist()
        options = [(f"{value:g}", value) for value in grid]
        self.sigma = ipywidgets.SelectionSlider(options=options, description="σ", value=grid[0])
        if sigma is None:
            self.sigma.value = self.best_sigma
        else:
            wanted = check_real("sigma", sigma, grid[0], grid[-1])
            self.sigma.value = grid[nearest(np.log(self._sigmas), math.log(wanted))]
        figure = new_figure(10.0, 3.4)
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        moving = [*self._draw_parts(left), *self._draw_curves(right)]
        shows = (
            "Left: two horizontal bars, the bound with the exact divergence and with its bound from H_α, each made of "
            "measured error, draws, confidence and divergence. Right: both bounds against σ, with a dot at the current "
            "σ. A dashed line marks where a bound is vacuous."
        )
        controls = [self.sigma, self.num_samples, self.delta, self.alpha, self.pay]
        super().__init__(controls, figure, moving, shows=shows)

    @property
    def bound(self) -> Bound:
        """The bound at the current settings, with the exact divergence."""
        return self._bounds(self._kls)[self._index]

    @property
    def renyi_bound(self) -> Bound:
        """The same with the divergence bounded by trace and ``H_α``; never below `bound`."""
        return self._bounds(self._renyi_kls())[self._index]

    @property
    def best_sigma(self) -> float:
        """The ``σ`` of the grid at which `bound` is smallest."""
        return float(self._sigmas[int(np.argmin([bound.value for bound in self._bounds(self._kls)]))])

    @property
    def _index(self) -> int:
        return nearest(self._sigmas, self.sigma.value)

    def _set_divergences(self) -> None:
        """What depends on the grid alone: the exact divergences and the effective numbers of parameters."""
        nodes, weights = self._spectrum.nodes, self._spectrum.weights
        n, variances = self._spectrum.dim, self._sigmas**2
        self._kls = laplace_kl(nodes, weights, n, self._distance, variances, self._beta)
        x = variances[:, None] * self._beta * nodes
        self._gammas = (weights * x / (1 + x)).sum(axis=1).clip(0, n)

    def _renyi_kls(self) -> FloatArray:
        alpha, n, trace = self.alpha.value, self._spectrum.dim, float(self._spectrum.trace)
        entropy = self._spectrum.renyi_entropy(alpha).value
        settings = zip(self._sigmas.tolist(), self._gammas.tolist(), strict=True)
        return np.array(
            [renyi_laplace_kl(entropy, trace, n, alpha, self._distance, s**2, self._beta, g) for s, g in settings]
        )

    def _bounds(self, kls: FloatArray) -> list[Bound]:
        """The bound at every ``σ`` of the grid."""
        choices = len(self._sigmas) if self.pay.value else 1
        n, delta = round(self.num_samples.value), self.delta.value
        return [
            sampled_pac_bayes(loss, kl, n, num_draws=self._draws, choices=choices, delta=delta)
            for loss, kl in zip(self._losses.tolist(), kls.tolist(), strict=True)
        ]

    def _draw_parts(self, ax: Axes) -> list[Rectangle]:
        plot_waterfall(ax, {_EXACT: self.bound, _RENYI: self.renyi_bound}, trivial_value=self._trivial)
        for text in [text for text in ax.texts if text.get_text() != "vacuous"]:
            text.remove()  # the caption says the values, and these would not move
        # Per part, one bar per row.
        self.parts = [list(bars.patches) for bars in ax.containers if isinstance(bars, BarContainer)]
        return [bar for bars in self.parts for bar in bars]

    def _draw_curves(self, ax: Axes) -> list[Line2D]:
        (self.curve,) = ax.plot([], [], "o-", color="black", markersize=4, label=_EXACT)
        (self.renyi_curve,) = ax.plot([], [], "--", color="black", lw=1, label=_RENYI)
        (self.marker,) = ax.plot([], [], "o", color="black", markersize=10, clip_on=False)
        ax.axhline(self._trivial, color=GREY, ls="--", lw=1)
        ax.axhspan(self._trivial, 1.1, color=GREY, alpha=0.15, lw=0)
        reach = (self._sigmas[-1] / self._sigmas[0]) ** 0.05
        limits = (self._sigmas[0] / reach, self._sigmas[-1] * reach)
        ax.set(xscale="log", xlabel="σ", ylabel="bound", xlim=limits, ylim=(0, 1.05))
        shown = self._sigmas[:: math.ceil(len(self._sigmas) / _MAX_TICKS)]
        ax.set_xticks(shown, labels=[f"{value:.3g}" for value in shown.tolist()])
        ax.minorticks_off()
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=2, frameon=False, fontsize="small")
        return [self.curve, self.renyi_curve, self.marker]

    def _update(self) -> str:
        exact, renyi = self._bounds(self._kls), self._bounds(self._renyi_kls())
        here = exact[self._index], renyi[self._index]
        for row, bound in enumerate(here):
            left = 0.0
            for bars, width in zip(self.parts, waterfall(bound).values(), strict=True):
                bars[row].set_x(left)
                bars[row].set_width(width)
                left += width
        for line, bounds in ((self.curve, exact), (self.renyi_curve, renyi)):
            line.set_data(self._sigmas, [bound.value for bound in bounds])
        self.marker.set_data([self.sigma.value], [here[0].value])
        lowest = min(exact, key=float)
        parts = [
            f"bound <b>{here[0].value:.3f}</b>{' (vacuous)' if here[0].value >= self._trivial else ''}",
            f"KL {here[0].terms['kl']:,.1f} nats",
            f"with H<sub>α</sub>: bound {here[1].value:.3f}, KL {here[1].terms['kl']:,.1f}",
            f"smallest {lowest.value:.3f} at σ = {self._sigmas[exact.index(lowest)]:g}",
        ]
        if not self.pay.value:
            parts.append(f"<b>no certificate</b> if σ was chosen among {len(exact)} without paying")
        return " · ".join(parts)


def _clipped(spectrum: Spectrum | ArrayLike) -> Spectrum:
    spectrum = spectrum if isinstance(spectrum, Spectrum) else Spectrum.from_eigenvalues(spectrum)
    clipped = Spectrum(spectrum.nodes.clip(min=0), spectrum.weights, spectrum.dim)
    if not clipped.nodes.any():
        raise ValueError("spectrum has no positive eigenvalue, so it has no Rényi entropy once it is clipped at zero.")
    return clipped


def _grid(sigmas: Sequence[float], losses: Sequence[float]) -> tuple[FloatArray, FloatArray]:
    grid = np.array(check_reals("sigmas", sigmas, 0.0, open_minimum=True))
    measured = np.array(check_reals("losses", losses, 0.0, maximum=1.0))
    with np.errstate(over="ignore", under="ignore"):
        variances = grid**2
    if not (np.isfinite(variances) & (variances > 0)).all():
        raise ValueError(f"sigmas must have squares that are positive numbers, got {grid.tolist()}.")
    if len(grid) < 2 or (np.diff(grid) <= 0).any():
        raise ValueError(f"sigmas must be at least two numbers in ascending order, got {grid.tolist()}.")
    if len(measured) != len(grid):
        raise ValueError(f"losses must hold one loss for each of the {len(grid)} sigmas, got {len(measured)}.")
    return grid, measured


def _log_slider(name: str, value: float, low: float, high: float, digits: str) -> ipywidgets.FloatLogSlider:
    low, high = min(low, value), max(high, value)
    return ipywidgets.FloatLogSlider(
        value=value, base=10, min=math.log10(low), max=math.log10(high), step=0.1, description=name,
        readout_format=digits,
    )  # fmt: skip
