"""What `coverage.py` makes of its estimates: cells, the worst of them, and the targets.

A *cell* is a family in one precision at one number of products and one order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from _common import Target
from _spectra import TRAINED, FloatArray, KnownSpectrum, families
from scipy.stats import binom

ALPHAS = (0.25, 0.5, 1.0, 1.5, 2.0, np.inf)
BUDGETS, REFERENCE_BUDGET = (100, 200, 400), 200
SEEDS, MORE_SEEDS = 10, 4  # the second is a factor
LOWEST_ALPHA = 0.5  # what is promised about coverage holds from this order on
ENOUGH_COVERAGE, MEAN_COVERAGE, CELL_COVERAGE, LARGEST_Z = 0.9, 0.93, 0.8, 5.0
# Products: {α: largest RMSE in nats on every trained network}.
TRAINED_LIMITS = {
    200: {0.5: 0.025, 1.0: 0.016, 1.5: 0.012, 2.0: 0.010},
    400: {0.5: 0.015, 1.0: 0.010, 1.5: 0.008, 2.0: 0.006},
}
RESOLVED = 1e-5  # nats: smaller errors say nothing about whether standard errors are too large
INFINITE_Z = 1e6  # stands for an error without a standard error
CELL = ["family", "dtype", "products", "alpha"]


@dataclass(frozen=True)
class Run:
    """One estimate; equal runs have equal results."""

    family: str
    dtype: str
    products: int
    seed: int


@cache
def spectra() -> dict[str, FloatArray]:
    """Family → eigenvalues."""
    return {name: values for group in families().values() for name, values in group.items()}


def scores(deviations: FloatArray, errors: FloatArray, resolution: float) -> FloatArray:
    """|error| in standard errors; 0 where it is below the resolution, `INFINITE_Z` where it is not a number."""
    sizes = np.abs(deviations)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(sizes <= resolution, 0.0, sizes / errors)
    return np.nan_to_num(np.minimum(found, INFINITE_Z), nan=INFINITE_Z)


@cache
def entropies(family: str, dtype: str) -> tuple[FloatArray, float]:
    """The true entropies at `ALPHAS`, and how exactly they are known."""
    operator = KnownSpectrum(spectra()[family], dtype)
    return np.array([operator.entropy(alpha) for alpha in ALPHAS]), operator.resolution


def deviations(known: dict[Run, dict[str, Any]]) -> pd.DataFrame:
    """One row for each estimate and order."""
    rows = []
    for run, result in known.items():
        truth, resolution = entropies(run.family, run.dtype)
        errors = np.array(result["errors"])
        found = np.array(result["values"]) - truth
        columns = zip(ALPHAS, found, errors, scores(found, errors, resolution), strict=True)
        rows += [(*astuple(run), *column, result["seconds"]) for column in columns]
    names = ["family", "dtype", "products", "seed", "alpha", "deviation", "standard_error", "z", "seconds"]
    return pd.DataFrame(rows, columns=names)


def cells(table: pd.DataFrame, num_seeds: int) -> pd.DataFrame:
    """One row for each cell; ``first_coverage`` is that of the first ``num_seeds`` seeds."""
    table = table.assign(
        covered=table["z"] <= 2,
        squared=table["deviation"] ** 2,
        variance=table["standard_error"] ** 2,
        unknown=~np.isfinite(table["standard_error"]),
    )
    grouped = table.groupby(CELL, sort=False)
    found = pd.DataFrame(
        {
            "seeds": grouped.size(),
            "rmse": np.sqrt(grouped["squared"].mean()),
            "bias": grouped["deviation"].mean(),
            "standard_error": np.sqrt(grouped["variance"].mean()),
            "coverage": grouped["covered"].mean(),
            "first_coverage": table[table["seed"] < num_seeds].groupby(CELL, sort=False)["covered"].mean(),
            "max_z": grouped["z"].max(),
            "unknown": grouped["unknown"].mean(),
            "seconds": grouped["seconds"].mean(),
        }
    ).reset_index()
    groups = {name: group for group, members in families().items() for name in members}
    found.insert(0, "group", found["family"].map(groups))
    found.insert(2, "n", found["family"].map(lambda name: len(spectra()[name])))
    return found


def doubtful(found: pd.DataFrame) -> pd.DataFrame:
    """Family, precision and products of the cells that need more seeds."""
    poor = (found["alpha"] >= LOWEST_ALPHA) & (found["coverage"] < ENOUGH_COVERAGE)
    limits = [TRAINED_LIMITS.get(p, {}).get(a, np.inf) for p, a in zip(found["products"], found["alpha"], strict=True)]
    poor |= (found["group"] == TRAINED) & (found["rmse"] > limits)
    return found.loc[poor, CELL[:3]].drop_duplicates()


def overall(found: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Coverage and calibration over all families, for each precision, number of products and order."""
    for (dtype, products, alpha), part in found.groupby(CELL[1:], sort=False):
        measured = part[(part["rmse"] > RESOLVED) & (part["unknown"] == 0)]
        yield {
            "dtype": dtype,
            "products": products,
            "alpha": _name(alpha),
            "coverage": part["first_coverage"].mean(),
            "lowest": part["coverage"].min(),
            "below_limit": int((part["coverage"] < CELL_COVERAGE).sum()),
            "max_z": part["max_z"].max(),
            "median_rmse": part["rmse"].median(),
            "error_over_rmse": (measured["standard_error"] / measured["rmse"]).median(),
            "unknown": part["unknown"].mean(),
        }


