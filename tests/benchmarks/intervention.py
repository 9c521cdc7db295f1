"""Does moving Rényi sharpness at equal training loss move the loss gap, the calibrated test loss, the error?

    python tests/benchmarks/intervention.py --records intervention.jsonl --threads 1

Fully connected networks are trained on MNIST-1D with a penalty on the collision entropy of the true Hessian
(`renyi_lab.optim.collision_entropy_penalty`) and stopped at the first epoch whose training loss, over the whole
training set, is at most 0.1. Differences from plain training are paired by seed: same initial weights, same order of
the data. The coefficients were chosen on other seeds (1000 and 1001) by how far S moved and whether the goal was
reached, not by test results. Test data: 10,000 fresh samples of the generator (seed 43); the temperature is fitted to
one fifth of them, and all test quantities are those of the other four fifths. Every training is one line of the
records: an interrupted run resumes.
"""

from __future__ import annotations

import functools
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from _common import argument_parser, finish, positive, prepare, show
from _records import read_records
from _stacked import (
    BATCH_SIZE,
    LR,
    MAX_NORM,
    MOMENTUM,
    NUM_PROBES,
    PLAIN_EPOCHS,
    WEIGHT_DECAY,
    Member,
    Shape,
    Trained,
    train_stack,
)
from scipy.optimize import minimize_scalar
from scipy.stats import t
from torch import Tensor, nn
from torch.nn import functional as F

import renyi_lab as rl

GOAL, MAX_EPOCHS = 0.1, 250
SPECTRUM_SAMPLES, SPECTRUM_PRODUCTS = 2000, 100
TEST_SEED, NUM_FRESH, NUM_VALIDATION = 43, 10_000, 2000
ALPHAS = (1.0, 1.5, 2.0)
SHAPES = {
    "MLP 40-64-64-10, ReLU": Shape((40, 64, 64, 10), "relu"),
    "MLP 40-48-48-48-10, tanh": Shape((40, 48, 48, 48, 10), "tanh"),
}
NOISE = "random sign"
CONDITIONS: dict[str, dict[str, dict[str, Any]]] = {
    "MLP 40-64-64-10, ReLU": {
        "plain": {"mu": 0.0, "nu": 0.0},
        NOISE: {"mu": 0.1, "nu": 0.2, "random_sign": True},
        "H₂ up, weak": {"mu": 0.05, "nu": 0.1},
        "H₂ up": {"mu": 0.1, "nu": 0.2},
        "H₂ up, trace held": {"mu": 0.075, "nu": 0.19},
        "trace down": {"mu": 0.0, "nu": -0.1},
        "H₂ down": {"mu": -0.05, "nu": -0.15, "start": 0.3},
    },
    "MLP 40-48-48-48-10, tanh": {
        "plain": {"mu": 0.0, "nu": 0.0},
        NOISE: {"mu": 0.075, "nu": 0.15, "random_sign": True},
        "H₂ up, weak": {"mu": 0.05, "nu": 0.1},
        "H₂ up": {"mu": 0.075, "nu": 0.15},
        "H₂ up, trace held": {"mu": 0.075, "nu": 0.16},
        "trace down": {"mu": 0.0, "nu": -0.05},
        "H₂ down": {"mu": -0.03, "nu": -0.06, "start": 0.3},
    },
}
# name in the table -> key of a result, or how to compute it from one
QUANTITIES: dict[str, Callable[[dict[str, Any]], float]] = {
    "S_1": lambda r: r["sharpness"][0],
    "S_1.5": lambda r: r["sharpness"][1],
    "S_2": lambda r: r["sharpness"][2],
    "log_trace": lambda r: math.log(r["trace"]),
    "log_lambda_max": lambda r: math.log(r["lambda_max"]),
    "norm": lambda r: r["norm"],
    "train_loss": lambda r: r["train_loss"],
    "test_loss": lambda r: r["test_loss"],
    "loss_gap": lambda r: r["test_loss"] - r["train_loss"],
    "calibrated_test_loss": lambda r: r["calibrated_test_loss"],
    "temperature": lambda r: r["temperature"],
    "test_error": lambda r: r["test_error"],
    "steps": lambda r: r["steps"],
}


