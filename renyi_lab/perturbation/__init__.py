"""Moving weights and data: reparametrization, data discrepancy, loss along directions and in balls."""

from renyi_lab.perturbation.balls import AverageCase, WorstCase, average_case_loss, worst_case_loss
from renyi_lab.perturbation.discrepancy import (
    DiscrepancyCurve,
    discrepancy_curve,
    haar_orthogonal,
    layer_input,
    weight_perturbation,
)
from renyi_lab.perturbation.landscape import (
    LossCurve,
    LossPlane,
    filter_normalized,
    loss_along,
    loss_plane,
    random_direction,
)
from renyi_lab.perturbation.reparametrization import reparametrize, scalable_layers

__all__ = [
    "AverageCase",
    "DiscrepancyCurve",
    "LossCurve",
    "LossPlane",
    "WorstCase",
    "average_case_loss",
    "discrepancy_curve",
    "filter_normalized",
    "haar_orthogonal",
    "layer_input",
    "loss_along",
    "loss_plane",
    "random_direction",
    "reparametrize",
    "scalable_layers",
    "weight_perturbation",
    "worst_case_loss",
]
