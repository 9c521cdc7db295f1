"""The level-set bounds of a trained network's spectrum: log-determinant, Jia & Su, and Rényi for several orders."""

from __future__ import annotations

import math
from collections.abc import Sequence

from renyi_lab.bounds._bound import Bound
from renyi_lab.bounds._damping import log_determinant, negative_ratio, positive_definite
from renyi_lab.bounds._level_set import ball_log_volume, jia_su, level_set
from renyi_lab.bounds._pac_bayes import DELTA
from renyi_lab.bounds._renyi import renyi_level_set
from renyi_lab.spectrum import Spectrum

# Cross-entropy is clipped here and divided by it, to lie in [0, 1]. Our choice: e⁻⁴ is a confident mistake.
LOSS_CLIP = 4.0
# Share of the largest eigenvalue that is added to all. Our choice.
_DAMPING = 1e-3
NO_CERTIFICATE = "a comparison, no certificate"


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

    Args:
        spectrum: of the Hessian of the cross-entropy; it is divided by ``LOSS_CLIP`` like the loss.
        loss_at_minimum: L₀ in [0, 1], clipped and divided likewise.
        radius: of the ball whose volume the basin gets, > 0.
        alphas: orders α > 0.
        num_samples: N ≥ 2.
        delta: δ in (0, 1).
    """
    damping = _DAMPING * float(spectrum.magnitudes.max())
    definite = positive_definite(spectrum, damping)
    n = definite.dim
    log_det = log_determinant(definite) - n * math.log(LOSS_CLIP)
    trace = float(definite.trace) / LOSS_CLIP
    volume = ball_log_volume(radius, n)
    ratio = negative_ratio(spectrum, damping)
    found = [
        level_set(loss_at_minimum, log_det, n, num_samples, log_volume=volume, negative_ratio=ratio, delta=delta),
        jia_su(loss_at_minimum, log_det, n, num_samples, log_volume=volume, delta=delta),
    ]
    for alpha in alphas:
        entropy = float(definite.renyi_entropy(alpha))
        found.append(
            renyi_level_set(
                loss_at_minimum,
                entropy,
                trace,
                n,
                alpha,
                num_samples,
                log_volume=volume,
                negative_ratio=ratio,
                delta=delta,
            )
        )
    remark = f"the basin was fixed by these very samples here, and the spectrum estimated: {NO_CERTIFICATE}"
    return [bound.with_assumption(remark) for bound in found]
