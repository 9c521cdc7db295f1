"""PAC-Bayes bounds on the loss of a randomised classifier, from its measured loss and its divergence from a prior."""

from __future__ import annotations

import math

from renyi_lab._utils.bernoulli_kl import kl_inverse_upper
from renyi_lab._utils.validation import check_int, check_real
from renyi_lab.bounds._bound import Bound

DELTA = 0.05  # customary confidence of 95 %
IID = "the N samples are i.i.d. and had no part in choosing the prior"
UNIT_LOSS = "the loss lies in [0, 1]"


def maurer(
    empirical_loss: float, kl: float, num_samples: int, delta: float = DELTA, *, trivial_value: float = 1.0
) -> Bound:
    """McAllester's PAC-Bayes bound with Maurer's constant.

        E_Q L_D ≤ E_Q L_S + √( (KL(Q‖P) + log(2√N/δ)) / (2N) )

    Args:
        empirical_loss: E_Q L_S in [0, 1].
        kl: KL(Q‖P) ≥ 0, in nats.
        num_samples: N ≥ 2.
        delta: δ in (0, 1). Default 0.05: customary.
        trivial_value: what the bound must undercut not to be vacuous, > 0. Default 1: the loss's maximum.

    Raises:
        ValueError: an argument outside its range.

    Source: McAllester 1999; Maurer 2004, *A note on the PAC Bayesian theorem*, with Pinsker's inequality. His proof is
    for N ≥ 8; the one quantity that it bounds by 2√N is below it for N = 2 … 7 too.
    """
    terms = pac_bayes_terms(empirical_loss, kl, num_samples, delta)
    value = terms["empirical_loss"] + math.sqrt(terms["complexity"] / 2)
    source = "McAllester 1999; Maurer 2004"
    return Bound("PAC-Bayes, McAllester/Maurer", value, terms, (UNIT_LOSS, IID), trivial_value, source)


def langford_seeger(
    empirical_loss: float, kl: float, num_samples: int, delta: float = DELTA, *, trivial_value: float = 1.0
) -> Bound:
    """The Langford–Seeger PAC-Bayes bound, never above `maurer`'s.

        kl(E_Q L_S ‖ E_Q L_D) ≤ (KL(Q‖P) + log(2√N/δ)) / N,  inverted by `kl_inverse_upper`

    Arguments and errors as for `maurer`. Source: Langford & Seeger 2001; Maurer 2004, Theorem 5.

    >>> langford_seeger(0.02, kl=500.0, num_samples=10_000).value < maurer(0.02, kl=500.0, num_samples=10_000).value
    True
    """
    terms = pac_bayes_terms(empirical_loss, kl, num_samples, delta)
    value = kl_inverse_upper(terms["empirical_loss"], terms["complexity"])
    source = "Langford & Seeger 2001; Maurer 2004"
    return Bound("PAC-Bayes, Langford–Seeger", value, terms, (UNIT_LOSS, IID), trivial_value, source)


