r"""The central data structure: a spectrum as nodes and weights, whether computed densely, estimated, or given.

    tr f(H) ≈ Σ_k w_k f(x_k) ,      Σ_k w_k = n

Everything downstream (entropy, bounds, density, the choice of α, plots, widgets) takes a `Spectrum` and never needs the
model again. How values are extrapolated and standard errors computed is described in `renyi_lab.spectrum._errors`.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from renyi_lab._utils.arrays import real_array
from renyi_lab._utils.estimate import Estimate
from renyi_lab._utils.exclusive import exclusive
from renyi_lab._utils.fields import check_fields
from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_choice, check_int, check_real, shown
from renyi_lab.spectrum._entropy import check_alpha, check_alphas
from renyi_lab.spectrum._errors import LOWEST_ORDER, Sampling, estimate, remark
from renyi_lab.spectrum._rule import QuadratureRule
from renyi_lab.spectrum._stored import read_stored, write_stored
from renyi_lab.spectrum._weighted_entropy import spectral_entropy, spectral_influence

if TYPE_CHECKING:  # pandas and matplotlib would slow down every import of the package
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase


Orders = Sequence[float] | NDArray[Any] | torch.Tensor


def check_spectrum(spectrum: Any) -> Spectrum:
    """Return ``spectrum`` if it is a `Spectrum`, or raise ``TypeError`` with what to pass instead."""
    if not isinstance(spectrum, Spectrum):
        raise TypeError(
            f"spectrum must be a Spectrum, got {type(spectrum).__name__}; use estimate_spectrum(H), or "
            "Spectrum.from_eigenvalues(eigenvalues)."
        )
    return spectrum


@dataclass(frozen=True, eq=False)
class Spectrum(QuadratureRule):
    """Nodes and weights that represent the ``dim`` eigenvalues of a symmetric matrix: ``tr f(H) ≈ Σ_k w_k f(x_k)``.

    Attributes:
        nodes: Eigenvalues, or nodes of a quadrature rule, ascending, ``(k,)``.
        weights: Number of eigenvalues that each node represents, ``(k,)``; they sum to ``dim``.
        dim: Size ``n`` of the matrix.
        num_matvecs: Matrix-vector products spent.
        sampling: How the weights were sampled; ``None`` for an exact spectrum.
        eps: Machine precision of the products that an exact spectrum was computed from; 0 for given eigenvalues.
        leaving_out: Spectra of the data without one group of samples each, which the part of standard errors that is
            due to the samples is computed from; empty unless ``estimate_spectrum(data_error=True)``.

    Example:
        >>> spectrum = Spectrum.from_eigenvalues([1.0, 1.0, 2.0])
        >>> float(spectrum.trace), spectrum.renyi_entropy(alpha=0).value == math.log(3)
        (4.0, True)
    """

    num_matvecs: int = 0
    sampling: Sampling | None = None
    eps: float = 0.0
    leaving_out: tuple[QuadratureRule, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self)
        check_int("num_matvecs", self.num_matvecs, 0)
        check_real("eps", self.eps, 0.0)
        if self.sampling is not None and self.sampling.fit.shape != self.nodes.shape:
            raise ValueError(f"sampling is of {self.sampling.fit.size} nodes, but there are {self.nodes.size}.")
        if self.sampling is None and self.weights.min() < 0:
            raise ValueError(f"weights must be non-negative, got {self.weights.min():g}.")

    @classmethod
    def from_eigenvalues(cls, eigenvalues: ArrayLike | torch.Tensor, num_matvecs: int = 0) -> Spectrum:
        """Make an exact spectrum from all ``n`` eigenvalues.

        Args:
            eigenvalues: Real eigenvalues in any order, ``(n,)``; they are copied.
            num_matvecs: Matrix-vector products spent on them.

        Raises:
            ValueError: Not a vector, such as a matrix, or values that are not finite.
            TypeError: Complex values.
        """
        values = real_array("eigenvalues", eigenvalues)
        if values.ndim != 1:
            raise ValueError(
                f"eigenvalues must be a vector (n,), got shape {values.shape}; for a matrix use exact_spectrum(matrix)."
            )
        nodes = np.sort(values)
        return cls(nodes, np.ones_like(nodes), len(nodes), num_matvecs)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the spectrum to a file, from which `load` restores it exactly, standard errors and warnings included.

        The file is written as a whole or not at all, and replaces one of the same name. It holds arrays and JSON, as
        ``numpy.load(path)`` shows, and nothing pickled.

        Args:
            path: Name of the file, which ends in ``.npz``.

        Raises:
            ValueError: ``path`` does not end in ``.npz``.
            OSError: The file cannot be written there.

        Example:
            >>> import pathlib, tempfile
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     path = pathlib.Path(folder, "spectrum.npz")
            ...     Spectrum.from_eigenvalues([1.0, 2.0]).save(path)
            ...     Spectrum.load(path)
            Spectrum(dim=2, exact, eigenvalues in [1, 2])
        """
        write_stored(path, self)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Spectrum:
        """Read a spectrum that `save` has written.

        Args:
            path: Name of the file.

        Raises:
            OSError: There is no such file, or it may not be read.
            ValueError: The file is damaged, of another kind, or written by a later version of the package.
        """
        spectrum: Spectrum = read_stored(path, (Spectrum, Sampling, QuadratureRule))
        return spectrum

    @property
    def is_exact(self) -> bool:
        """Whether no part of the spectrum was sampled."""
        return self.sampling is None

    @property
    def has_repeated(self) -> bool:
        """Whether an estimate saw eigenvalues that occur more often than one Lanczos run can show; else ``False``."""
        return self.sampling is not None and self.sampling.repeated

    @property
    def last_rule(self) -> QuadratureRule:
        """The single quadrature rule of the last step, in which a converged eigenvalue is one node of weight 1.

        An estimated spectrum averages several such rules, so its nodes are not eigenvalues one by one. The last rule of
        an exact spectrum is the spectrum itself.
        """
        return self if self.sampling is None else self.sampling.last

    @property
    def trace(self) -> Estimate:
        """``tr H``, as `trace_of` estimates it."""
        return self.trace_of(lambda x: x)

    def trace_of(self, f: Callable[[FloatArray], FloatArray]) -> Estimate:
        """``tr f(H)`` with standard error.

        For an exact spectrum this is ``Σ w f(x)``. For an estimated one it is ``Σ w f(x)`` over the nodes *plus* the
        Richardson extrapolation ``(S_M − S_{M/2}) / (2^1.5 − 1)``: ``S_j`` is ``Σ w f(x)`` of the rules of up to ``j``
        Lanczos steps (``sampling.levels``). That fits a kink at 0 such as the one of ``|λ|``. For polynomials of low
        degree, such as the trace itself, the extrapolation is 0 up to rounding. Formula and standard error:
        `renyi_lab.spectrum._errors`.

        Args:
            f: Function that maps an array of eigenvalues, ``(k,)``, to as many finite values.

        Raises:
            TypeError: ``f`` is not a function, does not take an array, or returns no numbers.
            ValueError: ``f`` returns another shape, or NaN or infinity.
        """
        if not callable(f) or isinstance(f, type):
            raise TypeError(f"f must be a function of an array of eigenvalues, got {shown(f)}.")
        try:
            values = np.array(f(self.nodes.copy()), dtype=np.float64)  # f may write into its argument
        except TypeError as error:
            raise TypeError(f"f must map an array of eigenvalues to as many numbers, but: {error}") from error
        if values.shape != self.nodes.shape:
            raise ValueError(
                f"f must map {self.nodes.shape} values to as many, got {values.shape}; write it with NumPy."
            )
        counted = self.weights != 0
        if not np.isfinite(values[counted]).all():
            raise ValueError("f is not finite on the spectrum; is it defined at 0 and on negative eigenvalues?")

        def total(rule: QuadratureRule) -> float:
            counted = rule.weights != 0
            return float(rule.weights[counted] @ np.asarray(f(rule.nodes[counted]), dtype=np.float64))

        values = np.where(np.isfinite(values), values, 0.0)  # a node of weight 0 may still be one that was sampled
        size = float(np.abs(self.weights) @ np.abs(values))
        return estimate(
            total, self, values, self.sampling, self.num_matvecs, size=size, eps=self.eps, leaving_out=self.leaving_out
        )

    @overload
    def renyi_entropy(self, alpha: float, *, normalization: str = "absolute") -> Estimate: ...
    @overload
    def renyi_entropy(self, alpha: Orders, *, normalization: str = "absolute") -> list[Estimate]: ...
    def renyi_entropy(self, alpha: float | Orders, *, normalization: str = "absolute") -> Estimate | list[Estimate]:
        r"""Rényi entropy of the spectrum, ``H_α = 1/(1−α)·[log tr|H|^α − α log tr|H|]``, in nats, with standard error.

        For an estimated spectrum the value is ``H_α`` of the nodes and weights *plus* the Richardson extrapolation
        ``(H_M − H_{M/2}) / (2^(min(α, 1) + 1/2) − 1)`` from the entropies of the rules of up to ``M`` and ``M/2``
        Lanczos steps (0.55 of the change for ``α ≥ 1``, all of it for ``α = 0.5``). With the absolute normalisation
        the sum is clipped to ``[0, log n]``.

        Args:
            alpha: Order in ``[0, inf]``: 0 Hartley, 1 Shannon, 2 collision, ``math.inf`` min-entropy. At 0 the number
                of non-zero eigenvalues of an *estimated* spectrum is unknown: the value is the bound ``log n``, its
                standard error infinite, as it is at all orders below 0.1. Below 0.5 use ``model.double()``: in single
                precision eigenvalues below about 1e-7 of the largest are rounding errors, and a small ``alpha`` is
                sensitive to them. Or a sequence or vector of orders.
            normalization: ``"absolute"`` divides by ``tr|H|``; ``"signed"`` by ``tr H`` as the authors' research code
                does (``α ≠ 1`` and a positive trace; the two agree when ``H ⪰ 0``).

        Returns:
            The entropy, or a list with that of each order.

        Raises:
            TypeError: ``alpha`` or an entry of it is not a number.
            ValueError: Negative ``alpha``, an empty list, an all-zero spectrum, or a signed normalisation that is
                undefined.

        Source: Zhang et al., arXiv:2510.07758 (2025).

        Example:
            >>> spectrum = Spectrum.from_eigenvalues([1.0, 1.0, 1.0, 1.0])
            >>> spectrum.renyi_entropy(2)
            Estimate(1.38629 ± 0)
            >>> [round(float(entropy), 4) for entropy in spectrum.renyi_entropy([0.5, 1, 2])]
            [1.3863, 1.3863, 1.3863]
        """
        return self._of_orders(alpha, normalization, lambda entropy: entropy)

    def _of_orders(
        self, alpha: float | Orders, normalization: str, function: Callable[[Estimate], Estimate]
    ) -> Estimate | list[Estimate]:
        """A function of the entropy of each order; called by public methods, whose caller a warning points at."""
        several = check_alphas(alpha)
        orders = [check_alpha(alpha)] if several is None else several  # type: ignore[arg-type]  # which it checks
        check_choice("normalization", normalization, ("absolute", "signed"))
        if not np.any(self.magnitudes[self.weights != 0]):
            raise ValueError(
                "the spectrum is all zero, so its Rényi entropy is undefined; a flat loss has no shape to measure."
            )
        results = []
        for order in orders:
            entropy = self._estimated_entropy(order, normalization == "signed")
            if message := remark(order, entropy, self.sampling):
                warnings.warn(message, stacklevel=3)
            results.append(function(entropy))
        return results[0] if several is None else results

    def _estimated_entropy(self, order: float, signed: bool) -> Estimate:
        if order == 0 and self.sampling is not None:
            return Estimate(math.log(self.dim), math.inf, self.num_matvecs, math.inf)
        influence = spectral_influence(self.nodes, self.weights, order, float(self.trace) if signed else None)

        def entropy(rule: QuadratureRule) -> float:
            has_curvature = rule.magnitudes.any()  # which all data have, but perhaps not those without a group
            return spectral_entropy(rule.nodes, rule.weights, order, signed) if has_curvature else math.nan

        known = self.sampling, self.num_matvecs
        result = estimate(entropy, self, influence, *known, cusp=order, eps=self.eps, leaving_out=self.leaving_out)
        if order < LOWEST_ORDER and self.sampling is not None:
            result = replace(result, standard_error=math.inf, truncation_error=math.inf)
        return result if signed else replace(result, value=min(max(result.value, 0.0), math.log(self.dim)))

    @overload
    def renyi_sharpness(self, alpha: float, *, normalization: str = "absolute") -> Estimate: ...
    @overload
    def renyi_sharpness(self, alpha: Orders, *, normalization: str = "absolute") -> list[Estimate]: ...
    def renyi_sharpness(self, alpha: float | Orders, *, normalization: str = "absolute") -> Estimate | list[Estimate]:
        """Rényi sharpness ``−H_α`` in nats: low when curvature is spread evenly over the directions.

        Args:
            alpha: As in `renyi_entropy`.
            normalization: As in `renyi_entropy`.

        Returns:
            The sharpness, or a list with that of each order.

        Source: Zhang et al., arXiv:2510.07758 (2025).
        """
        return self._of_orders(alpha, normalization, lambda entropy: replace(entropy, value=-entropy.value))

    @overload
    def effective_number(self, alpha: float) -> Estimate: ...
    @overload
    def effective_number(self, alpha: Orders) -> list[Estimate]: ...
    def effective_number(self, alpha: float | Orders) -> Estimate | list[Estimate]:
        """Effective number of curved directions ``exp(H_α)``, between 1 and ``n``.

        ``α = 1`` gives the effective rank (Roy & Vetterli 2007), ``α = 2`` the participation ratio
        ``(Σ|λ|)² / Σλ²``.

        Args:
            alpha: As in `renyi_entropy`.

        Returns:
            The number, or a list with that of each order.
        """
        return self._of_orders(alpha, "absolute", _exponential)

    def report(self, alphas: float | Orders = (0.5, 1.0, 1.5, 2.0)) -> pd.DataFrame:
        """A table with one row per order: entropy, effective number, the parts of the standard error, and a remark.

        ``sampling_error`` shrinks with more probes, ``truncation_error`` with more Lanczos steps, ``rounding_error``
        with a higher precision; ``data_error``, where it was asked for, with more samples. ``repeated``:
        `has_repeated`. The remark says why an error is large.

        Args:
            alphas: One order or several, each as in `renyi_entropy`.
        """
        import pandas as pd

        errors = ["standard_error", "sampling_error", "truncation_error", "rounding_error"]
        errors += ["data_error"] if self.leaving_out else []
        rows = []
        several = check_alphas(alphas, "alphas")
        for alpha in several or [check_alpha(alphas, "alphas")]:  # type: ignore[arg-type]  # which it checks
            with exclusive(), warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # the table has its own column for remarks
                entropy = self.renyi_entropy(alpha)
            values = (entropy.value, math.exp(entropy.value), *(getattr(entropy, error) for error in errors))
            rows.append((alpha, *values, self.has_repeated, remark(alpha, entropy, self.sampling)))
        columns = ["alpha", "entropy", "effective_number", *errors, "repeated", "remark"]
        return pd.DataFrame(rows, columns=columns).set_index("alpha")

    def plot(self, ax: Axes | None = None, *, bandwidth: float | None = None) -> FigureBase:
        """Plot the density of ``log10 |λ|`` per decade, times ``n``, with a tick for each of the 20 largest ``|λ|``.

        Args:
            ax: Axes to draw into. Default: those of a new figure.
            bandwidth: Smoothing in decades, positive. Default 0.1 (heuristic: see `spectral_density`).

        Returns:
            The figure.
        """
        from renyi_lab.spectrum._plot import draw_density

        grid = self.magnitude_grid()
        per_decade = self.dim * self.density(grid, bandwidth, scale="log")
        return draw_density(ax, grid, per_decade, np.sort(self.last_rule.magnitudes)[-20:])

    def __repr__(self) -> str:
        kind = "exact" if self.is_exact else f"estimated from {self.num_matvecs} products"
        return f"Spectrum(dim={self.dim}, {kind}, eigenvalues in [{self.nodes[0]:.4g}, {self.nodes[-1]:.4g}])"


def _exponential(entropy: Estimate) -> Estimate:
    """``exp`` of an entropy, with errors to first order."""
    number = math.exp(entropy.value)
    parts = (entropy.truncation_error, entropy.rounding_error, entropy.data_error)
    return Estimate(number, number * entropy.standard_error, entropy.num_matvecs, *(number * part for part in parts))
