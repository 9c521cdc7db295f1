"""SAM and ASAM over SGD, Adam, AdamW and RMSprop at equal gradients, learning rate and ρ tuned for each pair.

    python tests/benchmarks/base_optimizers.py --records base_optimizers.jsonl --jobs 2

MNIST-1D, MLP 40-100-100-10, batches of 128: 1,500 gradients each, which are 1,500 plain steps or 750 two-pass steps;
750 plain steps with the same learning rate ("equal steps") are trained for comparison. 3,200 samples are trained on,
800 choose the settings, by the mean validation accuracy over three splits, on a grid (factor 2 in each direction) that
is extended until its best point is no longer at an edge. Then training from fresh seeds, a new split of each; only
these models see the test set.
Every training is one line of the records: an interrupted run resumes.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from _common import argument_parser, finish, positive, prepare, show
from _many import ManyMLPs, chunks_by, each_model
from _records import Records
from optim_accuracy import mean_and_error, split
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from renyi_lab import HessianOperator, datasets, estimate_spectrum
from renyi_lab.optim import ASAM, SAM, SharpnessAware
from renyi_lab.training import evaluate

WIDTHS, BATCH_SIZE, GRADIENTS, WEIGHT_DECAY = (40, 100, 100, 10), 128, 1500, 5e-4
MODELS_AT_ONCE = 12  # on a CPU more gain nothing
GRID_FACTOR, MAX_EXTENSIONS, SPLITS, FIRST_TUNING_SEED = 2.0, 10, 3, 10_000
# Of the sharpness at the end: S_1.5 of the training loss on the first samples of the training part.
ALPHA, SHARPNESS_SAMPLES, PRODUCTS = 1.5, 1000, 120
# Where the search for the learning rate starts. Momentum is PyTorch's default except in SGD.
BASES: dict[str, tuple[type[torch.optim.Optimizer], float, dict[str, float]]] = {
    "SGD": (torch.optim.SGD, 0.1, {"momentum": 0.9}),
    "Adam": (torch.optim.Adam, 0.01, {}),
    "AdamW": (torch.optim.AdamW, 0.01, {}),
    "RMSprop": (torch.optim.RMSprop, 0.0025, {}),
}
EQUAL_STEPS = "plain, equal steps"  # with the learning rate of "plain"
# The class, where the search for ρ starts, and the number of steps.
METHODS: dict[str, tuple[type[SharpnessAware] | None, float | None, int]] = {
    "plain": (None, None, GRADIENTS),
    EQUAL_STEPS: (None, None, GRADIENTS // 2),
    "SAM": (SAM, 0.5, GRADIENTS // 2),
    "ASAM": (ASAM, 1.0, GRADIENTS // 2),
}


@dataclass(frozen=True)
class Run:
    """One training; equal runs have equal results."""

    base: str
    method: str
    lr: float
    rho: float | None
    seed: int
    phase: str  # "tune": accuracy on the validation split; "test": on the test set


def train_together(runs: list[Run]) -> list[dict[str, float | None]]:
    """Train runs that differ in seed and ρ only; what `measured` returns for each, ``None`` where training diverged."""
    torch.set_num_threads(1)
    train_set, test_set = datasets.mnist1d()
    parts = {run.seed: split(train_set, run.seed) for run in runs}
    many = ManyMLPs(WIDTHS, [run.seed for run in runs])
    many.train(make_optimizer(runs, many.parameters), batches(runs, parts))
    return [
        {"accuracy": None, "train_loss": None, "sharpness": None}
        if model is None
        else measured(run, model, parts, test_set)
        for run, model in zip(runs, many.trained(), strict=True)
    ]


def batches(runs: list[Run], parts: dict[int, tuple[TensorDataset, TensorDataset]]) -> Iterator[tuple[Tensor, Tensor]]:
    """For each step the batch of every run: runs of one seed see the same ones, in passes over the training part."""
    orders = {seed: torch.Generator().manual_seed(seed) for seed in parts}
    waiting: dict[int, list[Tensor]] = {seed: [] for seed in parts}
    for _ in range(METHODS[runs[0].method][2]):
        found = {}
        for seed, (train_set, _) in parts.items():
            if not waiting[seed]:
                waiting[seed] = list(torch.randperm(len(train_set), generator=orders[seed]).split(BATCH_SIZE))
            found[seed] = train_set[waiting[seed].pop()]
        yield tuple(torch.stack([found[run.seed][part] for run in runs]) for part in (0, 1))


def measured(
    run: Run, model: nn.Module | None, parts: dict[int, tuple[TensorDataset, TensorDataset]], test_set: TensorDataset
) -> dict[str, float | None]:
    """The accuracy that the phase asks for and, in a test run, training loss and sharpness."""
    if model is None:
        return {"accuracy": None, "train_loss": None, "sharpness": None}
    train_set, validation_set = parts[run.seed]
    if run.phase == "tune":
        return {"accuracy": evaluate(model, validation_set).accuracy, "train_loss": None, "sharpness": None}
    hessian = HessianOperator(model, nn.functional.cross_entropy, train_set[:SHARPNESS_SAMPLES])
    sharpness = estimate_spectrum(hessian, num_matvecs=PRODUCTS, seed=run.seed).renyi_sharpness(ALPHA)
    return {
        "accuracy": evaluate(model, test_set).accuracy,
        "train_loss": evaluate(model, train_set).loss,
        "sharpness": float(sharpness),
    }


def make_optimizer(runs: list[Run], parameters: list[Tensor]) -> torch.optim.Optimizer:
    """The base optimizer, or the two-pass one over it."""
    base, _, settings = BASES[runs[0].base]
    settings = {"lr": runs[0].lr, "weight_decay": WEIGHT_DECAY, **settings}
    method = METHODS[runs[0].method][0]
    if method is None:
        return base(parameters, **settings)
    return each_model(method, [run.rho for run in runs])(parameters, base, **settings)


class Grid:
    """The settings that have been tried for one base and method, by their powers of the grid's factor."""

    def __init__(self, records: Records, base: str, method: str, splits: int) -> None:
        self.records, self.base, self.method = records, base, method
        self.seeds = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + splits)
        self.lr_powers = [-1, 0, 1]
        self.rho_powers = [0] if METHODS[method][1] is None else [-1, 0, 1]

    def runs(self, powers: tuple[int, int]) -> list[Run]:
        """One training for each split."""
        first_lr, first_rho = BASES[self.base][1], METHODS[self.method][1]
        lr = _short(first_lr * GRID_FACTOR ** powers[0])
        rho = None if first_rho is None else _short(first_rho * GRID_FACTOR ** powers[1])
        return [Run(self.base, self.method, lr, rho, seed, "tune") for seed in self.seeds]

    def points(self) -> list[tuple[int, int]]:
        return list(itertools.product(self.lr_powers, self.rho_powers))

    def accuracies(self, powers: tuple[int, int]) -> list[float]:
        return [self.records.known[run]["accuracy"] or 0.0 for run in self.runs(powers)]

    def best(self) -> tuple[int, int]:
        """The point with the best mean accuracy; of equal ones the smaller ρ, then the smaller rate."""
        return max(self.points(), key=lambda p: (statistics.fmean(self.accuracies(p)), -p[1], -p[0]))

    def extend(self) -> bool:
        """Extend the grid beyond each edge that its best point lies at; whether there was one."""
        extended = False
        for tried, power in zip((self.lr_powers, self.rho_powers), self.best(), strict=True):
            if len(tried) > 1 and power in (min(tried), max(tried)):
                tried.append(power + (1 if power == max(tried) else -1))
                extended = True
        return extended


