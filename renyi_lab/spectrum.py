r"""The noun in the middle: a spectrum as nodes and weights, whether computed densely, estimated, or given.

    tr f(H) ≈ Σ_k w_k f(x_k) ,      Σ_k w_k = n

Everything downstream (entropy, bounds, density, the choice of α, plots, widgets) takes a `Spectrum` and never asks for
the model again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from renyi_lab._validation import check_choice, check_real
from renyi_lab.density import spectral_density
from renyi_lab.entropy import weighted_renyi_entropy

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error and its cost.

    Attributes:
        value: The estimate; ``float(estimate)`` gives it.
        standard_error: One standard error, 0 for an exact value.
        num_matvecs: Matrix-vector products spent on the spectrum behind it.
    """

    value: float
    standard_error: float = 0.0
    num_matvecs: int = 0

    def __float__(self) -> float:
        return self.value

    def __format__(self, specification: str) -> str:
        return f"{self.value:{specification}} ± {self.standard_error:{specification}}"

    def __repr__(self) -> str:
        cost = f", {self.num_matvecs} products" if self.num_matvecs else ""
        return f"Estimate({self.value:.6g} ± {self.standard_error:.2g}{cost})"


@dataclass(frozen=True, eq=False)
class Sampling:
    """What the standard error of an estimated spectrum rests on.

    Attributes:
        sampled: ``(k,)``, which nodes come from random probes; the others are eigenvalues found exactly.
        num_probes: Independent probes that the sampled weights average over.
        coarse: The spectrum that the same probes give with fewer Lanczos steps; its distance measures truncation.
    """

    sampled: NDArray[np.bool_]
    num_probes: int
    coarse: Spectrum | None = None


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
                f"nodes and weights must be vectors of one length with at least one entry, got {nodes.shape} and {weights.shape}."
            )
        if not (np.isfinite(nodes).all() and np.isfinite(weights).all()):
            raise ValueError("nodes and weights must be finite, but hold NaN or infinity; did the model diverge?")
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
            raise ValueError(f"f must map {self.nodes.shape} values to as many, got {values.shape}; write it with NumPy.")
        if not np.isfinite(values[self.weights > 0]).all():
            raise ValueError("f is not finite on the spectrum; is it defined at 0 and on negative eigenvalues?")
        return self._estimate(lambda s: float(s.weights @ np.asarray(f(s.nodes))), values)

    def renyi_entropy(self, alpha: float, *, normalization: str = "absolute") -> Estimate:
        r"""Rényi entropy of the spectrum, ``H_α = 1/(1−α)·[log tr|H|^α − α log tr|H|]``, in nats.

        Args:
            alpha: Order in ``[0, inf]``. At 0 of an *estimated* spectrum the number of non-zero eigenvalues is not
                seen, only its bound ``dim``.
            normalization: ``"absolute"`` divides by ``tr|H|``; ``"signed"`` by ``tr H`` as the authors' research code
                does (``α ≠ 1`` and a positive trace; the two agree when ``H ⪰ 0``).

        Raises:
            ValueError: Negative ``alpha``, an all-zero spectrum, or a signed normalisation that is undefined.

        Source: Zhang et al., arXiv:2510.07758.
        """
        order = check_real("alpha", alpha, 0.0, allow_infinite=True)
        check_choice("normalization", normalization, ("absolute", "signed"))
        if not np.any(self.magnitudes[self.weights > 0]):
            raise ValueError("the spectrum is all zero, so its Rényi entropy is undefined; a flat loss has no shape to measure.")
        if normalization == "signed":
            return self._signed_renyi_entropy(order)
        return self._estimate(lambda s: s._absolute_entropy(order), self._entropy_influence(order))

    def renyi_sharpness(self, alpha: float, *, normalization: str = "absolute") -> Estimate:
        """Rényi sharpness ``−H_α`` in nats (Zhang et al., arXiv:2510.07758): low when curvature is spread evenly."""
        entropy = self.renyi_entropy(alpha, normalization=normalization)
        return Estimate(-entropy.value, entropy.standard_error, entropy.num_matvecs)

    def effective_number(self, alpha: float) -> Estimate:
        """Effective number of curved directions ``exp(H_α)``, between 1 and ``dim``."""
        entropy = self.renyi_entropy(alpha)
        number = math.exp(entropy.value)
        return Estimate(number, number * entropy.standard_error, entropy.num_matvecs)

    def density(self, grid: ArrayLike, bandwidth: float | None = None, *, scale: str = "linear") -> FloatArray:
        """Smoothed eigenvalue density on ``grid``; see `renyi_lab.density.spectral_density`."""
        return spectral_density(self.nodes, self.weights, grid, bandwidth, scale=scale)

    def plot(self, **options: Any) -> Any:
        """A figure of the spectrum on a logarithmic axis; see `renyi_lab.plots.plot_spectrum`."""
        from renyi_lab.plots import spectrum_figure

        return spectrum_figure(self, **options)

    def _absolute_entropy(self, alpha: float) -> float:
        return float(weighted_renyi_entropy(torch.from_numpy(self.magnitudes), torch.from_numpy(self.weights), alpha))

    def _signed_renyi_entropy(self, alpha: float) -> Estimate:
        if alpha == 1 or math.isinf(alpha):
            raise ValueError(f'normalization="signed" is defined for finite alpha other than 1, got {alpha:g}.')
        trace = float(self.trace)
        if trace <= 0:
            raise ValueError(f'normalization="signed" needs a positive trace, got {trace:g}; use "absolute".')

        def entropy(spectrum: Spectrum) -> float:
            power_sum = spectrum.weights @ spectrum.magnitudes**alpha
            return float((np.log(power_sum) - alpha * np.log(spectrum.weights @ spectrum.nodes)) / (1 - alpha))

        powers = self.magnitudes**alpha
        influence = (powers / (self.weights @ powers) - alpha * self.nodes / trace) / (1 - alpha)
        return self._estimate(entropy, influence)

    def _entropy_influence(self, alpha: float) -> FloatArray:
        """Derivative of ``H_α`` with respect to each node's weight: what one more eigenvalue there would add."""
        relative = self.magnitudes / self.magnitudes.max()
        p = relative / (self.weights @ relative)
        if alpha == 1:
            log_p = np.log(np.where(p > 0, p, 1.0))
            return np.asarray(p * (1 - log_p - self._absolute_entropy(1.0)))
        if math.isinf(alpha):
            return p
        powers = np.where(relative > 0, relative, 0.0) ** alpha if alpha > 0 else (relative > 0).astype(float)
        return np.asarray((powers / (self.weights @ powers) - alpha * p) / (1 - alpha))

    def _estimate(self, functional: Callable[[Spectrum], float], influence: FloatArray) -> Estimate:
        """A functional of the spectrum with its standard error: sampling by the delta method, and truncation.

        A probe uniform on the sphere of the ``d``-dimensional complement of the exact eigenvectors has, for any function
        ``φ`` of the matrix, ``Var(d uᵀφu) = 2d/(d+2) · (Σφ² − (Σφ)²/d)``: known even for a single probe.
        """
        value = functional(self)
        if self.sampling is None:
            return Estimate(value, 0.0, self.num_matvecs)
        weights = self.weights[self.sampling.sampled]
        phi = influence[self.sampling.sampled]
        d = max(float(weights.sum()), 1.0)
        variance = 2 * d / (d + 2) * max(float(weights @ phi**2 - (weights @ phi) ** 2 / d), 0.0) / self.sampling.num_probes
        truncation = 0.0 if self.sampling.coarse is None else value - functional(self.sampling.coarse)
        return Estimate(value, math.sqrt(variance + truncation**2), self.num_matvecs)

    def __repr__(self) -> str:
        kind = "exact" if self.is_exact else f"estimated from {self.num_matvecs} products"
        return f"Spectrum(dim={self.dim}, {kind}, eigenvalues in [{self.nodes[0]:.4g}, {self.nodes[-1]:.4g}])"
