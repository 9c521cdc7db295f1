"""PAC-Bayes bounds on the loss of a randomised classifier, from its measured loss and its divergence from a prior."""

from __future__ import annotations

import math

from renyi_lab._utils.bernoulli_kl import kl_inverse_upper
from renyi_lab._utils.validation import check_delta, check_int, check_real
from renyi_lab.bounds._bound import Bound

DELTA = 0.05  # customary confidence of 95 %
MAX_SAMPLES = 2**53  # a larger integer is no exact float
SAMPLES = "the N samples are i.i.d."
IID = f"{SAMPLES} and had no part in choosing the prior"
UNIT_LOSS = "the loss lies in [0, 1]"
SEEGER = "Langford & Seeger 2001; Maurer 2004"


def maurer(empirical_loss: float, kl: float, num_samples: int, delta: float = DELTA) -> Bound:
    """McAllester's PAC-Bayes bound with Maurer's constant.

        E_Q L_D ≤ E_Q L_S + √( (KL(Q‖P) + log(2√N/δ)) / (2N) )

    Maurer's proof is for N ≥ 8; the one quantity that it bounds by 2√N is below it for N = 2 … 7 too.

    Args:
        empirical_loss: Mean loss E_Q L_S of the posterior on the samples, in [0, 1].
        kl: Divergence KL(Q‖P) ≥ 0 of the posterior from the prior, in nats.
        num_samples: Number N ≥ 2 of samples.
        delta: Allowed probability of failure δ in (0, 1). Default 0.05 (customary).

    Source:
        McAllester 1999; Maurer 2004, *A note on the PAC Bayesian theorem*, with Pinsker's inequality.
    """
    terms = pac_bayes_terms(empirical_loss, kl, num_samples, delta)
    value = terms["empirical_loss"] + math.sqrt(terms["complexity"] / 2)
    return Bound("PAC-Bayes, McAllester/Maurer", value, terms, (UNIT_LOSS, IID), "McAllester 1999; Maurer 2004")


def langford_seeger(empirical_loss: float, kl: float, num_samples: int, delta: float = DELTA) -> Bound:
    """The Langford–Seeger PAC-Bayes bound, never above `maurer`'s; arguments and errors as there.

        kl(E_Q L_S ‖ E_Q L_D) ≤ (KL(Q‖P) + log(2√N/δ)) / N,  inverted by `kl_inverse_upper`

    Source:
        Langford & Seeger 2001; Maurer 2004, Theorem 5.

    Example:
        >>> langford_seeger(0.02, kl=500.0, num_samples=10_000).value < maurer(0.02, kl=500.0, num_samples=10_000).value
        True
    """
    terms = pac_bayes_terms(empirical_loss, kl, num_samples, delta)
    return seeger_bound("PAC-Bayes, Langford–Seeger", terms, (UNIT_LOSS, IID))


