"""Generalization bounds as pure functions of numbers; each returns a `Bound` with its terms and assumptions.

Notation: L_S is the mean loss on N samples, L_D its expectation, P the prior, Q the posterior over weights, δ the
allowed probability of failure, kl(q‖p) the divergence of two coins. Logarithms are natural.
"""

from renyi_lab.bounds._result import Bound
from renyi_lab.bounds.coins import kl_bernoulli, kl_inverse_lower, kl_inverse_upper
from renyi_lab.bounds.laplace import laplace_kl, laplace_pac_bayes
from renyi_lab.bounds.pac_bayes import isotropic_pac_bayes, langford_seeger, maurer

__all__ = [
    "Bound",
    "isotropic_pac_bayes",
    "kl_bernoulli",
    "kl_inverse_lower",
    "kl_inverse_upper",
    "langford_seeger",
    "laplace_kl",
    "laplace_pac_bayes",
    "maurer",
]
