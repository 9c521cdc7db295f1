"""The level-set bounds of a trained network's spectrum: log-determinant, Jia & Su, and Rényi for several orders."""

from __future__ import annotations

import math
from collections.abc import Sequence

from renyi_lab._utils.validation import check_reals
from renyi_lab.bounds._bound import Bound
from renyi_lab.bounds._damping import log_determinant, negative_ratio, positive_definite
from renyi_lab.bounds._level_set import Basin, ball_log_volume, jia_su, level_set
from renyi_lab.bounds._pac_bayes import DELTA
from renyi_lab.bounds._renyi import renyi_level_set
from renyi_lab.spectrum import Spectrum, check_spectrum

# Cross-entropy is clipped here and divided by it, to lie in [0, 1]. Heuristic: e⁻⁴ is a confident mistake.
LOSS_CLIP = 4.0
# Share of the largest eigenvalue that is added to all. Heuristic: small beside the outliers, yet log|H| is finite.
_DAMPING = 1e-3


def level_set_bounds(
    spectrum: Spectrum,
    loss_at_minimum: float,
    radius: float,
    alphas: Sequence[float],
    num_samples: int,
    *,
    delta: float = DELTA,
) -> list[Bound]:
    """Log-determinant, Jia & Su and Rényi bounds at the volume of a ball, of the clipped, damped, rescaled spectrum.

    None of them is a certificate: the samples that the spectrum was measured on fixed the basin too.

    Args:
        spectrum: Spectrum of the Hessian of the cross-entropy; it is divided by ``LOSS_CLIP`` like the loss.
        loss_at_minimum: Loss L₀ at the minimum, clipped at ``LOSS_CLIP`` and divided by it, in [0, 1].
        radius: Radius > 0 of the ball whose volume the basin gets, in units of the weights.
        alphas: Orders α in (0, ∞] of the Rényi bounds.
        num_samples: Number N ≥ 2 of samples.
        delta: Allowed probability of failure δ in (0, 1), of each bound by itself. Default 0.05 (customary).

    Raises:
        TypeError: ``spectrum`` is not a `Spectrum`, or an argument has the wrong type.
        ValueError: An argument is out of range.
    """
    alphas = check_reals("alphas", alphas, 0.0, open_minimum=True, allow_infinite=True)
    damping = _DAMPING * float(check_spectrum(spectrum).magnitudes.max())
    definite = positive_definite(spectrum, damping)
    n, trace = definite.dim, float(definite.trace) / LOSS_CLIP
    log_det = log_determinant(definite) - n * math.log(LOSS_CLIP)
    ratio = negative_ratio(spectrum, damping)
    basin = Basin(loss_at_minimum, n, ball_log_volume(radius, n), negative_ratio=ratio)
    found = [calculate(basin, log_det, num_samples, delta=delta) for calculate in (level_set, jia_su)]
    for alpha in alphas:
        entropy = float(definite.renyi_entropy(alpha))
        found.append(renyi_level_set(basin, entropy, trace, alpha, num_samples, delta=delta))
    return [bound.as_comparison("the basin was fixed by these samples, and the spectrum estimated") for bound in found]
