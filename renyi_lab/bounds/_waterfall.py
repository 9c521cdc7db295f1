"""What a bound is made of: measured error, draws, confidence and divergence, as numbers and as a picture."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from renyi_lab._utils.bernoulli_kl import kl_inverse_upper
from renyi_lab._utils.figure import BLUE, GREEN, GREY, ORANGE, PURPLE, check_axes
from renyi_lab._utils.validation import check_instance, check_int, check_real, printed
from renyi_lab.bounds._bound import Bound
from renyi_lab.bounds._certificate import PARTS
from renyi_lab.bounds._pac_bayes import (
    DELTA,
    IID,
    UNIT_LOSS,
    check_unit_loss,
    sampled_terms,
    sampling_assumption,
    seeger_bound,
)

_COLORS = {"measured": GREEN, "+ draws": PURPLE, "+ confidence": BLUE, "+ divergence": ORANGE}


def sampled_pac_bayes(
    sampled_loss: float,
    kl: float,
    num_samples: int,
    *,
    num_draws: int | None,
    choices: int = 1,
    delta: float = DELTA,
) -> Bound:
    """The Langford–Seeger bound of any posterior whose loss is averaged over draws, the best of several posteriors.

        E_Q L_S ≤ kl⁻¹(average, log(4·choices/δ)/m),   kl(E_Q L_S ‖ E_Q L_D) ≤ (KL + log(4√N·choices/δ)) / N

    so that half of δ is spent on the draws, and each choice gets its share of both halves. Without draws all of δ is
    spent on the second inequality.

    Args:
        sampled_loss: Average of L_S over the draws, in [0, 1].
        kl: Divergence KL(Q‖P) ≥ 0 in nats.
        num_samples: Number N ≥ 2 of samples.
        num_draws: Number m ≥ 1 of draws, or ``None`` when the loss is exact.
        choices: Number of posteriors, or priors, of which this is the best. They are fixed beforehand. Default 1.
        delta: Allowed probability of failure δ in (0, 1). Default 0.05 (customary).

    Source:
        Langford & Caruana 2001, *(Not) bounding the true error*; Langford & Seeger 2001; Maurer 2004.

    Example:
        >>> bound = sampled_pac_bayes(0.04, 5.0, 1000, num_draws=2000)
        >>> round(bound.value, 3)
        0.098
    """
    sampled_loss = check_unit_loss("sampled_loss", sampled_loss)
    terms = sampled_terms(sampled_loss, kl, num_samples, num_draws, delta, check_int("choices", choices))
    assumptions = (UNIT_LOSS, IID, sampling_assumption(num_draws))
    return seeger_bound("PAC-Bayes, Langford–Seeger", terms, assumptions)


def waterfall(bound: Bound) -> dict[str, float]:
    """The four parts that add up to a bound's value.

    Measured error; what few draws of the weights add; what confidence adds at a divergence of zero; and what the
    divergence adds.

    Args:
        bound: A Langford–Seeger bound or a bound from held-out samples, of this package.

    Returns:
        The parts, with the keys ``"measured"``, ``"+ draws"``, ``"+ confidence"`` and ``"+ divergence"``.

    Raises:
        TypeError: ``bound`` is not a `Bound`.
        ValueError: A bound that is not of these two forms.

    Example:
        >>> parts = waterfall(sampled_pac_bayes(0.04, 5.0, 1000, num_draws=2000))
        >>> {name: round(part, 3) for name, part in parts.items()}
        {'measured': 0.04, '+ draws': 0.014, '+ confidence': 0.033, '+ divergence': 0.011}
    """
    if not isinstance(bound, Bound):
        raise TypeError(f"bound must be a Bound, as the functions of renyi_lab.bounds return it, got {printed(bound)}.")
    return dict(zip(_COLORS, np.diff([0.0, *_levels(bound)]).tolist(), strict=True))


def _levels(bound: Bound) -> list[float]:
    terms = bound.terms
    if all(part in terms for part in PARTS):
        return np.cumsum([terms[part] for part in PARTS]).tolist()  # type: ignore[no-any-return]
    loss = terms.get("empirical_loss", float("nan"))
    if "num_errors" in terms:
        return [loss, loss, bound.value, bound.value]
    known = {"kl", "log_term", "num_samples", "complexity"} <= set(terms)
    if not known or bound.value != kl_inverse_upper(loss, terms["complexity"]):
        raise ValueError(f"the bound {bound.name!r} is not a sum of measured error, draws, confidence and divergence.")
    without_kl = kl_inverse_upper(loss, terms["log_term"] / terms["num_samples"])
    return [terms.get("sampled_loss", loss), loss, without_kl, bound.value]


def plot_waterfall(ax: Axes, bounds: Mapping[str, Bound], *, trivial_value: float = 1.0) -> None:
    """Draw one horizontal bar per bound, made of its `waterfall`, and the value at which a bound is vacuous.

    Args:
        ax: Axes to draw into.
        bounds: Bounds by name, drawn from top to bottom.
        trivial_value: What is known without data, in (0, 1], such as the error of chance. Default 1, the loss's
            maximum.

    Raises:
        TypeError: A value that is not a `Bound`.
        ValueError: No bounds, a bound without such parts, or a trivial value out of range.
    """
    trivial = check_real("trivial_value", trivial_value, 0.0, 1.0, open_minimum=True)
    check_axes(ax)
    if not check_instance("bounds", bounds, Mapping, 'write {"name": bound}'):
        raise ValueError("bounds is empty; give at least one bound by name.")
    table = [waterfall(bound) for bound in bounds.values()]
    left = np.zeros(len(table))
    for part, color in _COLORS.items():
        widths = np.array([parts[part] for parts in table])
        ax.barh(range(len(table)), widths, left=left, color=color, label=part, height=0.6)
        left += widths
    for row, value in enumerate(left.tolist()):
        ax.annotate(f" {value:.3f}", (value, row), va="center", fontsize="small")
    ax.axvline(trivial, color=GREY, ls="--", lw=1)
    ax.annotate("vacuous", (trivial, 1.0), xycoords=("data", "axes fraction"), ha="center", va="bottom", color=GREY)
    ax.set(yticks=range(len(table)), yticklabels=list(bounds), xlabel="bound on the error", xlim=(0, 1.12))
    ax.invert_yaxis()
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=4, frameon=False, fontsize="small")
