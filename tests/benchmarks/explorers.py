"""Milliseconds from a moved control to the new picture's bytes in the kernel, for every explorer.

    python tests/benchmarks/explorers.py

Each explorer gets a small untrained network, or results of one. Every control is moved alone over its whole range,
the first move included; the browser's part is not measured. The processor time of all threads is given beside the wall
clock, and estimates what the wall clock would show on an idle machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ipywidgets
import numpy as np
from _common import Target, argument_parser, finish, positive, prepare, show
from torch import nn

import renyi_lab as rl
from renyi_lab import widgets

TARGET = 50.0  # milliseconds, 95th percentile: no slower than the front end sends changes
WIDTHS, QUICK_WIDTHS = (40, 60, 60, 10), (40, 6, 10)
NUM_SAMPLES = 500
SIGMAS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32)


class Problem:
    """A small network, its Hessian and its spectrum: what the explorers are made from."""

    def __init__(self, quick: bool) -> None:
        train_set, _ = rl.datasets.mnist1d()
        x, y = train_set[:NUM_SAMPLES]
        self.model = rl.models.mlp(*(QUICK_WIDTHS if quick else WIDTHS), seed=0)
        self.data = (x, y)
        self.loss_fn = nn.functional.cross_entropy
        self.operator = rl.HessianOperator(self.model, self.loss_fn, self.data)
        small = rl.models.mlp(40, 7, 10, seed=0)  # its dense Hessian is diagonalised at each move
        self.small_operator = rl.HessianOperator(small, self.loss_fn, self.data)
        self.signs, self.test_signs = rl.datasets.xor(num_samples=100, targets="signs")
        self.solutions = [rl.models.two_layer(30, 104, seed=seed) for seed in range(3)]
        self.spectrum = rl.estimate_spectrum(self.operator, num_matvecs=200, progress=False)


# An explorer that is missing here fails the benchmark, so that none stays unmeasured.
# What stands in brackets after a name says how one explorer's rows differ.
EXPLORERS: dict[str, Callable[[Problem], widgets.Explorer]] = {
    "AlphaExplorer": lambda p: widgets.AlphaExplorer(p.spectrum),
    "BoundExplorer": lambda p: widgets.BoundExplorer(
        p.spectrum, SIGMAS, [0.02] * len(SIGMAS), squared_distance=1.0, num_samples=1000, num_draws=1000, beta=1000.0
    ),
    "DifferenceExplorer": lambda p: widgets.DifferenceExplorer(p.model, p.loss_fn, p.data),
    "LandscapeExplorer": lambda p: widgets.LandscapeExplorer(
        *p.solutions[:2], nn.functional.mse_loss, p.signs, test_data=p.test_signs, third=p.solutions[2]
    ),
    "LanczosExplorer": lambda p: widgets.LanczosExplorer(p.operator, num_steps=100),
    "PerturbationExplorer": lambda p: widgets.PerturbationExplorer(p.operator),
    "RSAMExplorer": lambda _: widgets.RSAMExplorer(),
    "RadiusExplorer": lambda p: widgets.RadiusExplorer(p.operator),
    "ReparametrizationExplorer": lambda p: widgets.ReparametrizationExplorer(p.small_operator),
    "ReparametrizationExplorer (estimated)": lambda p: widgets.ReparametrizationExplorer(p.operator),
    "SpectrumExplorer": lambda p: widgets.SpectrumExplorer(p.operator, num_steps=60, num_probes=10),
    "StudyExplorer": lambda p: widgets.StudyExplorer(rl.study.Study.standard()),
    "TuningExplorer": lambda p: widgets.TuningExplorer(rl.course.load_results("base_optimizers")["tuning"]),
}


def stops(control: ipywidgets.ValueWidget) -> list[Any]:
    """Values all over a control's range."""
    if isinstance(control, ipywidgets.IntSlider):
        return list(range(control.min, control.max + 1, control.step))
    if isinstance(control, ipywidgets.FloatSlider):
        return np.linspace(control.min, control.max, 41).tolist()
    if isinstance(control, ipywidgets.FloatLogSlider):
        return (control.base ** np.linspace(control.min, control.max, 41)).tolist()
    if isinstance(control, ipywidgets.Checkbox):
        return [True, False] * 5
    return [value for _, value in control._options_full] * 5


def milliseconds(explorer: widgets.Explorer, rounds: int) -> tuple[list[float], list[float]]:
    """Wall-clock and processor time of every move."""
    wall, processor = [], []
    for _ in range(rounds):
        for control in explorer._controls:
            explorer.reset()
            for value in stops(control):
                before = control.value
                start = time.perf_counter(), time.process_time()
                control.value = value
                end = time.perf_counter(), time.process_time()
                if control.value != before:
                    wall.append(1e3 * (end[0] - start[0]))
                    processor.append(1e3 * (end[1] - start[1]))
            if explorer.status.value.startswith("<b>"):
                raise AssertionError(f"{type(explorer).__name__} shows {explorer.status.value}")
    return wall, processor


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the table, write the JSON file."""
    parser = argument_parser(__doc__, "explorers")
    parser.add_argument("--rounds", type=positive, default=3, help="sweeps over every control (%(default)s)")
    options = parser.parse_args(arguments)
    circumstances = prepare(parser, options)
    missing = set(widgets.__all__) - {name.split()[0] for name in EXPLORERS} - {"Explorer"}
    if missing:
        raise KeyError(f"add to EXPLORERS how {', '.join(sorted(missing))} is made from a small network.")
    problem = Problem(options.quick)
    records = []
    for name, make in EXPLORERS.items():
        began = time.perf_counter()
        explorer = make(problem)
        construction = time.perf_counter() - began
        wall, processor = milliseconds(explorer, 1 if options.quick else options.rounds)
        records.append(
            {
                "explorer": name,
                "moves": len(wall),
                "median": float(np.median(wall)),
                "percentile_95": float(np.percentile(wall, 95)),
                "processor_median": float(np.median(processor)),
                "processor_percentile_95": float(np.percentile(processor, 95)),
                "construction_seconds": construction,
            }
        )
    show("Milliseconds from slider to picture", records)
    targets = [Target(f"{r['explorer']}: 95th percentile, ms", r["percentile_95"], TARGET) for r in records]
    finish(options.out, circumstances, [] if options.quick else targets, explorers=records)


if __name__ == "__main__":
    main()
