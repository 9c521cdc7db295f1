"""Domain generalization on rotated digits: ERM, SAM, ASAM, SAGM and RSAM, one rotation left out at a time.

    python tests/benchmarks/domain_generalization.py --records domain_generalization.jsonl --jobs 2

Six domains, angles 0 to 75 degrees; MLP 64-64-64-10, SGD with momentum 0.9 and weight decay 5e-4; 32 samples of each
of the five source domains per step; 300 two-pass steps, 300 plain steps (ERM), or 600 (ERM, equal gradients). A fifth
of every source domain validates. First comparison, DomainBed's training-domain validation: for each seed and target the
setting with the best accuracy on the validation part of the *source* domains. Second comparison: the setting with the
best mean validation accuracy of all these, fixed, on the same seeds and on fresh ones. Every training is one line of
the records.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from _common import argument_parser, finish, positive, prepare, show
from _many import ManyMLPs, chunks_by, each_model
from _records import Records
from optim_accuracy import mean_and_error
from torch import Tensor, nn

from renyi_lab import datasets
from renyi_lab.optim import ASAM, RSAM, SAGM, SAM, SharpnessAware
from renyi_lab.training import evaluate

ANGLES, WIDTHS, PER_DOMAIN, STEPS = (0.0, 15.0, 30.0, 45.0, 60.0, 75.0), (64, 64, 64, 10), 32, 300
SGD = {"momentum": 0.9, "weight_decay": 5e-4}
RATES, FIRST_FRESH_SEED, MODELS_AT_ONCE = (0.1, 0.2), 100, 36
MAX_NORM = 10.0  # of ε: only RSAM's can become as long
# The class, the values of ρ, other settings, and the number of steps.
METHODS: dict[str, tuple[type[SharpnessAware] | None, tuple[float | None, ...], dict[str, float], int]] = {
    "ERM": (None, (None,), {}, STEPS),
    "ERM, equal gradients": (None, (None,), {}, 2 * STEPS),
    "SAM": (SAM, (0.1, 0.3, 1.0), {}, STEPS),
    "ASAM": (ASAM, (0.5, 1.0, 2.0), {}, STEPS),
    "SAGM": (SAGM, (0.1, 0.3, 1.0), {"alpha": 0.001}, STEPS),
    "RSAM": (RSAM, (0.065, 0.2, 0.65), {"alpha": 1.2}, STEPS),
}


@dataclass(frozen=True)
class Run:
    """One training; equal runs have equal results."""

    method: str
    lr: float
    rho: float | None
    target: float
    seed: int


@lru_cache
def parts(seed: int) -> dict[float, tuple[Tensor, ...]]:
    """Training inputs and labels and validation inputs and labels of each domain, a fifth to validate."""
    found = {}
    for angle, domain in datasets.rotated_digits(ANGLES, seed=seed).items():
        x, y = domain.tensors  # in random order
        cut = len(x) // 5
        found[angle] = (x[cut:], y[cut:], x[:cut], y[:cut])
    return found


def train_together(runs: list[Run]) -> list[dict[str, float | None]]:
    """Train runs that share method and rate: accuracy on the target; accuracy and loss on the validation parts."""
    torch.set_num_threads(1)
    make, _, settings, steps = METHODS[runs[0].method]
    many = ManyMLPs(WIDTHS, [run.seed for run in runs])
    if make is None:
        optimizer = torch.optim.SGD(many.parameters, lr=runs[0].lr, **SGD)
    else:
        each = each_model(make, [run.rho for run in runs], max_norm=MAX_NORM)
        optimizer = each(many.parameters, torch.optim.SGD, lr=runs[0].lr, **settings, **SGD)
    many.train(optimizer, batches(runs, steps))
    return [measured(run, model) for run, model in zip(runs, many.trained(), strict=True)]


def batches(runs: list[Run], steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """For each step the batch of every run; runs of one seed and target see the same ones."""
    cases = dict.fromkeys((run.target, run.seed) for run in runs)
    orders = {case: torch.Generator().manual_seed(case[1]) for case in cases}
    sources = {case: [parts(case[1])[angle] for angle in ANGLES if angle != case[0]] for case in cases}
    for _ in range(steps):
        found = {}
        for case in cases:
            rows = [torch.randint(len(x), (PER_DOMAIN,), generator=orders[case]) for x, *_ in sources[case]]
            found[case] = [
                torch.cat([domain[part][chosen] for domain, chosen in zip(sources[case], rows, strict=True)])
                for part in (0, 1)
            ]
        yield tuple(torch.stack([found[run.target, run.seed][part] for run in runs]) for part in (0, 1))


def measured(run: Run, model: nn.Module | None) -> dict[str, float | None]:
    """Accuracies and the validation loss of a trained model, if training did not diverge."""
    if model is None:
        return {"target": None, "validation": None, "validation_loss": None}
    data = parts(run.seed)
    x, y, x_held_out, y_held_out = data[run.target]
    sources = (data[angle][2:] for angle in ANGLES if angle != run.target)
    validated = evaluate(model, tuple(map(torch.cat, zip(*sources, strict=True))))
    tested = evaluate(model, (torch.cat([x, x_held_out]), torch.cat([y, y_held_out])))
    return {"target": tested.accuracy, "validation": validated.accuracy, "validation_loss": validated.loss}


def settings_of(method: str) -> list[tuple[float, float | None]]:
    return list(itertools.product(RATES, METHODS[method][1]))


class Comparison:
    """What the records of all methods, settings, targets and seeds say; accuracies in percent."""

    def __init__(self, records: Records, seeds: range, chosen: dict[str, tuple[float, float | None]] | None) -> None:
        self.records, self.seeds, self.chosen = records, seeds, chosen

    def runs(self, method: str, setting: tuple[float, float | None], target: float) -> list[Run]:
        return [Run(method, *setting, target, seed) for seed in self.seeds]

    def all_runs(self) -> list[Run]:
        return [
            run
            for target in ANGLES
            for method in METHODS
            for setting in (settings_of(method) if self.chosen is None else [self.chosen[method]])
            for run in self.runs(method, setting, target)
        ]

    def value(self, run: Run, key: str) -> float:
        """In percent; 0 where training diverged."""
        return 100 * (self.records.known[run][key] or 0.0)

    def best_by_validation(self, method: str, target: float, seed: int) -> Run:
        """DomainBed's choice: the highest validation accuracy, of equal ones the lowest validation loss."""
        if self.chosen is not None:
            return Run(method, *self.chosen[method], target, seed)
        runs = [Run(method, *setting, target, seed) for setting in settings_of(method)]
        return max(
            runs, key=lambda run: (self.value(run, "validation"), -(self.records.known[run]["validation_loss"] or 0.0))
        )

    def mean(self, method: str, setting: tuple[float, float | None], key: str) -> dict[str, float]:
        """One setting on all targets: mean over the seeds of the mean over the targets."""
        runs = [self.runs(method, setting, target) for target in ANGLES]
        by_seed = zip(*runs, strict=True)
        return mean_and_error([statistics.fmean(self.value(run, key) for run in some) for some in by_seed])

    def best_setting(self, method: str) -> tuple[float, float | None]:
        return max(settings_of(method), key=lambda setting: self.mean(method, setting, "validation")["mean"])

    def table(self) -> list[dict[str, object]]:
        """One record for each method; differences are paired by seed, each the mean over the targets."""
        chosen = {m: [[self.best_by_validation(m, t, seed) for t in ANGLES] for seed in self.seeds] for m in METHODS}
        means = {
            m: [statistics.fmean(self.value(run, "target") for run in runs) for runs in chosen[m]] for m in METHODS
        }

        def less(method: str, other: str) -> dict[str, float] | None:
            pairs = zip(means[method], means[other], strict=True)
            return None if method == other else mean_and_error([a - b for a, b in pairs])

        return [
            {
                "method": method,
                "lr": None if self.chosen is None else self.chosen[method][0],
                "rho": None if self.chosen is None else self.chosen[method][1],
                "steps": METHODS[method][3],
                "gradients": METHODS[method][3] * (1 if METHODS[method][0] is None else 2),
                "accuracy": mean_and_error(means[method]),
                "less_erm": less(method, "ERM, equal gradients"),
                "less_sam": less(method, "SAM"),
                "by_target": [
                    statistics.fmean(self.value(runs[k], "target") for runs in chosen[method])
                    for k in range(len(ANGLES))
                ],
                "by_seed": [round(value, 3) for value in means[method]],
            }
            for method in METHODS
        ]


