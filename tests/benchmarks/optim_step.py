"""Time of one optimizer step over that of SGD and over two passes alone, on ResNet-20 with batches of 64.

    python tests/benchmarks/optim_step.py

Every round times each contender once, in an order that rotates; the ratios are medians over the rounds of what was
measured in the same round, so that other load slows both sides. On a busy machine wall time is still no measure:
`--threads 1 --clock cpu` counts the processor time of this process.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable

import torch
from _common import argument_parser, finish, positive, prepare, show
from torch import Tensor, nn

from renyi_lab import models
from renyi_lab._utils.progress import progress_bar
from renyi_lab.optim import ASAM, RSAM, SAGM, SAM, FisherSAM

SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
BATCH_SIZE = 64
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class NaiveRSAM:
    """The formula of RSAM written naively: a loop over the parameters, with numbers read back from the device."""

    def __init__(self, params: list[nn.Parameter], rho: float = 0.65, alpha: float = 1.2) -> None:
        self.params, self.rho, self.alpha = params, rho, alpha
        self.base = torch.optim.SGD(params, **SGD)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> None:
        with torch.enable_grad():
            closure()
        squares = sum((p.grad**2).sum().item() for p in self.params)
        powers = sum((p.grad.abs() ** (2 * self.alpha)).sum().item() for p in self.params)
        factor = self.rho * powers / squares**self.alpha / squares
        steps = [factor * p.grad for p in self.params]
        for p, step in zip(self.params, steps, strict=True):
            p.add_(step)
        with torch.enable_grad():
            closure()
        for p, step in zip(self.params, steps, strict=True):
            p.sub_(step)
        self.base.step()


class Passes:
    """Forward and backward passes without a step."""

    def __init__(self, number: int) -> None:
        self.number = number

    def step(self, closure: Callable[[], Tensor]) -> None:
        for _ in range(self.number):
            closure()


class _FirstPassOutside:
    """pytorch_optimizer's step(closure) expects the first gradient to be there already."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def step(self, closure: Callable[[], Tensor]) -> None:
        closure()
        self.optimizer.step(closure)


def contenders(params: list[nn.Parameter]) -> dict[str, object]:
    """All contenders on the same parameters, which are reset before every step."""
    base = torch.optim.SGD
    found: dict[str, object] = {
        "one pass alone": Passes(1),
        "two passes alone": Passes(2),
        "SGD": base(params, **SGD),
        "SAM": SAM(params, base, **SGD),
        "ASAM": ASAM(params, base, **SGD),
        "FisherSAM": FisherSAM(params, base, **SGD),
        "SAGM": SAGM(params, base, **SGD),
        "RSAM paper": RSAM(params, base, **SGD),
        "RSAM divergence": RSAM(params, base, rho=0.1, form="divergence", **SGD),
        "RSAM divergence, α = 1": RSAM(params, base, rho=0.1, alpha=1.0, form="divergence", **SGD),
        "RSAM exact": RSAM(params, base, rho=0.1, form="exact", max_norm=0.1, **SGD),
        "RSAM, written naively": NaiveRSAM(params),
    }
    if importlib.util.find_spec("pytorch_optimizer") is not None:
        from pytorch_optimizer import SAM as OtherSAM

        found["SAM of pytorch_optimizer"] = _FirstPassOutside(OtherSAM(params, base, **SGD))
    return found


class Problem:
    """ResNet-20 on a random batch, and all contenders on its parameters."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(BATCH_SIZE, 3, 32, 32, generator=generator)
        self.y = torch.randint(10, (BATCH_SIZE,), generator=generator)
        self.model = models.resnet20()
        self.params = list(self.model.parameters())
        self.start = [p.detach().clone() for p in self.params]
        self.optimizers = contenders(self.params)
        self.closure()
        self.gradients = [p.grad for p in self.params]

    def closure(self) -> Tensor:
        """One forward and backward pass."""
        for p in self.params:
            p.grad = None
        loss = nn.functional.cross_entropy(self.model(self.x), self.y)
        loss.backward()
        return loss

    def empty_closure(self) -> None:
        """Gradients without a pass, so that what is left is the optimizer's own arithmetic."""
        for p, gradient in zip(self.params, self.gradients, strict=True):
            p.grad = gradient

    def seconds(self, closure: Callable[[], object], clock: Callable[[], float], rounds: int) -> dict[str, list[float]]:
        """Seconds of each contender's step, one value per round."""
        names = list(self.optimizers)
        found: dict[str, list[float]] = {name: [] for name in names}
        with progress_bar(rounds, "rounds") as bar:
            for number in range(rounds + 1):
                for name in names[number % len(names) :] + names[: number % len(names)]:
                    with torch.no_grad():
                        torch._foreach_copy_(self.params, self.start)
                    began = clock()
                    self.optimizers[name].step(closure)
                    if number:  # the first round warms up
                        found[name].append(clock() - began)
                bar.update()
        return found


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the table, write the JSON file."""
    parser = argument_parser(__doc__, "optim_step")
    parser.add_argument("--rounds", type=positive, help="rounds of the timing (15; with --quick 2)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="wall or processor time (%(default)s)")
    options = parser.parse_args(arguments)
    circumstances = {**prepare(parser, options), "clock": options.clock}
    rounds = options.rounds or (2 if options.quick else 15)
    problem = Problem()
    seconds = problem.seconds(problem.closure, CLOCKS[options.clock], rounds)
    own_arithmetic = problem.seconds(problem.empty_closure, CLOCKS[options.clock], 20 * rounds)

    def over(name: str, other: str) -> float:
        return statistics.median(a / b for a, b in zip(seconds[name], seconds[other], strict=True))

    records = [
        {
            "step": name,
            "milliseconds": 1e3 * statistics.median(seconds[name]),
            "over_sgd": over(name, "SGD"),
            "over_two_passes": over(name, "two passes alone"),
            "own_milliseconds": 1e3 * statistics.median(own_arithmetic[name]),
        }
        for name in seconds
    ]
    show("One optimizer step; own milliseconds: without the passes", records)
    finish(options.out, circumstances, network="resnet20", batch_size=BATCH_SIZE, rounds=rounds, steps=records)


if __name__ == "__main__":
    main()