def by_family(found: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """RMSE, bias and coverage by α, for each family, precision and number of products."""
    for (family, dtype, products), part in found.groupby(CELL[:3], sort=False):
        first = part.iloc[0]
        yield {
            **{"group": first["group"], "family": family, "n": int(first["n"])},
            **{"dtype": dtype, "products": products, "seeds": int(first["seeds"])},
            **{
                quantity: dict(zip(map(_name, part["alpha"]), part[quantity], strict=True))
                for quantity in ("rmse", "bias", "coverage")
            },
        }


def _name(alpha: float) -> str:
    return f"{alpha:g}"


def worst(found: pd.DataFrame, num_coverage: int = 15, num_z: int = 10) -> dict[str, list[dict[str, Any]]]:
    """The cells with the lowest coverage (of promised orders) and with the largest |z|, each at its worst order."""
    columns = [*CELL, "seeds", "rmse", "bias", "standard_error", "coverage", "max_z"]
    promised = found[(found["alpha"] >= LOWEST_ALPHA) & (found["coverage"] < ENOUGH_COVERAGE)]
    ordered = {
        "coverage": promised.sort_values(["coverage", "max_z"], ascending=[True, False]),
        "z": found.sort_values("max_z", ascending=False),
    }
    return {
        name: [
            {**row, "alpha": _name(row["alpha"])}
            for row in part.drop_duplicates(CELL[:3])[columns].head(number).to_dict("records")
        ]
        for (name, part), number in zip(ordered.items(), (num_coverage, num_z), strict=True)
    }


def chances(num_seeds: int) -> dict[str, float]:
    """How reliable the verdict on a single cell is, in probabilities."""
    enough = int(np.ceil(ENOUGH_COVERAGE * num_seeds))
    all_seeds = MORE_SEEDS * num_seeds
    below = int(np.ceil(CELL_COVERAGE * all_seeds)) - 1
    return {
        "good_cell_fails": float(binom.cdf(below, all_seeds, MEAN_COVERAGE)),
        "poor_cell_passes_unseen": float(binom.sf(enough - 1, num_seeds, 0.7)),
    }


def targets(found: pd.DataFrame) -> Iterator[Target]:
    """Those about coverage are over orders of at least 0.5, that about z over all orders."""
    promised = found[found["alpha"] >= LOWEST_ALPHA]
    mean = float(promised["first_coverage"].mean())
    yield Target("errors within two standard errors, mean over cells with α ≥ 0.5", mean, MEAN_COVERAGE, at_least=True)
    lowest = float(promised["coverage"].min())
    yield Target("the same, lowest cell with α ≥ 0.5", lowest, CELL_COVERAGE, at_least=True)
    yield Target("largest error in standard errors, every order", float(found["max_z"].max()), LARGEST_Z)
    networks = found[found["group"] == TRAINED]
    for products, limits in TRAINED_LIMITS.items():
        for alpha, limit in limits.items():
            errors = networks.loc[(networks["products"] == products) & (networks["alpha"] == alpha), "rmse"]
            if len(errors):
                yield Target(
                    f"RMSE in nats, {products} products, α = {alpha:g}, worst network", float(errors.max()), limit
                )


def rounded(value: Any) -> Any:
    """Numbers with four significant digits."""
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
