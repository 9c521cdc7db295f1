"""Rényi sharpness and its relatives: one by one, in a table by `sharpness_report`, of two networks by `compare`."""

from renyi_lab.sharpness._comparison import Comparison, compare
from renyi_lab.sharpness._measures import MEASURES, Measure
from renyi_lab.sharpness._norms import distance_from_initialization, gradient_norm, parameter_norm
from renyi_lab.sharpness._outputs import fisher_rao_norm
from renyi_lab.sharpness._pac_bayes import pac_bayes_flatness
from renyi_lab.sharpness._perturbed import asam_sharpness, average_case_sharpness, sam_sharpness
from renyi_lab.sharpness._relative_flatness import relative_flatness
from renyi_lab.sharpness._report import sharpness_report
from renyi_lab.sharpness._result import SharpnessReport
from renyi_lab.sharpness._spectral import frobenius_norm, lambda_max, log_determinant, renyi_sharpness, trace

__all__ = [
    "MEASURES",
    "Comparison",
    "Measure",
    "SharpnessReport",
    "asam_sharpness",
    "average_case_sharpness",
    "compare",
    "distance_from_initialization",
    "fisher_rao_norm",
    "frobenius_norm",
    "gradient_norm",
    "lambda_max",
    "log_determinant",
    "pac_bayes_flatness",
    "parameter_norm",
    "relative_flatness",
    "renyi_sharpness",
    "sam_sharpness",
    "sharpness_report",
    "trace",
]
