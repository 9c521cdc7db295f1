"""The Rényi bounds beside the log-determinant's as α varies, and the value of a certificate.

    python tests/benchmarks/bound_alpha.py --out bound_alpha.json

For two networks trained on MNIST-1D all eigenvalues of the Hessian are known (dense, cached, as in entropy_error.py).
They are clipped, damped by a thousandth of the largest and put into the level-set bound, at the volume of a ball of
radius 0.05 √n, and into Laplace's divergence (σ = 0.05, β = N, no distance).

Then `certify` bounds the error of a CNN, on data drawn with a seed of their own: its defaults were chosen on the usual
ones, where a bound would be too good.
"""

from __future__ import annotations

import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from _common import Target, argument_parser, finish, prepare, print_table
from _dense import CacheError, Network, solved

import renyi_lab as rl

ALPHAS = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 4.0, math.inf)
SIGMA = 0.05
NETWORKS = (Network("mlp", (40, 60, 60, 10)), Network("cnn1d", (25,)))
QUICK_NETWORKS = (Network("mlp", (40, 8, 10), epochs=5, num_samples=250),)
FRESH_SEED = 1
LARGEST_CERTIFICATE, MOST_SECONDS = 0.45, 180


def compare(network: Network, cache: Path) -> list[dict[str, Any]]:
    """One record for each α: log-determinants a parameter, level-set bounds, Laplace divergences."""
    spectrum = rl.Spectrum.from_eigenvalues(solved(network, cache).eigenvalues)
    n, num_samples = spectrum.dim, network.num_samples * 4 // 5
    radius = SIGMA * math.sqrt(n)
    tight, _, *loose = rl.bounds.level_set_bounds(spectrum, 0.0, radius, ALPHAS, num_samples)
    clipped = rl.Spectrum.from_eigenvalues(spectrum.nodes.clip(min=0))
    x = SIGMA**2 * num_samples * clipped.nodes
    true_kl = float(rl.bounds.laplace_kl(clipped.nodes, clipped.weights, n, 0.0, SIGMA**2, num_samples))
    records = []
    for alpha, bound in zip(ALPHAS, loose, strict=True):
        entropy, trace = float(clipped.renyi_entropy(alpha)), float(clipped.trace)
        kl = rl.bounds.renyi_laplace_kl(
            entropy, trace, n, alpha, 0.0, SIGMA**2, num_samples, float((x / (1 + x)).sum())
        )
        records.append(
            {
                "network": network.name,
                "parameters": n,
                "alpha": "inf" if math.isinf(alpha) else alpha,
                "entropy": bound.terms["entropy"],
                "log_determinant_each": (tight.terms["log_determinant"]) / n,
                "renyi_log_determinant_each": bound.terms["log_determinant_bound"] / n,
                "level_set": tight.value,
                "renyi_level_set": bound.value,
                "laplace_kl": true_kl,
                "renyi_laplace_kl": kl,
            }
        )
    return records


def print_comparison(records: list[dict[str, Any]]) -> None:
    """One table for all networks."""
    print_table(
        "Rényi bound beside the log-determinant's",
        ["network (parameters)", "α", "H_α", "log|H|/n", "its bound", "excess", "level set", "Rényi", "KL", "Rényi KL"],
        [
            [
                f"{r['network']} ({r['parameters']:,})",
                f"{r['alpha']}",
                f"{r['entropy']:.2f}",
                f"{r['log_determinant_each']:.2f}",
                f"{r['renyi_log_determinant_each']:.2f}",
                f"{r['renyi_log_determinant_each'] - r['log_determinant_each']:.2f}",
                f"{r['level_set']:.3f}",
                f"{r['renyi_level_set']:.3f}",
                f"{r['laplace_kl']:.0f}",
                f"{r['renyi_laplace_kl']:.0f}",
            ]
            for r in records
        ],
    )


def certificate(quick: bool) -> dict[str, Any]:
    """`certify` of a CNN on MNIST-1D with its defaults (quick: of a small MLP); wall-clock and processor seconds."""
    train_set, test_set = rl.datasets.mnist1d(num_samples=250 if quick else 5000, seed=FRESH_SEED)
    settings: dict[str, Any] = {"epochs": 3, "num_draws": 50} if quick else {}
    factory = (lambda: rl.models.mlp(40, 8, 10)) if quick else rl.models.cnn1d
    clock, processor = time.perf_counter(), time.process_time()
    found = rl.bounds.certify(factory, train_set, test_set=test_set, **settings)
    seconds = time.perf_counter() - clock, time.process_time() - processor
    frame = found.to_frame()
    print_table(
        f"Certificate, δ = {found.delta:g}, prior from {found.num_prior_samples} samples, bound from "
        f"{found.num_bound_samples}; {seconds[0]:.0f} s, {seconds[1]:.0f} s of processor",
        ["route", *frame.columns],
        [[name, *(f"{number:.4f}" for number in row)] for name, row in zip(frame.index, frame.to_numpy(), strict=True)],
    )
    return {
        "routes": frame.replace({np.nan: None}).to_dict("index"),
        "value": found.value,
        "test_error": found.best.test_error,
        "seconds": seconds[0],
        "processor_seconds": seconds[1],
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the tables, write the JSON file."""
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "renyi_lab"
    parser = argument_parser(__doc__.split("\n")[0], "bound_alpha")
    parser.add_argument(
        "--cache", type=Path, default=user_cache, help="folder for dense Hessians, 300 MB (%(default)s)"
    )
    options = parser.parse_args(arguments)
    circumstances = prepare(parser, options)
    records: list[dict[str, Any]] = []
    for network in QUICK_NETWORKS if options.quick else NETWORKS:
        try:
            records += compare(network, options.cache)
        except CacheError as error:
            sys.exit(str(error))
    print_comparison(records)
    certified = certificate(options.quick)
    targets = [
        Target("certified error", certified["value"], LARGEST_CERTIFICATE),
        Target("true test error", certified["test_error"], 0.2),
        Target("seconds", certified["seconds"], MOST_SECONDS),
    ]
    finish(options.out, circumstances, [] if options.quick else targets, alphas=records, certificate=certified)


if __name__ == "__main__":
    main()
