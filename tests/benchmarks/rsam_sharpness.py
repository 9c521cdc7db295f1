"""Does RSAM lower the Rényi sharpness of the true Hessian, and is its surrogate a proxy for it?

    python tests/benchmarks/rsam_sharpness.py --records build/rsam_sharpness.jsonl

Every network is an ``mlp(40, 64, 64, 10)`` on MNIST-1D, trained with SGD of momentum 0.9 until its training loss is at
most 0.1, so that sharpness is compared at equal training loss. Two parts:

- methods: SGD, SAM, RSAM, and SAM at the mean radius that RSAM took, from the same seeds;
- networks: plain SGD in 12 settings, one seed each; across them the surrogate and the true entropy are compared.

Of each network the Hessian's spectrum is estimated, and the entropies of three surrogates are computed: the squared
gradient of a batch (mean over batches), that of the whole training set, and the diagonal of the Fisher matrix. Every
training is one line of the records, written as it finishes: an interrupted run resumes. A copy of the results is
shipped with the course, ``notebooks/results/rsam_sharpness.json``.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from _common import argument_parser, finish, positive, prepare, show
from _records import read_records
from scipy.stats import kendalltau
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import renyi_lab as rl
from renyi_lab._utils.progress import progress_bar

WIDTHS, BATCH_SIZE, MOMENTUM = (40, 64, 64, 10), 128, 0.9
TARGET_LOSS, CHECK_EVERY, MAX_STEPS = 0.1, 20, 8_000
NUM_SAMPLES, NUM_MATVECS = 2000, 160  # of a spectrum
ALPHAS = (0.5, 1.0, 1.2, 1.5, 2.0)
SURROGATES = ("batch", "gradient", "fisher")
SAME_RADIUS = "SAM at RSAM's mean radius"
METHODS: dict[str, tuple[type | None, dict[str, Any]]] = {
    "SGD": (None, {}),
    "SAM, ρ = 0.2": (rl.SAM, {"rho": 0.2}),
    "SAM, ρ = 0.5": (rl.SAM, {"rho": 0.5}),
    "RSAM α = 1.2, ρ = 0.2": (rl.RSAM, {"rho": 0.2}),
    "RSAM α = 1.2, ρ = 0.65, 160 plain steps": (rl.RSAM, {"rho": 0.65, "warmup_steps": 160}),
    "RSAM divergence α = 0.5, ρ = 0.06": (rl.RSAM, {"rho": 0.06, "alpha": 0.5, "form": "divergence"}),
    SAME_RADIUS: (rl.SAM, {"warmup_steps": 160}),
}
DRIFTING = "RSAM α = 1.2, ρ = 0.65, 160 plain steps"


@dataclass(frozen=True)
class Run:
    """One training; equal runs have equal results. ``rho``: only where the method leaves it open."""

    part: str  # "methods" or "networks"
    method: str
    seed: int
    lr: float = 0.1
    weight_decay: float = 5e-4
    batch_size: int = BATCH_SIZE
    rho: float | None = None


def steps_of(run: Run, model: nn.Module) -> Iterator[tuple[int, Tensor]]:
    """Train ``model``; after every step yields the number of steps and the length of the perturbation (0: none)."""
    x, y = rl.datasets.mnist1d()[0].tensors
    kind, settings = METHODS[run.method]
    base = {"lr": run.lr, "momentum": MOMENTUM, "weight_decay": run.weight_decay}
    rho = {} if run.rho is None else {"rho": run.rho}
    made = torch.optim.SGD(model.parameters(), **base) if kind is None else None
    optimizer = made or kind(model.parameters(), **settings, **rho, **base)
    order, step = torch.Generator().manual_seed(run.seed), 0
    while True:
        for batch in torch.randperm(len(x), generator=order).split(run.batch_size):

            def closure(batch: Tensor = batch) -> Tensor:
                optimizer.zero_grad()
                loss = cross_entropy(model(x[batch]), y[batch])
                loss.backward()
                return loss

            optimizer.step(closure)
            step += 1
            yield step, getattr(optimizer, "perturbation_norm", torch.zeros(()))


def train_once(run: Run) -> dict[str, Any]:
    """Train until the training loss is reached, and measure; ``reached`` is false where it is not."""
    model = rl.models.mlp(*WIDTHS, seed=run.seed)
    train_set, _ = rl.datasets.mnist1d()
    radii = []
    for step, radius in steps_of(run, model):
        if float(radius) > 0:
            radii.append(float(radius))
        if step % CHECK_EVERY:
            continue
        loss = rl.evaluate(model, train_set).loss
        if not loss < 10 or step >= MAX_STEPS:
            return {"reached": False, "step": step}
        if loss <= TARGET_LOSS:
            break
    curve = [statistics.fmean(radii[i : i + 40]) for i in range(0, len(radii), 40)]
    mean_radius = statistics.fmean(radii) if radii else 0.0
    measured = [{"step": step, **measure(model)}]
    return {"reached": True, "measured": measured, "mean_radius": mean_radius, "radii": rounded(curve)}


def measure(model: nn.Module) -> dict[str, Any]:
    """Losses, accuracies, the spectrum of the Hessian, and the entropies of the surrogates."""
    train_set, test_set = rl.datasets.mnist1d()
    some = torch.utils.data.TensorDataset(*train_set[:NUM_SAMPLES])
    H = rl.HessianOperator(model, cross_entropy, some)
    spectrum = rl.estimate_spectrum(H, num_matvecs=NUM_MATVECS, seed=0)
    train, test = rl.evaluate(model, train_set), rl.evaluate(model, test_set)
    squares = {
        "batch": [batch_gradient(model, *train_set[i : i + BATCH_SIZE]).square() for i in range(0, 3840, BATCH_SIZE)],
        "gradient": [H.gradient().square()],
        "fisher": [fisher_diagonal(model, some.tensors[0][:1000])],
    }
    entropy = {name: [mean_entropy(values, alpha) for alpha in ALPHAS] for name, values in squares.items()}
    return rounded(
        {
            "train_loss": train.loss,
            "train_accuracy": train.accuracy,
            "test_loss": test.loss,
            "test_accuracy": test.accuracy,
            "gradient_norm": float(H.gradient().norm()),
            "negative_fraction": float(spectrum.negative_fraction),
            "trace": spectrum.trace.value,
            "max_eigenvalue": spectrum.max_eigenvalue,
            "entropy": [spectrum.renyi_entropy(alpha).value for alpha in ALPHAS],
            **{f"{name}_entropy": values for name, values in entropy.items()},
        }
    )


def batch_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of the mean loss of a batch, as one vector."""
    gradients = torch.autograd.grad(cross_entropy(model(x), y), list(model.parameters()))
    return torch.cat([gradient.reshape(-1) for gradient in gradients])


