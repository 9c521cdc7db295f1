"""From one trained network to several of the same training loss: only Rényi sharpness is moved.

    python tests/benchmarks/intervention_walk.py --records intervention_walk.jsonl --threads 1

The plain networks of `intervention.py` are the start. From each, small steps are taken that hold the training loss and
follow the penalty on H₂ (`renyi_lab.optim.collision_entropy_penalty`) up, down, with a random sign, or not at all. The
networks of one start are compared with each other: same start, same number of steps, same samples. The step size and
the coefficient were chosen on two other seeds by how far S moved and how well the loss was held.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from _common import argument_parser, finish, positive, prepare, show
from _records import read_records
from _stacked import HOLD, WALK_BATCH_SIZE, WALK_LR, WALK_MAX_NORM, Member, Trained, train_stack, walk_stack
from intervention import GOAL, MAX_EPOCHS, SHAPES, data, differences, measure
from torch.nn import functional as F

MU, STEPS, HELD_WITHIN = 0.1, 300, 0.02
CONDITIONS: dict[str, dict[str, Any]] = {
    "loss held alone": {"mu": 0.0},
    "random sign": {"mu": MU, "random_sign": True},
    "H₂ up": {"mu": MU},
    "H₂ down": {"mu": -MU},
}


@dataclass(frozen=True)
class Run:
    """One walk; equal runs have equal results, except for rounding."""

    shape: str
    mu: float
    seed: int
    random_sign: bool = False
    steps: int = STEPS

    @property
    def member(self) -> Member:
        return Member(self.mu, 2 * self.mu, self.seed, random_sign=self.random_sign)


def compute(path: Path, runs: Sequence[Run], max_epochs: int) -> dict[Run, dict[str, Any]]:
    """The results of all runs; those that are not in the file yet are computed, one stack of each shape."""
    known = read_records(path, Run, "sharpness", "calibrated_test_loss")
    missing = [run for run in runs if run not in known]
    path.parent.mkdir(parents=True, exist_ok=True)
    x, y = data()["train"]
    for shape in dict.fromkeys(run.shape for run in missing):
        same = [run for run in missing if run.shape == shape]
        plain = [Member(0.0, 0.0, seed) for seed in dict.fromkeys(run.seed for run in same)]
        trained = train_stack(SHAPES[shape], plain, x, y, goal=GOAL, max_epochs=max_epochs)
        starts = {start.member.seed: start for start in trained}
        members, networks = [run.member for run in same], [starts[run.seed].model for run in same]
        ends = walk_stack(SHAPES[shape], members, networks, x, y, steps=same[0].steps)
        for run, model in zip(same, ends, strict=True):
            loss, level = F.cross_entropy(model(x), y).item(), starts[run.seed].train_loss
            held = abs(loss - level) <= HELD_WITHIN
            known[run] = measure(Trained(run.member, model, loss, starts[run.seed].epochs, run.steps, held))
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"run": asdict(run), "result": known[run]}) + "\n")
            print(f"{run}: training loss {loss:.4f} from {level:.4f}", flush=True)
    return known


def table(known: dict[Run, dict[str, Any]], shape: str, seeds: range, steps: int) -> list[dict[str, Any]]:
    """For each condition: differences by seed from the walk that only holds the loss, and from that of random signs."""

    def of(name: str) -> list[dict[str, Any]]:
        return [known[Run(shape, seed=seed, steps=steps, **CONDITIONS[name])] for seed in seeds]

    return [
        {
            "condition": name,
            "held": sum(result["reached"] for result in of(name)),
            "less_held_alone": differences(of(name), of("loss held alone")),
            "less_noise": differences(of(name), of("random sign")),
        }
        for name in CONDITIONS
    ]


def main(arguments: list[str] | None = None) -> None:
    """Walk what is missing, print the tables, write the JSON file."""
    parser = argument_parser(__doc__, "intervention_walk")
    parser.add_argument("--records", type=Path, default=Path("build/intervention_walk.jsonl"), help="(%(default)s)")
    parser.add_argument("--seeds", type=positive, help="starts for each network (10; with --quick 2)")
    options = parser.parse_args(arguments)
    circumstances = prepare(parser, options)
    seeds = range(options.seeds or (2 if options.quick else 10))
    steps, max_epochs = (3, 2) if options.quick else (STEPS, MAX_EPOCHS)
    runs = [Run(s, seed=i, steps=steps, **kind) for s in SHAPES for i in seeds for kind in CONDITIONS.values()]
    known = compute(options.records, runs, max_epochs)
    tables = [{"shape": shape, "conditions": table(known, shape, seeds, steps)} for shape in SHAPES]
    shown = ("pairs", "S_1.5", "log_trace", "loss_gap", "calibrated_test_loss", "test_error", "train_loss")
    for part in tables:
        records = [
            {"condition": c["condition"], **{q: c["less_held_alone"][q] for q in shown}} for c in part["conditions"]
        ]
        show(f"{part['shape']}: less the walk that only holds the loss, mean / low / high", records)
    setting = {"mu": MU, "steps": steps, "seeds": len(seeds), "held_within": HELD_WITHIN, "hold": HOLD}
    setting |= {"lr": WALK_LR, "batch_size": WALK_BATCH_SIZE, "max_norm": WALK_MAX_NORM}
    finish(options.out, circumstances, setting=setting, shapes=tables)


if __name__ == "__main__":
    main()
