"""The Rényi bounds beside the log-determinant's as α varies, and the value of a certificate.

    python tests/benchmarks/bound_alpha.py

For two networks trained on MNIST-1D all eigenvalues of the Hessian are known (dense, cached, as in entropy_error.py).
They are clipped, damped by a thousandth of the largest and put into the level-set bound, at the volume of a ball of
radius 0.05 √n, and into the KL divergence of Laplace's posterior (σ = 0.05, β = N, no distance).

Then `certify` bounds the error of a CNN, on data drawn with a fresh seed: its defaults were chosen on the data of the
usual seed, where a bound would be too optimistic.
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from _common import Target, argument_parser, cache_option, finish, prepare, show
from _dense import CacheError, Network, solved

import renyi_lab as rl

ALPHAS = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 4.0, math.inf)
SIGMA = 0.05
NETWORKS = (Network("mlp", (40, 60, 60, 10)), Network("cnn1d", (25,)))
QUICK_NETWORKS = (Network("mlp", (40, 8, 10), epochs=5, num_samples=250),)
FRESH_SEED = 1
LARGEST_CERTIFICATE, MOST_SECONDS = 0.45, 180


def compare(network: Network, cache: Path) -> list[dict[str, Any]]:
    """One record for each α: log-determinants per parameter, level-set bounds, Laplace divergences."""
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
                "log_determinant_per_parameter": tight.terms["log_determinant"] / n,
                "renyi_log_determinant_per_parameter": bound.terms["log_determinant_bound"] / n,
                "level_set": tight.value,
                "renyi_level_set": bound.value,
                "laplace_kl": true_kl,
                "renyi_laplace_kl": kl,
            }
        )
    return records


def certificate(quick: bool) -> dict[str, Any]:
    """`certify` of a CNN on MNIST-1D with its defaults (quick: of a small MLP); wall-clock and processor seconds."""
    train_set, test_set = rl.datasets.mnist1d(num_samples=250 if quick else 5000, seed=FRESH_SEED)
    settings: dict[str, Any] = {"epochs": 3, "num_draws": 50} if quick else {}
    factory = (lambda: rl.models.mlp(40, 8, 10)) if quick else rl.models.cnn1d
    clock, processor = time.perf_counter(), time.process_time()
    found = rl.bounds.certify(factory, train_set, test_set=test_set, **settings)
    seconds = time.perf_counter() - clock, time.process_time() - processor
    frame = found.to_frame()
    return {
        "routes": [
            {"route": name, "certifies": found[name].certifies, **row}
            for name, row in frame.replace({np.nan: None}).to_dict("index").items()
        ],
        "delta": found.delta,
        "data_seed": FRESH_SEED,
        "prior_samples": found.num_prior_samples,
        "bound_samples": found.num_bound_samples,
        "value": found.value,
        "test_error": found.best.test_error,
        "seconds": seconds[0],
        "processor_seconds": seconds[1],
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the tables, write the JSON file."""
    parser = argument_parser(__doc__, "bound_alpha")
    cache_option(parser)
    options = parser.parse_args(arguments)
    circumstances = prepare(parser, options)
    records: list[dict[str, Any]] = []
    for network in QUICK_NETWORKS if options.quick else NETWORKS:
        try:
            records += compare(network, options.cache)
        except CacheError as error:
            sys.exit(str(error))
    show("Rényi bounds beside the log-determinant's, by α", records)
    certified = certificate(options.quick)
    show(f"Certificate, δ = {certified['delta']:g}; {certified['seconds']:.0f} s", certified["routes"])
    targets = [
        Target("certified error", certified["value"], LARGEST_CERTIFICATE),
        Target("test error of what is certified", certified["test_error"], 0.2),
        Target("seconds", certified["seconds"], MOST_SECONDS),
    ]
    finish(options.out, circumstances, [] if options.quick else targets, alphas=records, certificate=certified)


if __name__ == "__main__":
    main()