def fisher_diagonal(model: nn.Module, x: Tensor) -> Tensor:
    """The diagonal of the Fisher matrix: squared derivatives of log p(c), over samples and the model's own p(c)."""
    weights = {name: p.detach() for name, p in model.named_parameters()}

    def log_probabilities(weights: dict[str, Tensor], one: Tensor) -> Tensor:
        return torch.func.functional_call(model, weights, one[None])[0].log_softmax(dim=0)

    per_sample = torch.func.vmap(torch.func.jacrev(log_probabilities), in_dims=(None, 0))
    total = torch.zeros(sum(p.numel() for p in weights.values()))
    for part in x.split(100):
        p = model(part).detach().softmax(dim=1)
        jacobian = per_sample(weights, part)
        total += torch.cat([torch.einsum("nc,nci->i", p, j.flatten(2).square()) for j in jacobian.values()])
    return total / len(x)


def mean_entropy(squares: list[Tensor], alpha: float) -> float:
    """The Rényi entropy of some squared gradients, averaged."""
    return statistics.fmean(float(rl.renyi_entropy(values.double().numpy(), alpha)) for values in squares)


def rounded(values: Any) -> Any:
    """Numbers with five significant digits: more would be noise."""
    if isinstance(values, dict):
        return {name: rounded(value) for name, value in values.items()}
    if isinstance(values, list):
        return [rounded(value) for value in values]
    return float(f"{values:.5g}") if isinstance(values, float) else values


class Results:
    """The file of records: read once, then only appended to."""

    def __init__(self, path: Path) -> None:
        self.path, self.known = path, read_records(path, Run, "reached")

    def compute(self, runs: list[Run], title: str) -> list[dict[str, Any]]:
        """The results of the runs, those that are not in the file yet computed."""
        missing = [run for run in runs if run not in self.known]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with progress_bar(len(missing), title) as bar:
            for run in missing:
                self.known[run] = train_once(run)
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"run": asdict(run), "result": self.known[run]}, ensure_ascii=False) + "\n")
                bar.update()
        return [self.known[run] for run in runs]


