"""`SpectrumExplorer`: the effect of Lanczos steps, probes and bandwidth on an estimated spectrum."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from renyi_lab._utils.figure import new_figure
from renyi_lab._utils.progress import progress_bar
from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_int
from renyi_lab.krylov import Tridiagonal, lanczos
from renyi_lab.operators import as_operator
from renyi_lab.plots import GREY, ORANGE, magnitude_grid
from renyi_lab.spectrum import LOG_BANDWIDTH_DECADES, Spectrum
from renyi_lab.widgets._base import Explorer
from renyi_lab.widgets._controls import count_slider, float_slider
from renyi_lab.widgets._sources import entropies, exact_or_none, is_results, tridiagonals

# In decades. Heuristic: from narrower than the gaps between the largest eigenvalues to wider than every gap.
_NARROWEST, _WIDEST = 0.02, 0.32
# Denser where the curve is more curved.
_ALPHAS = np.array([*np.linspace(0.1, 1.0, 10), 1.25, 1.5, 2.0, 2.5, 3.0, 4.0])
_NAMED = (0.5, 1.0, 2.0)  # orders whose entropies the caption names

Rule = tuple[FloatArray, FloatArray]


class SpectrumExplorer(Explorer):
    """Stochastic Lanczos quadrature and its three parameters: Lanczos steps, random probes and bandwidth.

    ``m`` steps for each of ``p`` probes, ``m·p`` products, give the rule ``tr f(A) ≈ (n/p) Σ_i Σ_k w_ik f(θ_ik)``.
    Left: its density on a logarithmic axis, over that of the reference. Right: the resulting Rényi entropies ``H_α``.
    All products are computed at construction.

    Args:
        source: An operator: a `HessianOperator`, a matrix, anything with ``.shape`` and ``@``. Or results of `lanczos`:
            a list with one `Tridiagonal` per probe.
        num_steps: Largest number of steps for an operator. Default 60 (heuristic: enough for the bulk of a small
            network).
        num_probes: Largest number of probes for an operator; probe ``i`` has seed ``i``. Default 10 (heuristic: a third
            of the standard error of one probe).
        exact: The true spectrum, as a `Spectrum` or as all eigenvalues. Default: computed for an operator of at most
            1,000 rows, otherwise replaced by the rule of all steps and probes.

    Raises:
        TypeError: ``source`` is neither an operator nor results of Lanczos.
        ValueError: There are no results, ``exact`` has another dimension, or the spectrum is all zero.

    Source: Ubaru, Chen & Saad 2017.

    Example:
        >>> import torch
        >>> explorer = SpectrumExplorer(torch.diag(torch.linspace(1.0, 2.0, 200)), num_steps=20, num_probes=4)
        >>> explorer.steps.value, explorer.probes.value = 10, 2
        >>> explorer.spectrum.num_matvecs
        20
    """

    def __init__(
        self, source: Any, *, num_steps: int = 60, num_probes: int = 10, exact: Spectrum | ArrayLike | None = None
    ) -> None:
        runs = _runs_of(source, check_int("num_steps", num_steps), check_int("num_probes", num_probes))
        self._dim = runs[0].basis.shape[1]
        self._rules = [_rules_of(run) for run in runs]
        most = max(len(rules) for rules in self._rules)
        self.steps = count_slider("steps", most, most)
        self.probes = count_slider("probes", len(runs), len(runs))
        self.bandwidth = float_slider(
            "bandwidth", LOG_BANDWIDTH_DECADES, _NARROWEST, _WIDEST, _NARROWEST,
            tooltip="Standard deviation of the Gaussian kernel, in decades of |λ|",
        )  # fmt: skip
        self.exact = exact_or_none(source, self._dim, exact)
        self._reference = self.spectrum if self.exact is None else self.exact
        self._grid = magnitude_grid(self._reference, 200)
        self._reference_entropies = entropies(self._reference, _ALPHAS)
        # One per stop of the slider: smoothing a large exact spectrum takes too long for an update.
        widths = np.arange(_NARROWEST, _WIDEST + _NARROWEST / 2, _NARROWEST)
        self._densities = {round(w, 2): self._density(self._reference, w) for w in widths.tolist()}
        figure = new_figure(9.2, 3.4)
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        name = "all products" if self.exact is None else "true"
        (self.true_density,) = left.plot([], [], color=GREY, lw=4, alpha=0.5, label=name)
        (self.density,) = left.plot([], [], color=ORANGE, label="these products")
        top = max(density.max() for density in self._densities.values())
        left.set(
            xscale="log", yscale="log", xlabel="|λ|", ylabel="eigenvalues per decade",
            xlim=(self._grid[0], self._grid[-1]), ylim=(0.3, max(3 * top, 1.0)),
        )  # fmt: skip
        left.legend(loc="upper right", frameon=False, fontsize="small")
        right.plot(_ALPHAS, self._reference_entropies, color=GREY, lw=4, alpha=0.5)
        (self.curve,) = right.plot([], [], color=ORANGE)
        right.set(xlabel="α", ylabel="H_α (nats)", xlim=(0, _ALPHAS[-1]), ylim=(0, 1.05 * np.log(max(self._dim, 2))))
        controls = [self.steps, self.probes, self.bandwidth]
        shows = (
            "Left: the estimated density of the eigenvalue magnitudes on logarithmic axes, over that of the "
            "reference in grey. Right: the resulting Rényi entropies H_α against α, over those of the reference."
        )
        super().__init__(controls, figure, [self.true_density, self.density, self.curve], shows=shows)

    @property
    def spectrum(self) -> Spectrum:
        """The quadrature rule at the current steps and probes, as a `Spectrum` of nodes and weights."""
        steps, probes = self.steps.value, self.probes.value
        chosen = [rules[min(steps, len(rules)) - 1] for rules in self._rules[:probes]]
        nodes = np.concatenate([nodes for nodes, _ in chosen])
        weights = np.concatenate([weights for _, weights in chosen]) * (self._dim / probes)
        order = np.argsort(nodes, kind="stable")
        return Spectrum(nodes[order], weights[order], self._dim, num_matvecs=sum(len(nodes) for nodes, _ in chosen))

    def _density(self, spectrum: Spectrum, bandwidth: float) -> FloatArray:
        return spectrum.dim * spectrum.density(self._grid, bandwidth, scale="log")

    def _update(self) -> str:
        spectrum, width = self.spectrum, self.bandwidth.value
        true_density = self._densities.get(round(width, 2))
        self.true_density.set_data(
            self._grid, self._density(self._reference, width) if true_density is None else true_density
        )
        self.density.set_data(self._grid, self._density(spectrum, width))
        curve = entropies(spectrum, _ALPHAS)
        self.curve.set_data(_ALPHAS, curve)
        name = "all products" if self.exact is None else "true"
        numbers = [
            f"H<sub>{alpha:g}</sub> = <b>{ours:.2f}</b> ({name} {reference:.2f})"
            for alpha, ours, reference in zip(
                _NAMED, *(np.interp(_NAMED, _ALPHAS, h) for h in (curve, self._reference_entropies)), strict=True
            )
        ]
        return " · ".join([f"<b>{spectrum.num_matvecs:,}</b> products for {self._dim:,} eigenvalues", *numbers])


def _runs_of(source: Any, num_steps: int, num_probes: int) -> list[Tridiagonal]:
    if isinstance(source, Tridiagonal) or is_results(source):
        return tridiagonals([source] if isinstance(source, Tridiagonal) else source)
    operator = as_operator(source)
    runs = []
    with progress_bar(num_probes, "Lanczos runs") as bar:
        for seed in range(num_probes):
            runs.append(lanczos(operator, num_steps=num_steps, seed=seed))
            bar.update()
    return runs


def _rules_of(run: Tridiagonal) -> list[Rule]:
    """Nodes and weights after 1, 2, … steps of one run."""
    steps = [run.leading(k) for k in range(1, run.num_steps + 1)]
    return [(step.ritz_values, step.weights) for step in steps]
