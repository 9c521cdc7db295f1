"""The two theorems of the Rényi sharpness paper, in the form in which they are reported.

A depends on θ and C on the constants of the proof; neither is computable from what is reported, so both are arguments.
The paper's reviewers objected that A moves with θ, and that the log-determinant it stands for is the tighter
quantity: compare `level_set` with `renyi_level_set`, which have no such constant.
"""

from __future__ import annotations

import math

from renyi_lab._utils.validation import check_int, check_real
from renyi_lab.bounds._bound import Bound
from renyi_lab.bounds._level_set import check_log_volume
from renyi_lab.bounds._pac_bayes import DELTA, UNIT_LOSS, check_unit_loss

_ASSUMPTIONS = (
    UNIT_LOSS,
    "the N samples are i.i.d.",
    "the form is as reported, not derived here; A and C are what you passed, A belongs to these weights alone",
)
_SOURCE = "Zhang et al., arXiv:2510.07758, Theorem {} as reported"


def renyi_theorem_3_2(
    empirical_loss: float,
    loss_at_minimum: float,
    entropy: float,
    dim: int,
    num_samples: int,
    *,
    a: float,
    c: float,
    volume: float | None = None,
    log_volume: float | None = None,
    delta: float = DELTA,
    trivial_value: float = 1.0,
) -> Bound:
    """Theorem 3.2 of the Rényi sharpness paper, as reported.

        E_Q L_D ≤ E_Q L_S + 2 √( (2L₀ + C V^{2/n} exp(−(H_α − A)/n) + log(2N/δ)) / (N−1) )

    Args:
        empirical_loss: E_Q L_S in [0, 1].
        loss_at_minimum: L₀ in [0, 1].
        entropy: H_α ≥ 0 in nats.
        dim: n.
        num_samples: N ≥ 2.
        a: A, any real number.
        c: C ≥ 0.
        volume: V > 0, or
        log_volume: its logarithm.
        delta: δ in (0, 1). Default 0.05: customary.
        trivial_value: as for `maurer`.

    Raises:
        ValueError: an argument outside its range.
    """
    minimum = check_unit_loss("loss_at_minimum", loss_at_minimum)
    dim, a = check_int("dim", dim), check_real("a", a)
    log_volume = check_log_volume(volume, log_volume)
    entropy = check_real("entropy", entropy, 0.0)
    exponent = (2 * log_volume - (entropy - a)) / dim
    c = check_real("c", c, 0.0)
    curvature = 0.0 if c == 0 else math.exp(min(exponent + math.log(c), 700.0))
    inside = {"twice_loss_at_minimum": 2 * minimum, "curvature_term": curvature}
    constants = {"A": a, "C": c, "log_volume": log_volume}
    return _reported("3.2", empirical_loss, entropy, num_samples, delta, inside, constants, trivial_value)


def renyi_theorem_3_3(
    empirical_loss: float,
    entropy: float,
    num_samples: int,
    *,
    a: float,
    delta: float = DELTA,
    trivial_value: float = 1.0,
) -> Bound:
    """Theorem 3.3 of the Rényi sharpness paper, as reported: −½H_α stands under the root, all else is A.

        E_Q L_D ≤ E_Q L_S + 2 √( (A − ½ H_α + log(2N/δ)) / (N−1) )

    Arguments and errors as for `renyi_theorem_3_2`; A must leave a number ≥ 0 under the root.
    """
    a, entropy = check_real("a", a), check_real("entropy", entropy, 0.0)
    inside = {"A_term": a, "entropy_term": -entropy / 2}
    return _reported("3.3", empirical_loss, entropy, num_samples, delta, inside, {"A": a}, trivial_value)


def _reported(
    theorem: str,
    empirical_loss: float,
    entropy: float,
    num_samples: int,
    delta: float,
    inside: dict[str, float],
    constants: dict[str, float],
    trivial_value: float,
) -> Bound:
    loss = check_unit_loss("empirical_loss", empirical_loss)
    n = check_int("num_samples", num_samples, minimum=2)
    delta = check_real("delta", delta, 0.0, 1.0, open_minimum=True, open_maximum=True)
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
    value = loss + 2 * math.sqrt(total / (n - 1))
    name = f"Rényi sharpness, Theorem {theorem} as reported"
    return Bound(name, value, terms, _ASSUMPTIONS, trivial_value, _SOURCE.format(theorem))
