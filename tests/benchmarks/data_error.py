"""How far a subset's spectrum is from that of all data, and whether ``estimate_spectrum(data_error=True)`` covers it.

    python tests/benchmarks/data_error.py

Two networks are trained on all 4,000 samples of MNIST-1D, whose spectrum is computed exactly. Random subsets of 250 to
2,000 samples then give estimates with standard errors. Counted is how often all samples' value is within two standard
errors: with the part that is due to the sample, and without it. About twenty minutes on one thread.

The standard error is for samples of a distribution; here they are drawn from 4,000 known ones without replacement, so
that half of these (2,000) are nearer to all of them than to a distribution: errors are then too large.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
import torch
from _common import Target, argument_parser, finish, positive, prepare, show
from torch.nn.functional import cross_entropy

import renyi_lab as rl

ALPHAS = (0.5, 1.0, 1.5, 2.0)
SIZES = (250, 500, 1000, 2000)
NUM_SUBSETS, NUM_MATVECS = 25, 100
QUANTITIES = (*(f"H_{alpha:g}" for alpha in ALPHAS), "log trace")


def networks() -> dict[str, tuple[torch.nn.Module, int]]:
    """Networks and the epochs that they are trained for."""
    return {
        "MLP, ReLU": (rl.models.mlp(40, 32, 32, 10), 60),
        "CNN": (rl.models.cnn1d(channels=8), 60),
    }


def quantities(spectrum: rl.Spectrum) -> list[rl.Estimate]:
    """The estimates of this benchmark."""
    trace = spectrum.trace
    parts = (trace.standard_error, trace.num_matvecs, trace.truncation_error, trace.rounding_error, trace.data_error)
    relative = [part / trace.value for part in (parts[0], *parts[2:])]
    log_trace = rl.Estimate(float(np.log(trace.value)), relative[0], parts[1], *relative[1:])
    return [*(spectrum.renyi_entropy(alpha) for alpha in ALPHAS), log_trace]


def subsets(
    model: torch.nn.Module, size: int, count: int, truth: list[float], num_matvecs: int
) -> list[dict[str, Any]]:
    """One row for each quantity: how far subsets of this size are from all samples, and how often that is covered."""
    x, y = rl.datasets.mnist1d()[0].tensors
    generator = torch.Generator().manual_seed(size)
    found = []
    for seed in range(count):
        chosen = torch.randperm(len(x), generator=generator)[:size]
        operator = rl.HessianOperator(model, cross_entropy, (x[chosen], y[chosen]))
        found.append(quantities(rl.estimate_spectrum(operator, num_matvecs=num_matvecs, seed=seed, data_error=True)))
    rows = []
    for index, name in enumerate(QUANTITIES):
        estimates = [row[index] for row in found]
        errors = np.array([estimate.value for estimate in estimates]) - truth[index]
        total, data = (np.array([getattr(e, part) for e in estimates]) for part in ("standard_error", "data_error"))
        without = np.sqrt(total**2 - data**2)
        rows.append(
            {
                "num_samples": size,
                "quantity": name,
                "mean_error": float(errors.mean()),
                "spread": float(errors.std(ddof=1)),
                "mean_data_error": float(data.mean()),
                "mean_other_error": float(without.mean()),
                "covered": float((np.abs(errors) <= 2 * total).mean()),
                "covered_without": float((np.abs(errors) <= 2 * without).mean()),
            }
        )
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = argument_parser(__doc__, "data_error")
    parser.add_argument("--subsets", type=positive, default=NUM_SUBSETS, help="random subsets per size (%(default)s)")
    parser.set_defaults(threads=1)
    options = parser.parse_args(arguments)
    circumstances, start = prepare(parser, options), time.perf_counter()
    sizes, count, num_matvecs = (SIZES[:1], 3, 20) if options.quick else (SIZES, options.subsets, NUM_MATVECS)
    train_set, test_set = rl.datasets.mnist1d()
    results, everything = [], []
    for name, (model, epochs) in networks().items():
        rl.train(model, train_set, epochs=2 if options.quick else epochs)
        operator = rl.HessianOperator(model, cross_entropy, train_set)
        spectrum = rl.estimate_spectrum(operator, num_matvecs=60) if options.quick else rl.exact_spectrum(operator)
        truth = [estimate.value for estimate in quantities(spectrum)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # errors above 0.1 nats are what this benchmark is about
            rows = [row for size in sizes for row in subsets(model, size, count, truth, num_matvecs)]
        show(name, rows)
        everything += rows
        losses = {part: rl.evaluate(model, data).loss for part, data in (("train", train_set), ("test", test_set))}
        found = dict(zip(QUANTITIES, truth, strict=True))
        results.append(
            {"network": name, "parameters": operator.dim, "loss": losses, "all_samples": found, "rows": rows}
        )
    targets = []
    for size in sizes:
        share = float(np.mean([row["covered"] for row in everything if row["num_samples"] == size]))
        claim = f"{size} samples: share within two standard errors, all quantities and networks"
        targets.append(Target(claim, share, 0.9, at_least=True))
    seconds = round(time.perf_counter() - start, 1)
    finish(
        options.out,
        circumstances,
        targets,
        num_subsets=count,
        num_matvecs=num_matvecs,
        seconds=seconds,
        networks=results,
    )


if __name__ == "__main__":
    main()
