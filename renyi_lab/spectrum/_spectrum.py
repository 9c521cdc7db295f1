r"""The noun in the middle: a spectrum as nodes and weights, whether computed densely, estimated, or given.

    tr f(H) ≈ Σ_k w_k f(x_k) ,      Σ_k w_k = n

Everything downstream (entropy, bounds, density, the choice of α, plots, widgets) takes a `Spectrum` and never asks for
the model again.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from renyi_lab._utils.estimate import Estimate
from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_choice, check_real
from renyi_lab.spectrum._density import spectral_density
from renyi_lab.spectrum._entropy import entropy_influence, weighted_renyi_entropy

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

# Truncation's part in a standard error: this share of the spread among the averaged rules, and of what extrapolation
# adds. Our choice, calibrated on six trained networks (as in tests/benchmarks/entropy_error.py): two standard errors
# cover 95 % of all errors, and at least 80 % on each network, at every order from 0.5 on and 50 to 400 products.
OSCILLATION_SHARE = 1 / 2
EXTRAPOLATION_SHARE = 3 / 4
# Below these an entropy of order < 1 was seen to be up to 0.15 nats too high (the same networks, of 5,000 to 7,000
# parameters); orders below LOW_ORDER were covered less than 90 % with fewer products than their own limit.
ENOUGH_MATVECS, ENOUGH_MATVECS_LOW_ORDER = 150, 400
LOW_ORDER = 0.5
ENOUGH_STEPS = 25
# Below this no entropy's standard error could be trusted (made spectra of 50 to 1,000 eigenvalues). Our choice.
FEWEST_STEPS = 8


def check_spectrum(spectrum: Any) -> Spectrum:
    """Return ``spectrum`` if it is a `Spectrum`, or raise ``TypeError`` with what to pass instead."""
    if not isinstance(spectrum, Spectrum):
        raise TypeError(
            f"spectrum must be a Spectrum, got {type(spectrum).__name__}; use estimate_spectrum(H), or "
            "Spectrum.from_eigenvalues(eigenvalues)."
        )
    return spectrum


@dataclass(frozen=True, eq=False)
class Sampling:
    """What the standard error of an estimated spectrum rests on.

    Attributes:
        sampled: ``(k,)``, which nodes come from random probes; the others are eigenvalues found exactly.
        num_probes: Independent probes that the sampled weights average over.
        rules: The quadrature rules, one for each of the last numbers of steps, that the spectrum averages.
        plain: The quadrature without counting converged pairs, at the last steps.
        plain_earlier: The same at half the steps; the change between the two is what extrapolation rests on.
    """

    sampled: NDArray[np.bool_]
    num_probes: int
    rules: tuple[Spectrum, ...]
    plain: Spectrum
    plain_earlier: Spectrum


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Nodes and weights that stand for the ``dim`` eigenvalues of a symmetric matrix.

    Attributes:
        nodes: ``(k,)``, ascending: eigenvalues, or nodes of a quadrature rule.
        weights: ``(k,)``, how many eigenvalues each node stands for; they sum to ``dim``.
        dim: Size ``n`` of the matrix.
        num_matvecs: Products spent.
        sampling: How the weights were sampled; ``None``: the spectrum is exact.

    Example:
        >>> spectrum = Spectrum.from_eigenvalues([1.0, 1.0, 2.0])
        >>> float(spectrum.trace), spectrum.renyi_entropy(alpha=0).value == math.log(3)
        (4.0, True)
    """

    nodes: FloatArray
    weights: FloatArray
    dim: int
    num_matvecs: int = 0
    sampling: Sampling | None = None

    def __post_init__(self) -> None:
        nodes, weights = self.nodes, self.weights
        if nodes.ndim != 1 or nodes.shape != weights.shape or len(nodes) == 0:
            raise ValueError(
                f"nodes and weights must be vectors of one length with at least one entry, got {nodes.shape} and "
                f"{weights.shape}."
            )
        if not (np.isfinite(nodes).all() and np.isfinite(weights).all()):
            raise ValueError("nodes and weights must be finite, but hold NaN or infinity; did the model diverge?")
        if np.any(np.diff(nodes) < 0):
            raise ValueError("nodes must ascend; sort them and their weights, or use Spectrum.from_eigenvalues.")
        if weights.min() < 0:
            raise ValueError(f"weights must be non-negative, got {weights.min():g}.")
        if abs(weights.sum() - self.dim) > 1e-6 * self.dim:
            # A wrong mass is a bug of whoever made the spectrum; rescaling the weights would only hide it.
            raise ValueError(f"weights must sum to dim={self.dim}, got {weights.sum():.9g}.")

    @classmethod
    def from_eigenvalues(cls, eigenvalues: ArrayLike | torch.Tensor, num_matvecs: int = 0) -> Spectrum:
        """An exact spectrum from all ``n`` eigenvalues, in any order."""
        if isinstance(eigenvalues, torch.Tensor):
            eigenvalues = eigenvalues.detach().cpu().double().numpy()
        if np.iscomplexobj(eigenvalues):
            raise TypeError("eigenvalues must be real; use eigvalsh on the symmetric matrix.")
        nodes = np.sort(np.asarray(eigenvalues, dtype=np.float64).reshape(-1))
        return cls(nodes, np.ones_like(nodes), len(nodes), num_matvecs)

    @property
    def is_exact(self) -> bool:
        """Whether nothing in the spectrum was sampled."""
        return self.sampling is None

    @property
    def last_rule(self) -> Spectrum:
        """The single quadrature rule of the last step, in which a converged eigenvalue is one node of weight 1.

        An estimated spectrum averages several such rules; to point at eigenvalues one by one, take this. An exact
        spectrum is its own.
        """
        return self if self.sampling is None else self.sampling.rules[-1]

    @property
    def magnitudes(self) -> FloatArray:
        """``|x_k|`` of every node, ``(k,)``."""
        return np.asarray(np.abs(self.nodes))

    @property
    def trace(self) -> Estimate:
        """``tr H``."""
        return self.trace_of(lambda x: x)

    @property
    def max_eigenvalue(self) -> float:
        """``λ_max``, the largest (signed) node; from below when estimated."""
        return float(self.nodes[-1])

    @property
    def negative_fraction(self) -> float:
        """Share of ``tr |H|`` that lies on negative eigenvalues, in ``[0, 1]``."""
        total = float(self.weights @ self.magnitudes)
        return float(self.weights @ np.clip(-self.nodes, 0, None)) / total if total else 0.0

    def trace_of(self, f: Callable[[FloatArray], FloatArray]) -> Estimate:
        """``tr f(H) = Σ w f(x)`` for a vectorised ``f``, with standard error."""
        values = np.asarray(f(self.nodes), dtype=np.float64)
        if values.shape != self.nodes.shape:
            raise ValueError(
                f"f must map {self.nodes.shape} values to as many, got {values.shape}; write it with NumPy."
            )
        if not np.isfinite(values[self.weights > 0]).all():
            raise ValueError("f is not finite on the spectrum; is it defined at 0 and on negative eigenvalues?")

        def total(spectrum: Spectrum) -> float:
            counted = spectrum.weights > 0
            return float(spectrum.weights[counted] @ np.asarray(f(spectrum.nodes[counted]), dtype=np.float64))

        return self._estimate(total, np.where(self.weights > 0, values, 0.0))

    def renyi_entropy(self, alpha: float, *, normalization: str = "absolute") -> Estimate:
        r"""Rényi entropy of the spectrum, ``H_α = 1/(1−α)·[log tr|H|^α − α log tr|H|]``, in nats.

        Args:
            alpha: Order in ``[0, inf]``. At 0 of an *estimated* spectrum the number of non-zero eigenvalues is not
                seen: the result is their bound ``log(dim)``, with an infinite standard error. Eigenvalues below
                about 1e-7 of the largest are rounding in a single-precision model, and a small ``alpha`` hears them:
                below 0.5 use ``model.double()``.
            normalization: ``"absolute"`` divides by ``tr|H|``; ``"signed"`` by ``tr H`` as the authors' research code
                does (``α ≠ 1`` and a positive trace; the two agree when ``H ⪰ 0``).

        Raises:
            ValueError: Negative ``alpha``, an all-zero spectrum, or a signed normalisation that is undefined.

        Source: Zhang et al., arXiv:2510.07758.
        """
        order = check_real("alpha", alpha, 0.0, allow_infinite=True)
        check_choice("normalization", normalization, ("absolute", "signed"))
        if not np.any(self.magnitudes[self.weights > 0]):
            raise ValueError(
                "the spectrum is all zero, so its Rényi entropy is undefined; a flat loss has no shape to measure."
            )
        if remark := self._bias_remark(order):
            warnings.warn(remark, stacklevel=2)
        if normalization == "signed":
            return self._signed_renyi_entropy(order)
        if order == 0 and self.sampling is not None:
            return Estimate(math.log(self.dim), math.inf, self.num_matvecs, math.inf)
        estimate = self._estimate(
            lambda s: s._absolute_entropy(order), entropy_influence(self.magnitudes, self.weights, order), order
        )
        return replace(estimate, value=min(max(estimate.value, 0.0), math.log(self.dim)))

    def renyi_sharpness(self, alpha: float, *, normalization: str = "absolute") -> Estimate:
        """Rényi sharpness ``−H_α`` in nats (Zhang et al., arXiv:2510.07758): low when curvature is spread evenly."""
        entropy = self.renyi_entropy(alpha, normalization=normalization)
        return replace(entropy, value=-entropy.value)

    def effective_number(self, alpha: float) -> Estimate:
        """Effective number of curved directions ``exp(H_α)``, between 1 and ``dim``."""
        entropy = self.renyi_entropy(alpha)
        number = math.exp(entropy.value)
        errors = (number * entropy.standard_error, number * entropy.truncation_error)
        return Estimate(number, errors[0], entropy.num_matvecs, errors[1])

    def report(self, alphas: float | Sequence[float] = (0.5, 1.0, 1.5, 2.0)) -> pd.DataFrame:
        """A table with one row for each order: entropy, effective number, where the error comes from, and a remark.

        ``sampling_error`` shrinks with more probes, ``truncation_error`` with more Lanczos steps; the remark names
        settings in which the estimate is prone to bias.
        """
        import pandas as pd

        rows = []
        for alpha in np.atleast_1d(np.asarray(alphas, dtype=float)).tolist():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                entropy = self.renyi_entropy(alpha)
            rows.append(
                {
                    "alpha": alpha,
                    "entropy": entropy.value,
                    "effective_number": math.exp(entropy.value),
                    "standard_error": entropy.standard_error,
                    "sampling_error": entropy.sampling_error,
                    "truncation_error": entropy.truncation_error,
                    "remark": self._bias_remark(alpha),
                }
            )
        columns = ["entropy", "effective_number", "standard_error", "sampling_error", "truncation_error", "remark"]
        return pd.DataFrame(rows, columns=["alpha", *columns]).set_index("alpha")

    def density(self, grid: ArrayLike, bandwidth: float | None = None, *, scale: str = "linear") -> FloatArray:
        """Smoothed eigenvalue density on ``grid``; see `renyi_lab.spectrum.spectral_density`."""
        return spectral_density(self.nodes, self.weights, grid, bandwidth, scale=scale)

    def magnitude_grid(self, num_points: int = 400) -> FloatArray:
        """Logarithmic grid of magnitudes that covers the spectrum (at most eight decades)."""
        from renyi_lab.spectrum._plot import logarithmic_grid

        return logarithmic_grid(self.magnitudes, num_points)

    def plot(self, ax: Axes | None = None, *, bandwidth: float | None = None) -> FigureBase:
        """Density of ``log10 |λ|`` per decade, times ``n``, and a tick for each of the largest eigenvalues.

        Args:
            ax: Axes to draw into; ``None``: a figure of its own.
            bandwidth: As in `density` with ``scale="log"``.
        """
        # Imported here: matplotlib would slow down every import of the package.
        from renyi_lab._utils.figure import new_figure
        from renyi_lab.spectrum._plot import draw_density

        ax = new_figure(5.5, 3.2).subplots() if ax is None else ax
        grid = self.magnitude_grid()
        per_decade = self.dim * self.density(grid, bandwidth, scale="log")
        draw_density(ax, grid, per_decade, np.sort(self.last_rule.magnitudes)[-20:])
        return ax.figure

    def _absolute_entropy(self, alpha: float) -> float:
        return float(weighted_renyi_entropy(torch.from_numpy(self.magnitudes), torch.from_numpy(self.weights), alpha))

    def _signed_renyi_entropy(self, alpha: float) -> Estimate:
        if alpha == 1 or math.isinf(alpha):
            raise ValueError(f'normalization="signed" is defined for finite alpha other than 1, got {alpha:g}.')
        trace = float(self.trace)
        if trace <= 0:
            raise ValueError(f'normalization="signed" needs a positive trace, got {trace:g}; use "absolute".')

        # The trace in place of the trace of |H|; written as a correction, it vanishes without rounding where H ⪰ 0.
        factor, absolute_trace = alpha / (1 - alpha), float(self.weights @ self.magnitudes)

        def entropy(spectrum: Spectrum) -> float:
            ratio = float(spectrum.weights @ spectrum.magnitudes) / float(spectrum.weights @ spectrum.nodes)
            if ratio <= 0:
                raise ValueError("the trace is too uncertain for a signed normalization; spend more products.")
            return spectrum._absolute_entropy(alpha) + factor * math.log(ratio)

        influence = entropy_influence(self.magnitudes, self.weights, alpha) + factor * (
            self.magnitudes / absolute_trace - self.nodes / trace
        )
        return self._estimate(entropy, influence, alpha)

    def _estimate(self, functional: Callable[[Spectrum], float], influence: FloatArray, cusp: float = 1.0) -> Estimate:
        """A functional of the spectrum, extrapolated, with its standard error from sampling and truncation.

        Of ``m`` Lanczos steps a cusp ``|λ|^c`` at 0 (``c ≤ 1``) leaves an error that falls with ``m^−(1+c)``, so that
        Richardson adds ``1/(2^(1+c) − 1)`` of the change since half the steps: a third at a kink such as that of |λ|.

        A probe uniform on the sphere of the ``d``-dimensional complement of the exact eigenvectors has, for any
        function ``φ`` of the matrix, ``Var(d uᵀφu) = 2d/(d+2) · (Σφ² − (Σφ)²/d)``: known even for a single probe.
        With the derivative of the functional for ``φ`` this is the delta method.
        """
        value = functional(self)
        if self.sampling is None:
            return Estimate(value, 0.0, self.num_matvecs)
        weights = self.weights[self.sampling.sampled]
        phi = influence[self.sampling.sampled]
        d = max(float(weights.sum()), 1.0)
        spread = max(float(weights @ phi**2 - (weights @ phi) ** 2 / d), 0.0)
        variance = 2 * d / (d + 2) * spread / self.sampling.num_probes
        if self.num_matvecs == self.sampling.num_probes:  # one step: nothing to compare it with
            return Estimate(value, math.inf, self.num_matvecs, math.inf)
        change = functional(self.sampling.plain) - functional(self.sampling.plain_earlier)
        oscillation = float(np.std([functional(rule) for rule in self.sampling.rules]))
        extrapolation = change / (2 ** (1 + min(cusp, 1.0)) - 1)
        truncation = math.hypot(OSCILLATION_SHARE * oscillation, EXTRAPOLATION_SHARE * extrapolation)
        standard_error = math.hypot(math.sqrt(variance), truncation)
        return Estimate(value + extrapolation, standard_error, self.num_matvecs, truncation)

    def _bias_remark(self, alpha: float) -> str:
        if self.sampling is None:
            return ""
        if alpha == 0:
            return (
                "alpha=0 counts the eigenvalues that are not exactly zero, which products cannot see: log(dim) is only "
                "an upper bound; use alpha=0.5, or exact_spectrum."
            )
        steps = self.num_matvecs // self.sampling.num_probes
        if steps < FEWEST_STEPS:
            return (
                f"{steps} Lanczos steps are too few to judge the error of any entropy; use "
                f"num_matvecs={FEWEST_STEPS * self.sampling.num_probes} or more."
            )
        enough = ENOUGH_MATVECS if alpha >= LOW_ORDER else ENOUGH_MATVECS_LOW_ORDER
        if alpha >= 1 or (self.num_matvecs >= enough and steps >= ENOUGH_STEPS):
            return ""
        return (
            f"{self.num_matvecs} products in {steps} Lanczos steps are few for alpha={alpha:g} < 1: the crowd of "
            "eigenvalues near zero is blurred and the entropy may be too high by more than its standard error; use "
            f"num_matvecs={max(200, enough, 2 * self.num_matvecs)} or more."
        )

    def __repr__(self) -> str:
        kind = "exact" if self.is_exact else f"estimated from {self.num_matvecs} products"
        return f"Spectrum(dim={self.dim}, {kind}, eigenvalues in [{self.nodes[0]:.4g}, {self.nodes[-1]:.4g}])"
