"""The two theorems of the Rényi sharpness paper, in the form in which they are reported.

A depends on θ and C on the constants of the proof; neither is computable from what is reported, so both are arguments,
and the results are for comparison only. As A changes with θ, a comparison at one A says nothing of two networks; and
the log-determinant that A stands for is the tighter quantity: compare `level_set` with `renyi_level_set`, which have
no such constant.
"""

from __future__ import annotations

import math

from renyi_lab._utils.validation import check_real
from renyi_lab.bounds._bound import Bound
from renyi_lab.bounds._level_set import Basin, check_basin
from renyi_lab.bounds._pac_bayes import DELTA, SAMPLES, UNIT_LOSS, check_sample, check_unit_loss

_ASSUMPTIONS = (
    UNIT_LOSS,
    SAMPLES,
    "the form is as reported, not derived here; A and C are what you passed, A belongs to these weights alone",
)


def renyi_theorem_3_2(
    basin: Basin, entropy: float, num_samples: int, *, a: float, c: float, delta: float = DELTA
) -> Bound:
    """Theorem 3.2 of the Rényi sharpness paper, as reported.

        E_Q L_D ≤ E_Q L_S + 2 √( (2L₀ + C V^{2/n} exp(−(H_α − A)/n) + log(2N/δ)) / (N−1) )

    Args:
        basin: The basin of the minimum: L₀, n, V, and E_Q L_S as its ``posterior_loss``, which is needed here.
        entropy: Rényi entropy H_α ≥ 0 in nats.
        num_samples: Number N ≥ 2 of samples.
        a: The paper's A, any real number.
        c: The paper's C ≥ 0.
        delta: Allowed probability of failure δ in (0, 1). Default 0.05 (customary).

    Source:
        Zhang et al., arXiv:2510.07758 (2025).
    """
    check_basin(basin)
    if basin.posterior_loss is None:
        raise ValueError("basin needs a posterior_loss: the theorem is stated with the measured E_Q L_S.")
    a, entropy = check_real("a", a), check_real("entropy", entropy, 0.0)
    exponent = (2 * basin.log_volume - (entropy - a)) / basin.dim
    c = check_real("c", c, 0.0)
    curvature = 0.0 if c == 0 else math.exp(min(exponent + math.log(c), 700.0))
    inside = {"twice_loss_at_minimum": 2 * basin.loss_at_minimum, "curvature_term": curvature}
    constants = {"A": a, "C": c, "log_volume": basin.log_volume}
    return _reported("3.2", basin.posterior_loss, entropy, num_samples, delta, inside, constants)


def renyi_theorem_3_3(
    empirical_loss: float, entropy: float, num_samples: int, *, a: float, delta: float = DELTA
) -> Bound:
    """Theorem 3.3 of the Rényi sharpness paper, as reported: −½H_α stands under the root, all else is A.

        E_Q L_D ≤ E_Q L_S + 2 √( (A − ½ H_α + log(2N/δ)) / (N−1) )

    Arguments as for `renyi_theorem_3_2`, with E_Q L_S by itself; A must leave a number ≥ 0 under the root.
    """
    a, entropy = check_real("a", a), check_real("entropy", entropy, 0.0)
    inside = {"A_term": a, "entropy_term": -entropy / 2}
    return _reported("3.3", empirical_loss, entropy, num_samples, delta, inside, {"A": a})


def _reported(
    theorem: str,
    empirical_loss: float,
    entropy: float,
    num_samples: int,
    delta: float,
    inside: dict[str, float],
    constants: dict[str, float],
) -> Bound:
    """E_Q L_S + 2 √( (what stands ``inside`` + log(2N/δ)) / (N−1) )."""
    loss = check_unit_loss("empirical_loss", empirical_loss)
    n, delta = check_sample(num_samples, delta)
    log_term = math.log(2 * n / delta)
    total = sum(inside.values()) + log_term
    if total < 0:
        raise ValueError(f"a={constants['A']:g} leaves {total:g} under the root; no such A can be right: enlarge it.")
    terms = {
        "empirical_loss": loss,
        **inside,
        "log_term": log_term,
        "complexity": total / (n - 1),
        "entropy": entropy,
        **constants,
        "num_samples": float(n),
        "delta": delta,
    }
    name = f"Rényi sharpness, Theorem {theorem} as reported"
    source = f"Zhang et al., arXiv:2510.07758, Theorem {theorem} as reported"
    return Bound(name, loss + 2 * math.sqrt(total / (n - 1)), terms, _ASSUMPTIONS, source, is_certificate=False)
