"""Catoni's PAC-Bayes bound: linear in the loss and the divergence at a temperature that is fixed beforehand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from renyi_lab._utils.validation import check_reals
from renyi_lab.bounds._bound import Bound
from renyi_lab.bounds._pac_bayes import DELTA, IID, UNIT_LOSS, pac_bayes_terms

# λ/N. Heuristic: a factor of 2 between neighbours leaves the bound within a few thousandths of the best λ's.
_RATES = tuple(2.0**k for k in range(-8, 4))


def catoni(
    empirical_loss: float, kl: float, num_samples: int, delta: float = DELTA, *, rates: Sequence[float] = _RATES
) -> Bound:
    """Catoni's bound, smallest over a grid of λ by a union bound.

        E_Q L_D ≤ (1 − exp(−C E_Q L_S − (KL(Q‖P) + log(#grid/δ)) / N)) / (1 − e^{−C}),   C = λ/N

    For the best C and without the union bound it is kl⁻¹(E_Q L_S, (KL + log(1/δ))/N): `langford_seeger` with
    log(1/δ) in place of log(2√N/δ), which is what fixing λ saves.

    Arguments and errors as for `maurer`; ``rates`` is the grid of C > 0, fixed before the data are seen. Default
    1/256 … 8 in factors of 2 (heuristic: within a few thousandths of the best λ).

    Source:
        Catoni 2007, *PAC-Bayesian supervised classification*, Theorem 1.2.6; Germain et al. 2009, Corollary 2.2.

    Example:
        >>> catoni(0.02, kl=50.0, num_samples=1000).value < 0.15
        True
    """
    terms = pac_bayes_terms(empirical_loss, kl, num_samples, delta)
    grid = np.asarray(check_reals("rates", rates, 0.0, open_minimum=True))
    if grid.size == 0:
        raise ValueError("rates is empty: give at least one number, λ/N.")
    terms["log_term"] = math.log(grid.size / terms["delta"])
    terms["complexity"] = (terms["kl"] + terms["log_term"]) / num_samples
    values = np.expm1(-grid * terms["empirical_loss"] - terms["complexity"]) / np.expm1(-grid)
    best = int(values.argmin())
    terms |= {"rate": float(grid[best]), "choices": float(grid.size)}
    assumptions = (UNIT_LOSS, IID, "the grid of λ was fixed before the data were seen")
    return Bound("PAC-Bayes, Catoni", float(values[best]), terms, assumptions, "Catoni 2007, Theorem 1.2.6")