def isotropic_pac_bayes(
    empirical_gibbs_loss: float,
    squared_distance: float,
    sigma: float,
    num_samples: int,
    *,
    num_draws: int | None,
    delta: float = DELTA,
    num_sigmas: int = 1,
    trivial_value: float = 1.0,
) -> Bound:
    """The Langford–Seeger bound for weights with Gaussian noise: Q = N(θ, σ²I), P = N(θ₀, σ²I).

        KL(Q‖P) = ‖θ−θ₀‖² / (2σ²)

    in which the number of parameters does not appear. With the loss of Q averaged over m draws of weights, half of δ
    goes to its sampling error: E_Q L_S ≤ kl⁻¹(average, log(2/δ′)/m).

    Args:
        empirical_gibbs_loss: average of L_S over the draws, in [0, 1]; `renyi_lab.posterior.gibbs_error` measures it.
        squared_distance: ‖θ−θ₀‖² ≥ 0; θ₀ may be the initialisation, or weights trained on other data.
        sigma: σ > 0, in units of the weights.
        num_samples: N ≥ 2.
        num_draws: m ≥ 1, or ``None`` when the loss is exact.
        delta: δ in (0, 1). Default 0.05: customary.
        num_sigmas: how many σ were tried to find this one, fixed beforehand; each gets δ / num_sigmas. Default 1.
        trivial_value: as for `maurer`.

    Raises:
        ValueError: an argument outside its range.

    Source: Langford & Caruana 2001, *(Not) bounding the true error*, sections 2 and 3.
    """
    sigma = check_real("sigma", sigma, 0.0, open_minimum=True)
    num_sigmas = check_int("num_sigmas", num_sigmas)
    kl = check_real("squared_distance", squared_distance, 0.0) / (2 * sigma**2)
    value, terms = sampled_seeger(empirical_gibbs_loss, kl, num_samples, num_draws, delta, num_sigmas)
    terms |= {"sigma": sigma, "squared_distance": float(squared_distance)}
    grid = "sigma" if num_sigmas == 1 else f"each of the {num_sigmas} sigmas tried"
    assumptions = (UNIT_LOSS, IID, *sampling_assumptions(num_draws), f"{grid} was fixed before the data were seen")
    source = "Langford & Caruana 2001; Langford & Seeger 2001; Maurer 2004"
    return Bound("PAC-Bayes, isotropic Gaussian", value, terms, assumptions, trivial_value, source)


def check_unit_loss(name: str, value: float) -> float:
    """Return a loss in [0, 1], or say how to make one of a loss that is not bounded."""
    try:
        return check_real(name, value, 0.0, 1.0)
    except ValueError as error:
        raise ValueError(
            f"{error} These bounds need a bounded loss: take the 0–1 error, or clip the loss at some B and divide by B."
        ) from None


def sampling_assumptions(num_draws: int | None) -> tuple[str, ...]:
    """How the posterior's loss was obtained, in words."""
    if num_draws is None:
        return ("the empirical loss of the posterior is exact",)
    return (f"the empirical loss averages {num_draws} independent draws from the posterior",)


def pac_bayes_terms(
    empirical_loss: float, kl: float, num_samples: int, delta: float, choices: int = 1
) -> dict[str, float]:
    """Check the arguments; complexity = (KL + log(2√N·choices/δ)) / N, and what it is made of."""
    loss = check_unit_loss("empirical_loss", empirical_loss)
    kl = check_real("kl", kl, 0.0)
    num_samples = check_int("num_samples", num_samples, minimum=2)
    delta = check_real("delta", delta, 0.0, 1.0, open_minimum=True, open_maximum=True)
    log_term = math.log(2 * math.sqrt(num_samples) * choices / delta)
    complexity = (kl + log_term) / num_samples
    return {
        "empirical_loss": loss,
        "kl": kl,
        "log_term": log_term,
        "complexity": complexity,
        "num_samples": float(num_samples),
        "delta": delta,
    }


def sampled_seeger(
    empirical_loss: float, kl: float, num_samples: int, num_draws: int | None, delta: float, choices: int
) -> tuple[float, dict[str, float]]:
    """The Langford–Seeger value when the best of ``choices`` posteriors is taken and each one's loss was sampled."""
    terms = pac_bayes_terms(empirical_loss, kl, num_samples, delta, choices)
    if num_draws is not None:
        check_int("num_draws", num_draws)
        average = terms["empirical_loss"]
        upper = kl_inverse_upper(average, math.log(2 * choices / (delta / 2)) / num_draws)
        terms = pac_bayes_terms(upper, kl, num_samples, delta / 2, choices)
        terms |= {"delta": delta, "sampled_loss": average, "num_draws": float(num_draws)}
    terms["choices"] = float(choices)
    return kl_inverse_upper(terms["empirical_loss"], terms["complexity"]), terms