def _short(value: float) -> float:
    return float(f"{value:.3g}")


def tune(records: Records, bases: list[str], splits: int, jobs: int) -> dict[tuple[str, str], Grid]:
    """The grids of all pairs; those that are still at an edge after the last extension are reported by `at_edge`."""
    tuned = [method for method in METHODS if method != EQUAL_STEPS]
    grids = {(base, method): Grid(records, base, method, splits) for base in bases for method in tuned}
    open_grids = list(grids.values())
    for _ in range(MAX_EXTENSIONS + 1):
        records.compute([run for grid in open_grids for p in grid.points() for run in grid.runs(p)], jobs, "tuning")
        open_grids = [grid for grid in open_grids if grid.extend()]
        if not open_grids:
            break
    return grids


def curve(grid: Grid) -> list[dict[str, object]]:
    """Every setting that was tried, with its validation accuracy."""
    return [
        {"lr": grid.runs(p)[0].lr, "rho": grid.runs(p)[0].rho, "accuracy": mean_and_error(grid.accuracies(p))}
        for p in sorted(grid.points())
        if all(run in grid.records.known for run in grid.runs(p))
    ]


def unless_diverged(values: list[float | None]) -> dict[str, float] | None:
    """Mean and standard error, ``None`` if a training diverged."""
    return None if None in values else mean_and_error(values)


