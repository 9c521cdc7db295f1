"""Optimizers that step with the gradient of a nearby, sharper point: SAM and RSAM over any torch optimizer."""

from renyi_lab.optim.base import SharpnessAware
from renyi_lab.optim.rsam import RSAM
from renyi_lab.optim.sam import SAM

__all__ = ["RSAM", "SAM", "SharpnessAware"]
