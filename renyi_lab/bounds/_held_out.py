"""The bound that needs no prior: samples that a fixed network never saw, and the exact binomial tail."""

from __future__ import annotations

from renyi_lab._utils.validation import check_int
from renyi_lab.bounds._bound import Bound
from renyi_lab.bounds._pac_bayes import DELTA, check_sample


def held_out(num_errors: int, num_samples: int, delta: float = DELTA) -> Bound:
    """The exact upper limit on the error of one fixed classifier from its mistakes on samples it never saw.

        L_D ≤ max { p : P(Binomial(N, p) ≤ k) ≥ δ }

    Args:
        num_errors: Number of mistakes k, 0 … N.
        num_samples: Number N ≥ 2 of samples.
        delta: Allowed probability of failure δ in (0, 1). Default 0.05 (customary).

    Raises:
        ValueError: An argument outside its range.
        TypeError: A count that is not an integer.

    Source:
        Clopper & Pearson 1934; Langford 2005, *Tutorial on practical prediction theory for classification*, the
        test-set bound.

    Example:
        >>> held_out(0, 100).value == 1 - 0.05 ** (1 / 100)
        True
    """
    from scipy.stats import beta  # imported here: half a second that other bounds need not wait

    num_samples, delta = check_sample(num_samples, delta)
    num_errors = check_int("num_errors", num_errors, 0, num_samples)
    if num_errors in (0, num_samples):
        value = 1.0 - delta ** (1 / num_samples) if num_errors == 0 else 1.0
    else:
        value = float(beta.isf(delta, num_errors + 1, num_samples - num_errors))
    terms = {
        "empirical_loss": num_errors / num_samples,
        "num_errors": float(num_errors),
        "num_samples": float(num_samples),
        "delta": delta,
    }
    assumptions = ("the loss is the 0–1 error", "the N samples are i.i.d. and had no part in choosing the classifier")
    return Bound("held-out samples, binomial tail", value, terms, assumptions, "Langford 2005")