def differences(own: list[dict], plain: list[dict], key: str) -> dict[str, float] | None:
    """Mean and standard error of the differences, paired by seed."""
    pairs = [(a[key], b[key]) for a, b in zip(own, plain, strict=True)]
    return unless_diverged([None if None in pair else pair[0] - pair[1] for pair in pairs])


def rows(grids: dict[tuple[str, str], Grid], tests: dict[tuple[str, str], list[Run]]) -> list[dict[str, object]]:
    """One record for each base and method, with differences to the plain base that are paired by seed."""
    table = []
    for (base, method), runs in tests.items():
        known = next(iter(grids.values())).records.known
        own, plain = ([known[run] for run in some] for some in (runs, tests[base, "plain"]))
        steps = METHODS[method][2]
        table.append(
            {
                "base": base,
                "method": method,
                "lr": runs[0].lr,
                "rho": runs[0].rho,
                "steps": steps,
                "gradients": steps * (1 if METHODS[method][0] is None else 2),
                "accuracy": unless_diverged([r["accuracy"] for r in own]),
                "less_plain": None if method == "plain" else differences(own, plain, "accuracy"),
                "train_loss": unless_diverged([r["train_loss"] for r in own]),
                "sharpness": unless_diverged([r["sharpness"] for r in own]),
                "sharpness_less_plain": None if method == "plain" else differences(own, plain, "sharpness"),
                "accuracies": [r["accuracy"] for r in own],
            }
        )
    return table


def main(arguments: list[str] | None = None) -> None:
    """Tune, test, print the table, write the JSON file."""
    parser = argument_parser(__doc__, "base_optimizers")
    parser.add_argument("--records", type=Path, default=Path("build/base_optimizers.jsonl"), help="(%(default)s)")
    parser.add_argument("--seeds", type=positive, help="test trainings of each (12; with --quick 2)")
    parser.add_argument("--jobs", type=positive, default=2, help="processes, of one thread each (%(default)s)")
    options = parser.parse_args(arguments)
    circumstances = prepare(parser, options)
    records = Records(
        options.records,
        Run,
        train_together,
        *("accuracy", "train_loss", "sharpness"),
        cut=chunks_by(lambda run: (run.base, run.method, run.lr, run.phase), MODELS_AT_ONCE),
    )
    bases = ["SGD"] if options.quick else list(BASES)
    splits, seeds = (2, options.seeds or 2) if options.quick else (SPLITS, options.seeds or 12)
    grids = tune(records, bases, splits, options.jobs)
    tests = {}
    for base, method in itertools.product(bases, METHODS):
        grid = grids[base, "plain" if method == EQUAL_STEPS else method]
        best = grid.runs(grid.best())[0]
        tests[base, method] = [Run(base, method, best.lr, best.rho, seed, "test") for seed in range(seeds)]
    records.compute([run for runs in tests.values() for run in runs], options.jobs, "test")
    table = rows(grids, tests)
    show("accuracy and paired differences, mean / standard error", [{**r, "accuracies": None} for r in table])
    tuning = [{"base": b, "method": m, "settings": curve(grid)} for (b, m), grid in grids.items()]
    edges = [f"{method} over {base}" for (base, method), grid in grids.items() if grid.extend()]
    finish(
        options.out,
        circumstances,
        gradients=GRADIENTS,
        batch_size=BATCH_SIZE,
        splits=splits,
        seeds=seeds,
        alpha=ALPHA,
        at_edge=edges,
        methods=table,
        tuning=tuning,
    )


if __name__ == "__main__":
    main()