@dataclass(frozen=True)
class Run:
    """One training; equal runs have equal results, except for rounding."""

    shape: str
    mu: float
    nu: float
    seed: int
    start: float | None = None
    random_sign: bool = False
    max_epochs: int = MAX_EPOCHS

    @property
    def member(self) -> Member:
        return Member(self.mu, self.nu, self.seed, self.start, self.random_sign)


@functools.cache
def data() -> dict[str, tuple[Tensor, Tensor]]:
    """The training set; fresh samples to fit temperatures to, and others to test on."""
    parts = rl.datasets.mnist1d(num_samples=NUM_FRESH, seed=TEST_SEED)
    fresh = [torch.cat(tensors) for tensors in zip(*(part.tensors for part in parts), strict=True)]
    return {
        "train": rl.datasets.mnist1d()[0].tensors,
        "validation": tuple(part[:NUM_VALIDATION] for part in fresh),
        "test": tuple(part[NUM_VALIDATION:] for part in fresh),
    }


def measure(trained: Trained) -> dict[str, Any]:
    """Losses, error and the spectrum of the true Hessian on the first training samples."""
    (x, y), (x_fit, y_fit), (x_test, y_test) = data().values()
    with torch.no_grad():
        fit, scores = trained.model(x_fit), trained.model(x_test)

    def fitted_loss(log_temperature: float) -> float:
        return F.cross_entropy(fit / math.exp(log_temperature), y_fit).item()

    temperature = math.exp(minimize_scalar(fitted_loss, bounds=(-2.0, 4.0), method="bounded").x)
    operator = rl.HessianOperator(trained.model, F.cross_entropy, (x[:SPECTRUM_SAMPLES], y[:SPECTRUM_SAMPLES]))
    spectrum = rl.estimate_spectrum(operator, num_matvecs=SPECTRUM_PRODUCTS, seed=0)
    sharpness, trace = [spectrum.renyi_sharpness(alpha) for alpha in ALPHAS], spectrum.trace_of(lambda values: values)
    return {
        "reached": trained.reached,
        "train_loss": trained.train_loss,
        "epochs": trained.epochs,
        "steps": trained.steps,
        "test_loss": F.cross_entropy(scores, y_test).item(),
        "test_error": (scores.argmax(1) != y_test).double().mean().item(),
        "temperature": temperature,
        "calibrated_test_loss": F.cross_entropy(scores / temperature, y_test).item(),
        "sharpness": [float(s) for s in sharpness],
        "sharpness_error": [s.standard_error for s in sharpness],
        "trace": float(trace),
        "trace_error": trace.standard_error,
        "lambda_max": float(spectrum.nodes.max()),
        "norm": nn.utils.parameters_to_vector(trained.model.parameters()).norm().item(),
    }


class Results:
    """The file of records: read once, then only appended to."""

    def __init__(self, path: Path) -> None:
        self.path, self.known = path, read_records(path, Run, "sharpness", "calibrated_test_loss")

    def compute(self, runs: Sequence[Run]) -> None:
        """Compute the runs that are not in the file yet, in stacks of one shape."""
        missing = [run for run in runs if run not in self.known]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        stacks: dict[tuple[str, bool], list[Run]] = {}  # plain networks apart, since they need no products
        for run in missing:
            stacks.setdefault((run.shape, run.mu == run.nu == 0), []).append(run)
        for (shape, _), same in sorted(stacks.items()):
            self._train(SHAPES[shape], same)

    def _train(self, shape: Shape, runs: Sequence[Run]) -> None:
        of_member, start = {run.member: run for run in runs}, time.perf_counter()
        x, y = data()["train"]
        for trained in train_stack(shape, list(of_member), x, y, goal=GOAL, max_epochs=runs[0].max_epochs):
            run, result = of_member[trained.member], measure(trained)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"run": asdict(run), "result": result}) + "\n")
            self.known[run] = result
            seconds = time.perf_counter() - start
            print(f"{seconds:.0f} s: {run}, {trained.epochs} epochs, {trained.train_loss:.4f}", flush=True)


