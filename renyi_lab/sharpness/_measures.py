"""The registry of measures: a measure of `sharpness_report` is one entry of `MEASURES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from renyi_lab._utils.estimate import Estimate
from renyi_lab._utils.fields import check_fields
from renyi_lab.operators import ModelOperator
from renyi_lab.sharpness._norms import distance_from_initialization, gradient_norm, parameter_norm
from renyi_lab.sharpness._outputs import fisher_rao_norm
from renyi_lab.sharpness._pac_bayes import pac_bayes_flatness
from renyi_lab.sharpness._perturbed import asam_sharpness, average_case_sharpness, sam_sharpness
from renyi_lab.sharpness._relative_flatness import relative_flatness
from renyi_lab.sharpness._spectral import frobenius_norm, lambda_max, log_determinant, renyi_sharpness, trace

_NONE = "none under layer rescaling"
_ROTATION = "rotations of weight space; not layer rescaling (a block's is multiplied by c⁻²)"
_RESCALING = "layer and neuron rescaling that leaves a positively homogeneous network's function unchanged"


@dataclass(frozen=True)
class Network:
    """The input of the measures that need more than a spectrum.

    Attributes:
        operator: Operator over the samples for spectra, gradient and norms.
        subset: Operator over fewer samples, for measures that evaluate the loss many times.
        seed: Random seed for noise and starting points.
        initial_weights: Parameters before training by name; ``None`` where unknown.
    """

    operator: ModelOperator
    subset: ModelOperator
    seed: int
    initial_weights: Mapping[str, Tensor] | None


@dataclass(frozen=True)
class Measure:
    """A sharpness measure.

    Attributes:
        name: Row in the report.
        function: Function of a `Spectrum` (for Rényi sharpness, and ``alpha``) if ``per_block``, else of a `Network`.
        description: Formula or one phrase; larger is always sharper or more complex.
        source: Author and year.
        invariance: Changes of the weights that leave it unchanged.
        per_block: Whether it is a function of the spectrum alone, and so measured for every block.
    """

    name: str
    function: Callable[..., Estimate]
    description: str
    source: str
    invariance: str
    per_block: bool = False

    def __post_init__(self) -> None:
        check_fields(self)


def _of_samples(function: Callable[[ModelOperator], Estimate]) -> Callable[[Network], Estimate]:
    return lambda network: function(network.operator)


def _of_subset(function: Callable[..., Estimate], **options: Any) -> Callable[[Network], Estimate]:
    return lambda network: function(network.subset, seed=network.seed, **options)


def _distance(network: Network) -> Estimate:
    if network.initial_weights is None:
        raise ValueError("no initial_parameters were given; pass a copy of the state dict from before training.")
    return distance_from_initialization(network.operator, network.initial_weights)


_ENTRIES = (
    Measure(
        "renyi_sharpness",
        renyi_sharpness,
        "−H_α of |λ| / Σ|λ|, in nats",
        "Zhang et al., arXiv:2510.07758 (2025)",
        "H → cH; a block's: layer rescaling; the whole network's: not",
        per_block=True,
    ),
    Measure("trace", trace, "Σ λ", "Dinh et al. 2017", _ROTATION, per_block=True),
    Measure("lambda_max", lambda_max, "largest eigenvalue", "Keskar et al. 2017", _ROTATION, per_block=True),
    Measure("frobenius_norm", frobenius_norm, "√(Σ λ²)", "standard", _ROTATION, per_block=True),
    Measure(
        "log_determinant",
        log_determinant,
        "Σ log(1 + |λ|/γ), γ = 5·10⁻⁴",
        "Jia & Su 2020, regularised",
        "rotations of weight space; not layer rescaling",
        per_block=True,
    ),
    Measure("gradient_norm", _of_samples(gradient_norm), "‖∇L‖", "standard", _NONE),
    Measure("parameter_norm", _of_samples(parameter_norm), "‖θ‖", "Jiang et al. 2019", _NONE),
    Measure("distance_from_initialization", _distance, "‖θ − θ₀‖", "Nagarajan & Kolter 2019", _NONE),
    Measure(
        "fisher_rao_norm",
        _of_samples(fisher_rao_norm),
        "√(θᵀFθ), F the empirical Fisher matrix",
        "Liang et al. 2019",
        _RESCALING,
    ),
    Measure(
        "relative_flatness",
        _of_samples(relative_flatness),
        "Σ ⟨w_s, w_t⟩ tr H_st of the last layer",
        "Petzka et al. 2021",
        "layer rescaling; not that of single neurons",
    ),
    Measure(
        "pac_bayes_flatness",
        _of_subset(pac_bayes_flatness),
        "1/σ² of the noise that raises the loss by 0.1",
        "Jiang et al. 2019",
        _ROTATION,
    ),
    Measure(
        "pac_bayes_flatness_magnitude_aware",
        _of_subset(pac_bayes_flatness, magnitude_aware=True),
        "the same with noise in proportion to each weight",
        "Jiang et al. 2019",
        f"{_RESCALING}, nearly",
    ),
    Measure(
        "sam_sharpness_l2",
        _of_subset(sam_sharpness, norm="l2"),
        "worst rise for ‖ε‖₂ ≤ 0.05",
        "Foret et al. 2021",
        _NONE,
    ),
    Measure(
        "sam_sharpness_linf",
        _of_subset(sam_sharpness, norm="linf"),
        "worst rise for |ε_j| ≤ 0.001",
        "Keskar et al. 2017",
        _NONE,
    ),
    Measure(
        "asam_sharpness_l2",
        _of_subset(asam_sharpness, norm="l2"),
        "worst rise for ‖ε/θ‖₂ ≤ 0.5",
        "Kwon et al. 2021",
        _RESCALING,
    ),
    Measure(
        "asam_sharpness_linf",
        _of_subset(asam_sharpness, norm="linf"),
        "worst rise for |ε_j| ≤ 0.002·|θ_j|",
        "Kwon et al. 2021",
        _RESCALING,
    ),
    Measure(
        "average_case_sharpness",
        _of_subset(average_case_sharpness),
        "mean rise for ε ~ N(0, 0.05²I)",
        "Andriushchenko et al. 2023",
        _NONE,
    ),
)
MEASURES: dict[str, Measure] = {measure.name: measure for measure in _ENTRIES}


def measures_at(alphas: Sequence[float]) -> list[Measure]:
    """All measures, with Rényi sharpness at each of ``alphas``."""
    renyi = MEASURES["renyi_sharpness"]
    orders = [
        replace(renyi, name=f"{renyi.name}_{alpha:g}", function=partial(renyi_sharpness, alpha=alpha))
        for alpha in alphas
    ]
    return [*orders, *(measure for measure in MEASURES.values() if measure is not renyi)]
