"""Generalization bounds as pure functions of numbers; each returns a `Bound` with its terms and assumptions.

Notation: L_S is the mean loss on N samples, L_D its expectation, P the prior, Q the posterior over weights, δ the
allowed probability of failure, kl(q‖p) the Bernoulli KL divergence. Logarithms are natural.

Every function raises ``ValueError`` for an argument outside its stated range and ``TypeError`` for one of another type.
A bound is compared with the loss's maximum, 1; ``bound.against(0.9)`` compares it with another trivial value.
"""

from renyi_lab._utils.bernoulli_kl import kl_bernoulli, kl_inverse_lower, kl_inverse_upper
from renyi_lab.bounds._bound import Bound
from renyi_lab.bounds._bound_report import BoundReport, bound_report
from renyi_lab.bounds._catoni import catoni
from renyi_lab.bounds._certificate import Certificate, Route
from renyi_lab.bounds._certify import certify
from renyi_lab.bounds._damping import log_determinant, negative_ratio, positive_definite
from renyi_lab.bounds._held_out import held_out
from renyi_lab.bounds._laplace import laplace_kl, laplace_pac_bayes
from renyi_lab.bounds._level_set import Basin, ball_log_volume, basin_height, basin_log_volume, jia_su, level_set
from renyi_lab.bounds._level_set_bounds import LOSS_CLIP, level_set_bounds
from renyi_lab.bounds._pac_bayes import isotropic_pac_bayes, langford_seeger, maurer
from renyi_lab.bounds._paper_theorems import renyi_theorem_3_2, renyi_theorem_3_3
from renyi_lab.bounds._renyi import (
    power_mean_curvature,
    renyi_laplace,
    renyi_laplace_kl,
    renyi_level_set,
    renyi_log_determinant,
)
from renyi_lab.bounds._sam import sam_bound
from renyi_lab.bounds._waterfall import plot_waterfall, sampled_pac_bayes, waterfall

__all__ = [
    "LOSS_CLIP",
    "Basin",
    "Bound",
    "BoundReport",
    "Certificate",
    "Route",
    "ball_log_volume",
    "basin_height",
    "basin_log_volume",
    "bound_report",
    "catoni",
    "certify",
    "held_out",
    "isotropic_pac_bayes",
    "jia_su",
    "kl_bernoulli",
    "kl_inverse_lower",
    "kl_inverse_upper",
    "langford_seeger",
    "laplace_kl",
    "laplace_pac_bayes",
    "level_set",
    "level_set_bounds",
    "log_determinant",
    "maurer",
    "negative_ratio",
    "plot_waterfall",
    "positive_definite",
    "power_mean_curvature",
    "renyi_laplace",
    "renyi_laplace_kl",
    "renyi_level_set",
    "renyi_log_determinant",
    "renyi_theorem_3_2",
    "renyi_theorem_3_3",
    "sam_bound",
    "sampled_pac_bayes",
    "waterfall",
]