def main(arguments: list[str] | None = None) -> None:
    """Train, choose, train again on fresh seeds, print the tables, write the JSON file."""
    parser = argument_parser(__doc__, "domain_generalization")
    parser.add_argument("--records", type=Path, default=Path("build/domain_generalization.jsonl"), help="(%(default)s)")
    parser.add_argument("--seeds", type=positive, help="seeds of the first comparison (6; with --quick 2)")
    parser.add_argument("--fresh-seeds", type=positive, help="seeds of the second comparison (16; with --quick 2)")
    parser.add_argument("--jobs", type=positive, default=2, help="processes, of one thread each (%(default)s)")
    options = parser.parse_args(arguments)
    circumstances = prepare(parser, options)
    records = Records(
        options.records,
        Run,
        train_together,
        *("target", "validation", "validation_loss"),
        cut=chunks_by(lambda run: (run.method, run.lr), MODELS_AT_ONCE),
    )
    first = Comparison(records, range(options.seeds or (2 if options.quick else 6)), None)
    records.compute(sorted(first.all_runs(), key=lambda run: run.seed), options.jobs, "first comparison")
    chosen = {method: first.best_setting(method) for method in METHODS}
    num_fresh = options.fresh_seeds or (2 if options.quick else 16)
    fresh = Comparison(records, range(FIRST_FRESH_SEED, FIRST_FRESH_SEED + num_fresh), chosen)
    records.compute(sorted(fresh.all_runs(), key=lambda run: run.seed), options.jobs, "fresh seeds")
    fixed = Comparison(records, first.seeds, chosen)
    tables = {"selected": first.table(), "fixed": fixed.table(), "fresh": fresh.table()}
    for name, table in tables.items():
        hidden = {"by_seed": None, "by_target": None}
        show(f"{name}: accuracy in percent, mean / standard error", [{**row, **hidden} for row in table])
    tuning = [
        {"method": method, "lr": setting[0], "rho": setting[1]}
        | {key: first.mean(method, setting, key) for key in ("validation", "target")}
        for method in METHODS
        for setting in settings_of(method)
    ]
    finish(
        options.out,
        circumstances,
        angles=list(ANGLES),
        seeds=len(first.seeds),
        fresh_seeds=len(fresh.seeds),
        **tables,
        tuning=tuning,
    )


if __name__ == "__main__":
    main()
