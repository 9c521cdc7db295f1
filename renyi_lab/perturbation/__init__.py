"""Perturbed weights and data: reparametrization, data discrepancy, the loss along directions and in balls."""

from renyi_lab.perturbation._balls import (
    NUM_DRAWS,
    AverageCase,
    WorstCase,
    average_case_loss,
    average_over,
    gaussian_noise,
    worst_case_loss,
)
from renyi_lab.perturbation._discrepancy import (
    DiscrepancyCurve,
    discrepancy_curve,
    find_layer,
    haar_orthogonal,
    layer_input,
    mixed,
    weight_perturbation,
)
from renyi_lab.perturbation._landscape import (
    LossCurve,
    LossPlane,
    filter_normalized,
    loss_along,
    loss_plane,
    random_direction,
)
from renyi_lab.perturbation._reparametrization import reparametrize, scalable_layers

__all__ = [
    "NUM_DRAWS",
    "AverageCase",
    "DiscrepancyCurve",
    "LossCurve",
    "LossPlane",
    "WorstCase",
    "average_case_loss",
    "average_over",
    "discrepancy_curve",
    "filter_normalized",
    "find_layer",
    "gaussian_noise",
    "haar_orthogonal",
    "layer_input",
    "loss_along",
    "loss_plane",
    "mixed",
    "random_direction",
    "reparametrize",
    "scalable_layers",
    "weight_perturbation",
    "worst_case_loss",
]
