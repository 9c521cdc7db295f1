"""What an estimate loses where Lanczos vectors are kept in half precision, or not kept: errors on known spectra.

    python tests/benchmarks/lanczos_vectors.py

Diagonal matrices with prescribed eigenvalues; their eigenvectors have a single entry, the worst case for vectors that
are rounded. About five minutes on one thread.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
import torch
from _common import Target, argument_parser, finish, positive, prepare, show
from torch import Tensor

import renyi_lab as rl

ALPHAS = (0.5, 1.0, 1.5, 2.0)
CASES = ((2_000, 60), (2_000, 200), (20_000, 60), (20_000, 200), (200_000, 60))  # rows and products
NUM_SEEDS = 6
KEPT: dict[str, dict[str, Any]] = {
    "all, in the operator's dtype": {},
    "all, in bfloat16": {"basis_dtype": torch.bfloat16},
    "none": {"reorthogonalize": "none"},
}


class Diagonal(rl.operators.LinearOperator):
    """A diagonal matrix."""

    _checks_symmetry = False

    def __init__(self, values: Tensor) -> None:
        super().__init__(len(values), values.dtype, values.device)
        self.values = values

    def _matvec(self, vector: Tensor) -> Tensor:
        return self.values * vector

    def _matmat(self, vectors: Tensor) -> Tensor:
        return self.values[:, None] * vectors


def spectra(dim: int) -> dict[str, np.ndarray]:
    """Eigenvalues by the name of their family."""
    k, random = np.arange(1.0, dim + 1), np.random.default_rng(0)
    bulk = random.exponential(0.05, dim - 9) * random.choice([-1, 1], dim - 9, p=[0.1, 0.9])
    return {
        "1/k": 1 / k,
        "k^−1.5": k**-1.5,
        "10 outliers of 5 to 50, normal bulk of 0.01": np.r_[
            np.linspace(5, 50, 10), 0.01 * np.abs(random.standard_normal(dim - 10))
        ],
        "9 outliers of 1 to 100, exponential bulk of both signs": np.r_[np.geomspace(1, 100, 9), bulk],
    }


def errors(values: np.ndarray, options: dict[str, Any], num_matvecs: int, seeds: int) -> dict[str, float]:
    """Errors of the entropies in single precision over some seeds and all orders."""
    truth = rl.Spectrum.from_eigenvalues(values)
    operator = Diagonal(torch.tensor(values, dtype=torch.float32))
    found = []
    for seed in range(seeds):
        spectrum = rl.estimate_spectrum(operator, num_matvecs=num_matvecs, seed=seed, **options)
        for alpha in ALPHAS:
            entropy = spectrum.renyi_entropy(alpha)
            found.append((entropy.value - truth.renyi_entropy(alpha).value, entropy.standard_error))
    error, stated = np.array(found).T
    return {
        "rms_error": float(np.sqrt(np.mean(error**2))),
        "median_standard_error": float(np.median(stated)),
        "covered": float((np.abs(error) <= 2 * stated).mean()),
        "largest_score": float(np.abs(error / stated).max()),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argument_parser(__doc__, "lanczos_vectors")
    parser.add_argument("--seeds", type=positive, default=NUM_SEEDS, help="estimates per case (%(default)s)")
    parser.set_defaults(threads=1)
    options = parser.parse_args(arguments)
    circumstances, start = prepare(parser, options), time.perf_counter()
    cases, seeds = (CASES[:1], 2) if options.quick else (CASES, options.seeds)
    rows = []
    for dim, num_matvecs in cases:
        for family, values in spectra(dim).items():
            for kept, arguments_of in KEPT.items():
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # large errors are what this benchmark is about
                    found = errors(values, arguments_of, num_matvecs, seeds)
                rows.append({"dim": dim, "spectrum": family, "num_matvecs": num_matvecs, "kept": kept, **found})
            show(f"{family}, {dim} rows", rows[-len(KEPT) :])
    targets = []
    for kept in KEPT:
        chosen = [row for row in rows if row["kept"] == kept]
        share = float(np.mean([row["covered"] for row in chosen]))
        targets.append(Target(f"{kept}: share within two standard errors", share, 0.9, at_least=True))
        largest = max(row["largest_score"] for row in chosen)
        targets.append(Target(f"{kept}: largest error in standard errors", largest, 5.0))
    seconds = round(time.perf_counter() - start, 1)
    finish(options.out, circumstances, targets, num_seeds=seeds, alphas=list(ALPHAS), seconds=seconds, rows=rows)


if __name__ == "__main__":
    main()
