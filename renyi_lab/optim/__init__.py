"""Optimizers that step with the gradient at a nearby, sharper point: SAM, its variants, RSAM, over any torch optimizer.

Mixed precision, batch norm, several processes, accumulation, clipping, compilation: see `renyi_lab.optim.recipes`.
"""

from collections.abc import Callable

from renyi_lab.optim._base_optimizer import base_defaults
from renyi_lab.optim._entropy_penalty import CollisionEntropyPenalty, collision_entropy_penalty
from renyi_lab.optim._rsam import RSAM
from renyi_lab.optim._sam import ASAM, SAGM, SAM, FisherSAM
from renyi_lab.optim._sharpness_aware import SharpnessAware
from renyi_lab.optim.recipes import amp_step, local_perturbation, statistics_once

# The names under which `renyi_lab.train` and the grids of `renyi_lab.study` know them.
BY_NAME: dict[str, Callable[..., SharpnessAware]] = {
    "sam": SAM,
    "asam": ASAM,
    "fishersam": FisherSAM,
    "sagm": SAGM,
    "rsam": RSAM,
}

__all__ = [
    "ASAM",
    "BY_NAME",
    "RSAM",
    "SAGM",
    "SAM",
    "CollisionEntropyPenalty",
    "FisherSAM",
    "SharpnessAware",
    "amp_step",
    "base_defaults",
    "collision_entropy_penalty",
    "local_perturbation",
    "statistics_once",
]
