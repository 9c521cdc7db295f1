"""Test accuracy of SGD, SAM, its relatives and RSAM, every ρ tuned on validation splits of the training data.

    python tests/benchmarks/optim_accuracy.py --records accuracy.jsonl --jobs 2

ρ: from a first guess, the geometric grid (factor 1.6) is extended until its best value is no longer at an edge, by the
mean validation accuracy over splits (a fifth of the training data, another split and another initialisation each).
Then training on all training data from fresh seeds; only these models see the test set. All two-pass methods take the
same 5 plain epochs first, the same epochs and the same number of gradients; SGD is trained at equal epochs and at equal
gradients. Every training is one line of the records, written as it finishes: an interrupted run resumes, and from
complete records the table is made at once.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from _common import argument_parser, finish, positive, prepare, show
from _records import Records
from _rsam_variants import AdaptiveRSAM, LayerwiseRSAM, MixedRSAM, RadiusRSAM, with_schedule
from torch.utils.data import TensorDataset

from renyi_lab import datasets, models
from renyi_lab.optim import ASAM, RSAM, SAGM, SAM, FisherSAM, SharpnessAware
from renyi_lab.training import DivergenceError, evaluate, train

BATCH_SIZE, WARMUP_EPOCHS, GRID_FACTOR, MAX_EXTENSIONS = 128, 5, 1.6, 8
SGD = {"base": torch.optim.SGD, "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
FIRST_TUNING_SEED = 10_000


@dataclass(frozen=True)
class Method:
    """A way to make the optimizer, and where the search for ρ starts (``None``: there is no ρ)."""

    make: type[SharpnessAware] | None
    rho: float | None = None
    settings: tuple[tuple[str, object], ...] = ()
    schedule: Callable[[float], float] | None = None


def _falling(done: float) -> float:
    return 2 * (1 - done)


def _rising(done: float) -> float:
    return 2 * done


def _divergence(alpha: float) -> tuple[tuple[str, object], ...]:
    return (("alpha", alpha), ("form", "divergence"))


METHODS = {
    "SGD": Method(None),
    "SGD, equal gradients": Method(None),
    "SAM": Method(SAM, 0.35),
    "ASAM": Method(ASAM, 2.0),
    "FisherSAM": Method(FisherSAM, 0.35),
    "SAGM": Method(SAGM, 0.5),
    "RSAM paper 1.2": Method(RSAM, 0.65),
    "RSAM divergence 0.5": Method(RSAM, 0.15, _divergence(0.5)),
    "RSAM divergence 1": Method(RSAM, 0.12, _divergence(1.0)),
    "RSAM divergence 2": Method(RSAM, 0.09, _divergence(2.0)),
    "RSAM exact 2": Method(RSAM, 0.5, (("alpha", 2.0), ("form", "exact"))),
    "SAM + exact 0.5": Method(MixedRSAM, 0.3, (("alpha", 0.5),)),
    "ASAM-scaled RSAM": Method(AdaptiveRSAM, 0.09),
    "layer-wise RSAM": Method(LayerwiseRSAM, 0.12),
    "radius RSAM": Method(RadiusRSAM, 0.08),
    "RSAM divergence 2, rho falling": Method(RSAM, 0.09, _divergence(2.0), _falling),
    "RSAM divergence 2, rho rising": Method(RSAM, 0.09, _divergence(2.0), _rising),
    "SAM, rho falling": Method(SAM, 0.35, (), _falling),
    "SAM, rho rising": Method(SAM, 0.35, (), _rising),
}


@dataclass(frozen=True)
class Task:
    """Data, a model, and what is compared on them; ``splits``: validation splits for each ρ."""

    data: Callable[[], tuple[TensorDataset, TensorDataset]]
    model: Callable[[int], torch.nn.Module]
    epochs: int
    methods: tuple[str, ...] = tuple(METHODS)
    splits: int = 3


TASKS = {
    "mnist1d-mlp": Task(datasets.mnist1d, lambda seed: models.mlp(40, 100, 100, 10, seed=seed), 40),
    "digits-mlp": Task(datasets.digits, lambda seed: models.mlp(64, 64, 10, seed=seed), 40),
    # Five splits: with two, SAM's ρ was tuned to more than twice the value and a difference of 2.4 points appeared.
    "mnist1d-cnn": Task(datasets.mnist1d, lambda seed: models.cnn1d(seed=seed), 20, tuple(METHODS)[:11], splits=5),
}


@dataclass(frozen=True)
class Run:
    """One training; equal runs have equal results."""

    task: str
    method: str
    rho: float | None
    seed: int
    phase: str  # "tune": accuracy on the validation split; "test": on the test set
    epochs: int


def train_once(run: Run) -> dict[str, object]:
    """Train and return the accuracy (``None``: training diverged) and the number of gradients."""
    torch.set_num_threads(1)
    task, method = TASKS[run.task], METHODS[run.method]
    train_set, test_set = task.data()
    if run.phase == "tune":
        train_set, test_set = split(train_set, run.seed)
    steps_per_epoch = math.ceil(len(train_set) / BATCH_SIZE)

    def make(params: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        if method.make is None:
            return torch.optim.SGD(params, **{name: value for name, value in SGD.items() if name != "base"})
        warmup = WARMUP_EPOCHS * steps_per_epoch
        optimizer = method.make(params, rho=run.rho, warmup_steps=warmup, **dict(method.settings), **SGD)
        if method.schedule is not None:
            with_schedule(optimizer, run.epochs * steps_per_epoch, method.schedule)
        return optimizer

    model = task.model(run.seed)
    try:
        history = train(
            model,
            train_set,
            epochs=run.epochs,
            batch_size=BATCH_SIZE,
            optimizer=make,
            seed=run.seed,
            progress=False,
        )
    except DivergenceError:
        return {"accuracy": None, "gradients": None, "seconds": None}
    result = evaluate(model, test_set)
    return {"accuracy": result.accuracy, "gradients": history.num_gradients, "seconds": round(history.seconds, 2)}


def train_each(runs: list[Run]) -> list[dict[str, object]]:
    return [train_once(run) for run in runs]


def split(train_set: TensorDataset, seed: int) -> tuple[TensorDataset, TensorDataset]:
    """Four fifths to train on and one fifth to validate on, drawn by ``seed``."""
    order = torch.randperm(len(train_set), generator=torch.Generator().manual_seed(seed))
    held_out = len(train_set) // 5
    return TensorDataset(*train_set[order[held_out:]]), TensorDataset(*train_set[order[:held_out]])


class Results(Records):
    """The trainings done so far."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, Run, train_each, "accuracy")

    def accuracies(self, runs: list[Run]) -> list[float]:
        """One value per run; 0 where training diverged."""
        return [self.known[run]["accuracy"] or 0.0 for run in runs]


