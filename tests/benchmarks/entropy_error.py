"""Error of Rényi entropies against products spent: this package, plain Lanczos quadrature, and the authors' setting.

    python tests/benchmarks/entropy_error.py

For two networks trained on MNIST-1D the dense Hessian over the 4000 training samples is computed column by column
(once: it is cached) and diagonalised in double precision; its entropies are the reference. The estimators then get this
matrix as their operator, in single precision as a network's products are, so that the errors are those of the method
alone.

The authors' setting is plain quadrature with 100 probes of 15 steps. The standard errors of plain quadrature are a
jackknife's.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from _common import Target, argument_parser, cache_option, finish, positive, prepare, show
from _dense import CacheError, Network, Solved, solved
from _quadrature import ALPHAS, FloatArray, plain_quadrature

import renyi_lab as rl
from renyi_lab._utils.progress import progress_bar

BUDGETS, QUICK_BUDGETS = (100, 200, 400), (48, 96)
AUTHORS_PROBES, AUTHORS_STEPS, AUTHORS_SEEDS = 100, 15, 3
# Products: {α: largest RMSE in nats}.
TARGETS = {200: {0.5: 0.08, 1.0: 0.03, 1.5: 0.03, 2.0: 0.03}, 400: {0.5: 0.04, 1.0: 0.015, 1.5: 0.015, 2.0: 0.015}}
COVERAGE_TARGET = 0.9

NETWORKS = (Network("mlp", (40, 60, 60, 10)), Network("cnn1d", (25,)))
QUICK_NETWORKS = (
    Network("mlp", (40, 8, 10), epochs=5, num_samples=250),
    Network("cnn1d", (3,), epochs=5, num_samples=250),
)


def own_estimates(known: Solved, budget: int, num_seeds: int) -> tuple[FloatArray, FloatArray]:
    """`renyi_lab.estimate_spectrum`: values and standard errors, ``(seeds, alphas)``."""
    operator = rl.MatrixOperator(known.matrix)
    estimates = []
    with progress_bar(num_seeds, f"renyi_lab, {budget} products") as bar:
        for seed in range(num_seeds):
            spectrum = rl.estimate_spectrum(operator, num_matvecs=budget, seed=seed, progress=False)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # large errors at few products are what is measured here
                estimates.append([spectrum.renyi_entropy(alpha) for alpha in ALPHAS])
            bar.update()
    if operator.num_matvecs > budget * num_seeds:
        raise AssertionError(f"{operator.num_matvecs} products for {num_seeds} budgets of {budget}")
    values = np.array([[estimate.value for estimate in row] for row in estimates])
    return values, np.array([[estimate.standard_error for estimate in row] for row in estimates])


def runs(
    known: Solved, budgets: tuple[int, ...], num_seeds: int
) -> Iterator[tuple[str, int, FloatArray, FloatArray | None]]:
    """Method, products, values and standard errors of everything that is compared."""
    for budget in budgets:
        yield "renyi_lab", budget, *own_estimates(known, budget, num_seeds)
    for num_probes in (1, 4):
        depths = tuple(budget // num_probes for budget in budgets)
        for depth, values, errors in plain_quadrature(known.matrix, num_probes, depths, num_seeds):
            label = f"plain SLQ, {num_probes} probe{'s' if num_probes > 1 else ''}"
            yield label, depth * num_probes, values, errors
    for depth, values, errors in plain_quadrature(known.matrix, AUTHORS_PROBES, (AUTHORS_STEPS,), AUTHORS_SEEDS):
        yield "authors' setting", depth * AUTHORS_PROBES, values, errors


def summary(errors: FloatArray, standard_errors: FloatArray | None) -> dict[str, Any]:
    """The errors over seeds, by α; ``within_2_se`` pools all α."""
    found = {"rmse": by_alpha(np.sqrt((errors**2).mean(axis=0))), "bias": by_alpha(errors.mean(axis=0))}
    if standard_errors is None:
        return {**found, "coverage": None, "within_2_se": None}
    covered = np.abs(errors) <= 2 * standard_errors
    return {**found, "coverage": by_alpha(covered.mean(axis=0)), "within_2_se": float(covered.mean())}


def by_alpha(values: FloatArray) -> dict[str, float]:
    return {f"{alpha:g}": float(value) for alpha, value in zip(ALPHAS, values, strict=True)}


def measure(network: Network, known: Solved, budgets: tuple[int, ...], num_seeds: int) -> list[dict[str, Any]]:
    """One record for each method and budget."""
    spectrum = rl.Spectrum.from_eigenvalues(known.eigenvalues)
    truth = np.array([float(spectrum.renyi_entropy(alpha)) for alpha in ALPHAS])
    return [
        {
            "network": network.name,
            "parameters": spectrum.dim,
            "method": method,
            "products": products,
            "seeds": len(values),
            **summary(values - truth, errors),
        }
        for method, products, values, errors in runs(known, budgets, num_seeds)
    ]


def targets(records: list[dict[str, Any]]) -> list[Target]:
    """The worst network counts; coverage is over all cases of this package."""
    own = [record for record in records if record["method"] == "renyi_lab"]
    found = [
        Target(
            f"RMSE in nats at {budget} products, α = {alpha:g}",
            max(record["rmse"][f"{alpha:g}"] for record in own if record["products"] == budget),
            limit,
        )
        for budget, limits in TARGETS.items()
        for alpha, limit in limits.items()
    ]
    coverage = float(np.mean([record["within_2_se"] for record in own]))
    return [*found, Target("share of errors within 2 standard errors", coverage, COVERAGE_TARGET, at_least=True)]


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the table, write the JSON file."""
    parser = argument_parser(__doc__, "entropy_error")
    cache_option(parser)
    parser.add_argument("--seeds", type=positive, help="runs of each estimator (20; with --quick 3)")
    options = parser.parse_args(arguments)
    networks, budgets = (QUICK_NETWORKS, QUICK_BUDGETS) if options.quick else (NETWORKS, BUDGETS)
    num_seeds = options.seeds or (3 if options.quick else 20)
    circumstances = prepare(parser, options)
    records: list[dict[str, Any]] = []
    for network in networks:
        try:
            known = solved(network, options.cache)
        except CacheError as error:
            sys.exit(str(error))
        records += measure(network, known, budgets, num_seeds)
    show(f"Errors of H_α in nats, α = {' / '.join(f'{alpha:g}' for alpha in ALPHAS)}", records)
    finish(options.out, circumstances, [] if options.quick else targets(records), errors=records)


if __name__ == "__main__":
    main()