def runs_of(shape: str, name: str, seeds: range, max_epochs: int) -> list[Run]:
    return [Run(shape, seed=seed, max_epochs=max_epochs, **CONDITIONS[shape][name]) for seed in seeds]


def interval(values: Sequence[float]) -> dict[str, float] | None:
    """Mean and 95 % interval of Student's t; ``None`` for fewer than two values."""
    if len(values) < 2:
        return None
    mean, error = statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))
    half = float(t.ppf(0.975, len(values) - 1)) * error
    return {"mean": mean, "low": mean - half, "high": mean + half}


def differences(found: list[dict[str, Any]], reference: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean difference of each quantity with its interval, over the seeds for which both trainings reached the goal."""
    pairs = [(a, b) for a, b in zip(found, reference, strict=True) if a["reached"] and b["reached"]]
    means = {name: interval([of(a) - of(b) for a, b in pairs]) for name, of in QUANTITIES.items()}
    return {"pairs": len(pairs), **means}


def table(known: dict[Run, dict[str, Any]], shape: str, seeds: range, max_epochs: int) -> list[dict[str, Any]]:
    """For each condition: means over the seeds that reached the goal, and differences by seed from two references."""

    def of(name: str) -> list[dict[str, Any]]:
        return [known[run] for run in runs_of(shape, name, seeds, max_epochs)]

    rows = []
    for name, settings in CONDITIONS[shape].items():
        found = of(name)
        rows.append(
            {
                "condition": name,
                **settings,
                "reached": sum(result["reached"] for result in found),
                "losses_not_reached": [result["train_loss"] for result in found if not result["reached"]],
                "means": {q: interval([get(r) for r in found if r["reached"]]) for q, get in QUANTITIES.items()},
                "less_plain": differences(found, of("plain")),
                "less_noise": differences(found, of(NOISE)),
                "largest_sharpness_error": max(max(result["sharpness_error"]) for result in found),
            }
        )
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Train what is missing, print the tables, write the JSON file."""
    parser = argument_parser(__doc__, "intervention")
    parser.add_argument("--records", type=Path, default=Path("build/intervention.jsonl"), help="(%(default)s)")
    parser.add_argument("--seeds", type=positive, help="trainings for each condition (10; with --quick 2)")
    options = parser.parse_args(arguments)
    circumstances = prepare(parser, options)
    seeds = range(options.seeds or (2 if options.quick else 10))
    max_epochs = 5 if options.quick else MAX_EPOCHS
    results = Results(options.records)
    results.compute(
        [run for shape in SHAPES for name in CONDITIONS[shape] for run in runs_of(shape, name, seeds, max_epochs)]
    )
    tables = []
    for shape in SHAPES:
        rows = table(results.known, shape, seeds, max_epochs)
        for reference in ("less_plain", "less_noise"):
            shown = ("pairs", "S_1.5", "log_trace", "loss_gap", "calibrated_test_loss", "test_error")
            records = [{"condition": row["condition"], **{q: row[reference][q] for q in shown}} for row in rows]
            show(f"{shape}: {reference.replace('_', ' ')}, mean / low / high", records)
        tables.append({"shape": shape, "conditions": rows})
    finish(
        options.out,
        circumstances,
        setting={
            "goal": GOAL,
            "max_epochs": max_epochs,
            "seeds": len(seeds),
            "lr": LR,
            "momentum": MOMENTUM,
            "weight_decay": WEIGHT_DECAY,
            "batch_size": BATCH_SIZE,
            "plain_epochs": PLAIN_EPOCHS,
            "num_probes": NUM_PROBES,
            "max_norm": MAX_NORM,
            "spectrum_samples": SPECTRUM_SAMPLES,
            "spectrum_products": SPECTRUM_PRODUCTS,
            "test_samples": NUM_FRESH - NUM_VALIDATION,
            "validation_samples": NUM_VALIDATION,
        },
        shapes=tables,
    )


if __name__ == "__main__":
    main()