def tuned_rhos(
    results: Results, task: str, names: Sequence[str], splits: int, jobs: int
) -> tuple[dict[str, float | None], list[str], dict[str, list[dict[str, object]]]]:
    """The ρ with the best mean validation accuracy (ties: the smaller); whose ρ is still at an edge; the curves."""

    def runs(name: str, power: int) -> list[Run]:
        rho = float(f"{METHODS[name].rho * GRID_FACTOR**power:.3g}")
        seeds = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + splits)
        return [Run(task, name, rho, seed, "tune", TASKS[task].epochs) for seed in seeds]

    def best(name: str) -> int:
        return max(grids[name], key=lambda power: (statistics.fmean(results.accuracies(runs(name, power))), -power))

    grids = {name: [-1, 0, 1] for name in names if METHODS[name].rho is not None}
    for extension in range(MAX_EXTENSIONS + 1):
        wanted = [run for name, grid in grids.items() for power in grid for run in runs(name, power)]
        results.compute(wanted, jobs, f"{task}, tuning")
        at_edge = {name: best(name) for name, grid in grids.items() if best(name) in (min(grid), max(grid))}
        if not at_edge or extension == MAX_EXTENSIONS:
            break
        for name, power in at_edge.items():
            grids[name].append(power + (1 if power == max(grids[name]) else -1))
    curves = {
        name: [
            {"rho": runs(name, power)[0].rho, "accuracies": results.accuracies(runs(name, power))}
            for power in sorted(grid)
        ]
        for name, grid in grids.items()
    }
    return {name: runs(name, best(name))[0].rho if name in grids else None for name in names}, list(at_edge), curves


