"""The default measure of a study: Rényi sharpness at a grid of orders, and the measures it is compared with."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from renyi_lab._utils.exclusive import exclusive
from renyi_lab._utils.validation import check_instance
from renyi_lab.sharpness import sharpness_report
from renyi_lab.spectrum import Spectrum, choose_alpha
from renyi_lab.study._measurement import Measurement

RENYI = "renyi_sharpness"
# Orders at which τ(α) is shown; below 0.25, estimates from a single-precision spectrum are dominated by rounding.
ALPHA_GRID = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)
# Heuristic: pilot studies gave the same correlations with 120 products.
NUM_MATVECS = 150
# Training samples per measurement, the same ones for every model. Heuristic: a quarter of the cost of all 4000.
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
    """All measures of `sharpness_report`, for the whole network and for its first and last weight matrix.

    Names of block measures end in `` [first]`` or `` [last]``, so that networks of different shapes can be compared.
    Rényi sharpness is kept as a curve over `ALPHA_GRID`, with the order that `choose_alpha` picks from each spectrum.

    Args:
        model: Trained network with at least one trainable weight matrix.
        loss_fn: Mean loss of ``(outputs, targets)``.
        data: Training set ``(x, y)``.
        initial_parameters: Parameters before training, by name.
        num_matvecs: Hessian-vector products per spectrum. Default 150 (heuristic: pilot studies gave the same
            correlations with 120).
        num_samples: Training samples to measure on; ``None`` for all. Default 1000 (heuristic: a quarter of the cost).

    Raises:
        ValueError: The model has no trainable weight matrix.
        TypeError: ``data`` is not a pair of tensors, or ``initial_parameters`` no mapping.
    """
    check_instance("model", model, nn.Module)
    check_instance("initial_parameters", initial_parameters, Mapping)
    if not isinstance(data, (tuple, list)) or len(data) != 2 or not all(isinstance(part, Tensor) for part in data):
        raise TypeError(f"data must be two tensors (x, y), got {type(data).__name__}.")
    weights = [name for name, parameter in model.named_parameters() if parameter.ndim > 1 and parameter.requires_grad]
    if not weights:
        raise ValueError("the model has no trainable weight matrix; a study measures the first and the last one.")
    blocks = {"whole": "", weights[0]: " [first]", weights[-1]: " [last]"}
    with exclusive(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings about single estimates are for readers of one report
        report = sharpness_report(
            model,
            loss_fn,
            data,
            alphas=(),
            num_matvecs=num_matvecs,
            num_samples=None if num_samples is None else min(num_samples, len(data[0])),
            initial_parameters=initial_parameters,
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
    """The order chosen by the rule; empty for a zero spectrum."""
    return [] if _is_zero(spectrum) else [choose_alpha(spectrum).alpha]


def _is_zero(spectrum: Spectrum) -> bool:
    """Whether all eigenvalues are zero, as for a layer whose units are all dead."""
    return not spectrum.magnitudes.any()
