"""Do standard errors of Rényi entropies hold? Error and coverage over families of matrices with known spectra.

    python tests/benchmarks/coverage.py --jobs 2
    python tests/benchmarks/coverage.py --families "repeated" "k^-2" --seeds 4

Each family is estimated in single and double precision, from 100, 200 and 400 products, with several seeds, at six
orders α, and compared with the entropies of the (rounded) eigenvalues. A *cell* is a family in one precision at one
number of products and one order. Its coverage is the share of seeds whose error is within two standard errors; z is the
error in standard errors. `_spectra.py` has the families and says why the matrices are not simply diagonal.

Cells get ``--seeds`` seeds. Those that are covered less than 90 % at an order of at least 0.5, and trained networks
whose error is above its limit, get four times as many. Mean coverage is that of the first seeds alone, so that the
choice of cells cannot bias it; everything else is over all seeds of a cell.

Every estimate is one line of ``build/coverage-VERSION.jsonl`` as soon as it is there, with a hash of the estimator's
source as version: an interrupted run resumes, and another version of the estimator starts anew. Besides the JSON file,
a CSV file beside it gets every cell. The exit status is 1 if a target is missed.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported; --jobs is what uses more cores

import hashlib
import itertools
import json
import sys
import time
import warnings
from collections.abc import Iterable
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

import joblib
import torch
from _common import argument_parser, finish, positive, prepare, show
from _coverage_cells import (
    ALPHAS,
    BUDGETS,
    MORE_SEEDS,
    REFERENCE_BUDGET,
    SEEDS,
    Run,
    by_family,
    cells,
    chances,
    deviations,
    doubtful,
    overall,
    rounded,
    spectra,
    targets,
    worst,
)
from _records import read_records
from _spectra import DTYPES, TRAINED, TRAINED_PATH, KnownSpectrum, families, seed_of

import renyi_lab as rl
from renyi_lab._utils.progress import progress_bar

QUICK_FAMILIES = ["k^-1.5", "10 copies of k^-2", "rank 30", "tanh MLP, Brier score"]


def estimate(run: Run) -> dict[str, Any]:
    """Values and standard errors at `ALPHAS`, products, and processor time without that of the products."""
    torch.set_num_threads(1)
    operator = KnownSpectrum(spectra()[run.family], run.dtype)
    began = time.thread_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # how good poor estimates are is measured here
            seed = seed_of(*astuple(run))
            spectrum = rl.estimate_spectrum(operator, num_matvecs=run.products, seed=seed, progress=False)
            estimates = [spectrum.renyi_entropy(alpha) for alpha in ALPHAS]
    except Exception as error:
        raise RuntimeError(f"{run} failed: {error!r}") from error
    seconds = time.thread_time() - began - operator.seconds
    if operator.num_matvecs > run.products:
        raise AssertionError(f"{run} took {operator.num_matvecs} products")
    return {
        "values": [estimate.value for estimate in estimates],
        "errors": [estimate.standard_error for estimate in estimates],
        "seconds": round(seconds, 5),
    }


def _paired(run: Run) -> tuple[Run, dict[str, Any]]:
    return run, estimate(run)


def version() -> str:
    """A hash of what results depend on: the estimator's source, the families and this module's settings."""
    package = Path(rl.__file__).parent
    files = [*(package / "krylov").glob("*.py"), *(package / "spectrum").glob("*.py")]
    digest = hashlib.sha256(repr(ALPHAS).encode())
    for path in (*sorted(files), Path(__file__).with_name("_spectra.py"), TRAINED_PATH):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


class Records:
    """The file of estimates: read once, then only appended to."""

    def __init__(self, path: Path) -> None:
        self.path, self.known = path, read_records(path, Run)

    def compute(self, runs: Iterable[Run], jobs: int, title: str) -> None:
        """Compute the runs that are not in the file yet."""
        missing = [run for run in runs if run not in self.known]
        if not missing:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")
        with progress_bar(len(missing), title) as bar, self.path.open("a", encoding="utf-8") as file:
            for run, result in parallel(joblib.delayed(_paired)(run) for run in missing):
                file.write(json.dumps({"run": asdict(run), "result": result}) + "\n")
                file.flush()
                self.known[run] = result
                bar.update()


def selected(patterns: list[str]) -> list[str]:
    """The families that one of the patterns selects: a group, a family, or else a part of families' names."""
    found = []
    for pattern in patterns:
        members = list(families().get(pattern, {})) or [name for name in spectra() if name == pattern]
        members = members or [name for name in spectra() if pattern in name]
        if not members:
            raise ValueError(f"{pattern!r} is no part of a family's name; groups are {', '.join(families())}")
        found += members
    return list(dict.fromkeys(found))


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the tables, write the JSON and CSV files."""
    parser = argument_parser(__doc__, "coverage")
    parser.set_defaults(threads=1)
    parser.add_argument("--seeds", type=positive, help=f"estimates for each cell ({SEEDS}; with --quick 2)")
    parser.add_argument("--families", nargs="+", help="names, parts of names, or groups; files go to build/ by default")
    parser.add_argument("--products", nargs="+", type=positive, default=list(BUDGETS), help="(%(default)s)")
    parser.add_argument("--jobs", type=positive, default=1, help="processes, of one thread each (%(default)s)")
    options = parser.parse_args(arguments)
    partial = options.families is not None or options.products != list(BUDGETS)
    if options.quick:
        options.products = [REFERENCE_BUDGET]
    elif partial and options.out is None:
        options.out = Path("build") / "coverage.json"
    try:
        names = selected(options.families or (QUICK_FAMILIES if options.quick else list(families())))
    except ValueError as error:
        parser.error(f"--families: {error}.")
    num_seeds = options.seeds or (2 if options.quick else SEEDS)
    circumstances = prepare(parser, options)
    records = Records(Path("build") / f"coverage-{version()}.jsonl")

    grid = list(itertools.product(range(num_seeds), names, DTYPES, options.products))
    runs = [Run(family, dtype, products, seed) for seed, family, dtype, products in grid]
    records.compute(runs, options.jobs, "estimates")
    first = cells(deviations({run: records.known[run] for run in runs}), num_seeds)
    again = [] if options.quick else list(doubtful(first).itertuples(index=False))
    more = [Run(*cell, seed) for seed in range(num_seeds, MORE_SEEDS * num_seeds) for cell in again]
    records.compute(more, options.jobs, "more seeds for doubtful cells")
    found = cells(deviations({run: records.known[run] for run in (*runs, *more)}), num_seeds)

    extremes = worst(found)
    show("Over all families", list(overall(found)))
    for quantity, rows in extremes.items():
        if rows:
            show(f"Worst cells by {quantity}", rows)
    checked = list(targets(found))
    found.drop(columns=["group", "n"]).to_csv(options.out.with_suffix(".csv"), index=False, float_format="%.3g")
    finish(
        options.out,
        circumstances,
        [] if options.quick else checked,
        **rounded(
            {
                "num_families": len(names),
                "num_cells": len(found),
                "seeds": num_seeds,
                "more_seeds": MORE_SEEDS * num_seeds,
                "again": len(again),
                "estimates": len(runs) + len(more),
                "chances": chances(num_seeds),
                "own_seconds": {str(p): float(part["seconds"].mean()) for p, part in found.groupby("products")},
                "overall": list(overall(found)),
                "families": [r for r in by_family(found) if r["products"] == REFERENCE_BUDGET],
                "trained": [r for r in by_family(found[found["group"] == TRAINED])],
                "worst": extremes,
            }
        ),
    )
    if not options.quick and not all(target.met for target in checked):
        sys.exit(1)


if __name__ == "__main__":
    main()