def table(results: Results, task: str, tests: dict[str, list[Run]]) -> list[dict[str, object]]:
    """One record for each method: mean, standard error, and paired differences to SAM and to ASAM."""
    accuracy = {name: results.accuracies(runs) for name, runs in tests.items()}

    def less(name: str, other: str) -> dict[str, float] | None:
        if other not in accuracy or other == name:
            return None
        return mean_and_error([a - b for a, b in zip(accuracy[name], accuracy[other], strict=True)])

    return [
        {
            "method": name,
            "rho": runs[0].rho,
            "epochs": runs[0].epochs,
            "gradients": results.known[runs[0]]["gradients"],
            "accuracy": mean_and_error(accuracy[name]),
            "less_sam": less(name, "SAM"),
            "less_asam": less(name, "ASAM"),
        }
        for name, runs in tests.items()
    ]


def mean_and_error(values: list[float]) -> dict[str, float]:
    return {"mean": statistics.fmean(values), "error": statistics.stdev(values) / math.sqrt(len(values))}


def final_runs(task: str, rhos: dict[str, float | None], seeds: range) -> dict[str, list[Run]]:
    """The trainings on all training data."""
    epochs = {name: TASKS[task].epochs for name in rhos}
    if "SGD, equal gradients" in epochs:
        epochs["SGD, equal gradients"] = 2 * TASKS[task].epochs - WARMUP_EPOCHS
    return {name: [Run(task, name, rho, seed, "test", epochs[name]) for seed in seeds] for name, rho in rhos.items()}


def main(arguments: list[str] | None = None) -> None:
    """Tune, test, print the tables, write the JSON file."""
    parser = argument_parser(__doc__, "optim_accuracy")
    parser.add_argument("tasks", nargs="*", default=list(TASKS), help=f"of {', '.join(TASKS)}; default: all")
    parser.add_argument("--methods", nargs="*", help="default: all; for the CNN those that are not variants")
    parser.add_argument("--records", type=Path, default=Path("build/optim_accuracy.jsonl"), help="(%(default)s)")
    parser.add_argument("--seeds", type=positive, help="test trainings for each method (10; with --quick 2)")
    parser.add_argument("--first-seed", type=int, default=0, help="other seeds repeat the test (%(default)s)")
    parser.add_argument("--jobs", type=positive, default=2, help="processes, of one thread each (%(default)s)")
    options = parser.parse_args(arguments)
    for choice, known in ((options.tasks, TASKS), (options.methods or (), METHODS)):
        if unknown := set(choice) - set(known):
            parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    circumstances = prepare(parser, options)
    results = Results(options.records)
    seeds = range(options.first_seed, options.first_seed + (options.seeds or (2 if options.quick else 10)))
    tables = []
    for name in options.tasks:
        task = TASKS[name]
        splits = 1 if options.quick else task.splits
        rhos, at_edge, curves = tuned_rhos(results, name, options.methods or task.methods, splits, options.jobs)
        tests = final_runs(name, rhos, seeds)
        results.compute([run for runs in tests.values() for run in runs], options.jobs, f"{name}, test")
        rows = table(results, name, tests)
        show(f"{name}: accuracy and paired differences, mean / standard error", rows)
        numbers = {"splits": splits, "seeds": len(seeds), "rho_at_edge": at_edge}
        tables.append({"task": name, **numbers, "tuning": curves, "methods": rows})
    finish(options.out, circumstances, tasks=tables)


if __name__ == "__main__":
    main()
