"""The bound that sharpness-aware minimization was introduced with."""

from __future__ import annotations

import math

from renyi_lab._utils.validation import check_int, check_real
from renyi_lab.bounds._bound import Bound
from renyi_lab.bounds._pac_bayes import DELTA, SAMPLES, UNIT_LOSS, check_sample, check_unit_loss


def sam_bound(
    worst_loss: float, weight_norm: float, rho: float, num_parameters: int, num_samples: int, delta: float = DELTA
) -> Bound:
    """The bound of sharpness-aware minimization.

        L_D(w) ≤ max_{‖ε‖≤ρ} L_S(w+ε)
                 + √( [k log(1 + ‖w‖²/ρ² (1+√(log N / k))²) + 4 log(N/δ) + 8 log(6N+3k)] / (N−1) )

    Args:
        worst_loss: Maximum of L_S over the ball, in [0, 1]. An ascent step gives only a lower estimate of it.
        weight_norm: Euclidean norm ‖w‖ ≥ 0 of the weights.
        rho: Radius ρ > 0 of the ball, in units of the weights.
        num_parameters: Number k ≥ 1 of parameters.
        num_samples: Number N ≥ 2 of samples.
        delta: Allowed probability of failure δ in (0, 1). Default 0.05 (customary).

    Source:
        Foret, Kleiner, Mobahi & Neyshabur 2021, arXiv:2010.01412, Theorem 2 and its proof in the appendix.

    Example:
        >>> sam_bound(0.1, weight_norm=10.0, rho=0.05, num_parameters=5210, num_samples=4000).vacuous
        True
    """
    loss = check_unit_loss("worst_loss", worst_loss)
    norm = check_real("weight_norm", weight_norm, 0.0)
    rho = check_real("rho", rho, 0.0, open_minimum=True)
    k = check_int("num_parameters", num_parameters)
    n, delta = check_sample(num_samples, delta)
    factor = 1 + math.sqrt(math.log(n) / k)
    growth = 2 * k * math.log(math.hypot(1.0, norm / rho * factor))
    if math.isinf(growth):  # a quotient beyond the largest number still has a logarithm
        growth = 2 * k * (math.log(norm) - math.log(rho) + math.log(factor))
    logs = 4 * math.log(n / delta) + 8 * math.log(6 * n + 3 * k)
    terms = {
        "worst_loss": loss,
        "norm_term": growth,
        "log_terms": logs,
        "complexity": (growth + logs) / (n - 1),
        "weight_norm": norm,
        "rho": rho,
        "num_parameters": float(k),
        "num_samples": float(n),
        "delta": delta,
    }
    assumptions = (
        UNIT_LOSS,
        SAMPLES,
        "Gaussian noise of standard deviation ρ on the weights does not lower the expected loss",
        "worst_loss is the maximum over the whole ball",
    )
    return Bound("SAM", loss + math.sqrt(terms["complexity"]), terms, assumptions, "Foret et al. 2021, Theorem 2")
