"""Two-layer networks on sparse parity: which of them generalizes, and what sharpness says of it.

    python tests/benchmarks/counterexamples.py

The three cases of Wen, Li & Ma 2023 (arXiv:2307.11007): without biases, with biases, with layer norm; trained by
gradient descent, with weight decay, and by 1-SAM (the mean of SAM with batch size 1 over all samples), beside the
constructed memorizing and four-neuron networks. Then the run in which test accuracy falls while sharpness improves.

Spectra are those of the Hessian at interpolation: a trained network is first moved there by Gauss-Newton steps of
least length (``to_interpolation``), and ``moved`` is the length of that move relative to the weights. Names that begin
with ``as trained`` are those of the Gauss-Newton matrix before the move, which is the Hessian only where a network
interpolates. Accuracies are those of the network as it was trained. About five minutes on one thread. The course has a
copy of the JSON file.
"""

from __future__ import annotations

import math
import time
from typing import Any, NamedTuple

import numpy as np
from _common import argument_parser, finish, positive, prepare, show
from scipy.stats import kendalltau
from torch import nn
from torch.utils.data import TensorDataset

import renyi_lab as rl
from renyi_lab import counterexamples

NUM_SEEDS = 5
NUM_SAMPLES, NUM_FEATURES, WIDTH, NUM_TEST = 100, 30, 100, 2000
ALPHAS = (0.5, 1.0, 1.5, 2.0)
BLOCKS = {"": None, "layer1 ": "layer1.*", "layer2 ": "layer2.*"}


class Setting(NamedTuple):
    """One row: an architecture and how it is trained."""

    network: str
    method: str
    lr: float
    rho: float
    decay: float
    steps: int


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "no bias": {"bias": False},
    "bias": {"bias": True},
    "layer norm": {"bias": True, "norm": "layer"},
}
SETTINGS = (
    Setting("no bias", "gradient descent", 0.04, 0.0, 0.0, 4000),
    Setting("no bias", "weight decay", 0.04, 0.0, 0.01, 12000),
    Setting("no bias", "1-SAM", 0.04, 0.1, 0.0, 8000),
    Setting("bias", "gradient descent", 0.04, 0.0, 0.0, 4000),
    Setting("bias", "weight decay", 0.04, 0.0, 0.01, 12000),
    Setting("bias", "1-SAM", 0.04, 0.1, 0.0, 8000),
    Setting("layer norm", "gradient descent", 0.1, 0.0, 0.0, 3000),
    Setting("layer norm", "1-SAM", 0.3, 0.3, 0.0, 3000),
)
FIRST_LAYER_NORM = 3.0  # with layer norm
FLAT = 1e-12  # largest eigenvalue that is rounding
# The run in which accuracy falls, and the same without biases: settings, and the steps at which it is looked at.
LONG_RUNS = (
    (Setting("bias", "1-SAM", 0.1, 0.2, 0.0, 30000), (250, 500, 1000, 2000, *range(3000, 30001, 3000))),
    (Setting("no bias", "1-SAM", 0.1, 0.2, 0.0, 12000), (250, 500, 1000, *range(2000, 12001, 2000))),
)
LATE = 2000  # τ between sharpness and test loss is taken from this step on


def data(seed: int) -> tuple[TensorDataset, TensorDataset]:
    train_set, test_set = rl.datasets.xor(
        num_samples=NUM_SAMPLES, num_features=NUM_FEATURES, num_test=NUM_TEST, targets="signs", seed=seed
    )
    return train_set, test_set


def trained(setting: Setting, seed: int, keep: tuple[int, ...]) -> dict[int, nn.Module]:
    """The network of this setting and seed after the steps ``keep``."""
    model = rl.models.two_layer(NUM_FEATURES, WIDTH, **ARCHITECTURES[setting.network], seed=seed).double()
    kept: dict[int, nn.Module] = counterexamples.train_one_sam(
        model,
        data(seed)[0],
        rho=setting.rho,
        lr=setting.lr,
        steps=max(keep),
        weight_decay=setting.decay,
        first_layer_norm=FIRST_LAYER_NORM if setting.network == "layer norm" else None,
        keep=keep,
    )
    return kept


def measured(model: nn.Module, seed: int) -> dict[str, float]:
    """Losses and accuracy of a network, and the spectra at the interpolating network beside it."""
    train_set, test_set = data(seed)
    losses = [rl.evaluate(model, part, loss_fn=nn.functional.mse_loss).loss for part in (train_set, test_set)]
    beside = counterexamples.to_interpolation(model, train_set)
    moves = [(b - a).square().sum() / a.square().sum() for a, b in [(flat(model), flat(beside))]]
    row = {
        "test_accuracy": counterexamples.sign_accuracy(model, test_set),
        "train_loss": losses[0],
        "test_loss": losses[1],
        "moved": float(moves[0]) ** 0.5,
    }
    x, y = (tensor.double() for tensor in train_set.tensors)
    # The Gauss-Newton matrix of a squared loss does not depend on the targets.
    as_trained = rl.gram_spectrum(model, nn.functional.mse_loss, (x, model(x).detach()))
    row["as trained trace"] = float(as_trained.trace)
    row["as trained lambda_max"] = float(as_trained.max_eigenvalue)
    row.update({f"as trained S_{alpha:g}": float(as_trained.renyi_sharpness(alpha)) for alpha in ALPHAS})
    for prefix, params in BLOCKS.items():
        spectrum = rl.gram_spectrum(beside, nn.functional.mse_loss, (x, y), params=params)
        row[f"{prefix}trace"] = float(spectrum.trace)
        row[f"{prefix}lambda_max"] = float(spectrum.max_eigenvalue)
        for alpha in ALPHAS:
            # With layer norm, the constructed networks have no curvature in the first layer at all.
            is_flat = row[f"{prefix}lambda_max"] < FLAT
            row[f"{prefix}S_{alpha:g}"] = math.nan if is_flat else float(spectrum.renyi_sharpness(alpha))
    return row