def isotropic_pac_bayes(
    empirical_gibbs_loss: float,
    squared_distance: float,
    sigma: float,
    num_samples: int,
    *,
    num_draws: int | None,
    delta: float = DELTA,
    num_sigmas: int = 1,
) -> Bound:
    """The Langford–Seeger bound for weights with Gaussian noise: Q = N(θ, σ²I), P = N(θ₀, σ²I).

        KL(Q‖P) = ‖θ−θ₀‖² / (2σ²)

    in which the number of parameters does not appear. With the loss of Q averaged over m draws of weights, half of δ
    is spent on its sampling error: E_Q L_S ≤ kl⁻¹(average, log(2/δ′)/m).

    Args:
        empirical_gibbs_loss: Average of L_S over the draws, in [0, 1]; `renyi_lab.gibbs_error` measures it.
        squared_distance: ‖θ−θ₀‖² ≥ 0; θ₀ may be the initialisation, or weights trained on other data.
        sigma: Standard deviation σ > 0 of the noise, in units of the weights.
        num_samples: Number N ≥ 2 of samples.
        num_draws: Number m ≥ 1 of draws, or ``None`` when the loss is exact.
        delta: Allowed probability of failure δ in (0, 1). Default 0.05 (customary).
        num_sigmas: Number of σ, fixed beforehand, of which this is the best; each gets δ / num_sigmas. Default 1.

    Source:
        Langford & Caruana 2001, *(Not) bounding the true error*, sections 2 and 3.
    """
    sigma = check_real("sigma", sigma, 0.0, open_minimum=True)
    num_sigmas = check_int("num_sigmas", num_sigmas, maximum=MAX_SAMPLES)
    kl = check_real("squared_distance", squared_distance, 0.0) / sigma / sigma / 2  # sigma² may be below all numbers
    if math.isinf(kl):
        raise ValueError(
            f"squared_distance / (2 sigma²) is beyond the largest number for sigma={sigma:g} and "
            f"squared_distance={float(squared_distance):g}; are both in units of the weights?"
        )
    loss = check_unit_loss("empirical_gibbs_loss", empirical_gibbs_loss)
    terms = sampled_terms(loss, kl, num_samples, num_draws, delta, num_sigmas)
    terms |= {"sigma": sigma, "squared_distance": float(squared_distance)}
    grid = "sigma" if num_sigmas == 1 else f"each of the {num_sigmas} sigmas tried"
    assumptions = (UNIT_LOSS, IID, sampling_assumption(num_draws), f"{grid} was fixed before the data were seen")
    return seeger_bound("PAC-Bayes, isotropic Gaussian", terms, assumptions, f"Langford & Caruana 2001; {SEEGER}")


def check_unit_loss(name: str, value: float) -> float:
    """Return a loss in [0, 1], or say how to make one of a loss that is not bounded."""
    try:
        return check_real(name, value, 0.0, 1.0)
    except ValueError as error:
        raise ValueError(
            f"{error} These bounds need a bounded loss: take the 0–1 error, or clip the loss at some B and divide by B."
        ) from None


def check_sample(num_samples: int, delta: float) -> tuple[int, float]:
    """Return the number of samples and the probability of failure of a bound, or raise."""
    return check_int("num_samples", num_samples, 2, MAX_SAMPLES), check_delta(delta)


def sampling_assumption(num_draws: int | None) -> str:
    """How the posterior's loss was obtained, in words."""
    if num_draws is None:
        return "the empirical loss of the posterior is exact"
    return f"the empirical loss averages {num_draws} independent draws from the posterior"


def pac_bayes_terms(
    empirical_loss: float, kl: float, num_samples: int, delta: float, choices: int = 1
) -> dict[str, float]:
    """Check the arguments; complexity = (KL + log(2√N·choices/δ)) / N, and what it is made of."""
    loss, kl = check_unit_loss("empirical_loss", empirical_loss), check_real("kl", kl, 0.0)
    num_samples, delta = check_sample(num_samples, delta)
    choices = check_int("choices", choices, maximum=MAX_SAMPLES)
    log_term = math.log(2 * math.sqrt(num_samples) * choices / delta)
    return {
        "empirical_loss": loss,
        "kl": kl,
        "log_term": log_term,
        "complexity": (kl + log_term) / num_samples,
        "num_samples": float(num_samples),
        "delta": delta,
    }


def sampled_terms(
    empirical_loss: float, kl: float, num_samples: int, num_draws: int | None, delta: float, choices: int
) -> dict[str, float]:
    """The terms when the best of ``choices`` posteriors is taken and the loss of each was sampled."""
    terms = pac_bayes_terms(empirical_loss, kl, num_samples, delta, choices)
    if num_draws is not None:
        check_int("num_draws", num_draws, maximum=MAX_SAMPLES)
        average = terms["empirical_loss"]
        upper = kl_inverse_upper(average, math.log(2 * choices / (delta / 2)) / num_draws)
        terms = pac_bayes_terms(upper, kl, num_samples, delta / 2, choices)
        terms |= {"delta": delta, "sampled_loss": average, "num_draws": float(num_draws)}
    return terms | {"choices": float(choices)}


def seeger_bound(name: str, terms: dict[str, float], assumptions: tuple[str, ...], source: str = SEEGER) -> Bound:
    """The Langford–Seeger bound of these terms: their complexity, inverted."""
    return Bound(name, kl_inverse_upper(terms["empirical_loss"], terms["complexity"]), terms, assumptions, source)
