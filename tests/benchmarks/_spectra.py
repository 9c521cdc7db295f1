"""Matrices with known spectra: the families of `coverage.py` and the operator that it gives to the estimator.

Lanczos from Gaussian probes is invariant to orthogonal changes of basis: in exact arithmetic the nodes and weights that
an estimator finds depend on the eigenvalues alone, so a diagonal matrix is as good as any. In floating point it is not.
A product with a diagonal matrix rounds each eigenvalue relative to itself, whereas that of a network's Hessian rounds
everything relative to the largest one (by about 1e-8 of it in single precision), which blurs exactly the small
eigenvalues and the zeros that low orders α are sensitive to. `KnownSpectrum` therefore works in a rotated basis, at the
price of two fast cosine transforms for a product, and has rounding errors like those of a dense matrix.

Spectra that stand for random matrices or distributions are quantiles of their limits, so that nothing is drawn.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.fft import dct
from scipy.stats import laplace, lognorm

from renyi_lab.operators import LinearOperator

FloatArray = NDArray[np.float64]

TRAINED_PATH = Path(__file__).resolve().parent / "data" / "trained_spectra.npz"
DTYPES = {"float32": torch.float32, "float64": torch.float64}
TRAINED = "trained networks"
# Spectra of `trained_spectra` that are not those of whole trained networks.
OTHER_HESSIANS = (
    "MLP at initialization",
    "first layer of an MLP",
    "last layer, squared error",
    "wide last layer, squared error",
)


class KnownSpectrum(LinearOperator):
    """``S C diag(λ) C S``: ``C`` the orthogonal and symmetric cosine transform of type IV, ``S`` random signs.

    Args:
        eigenvalues: ``λ``, rounded to ``dtype``, ``(n,)``.
        dtype: A key of `DTYPES`; all arithmetic of the products is in it.
    """

    def __init__(self, eigenvalues: ArrayLike, dtype: str) -> None:
        self.eigenvalues = np.asarray(eigenvalues, dtype=dtype)
        super().__init__(len(self.eigenvalues), DTYPES[dtype], torch.device("cpu"))
        self._signs = np.random.default_rng(0).choice(np.array([-1, 1], dtype=dtype), (self.dim, 1))
        self.seconds = 0.0  # processor time spent in products
        # Nats, by which the entropy of what the products represent may itself differ: that of the identity, whose
        # transforms are orthogonal up to rounding, does by 1e-8 in single precision.
        self.resolution = max(10 * float(np.finfo(dtype).eps), 1e-9)

    def _matvec(self, vector: torch.Tensor) -> torch.Tensor:
        return self._matmat(vector[:, None])[:, 0]

    def _matmat(self, vectors: torch.Tensor) -> torch.Tensor:
        began = time.thread_time()
        rotated = dct(self._signs * vectors.numpy(), type=4, norm="ortho", axis=0)
        product = self._signs * dct(self.eigenvalues[:, None] * rotated, type=4, norm="ortho", axis=0)
        self.seconds += time.thread_time() - began
        return torch.from_numpy(product)

    def entropy(self, alpha: float) -> float:
        """``H_α`` of the rounded eigenvalues, in double precision."""
        magnitudes = np.abs(self.eigenvalues.astype(np.float64))
        shares = magnitudes[magnitudes > 0] / magnitudes.sum()
        if alpha == 1:
            return float(-shares @ np.log(shares))
        if alpha == np.inf:
            return float(-np.log(shares.max()))
        return float(np.log((shares**alpha).sum()) / (1 - alpha))


@cache
def families() -> dict[str, dict[str, FloatArray]]:
    """Group → family → eigenvalues."""
    networks = trained_spectra()
    others = {name: networks.pop(name) for name in OTHER_HESSIANS}
    return {
        "decays": _decays(),
        "repeated": _repeated(),
        "nearly repeated": _nearly_repeated(),
        "random matrices": _random_matrices(),
        "zeros": _with_zeros(),
        "indefinite": _indefinite(),
        "distributions": _distributions(),
        TRAINED: networks,
        "one layer, or untrained": others,
    }


def seed_of(*run: object) -> int:
    """A random seed that differs between families, precisions and budgets.

    With equal seeds, matrices of one size would get equal probes, and their errors would not be independent.
    """
    return zlib.crc32(repr(run).encode())


def trained_spectra() -> dict[str, FloatArray]:
    """The eigenvalues that ``_trained_spectra.py`` has computed."""
    with np.load(TRAINED_PATH, allow_pickle=False) as file:
        return {name: file[name].astype(np.float64) for name in file.files}


def power_law(n: int, exponent: float) -> FloatArray:
    """``k^−exponent`` for k = 1 … n."""
    return np.arange(1.0, n + 1) ** -exponent


def copies(eigenvalues: ArrayLike, number: int, splitting: float = 0.0) -> FloatArray:
    """``I ⊗ diag(eigenvalues)``; the copies of each differ by multiples of a relative ``splitting``."""
    values = np.repeat(np.asarray(eigenvalues, dtype=np.float64), number)
    return values * (1 + splitting * (np.arange(len(values)) % number))


def midpoints(n: int) -> FloatArray:
    """The probabilities at which quantiles are taken, ``(n,)``."""
    return (np.arange(n) + 0.5) / n


def quantiles(density: Callable[[FloatArray], FloatArray], low: float, high: float, n: int) -> FloatArray:
    """``n`` quantiles of a density on an interval, which need not be normalised."""
    grid = np.linspace(low, high, 200_001)
    heights = density(grid)
    cumulative = np.concatenate([[0.0], np.cumsum(heights[1:] + heights[:-1])])
    return np.interp(midpoints(n), cumulative / cumulative[-1], grid)


def semicircle(n: int) -> FloatArray:
    """The Gaussian orthogonal ensemble, on [−1, 1]."""
    return quantiles(lambda x: np.sqrt(1 - x**2), -1.0, 1.0, n)


def marchenko_pastur(n: int, ratio: float) -> FloatArray:
    """A sample covariance matrix of variables and samples in this ratio, below 1."""
    low, high = (1 - ratio**0.5) ** 2, (1 + ratio**0.5) ** 2
    return quantiles(lambda x: np.sqrt(np.maximum((x - low) * (high - x), 0.0)) / x, low, high, n)


def _decays() -> dict[str, FloatArray]:
    sizes = {0.5: 4000, 0.7: 4000, 1.0: 4000, 1.2: 4000, 1.5: 4000, 2.0: 5000, 3.0: 4000}
    return {
        **{f"k^-{exponent:g}": power_law(n, exponent) for exponent, n in sizes.items()},
        "exp(-k/50)": np.exp(-np.arange(1, 3001) / 50),
        "exp(-k/500)": np.exp(-np.arange(1, 4001) / 500),
        "geometric, 6 decades": np.geomspace(1, 1e-6, 4000),
        "geometric, 12 decades": np.geomspace(1, 1e-12, 4000),
    }


def _repeated() -> dict[str, FloatArray]:
    spiked_bulk = np.concatenate([np.arange(1.0, 9.0), 0.01 * marchenko_pastur(492, 0.5)])
    return {
        "identity": np.ones(3000),
        "2 copies of k^-1": copies(power_law(2000, 1.0), 2),
        "3 copies of k^-2": copies(power_law(1000, 2.0), 3),
        "10 copies of k^-1": copies(power_law(400, 1.0), 10),
        "10 copies of k^-1.5": copies(power_law(400, 1.5), 10),
        "10 copies of k^-2": copies(power_law(400, 2.0), 10),
        "50 copies of k^-1.2": copies(power_law(80, 1.2), 50),
        "5 copies of spikes + Marchenko-Pastur": copies(spiked_bulk, 5),
        "10 copies of k^-1.2, zeros": copies(np.append(power_law(60, 1.2), np.zeros(340)), 10),
        "10 copies of 10 spikes, simple bulk": np.append(copies(np.arange(1.0, 11.0), 10), np.linspace(0, 0.05, 2900)),
    }


def _nearly_repeated() -> dict[str, FloatArray]:
    found = {f"10 copies of k^-1.2, {s:g} apart": copies(power_law(400, 1.2), 10, s) for s in (1e-7, 1e-4, 1e-2)}
    spikes = copies(np.arange(1.0, 11.0), 10, 1e-4)
    return {**found, "10 copies of 10 spikes, 0.0001 apart": np.append(spikes, np.linspace(0, 0.05, 2900))}


def _random_matrices() -> dict[str, FloatArray]:
    return {
        "Marchenko-Pastur": marchenko_pastur(3000, 0.5),
        "Marchenko-Pastur, spikes": np.append(np.linspace(5, 100, 20), marchenko_pastur(3980, 0.5)),
        "small Marchenko-Pastur, spikes": np.append(np.geomspace(1, 30, 40), 0.01 * marchenko_pastur(3960, 0.99)),
        "GOE": semicircle(3000),
        "GOE, spikes": np.append(np.linspace(3, 10, 8), semicircle(2992)),
    }


def _with_zeros() -> dict[str, FloatArray]:
    return {
        "rank 1": np.append(1.0, np.zeros(2999)),
        "rank 30": np.append(np.linspace(1, 10, 30), np.zeros(3970)),
        "rank 100": np.append(np.linspace(1, 10, 100), np.zeros(3900)),
        "rank 300, k^-1": np.append(power_law(300, 1.0), np.zeros(3700)),
        "rank 1000, k^-0.7": np.append(power_law(1000, 0.7), np.zeros(3000)),
        "rank 500, k^-1, 6500 zeros": np.append(power_law(500, 1.0), np.zeros(6500)),
    }


def _indefinite() -> dict[str, FloatArray]:
    outliers, shoulder = np.geomspace(10, 0.3, 9), np.geomspace(0.3, 0.003, 120)
    bulk = np.concatenate([0.003 * np.linspace(0, 1, 1500) ** 4, -0.002 * np.linspace(0, 1, 900) ** 4])
    return {
        "k^-1 with both signs": np.concatenate([power_law(2000, 1.0), -0.5 * power_law(2000, 1.0)]),
        "negative bulk": np.append(np.linspace(1, 10, 20), -np.linspace(0, 0.1, 3000)),
        "network-like": np.concatenate([outliers, shoulder, bulk, np.zeros(1000)]),
        "uniform on [-1, 1]": 2 * midpoints(3000) - 1,
    }


def _distributions() -> dict[str, FloatArray]:
    clusters = np.append(np.linspace(1, 1.1, 10), np.linspace(0.01, 0.02, 2990))
    wide = np.append(np.linspace(0.8, 1.2, 600), np.linspace(0.8e-3, 1.2e-3, 2400))
    return {
        "uniform on [0, 1]": midpoints(3000),
        "constant, spikes": np.append(np.linspace(2, 50, 20), np.ones(2980)),
        "two clusters": clusters,
        "two wide clusters": wide,
        "Laplace": laplace.ppf(midpoints(4000)),
        "lognormal": lognorm.ppf(midpoints(4000), 3.0),
    }
