"""Optimizers that step with the gradient of a nearby, sharper point: SAM, RSAM and relatives over any torch optimizer.

Mixed precision, batch norm, several processes, accumulation, clipping, compiling: see `renyi_lab.optim.recipes`.
"""

from renyi_lab.optim.base import SharpnessAware
from renyi_lab.optim.recipes import amp_step, local_perturbation, statistics_once
from renyi_lab.optim.rsam import RSAM
from renyi_lab.optim.sam import ASAM, SAGM, SAM, FisherSAM

__all__ = [
    "ASAM",
    "RSAM",
    "SAGM",
    "SAM",
    "FisherSAM",
    "SharpnessAware",
    "amp_step",
    "local_perturbation",
    "statistics_once",
]