def method_records(results: Results, seeds: range) -> list[dict[str, Any]]:
    """One record for each training of each method."""
    found = []
    for method in METHODS:
        rho = None
        if method == SAME_RADIUS:
            drifting = results.compute([Run("methods", DRIFTING, seed) for seed in seeds], DRIFTING)
            rho = float(f"{statistics.fmean(one['mean_radius'] for one in drifting if one['reached']):.3g}")
        runs = [Run("methods", method, seed, rho=rho) for seed in seeds]
        for run, result in zip(runs, results.compute(runs, method), strict=True):
            found.append({"method": method, "seed": run.seed, "rho": rho, **flat(result)})
    return found


def network_records(results: Results) -> list[dict[str, Any]]:
    """One record for each plain network that reached the training loss."""
    runs = [
        Run("networks", "SGD", 0, lr, weight_decay, batch_size)
        for batch_size in (64, 256)
        for lr in (0.12, 0.06, 0.03)
        for weight_decay in (0.0, 1e-3)
    ]
    names = ("lr", "weight_decay", "batch_size", "seed")
    pairs = zip(runs, results.compute(runs, "networks"), strict=True)
    return [
        {**{name: getattr(run, name) for name in names}, **flat(result)} for run, result in pairs if result["reached"]
    ]


def flat(result: dict[str, Any]) -> dict[str, Any]:
    """The result with its only measurement beside its other entries."""
    others = {name: value for name, value in result.items() if name not in ("measured", "radii")}
    return {**others, **(result["measured"][0] if result["reached"] else {})}


def method_table(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard error of each method over the seeds that reached the training loss."""
    index, table = ALPHAS.index(1.5), []
    for method in METHODS:
        rows = [record for record in records if record["method"] == method and record["reached"]]
        row: dict[str, Any] = {"method": method, "reached": len(rows)}
        if len(rows) > 1:
            row["steps"] = statistics.fmean(record["step"] for record in rows)
            row["sharpness"] = mean_and_error([-record["entropy"][index] for record in rows])
            for name in ("trace", "test_accuracy", "test_loss"):
                row[name] = mean_and_error([record[name] for record in rows])
        table.append(row)
    return table


def proxy_table(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Kendall's τ between the entropy of each surrogate and that of the Hessian, and their mean difference."""
    table = []
    for name in SURROGATES:
        for index, alpha in enumerate(ALPHAS):
            true = [one["entropy"][index] for one in records]
            surrogate = [one[f"{name}_entropy"][index] for one in records]
            excess = [a - b for a, b in zip(surrogate, true, strict=True)]
            tau = float(kendalltau(true, surrogate).statistic)
            table.append({"surrogate": name, "alpha": alpha, "tau": tau, "excess": statistics.fmean(excess)})
    return table


def mean_and_error(values: list[float]) -> dict[str, float]:
    return {"mean": statistics.fmean(values), "error": statistics.stdev(values) / len(values) ** 0.5}


def main(arguments: list[str] | None = None) -> None:
    """Train, measure, print the tables, write the JSON file."""
    parser = argument_parser(__doc__, "rsam_sharpness")
    parser.add_argument("--records", type=Path, default=Path("build/rsam_sharpness.jsonl"), help="(%(default)s)")
    parser.add_argument("--seeds", type=positive, help="trainings for each method (8; with --quick 2)")
    parser.set_defaults(threads=1)
    options = parser.parse_args(arguments)
    circumstances = prepare(parser, options)
    results = Results(options.records)
    methods = method_records(results, range(options.seeds or (2 if options.quick else 8)))
    show(
        f"At training loss {TARGET_LOSS}, mean / standard error", [row for row in method_table(methods) if len(row) > 2]
    )
    networks = network_records(results)
    proxies = proxy_table(networks)
    show(f"The surrogate's entropy and the Hessian's, {len(networks)} plain networks", proxies)
    numbers = {"alphas": ALPHAS, "method_table": method_table(methods), "proxies": proxies}
    finish(options.out, circumstances, **numbers, methods=methods, networks=networks)


if __name__ == "__main__":
    main()
