"""Checks of the spectrum: negative curvature, rounding, twice the steps, twice the samples."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from renyi_lab._utils.estimate import Estimate
from renyi_lab._utils.exclusive import exclusive
from renyi_lab.checks._batches import halves
from renyi_lab.checks._finding import Finding, ok, problem, warning
from renyi_lab.operators import HessianOperator
from renyi_lab.spectrum import Spectrum, estimate_spectrum

ALPHAS = (0.5, 1.0, 1.5, 2.0)
# All limits are heuristics, in nats where they are about entropies: networks of a study differ by a few tenths.
# A negative trace, or almost one with a negative eigenvalue that is not small beside the largest. Networks with batch
# norm have up to 0.46 after a few epochs, in many small eigenvalues (1 to 10 % of the largest).
_NEGATIVE, _MOST_NEGATIVE, _NEGATIVE_EIGENVALUE = 0.45, 0.5, 0.25
_NOTED = 0.25
_MOVED = 4.0  # standard errors, for the largest of several differences
_LARGE_ERROR = 0.3
_DATA_ERROR = math.log(2)  # a factor of two in the effective number
_ROUNDING = 0.1
_RELIABLE = tuple(alpha for alpha in ALPHAS if alpha >= 1)  # smaller orders have their errors in the table


@dataclass(frozen=True)
class Change:
    """What more samples change in an entropy.

    Attributes:
        of_half: The mean entropy of two halves of the samples.
        to_all: That of all samples.
        between: Difference between the halves.
    """

    of_half: float
    to_all: float
    between: float


@dataclass(frozen=True)
class Spectra:
    """The spectrum, one with half the steps, and those of two halves of the data.

    Attributes:
        whole: The spectrum.
        fewer: With half the products and other probes; ``None`` where the spectrum is exact.
        halves: Of two halves of the samples; ``None`` where the data cannot be taken apart.
        joined_loss: The loss of all data, from those of the halves; ``None`` without halves.
    """

    whole: Spectrum
    fewer: Spectrum | None
    halves: tuple[Spectrum, Spectrum] | None
    joined_loss: float | None

    @property
    def data_errors(self) -> dict[float, float]:
        """The standard error of each entropy that comes from the sample.

        Its square is that of half the difference between the halves, plus that of the bias: twice the samples are taken
        to change an entropy by as much as all samples do beside half of them. Entropies of subsets are too small.
        """
        return {a: math.hypot(change.between / 2, change.to_all - change.of_half) for a, change in self.changes.items()}

    @property
    def changes(self) -> dict[float, Change]:
        """Entropies of half of the samples and of all by order, from equally many products with the same probes."""
        if self.halves is None:
            return {}
        of_all, first, second = map(entropies, (self.fewer or self.whole, *self.halves))
        return {
            a: Change((first[a].value + second[a].value) / 2, of_all[a].value, abs(first[a].value - second[a].value))
            for a in ALPHAS
            if a in of_all and a in first and a in second
        }


def entropies(spectrum: Spectrum) -> dict[float, Estimate]:
    """Entropies by order; empty for a spectrum of zeros."""
    if not np.any(spectrum.magnitudes[spectrum.weights != 0]):
        return {}
    with exclusive(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {alpha: spectrum.renyi_entropy(alpha) for alpha in ALPHAS}


def at_spectrum(H: HessianOperator, spectra: Spectra, is_random: bool) -> Iterator[Finding]:
    """Findings on the spectrum and what it rests on; a random loss of two halves is not compared with that of all."""
    found = entropies(spectra.whole)
    if not found:
        yield problem(
            "spectrum",
            "the Hessian is zero: the loss does not depend on the parameters, or is piecewise linear in them (a "
            "linear layer or a ReLU network under an absolute-error loss). Use a loss with curvature.",
        )
        return
    yield _negative(spectra.whole)
    yield _rounding(H, spectra.whole, found)
    yield _steps(spectra, found)
    yield _samples(H, spectra, is_random)


def _negative(spectrum: Spectrum) -> Finding:
    share = spectrum.negative_fraction
    size = max(0.0, -float(spectrum.nodes[0])) / max(abs(spectrum.max_eigenvalue), np.finfo(float).tiny)
    measured = f"{100 * share:.2g} % of tr |H| is negative; the smallest eigenvalue is {-size:.2g} of the largest"
    if share > _MOST_NEGATIVE or (share > _NEGATIVE and size > _NEGATIVE_EIGENVALUE):
        return warning(
            "negative curvature",
            f"{measured}: the point is a saddle rather than a minimum. Do not call it one; measures that suppose H ⪰ 0 "
            "(trace, log-determinant, Laplace) do not apply. Train longer.",
        )
    note = ". This is usual early in training; the trace is a difference of parts of similar size"
    return ok("negative curvature", measured + (note if share > _NOTED else ""))


def _rounding(H: HessianOperator, spectrum: Spectrum, found: Mapping[float, Estimate]) -> Finding:
    hidden = [alpha for alpha in ALPHAS if found[alpha].rounding_error > _ROUNDING]
    lost = [alpha for alpha in hidden if alpha in _RELIABLE]
    fix = "use model.double() and data in double precision"
    if lost:
        return warning(
            "rounding",
            f"rounding in {H.precision} hides eigenvalues on which the entropies of orders {_orders(lost)} depend; "
            f"{fix}.",
        )
    note = f"; for order {_orders(hidden)} {fix}" if hidden else ""
    return ok(
        "rounding",
        f"{H.precision} is enough for orders from {_orders([a for a in ALPHAS if a not in hidden][:1])}{note}",
    )


def _steps(spectra: Spectra, found: Mapping[float, Estimate]) -> Finding:
    name = "twice the steps"
    if spectra.fewer is None:
        return ok(name, "all eigenvalues were computed")
    fewer = entropies(spectra.fewer)
    moves = {a: abs(found[a].value - fewer[a].value) for a in _RELIABLE}
    errors = {a: math.hypot(found[a].standard_error, fewer[a].standard_error) for a in _RELIABLE}
    worst = max(_RELIABLE, key=lambda a: moves[a] / max(errors[a], 1e-3))
    measured = (
        f"from {spectra.fewer.num_matvecs} to {spectra.whole.num_matvecs} products H_{worst:g} changes by "
        f"{moves[worst]:.2g} (standard error of the change {errors[worst]:.2g})"
    )
    if moves[worst] > _MOVED * max(errors[worst], 1e-3):
        return warning(
            name, f"{measured}: more than its error. Standard errors are too small; use a larger num_matvecs."
        )
    large = {a: found[a].standard_error for a in _RELIABLE if found[a].standard_error > _LARGE_ERROR}
    if large:
        shown = ", ".join(f"H_{a:g} ± {error:.2g}" for a, error in large.items())
        return warning(name, f"{measured}; standard errors are large ({shown}). Use a larger num_matvecs.")
    return ok(name, measured)


def _samples(H: HessianOperator, spectra: Spectra, is_random: bool) -> Finding:
    name = "twice the samples"
    if spectra.halves is None or spectra.joined_loss is None:
        return ok(name, "not compared: the data cannot be taken apart along their first dimension")
    gap = abs(spectra.joined_loss - H.loss)
    if not is_random and gap > 1e-2 * max(abs(H.loss), abs(spectra.joined_loss)) + 1e-6:
        return warning(
            name,
            f"the loss of all data is {H.loss:.4g}, but {spectra.joined_loss:.4g} from two halves of them: samples "
            "depend on each other (batch norm in training mode, a contrastive loss), or the loss is not a mean over "
            "samples. The spectrum depends on how the data are split into batches.",
        )
    errors = spectra.data_errors
    if not errors:
        return problem(name, "the Hessian of half of the samples is zero.")
    worst = max((a for a in _RELIABLE if a in errors), key=lambda a: errors[a])
    change = spectra.changes[worst]
    measured = (
        f"H_{worst:g} is {change.of_half:.2f} from half of the samples and {change.to_all:.2f} from all, with equally "
        f"many products; two halves differ by {change.between:.2g}. This leaves an error of about "
        f"{errors[worst]:.1g}"
    )
    if errors[worst] > _DATA_ERROR:
        return warning(
            name, f"{measured}: the spectrum is that of this sample. Use more data before you compare networks."
        )
    return ok(name, measured)


def spectra_of(H: HessianOperator, num_matvecs: int, seed: int, on_spectrum: Callable[[], object]) -> Spectra:
    """All spectra, for about twice the products of one.

    Args:
        H: The operator.
        num_matvecs: Products of the spectrum; the others have half as many.
        seed: Random seed.
        on_spectrum: Called after each.
    """

    def spectrum(operator: HessianOperator, count: int, own_seed: int) -> Spectrum:
        with exclusive(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # what they say is a finding
            found = estimate_spectrum(operator, num_matvecs=count, seed=own_seed, progress=False)
        on_spectrum()
        return found

    fewest = max(1, num_matvecs // 2)
    whole = spectrum(H, num_matvecs, seed)
    # An exact spectrum of half the samples is compared with that of the other half.
    of_half = num_matvecs if whole.is_exact else fewest
    fewer = None if whole.is_exact else spectrum(H, fewest, seed + 1)
    parts = _half_operators(H, seed)
    if parts is None:
        return Spectra(whole, fewer, None, None)
    first, second = (spectrum(part, of_half, seed + 1) for part in parts)  # the probes of `fewer`
    # A mean over all is that of the halves' means, weighted; sums add up.
    masses = [part.total_mass if H.reduction == "mean" else 1.0 for part in parts]
    total = sum(mass * part.loss for mass, part in zip(masses, parts, strict=True))
    return Spectra(whole, fewer, (first, second), total / (sum(masses) if H.reduction == "mean" else 1.0))


def _half_operators(H: HessianOperator, seed: int) -> tuple[HessianOperator, HessianOperator] | None:
    parts = halves(H.batches, seed)
    if parts is None:
        return None
    try:
        H.check_samples("the comparison of two halves")
        with exclusive(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return H.restricted(batches=parts[0]), H.restricted(batches=parts[1])
    except ValueError:  # outputs that depend on the rest of the batch, or a half without labels
        return None


def _orders(alphas: list[float]) -> str:
    return ", ".join(f"{alpha:g}" for alpha in alphas)
