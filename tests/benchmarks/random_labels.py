"""Measures of sharpness on networks that fit 0 to 60 % random labels, all stopped at the same training loss.

    python tests/benchmarks/random_labels.py

For each seed the same 1,000 samples of MNIST-1D, more and more of them with a label drawn uniformly from the ten
classes (so a tenth of the drawn labels are right by chance). The more labels are random, the larger is the error gap:
a measure that is large where networks generalize badly has a positive τ with it within a seed. Seeds are independent
repetitions, and the interval is over seeds.

Networks that the JSON file already holds are not trained again. Finished ones are also written to a table at once, so
that an interrupted run resumes. The course has a copy of the JSON file (``rl.course.load_results``).
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from _common import argument_parser, finish, positive, prepare, show
from scipy import stats
from scipy.stats import kendalltau
from torch import Tensor
from torch.nn.functional import cross_entropy

import renyi_lab as rl

LEVELS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
NUM_SEEDS = 12
NUM_SAMPLES, WIDTHS = 1000, (40, 100, 100, 10)
# (learning rate, training loss at which it ends): the small rate at the end reaches the last loss without overshoot.
PHASES = ((0.05, 0.02), (0.005, 0.01))
MOMENTUM, BATCH_SIZE, MOST_EPOCHS = 0.9, 50, 300
NUM_MATVECS = 300
ALPHAS = (1.0, 1.5, 2.0)  # at smaller orders these networks need many more products
MEASURES = (*(f"renyi_sharpness_{alpha:g}" for alpha in ALPHAS), "trace", "lambda_max", "parameter_norm")
GAPS = ("error_gap", "loss_gap")


def noisy_sample(seed: int, level: float, num_samples: int) -> tuple[Tensor, Tensor]:
    """``num_samples`` training curves, a share ``level`` of the labels drawn anew; nested over levels."""
    x, y = rl.datasets.mnist1d()[0].tensors
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(x), generator=generator)[:num_samples]
    drawn = torch.rand(num_samples, generator=generator) < level
    labels = torch.randint(10, (num_samples,), generator=generator)
    return x[chosen], torch.where(drawn, labels, y[chosen])


def fit(model: torch.nn.Module, x: Tensor, y: Tensor, seed: int, most_epochs: int) -> int:
    """SGD with momentum, without weight decay, until the training loss is that of the last phase; epochs needed."""
    generator, epoch = torch.Generator().manual_seed(seed), 0
    for lr, target in PHASES:
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=MOMENTUM)
        while epoch < most_epochs and rl.evaluate(model, (x, y)).loss > target:
            for batch in torch.randperm(len(x), generator=generator).split(BATCH_SIZE):
                optimizer.zero_grad()
                cross_entropy(model(x[batch]), y[batch]).backward()
                optimizer.step()
            epoch += 1
    return epoch


def network(seed: int, level: float, *, num_samples: int, most_epochs: int) -> dict[str, Any]:
    """Train and measure one network."""
    x, y = noisy_sample(seed, level, num_samples)
    model = rl.models.mlp(*WIDTHS, seed=seed)
    epochs = fit(model, x, y, seed, most_epochs)
    on_train, on_test = rl.evaluate(model, (x, y)), rl.evaluate(model, rl.datasets.mnist1d()[1])
    operator = rl.HessianOperator(model, cross_entropy, (x, y))
    spectrum = rl.estimate_spectrum(operator, num_matvecs=NUM_MATVECS)
    measures = [spectrum.renyi_sharpness(alpha).value for alpha in ALPHAS]
    measures += [spectrum.trace.value, spectrum.max_eigenvalue]
    measures += [float(torch.nn.utils.parameters_to_vector(model.parameters()).detach().norm())]
    return {
        "seed": seed,
        "random_labels": level,
        "epochs": epochs,
        "train_loss": on_train.loss,
        "train_accuracy": on_train.accuracy,
        "test_accuracy": on_test.accuracy,
        "error_gap": on_train.accuracy - on_test.accuracy,
        "loss_gap": on_test.loss - on_train.loss,
        "gradient_norm": float(operator.gradient().norm()),
        "negative_fraction": spectrum.negative_fraction,
        **dict(zip(MEASURES, measures, strict=True)),
    }


def taus(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Mean over seeds of Kendall's τ within a seed, with a 95 % interval from Student's t."""
    rows = []
    for measure in MEASURES:
        row: dict[str, Any] = {"measure": measure}
        for gap in GAPS:
            found = np.array([kendalltau(part[measure], part[gap]).statistic for _, part in frame.groupby("seed")])
            error = found.std(ddof=1) / np.sqrt(len(found)) if len(found) > 1 else np.nan
            half = float(stats.t.ppf(0.975, len(found) - 1) * error)
            row |= {gap: float(found.mean()), f"{gap}_half_width": None if np.isnan(half) else half}
        rows.append(row)
    return rows


def known_networks(out: Path, table: Path) -> list[dict[str, Any]]:
    """The networks of an interrupted run, or else those of the JSON file."""
    if table.exists():
        return pd.read_csv(table).to_dict("records")
    return json.loads(out.read_text(encoding="utf-8")).get("networks", []) if out.exists() else []


def main(arguments: list[str] | None = None) -> None:
    """Train what is missing, print the tables, write the JSON file."""
    parser = argument_parser(__doc__, "random_labels")
    parser.add_argument("--seeds", type=positive, default=NUM_SEEDS, help="independent repetitions (%(default)s)")
    parser.add_argument("--table", type=Path, default=Path("build/random_labels.csv"), help="(%(default)s)")
    options = parser.parse_args(arguments)
    circumstances = prepare(parser, options)
    seeds, levels, size = options.seeds, LEVELS, {"num_samples": NUM_SAMPLES, "most_epochs": MOST_EPOCHS}
    table = options.table
    if options.quick:
        seeds, levels, size = 2, (0.0, 0.3, 0.6), {"num_samples": 100, "most_epochs": 3}
        table = options.out.with_suffix(".csv")
        table.unlink(missing_ok=True)
        options.out.unlink(missing_ok=True)
    table.parent.mkdir(parents=True, exist_ok=True)
    rows = known_networks(options.out, table)
    known = {(row["seed"], row["random_labels"]) for row in rows}
    for seed in range(seeds):
        for level in levels:
            if (seed, level) in known:
                continue
            start = time.process_time()
            row = network(seed, level, **size)
            rows.append(row | {"cpu_seconds": time.process_time() - start})
            pd.DataFrame(rows).to_csv(table, index=False, float_format="%.6g")
            print(f"seed {seed}, {level:.0%} random labels: error gap {row['error_gap']:.3f}", flush=True)
    frame = pd.DataFrame(rows)
    frame = frame[frame["seed"] < seeds]
    correlations = taus(frame)
    means = frame.groupby("random_labels").mean().drop(columns="seed").reset_index()
    show("Kendall's τ within a seed, mean over seeds", correlations)
    show("Means over seeds", means.to_dict("records"))
    finish(
        options.out,
        circumstances,
        seeds=seeds,
        kendall=correlations,
        means=means.to_dict("records"),
        networks=frame.to_dict("records"),
        cpu_minutes=float(frame["cpu_seconds"].sum() / 60),
    )


if __name__ == "__main__":
    main()
