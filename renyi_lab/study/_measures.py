"""What a study measures unless told otherwise: Rényi sharpness at a grid of orders, and what it is compared with."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from renyi_lab.sharpness import sharpness_report
from renyi_lab.spectrum import Spectrum, choose_alpha
from renyi_lab.study._measurement import Measurement

RENYI = "renyi_sharpness"
# Orders at which τ(α) is shown; below 0.25 the estimates of a single-precision spectrum hear rounding.
ALPHA_GRID = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)
# Our choice: 120 products gave the correlations of the pilots; 150 are enough for the standard errors at α < 1.
NUM_MATVECS = 150
# Our choice, of the training set's samples, the same ones for every model: a quarter of the cost.
NUM_SAMPLES = 1000


def standard_measure(
    model: nn.Module,
    loss_fn: Callable[..., Tensor],
    data: tuple[Tensor, Tensor],
    *,
    initial_parameters: Mapping[str, Tensor],
    num_matvecs: int = NUM_MATVECS,
    num_samples: int | None = NUM_SAMPLES,
) -> Measurement:
    """Everything in `sharpness_report`, for the whole network and for its first and last weight.

    Measures of a block end in `` [first]`` or `` [last]``, so that networks of different shapes can be compared. Rényi
    sharpness is kept as a curve over `ALPHA_GRID`, with the order that `choose_alpha` picks from each spectrum.
    """
    weights = [name for name, parameter in model.named_parameters() if parameter.ndim > 1 and parameter.requires_grad]
    if not weights:
        raise ValueError("the model has no trainable weight matrix, so no first and last one to measure.")
    blocks = {"whole": "", weights[0]: " [first]", weights[-1]: " [last]"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on single estimates are for readers of one report
        report = sharpness_report(
            model,
            loss_fn,
            data,
            alphas=(),
            num_matvecs=num_matvecs,
            num_samples=None if num_samples is None else min(num_samples, len(data[0])),
            initial_parameters=dict(initial_parameters),
            blocks=list(dict.fromkeys((weights[0], weights[-1]))),
            progress=False,
        )
        curves = {RENYI + suffix: _curve(report.spectra[block]) for block, suffix in blocks.items()}
    return Measurement(
        {measure + blocks[block]: estimate.value for (measure, block), estimate in report.estimates.items()},
        curves,
        {RENYI + suffix: alpha for block, suffix in blocks.items() for alpha in _chosen(report.spectra[block])},
    )


def _curve(spectrum: Spectrum) -> dict[float, float]:
    if _is_zero(spectrum):
        return dict.fromkeys(ALPHA_GRID, math.nan)
    return {alpha: spectrum.renyi_sharpness(alpha).value for alpha in ALPHA_GRID}


def _chosen(spectrum: Spectrum) -> list[float]:
    """The order that the rule chooses, if there is anything to choose from."""
    return [] if _is_zero(spectrum) else [choose_alpha(spectrum).alpha]


def _is_zero(spectrum: Spectrum) -> bool:
    """Whether no direction is curved, as behind a layer whose units are all dead."""
    return not spectrum.magnitudes.any()