def flat(model: nn.Module) -> Any:
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def summary(rows: list[dict[str, float]]) -> dict[str, list[float]]:
    """Mean and standard error over seeds of every quantity."""
    table = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return {
        name: [float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0]
        for name, values in table.items()
        if np.isfinite(values).all()
    }


def constructed(num_seeds: int) -> list[dict[str, Any]]:
    """The networks that are written down."""
    rows = []
    for name, architecture in ARCHITECTURES.items():
        norm, bias = architecture.get("norm"), architecture["bias"]
        bound = counterexamples.minimal_trace(NUM_FEATURES, bias=bias, norm=norm)
        kinds = {"four neurons": lambda s: counterexamples.four_neuron_network(NUM_FEATURES, bias=bias, norm=norm)}  # noqa: B023
        if bias:
            kinds["memorizing"] = lambda s: counterexamples.memorizing_network(data(s)[0], norm=norm)  # noqa: B023
        for kind, make in kinds.items():
            seeds = [measured(make(seed), seed) for seed in range(num_seeds)]
            rows.append({"network": name, "method": kind, "minimal_trace": bound, **summary(seeds)})
    return rows


def long_run(setting: Setting, steps: tuple[int, ...], num_seeds: int) -> dict[str, Any]:
    """Every quantity along a training; within each seed, its late change, and τ of sharpness with the test loss."""
    by_seed = []
    for seed in range(num_seeds):
        kept = trained(setting, seed, steps)
        by_seed.append([measured(kept[step], seed) for step in steps])
    path = [{"step": step, **summary([rows[index] for rows in by_seed])} for index, step in enumerate(steps)]
    late = [index for index, step in enumerate(steps) if step >= LATE]
    taus = [
        {
            name: float(kendalltau([rows[i][name] for i in late], [rows[i]["test_loss"] for i in late]).statistic)
            for name in ("trace", "lambda_max", *(f"S_{alpha:g}" for alpha in ALPHAS))
        }
        for rows in by_seed
    ]
    if len(late) < 2:
        return {**setting._asdict(), "path": path, "tau": {}, "change": {}}
    names = [name for name in path[0] if name != "step"]
    changes = [{name: rows[late[-1]][name] - rows[late[0]][name] for name in names} for rows in by_seed]
    return {**setting._asdict(), "path": path, "tau": summary(taus), "change": summary(changes)}


def main(arguments: list[str] | None = None) -> None:
    parser = argument_parser(__doc__, "counterexamples")
    parser.add_argument("--seeds", type=positive, default=NUM_SEEDS, help="data sets and initializations (%(default)s)")
    parser.set_defaults(threads=1)
    options = parser.parse_args(arguments)
    circumstances, start = prepare(parser, options), time.perf_counter()
    num_seeds, short = (1, 300) if options.quick else (options.seeds, 10**9)
    rows = []
    for setting in SETTINGS:
        bound = counterexamples.minimal_trace(
            NUM_FEATURES, bias=setting.network != "no bias", norm="layer" if setting.network == "layer norm" else None
        )
        steps = min(setting.steps, short)
        seeds = [measured(trained(setting, seed, (steps,))[steps], seed) for seed in range(num_seeds)]
        rows.append({**setting._asdict(), "minimal_trace": bound, **summary(seeds)})
    built = constructed(num_seeds)
    shown = ("test_accuracy", "train_loss", "moved", "trace", "lambda_max", "S_1", "S_1.5", "layer1 S_1", "layer2 S_1")
    shown += ("as trained trace", "as trained S_1")
    show(
        "Trained and constructed: means over seeds",
        [
            {"network": r["network"], "method": r["method"], **{name: r.get(name, [None])[0] for name in shown}}
            for r in rows + built
        ],
    )
    runs = []
    for setting, steps in LONG_RUNS:
        run = long_run(setting, tuple(step for step in steps if step <= short), num_seeds)
        runs.append(run)
        title = f"{setting.network}: lr {setting.lr:g}, rho {setting.rho:g}; tau {run['tau']}"
        names = ("test_accuracy", "test_loss", "train_loss", "trace", "lambda_max", "S_0.5", "S_1", "S_1.5", "S_2")
        show(title, [{"step": point["step"], **{name: point[name][0] for name in names}} for point in run["path"]])
    seconds = round(time.perf_counter() - start, 1)
    finish(options.out, circumstances, num_seeds=num_seeds, seconds=seconds, trained=rows, constructed=built, runs=runs)


if __name__ == "__main__":
    main()
