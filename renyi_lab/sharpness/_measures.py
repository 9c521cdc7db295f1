"""What each measure is, where it comes from, and what it does not notice."""

from __future__ import annotations

from dataclasses import dataclass

_NONE = "none under layer rescaling"
_ROTATION = "rotations of weight space; not layer rescaling (a block's is multiplied by c⁻²)"
_RESCALING = "layer and neuron rescaling that leaves a positively homogeneous network's function as it is"


@dataclass(frozen=True)
class Measure:
    """A sharpness measure in three phrases.

    Attributes:
        description: Formula or one phrase; larger is always sharper or more complex.
        source: Author and year.
        invariance: Changes of the weights that do not move it.
    """

    description: str
    source: str
    invariance: str


MEASURES: dict[str, Measure] = {
    "renyi_sharpness": Measure(
        "−H_α of |λ| / Σ|λ|, in nats",
        "Zhang et al., arXiv:2510.07758",
        "H → cH; a block's: layer rescaling; the whole network's: not",
    ),
    "trace": Measure("Σ λ", "Dinh et al. 2017", _ROTATION),
    "lambda_max": Measure("largest eigenvalue", "Keskar et al. 2017", _ROTATION),
    "frobenius_norm": Measure("√(Σ λ²)", "standard", _ROTATION),
    "log_determinant": Measure(
        "Σ log(1 + |λ|/γ), γ = 5·10⁻⁴", "Jia & Su 2020, regularised", "rotations of weight space; not layer rescaling"
    ),
    "gradient_norm": Measure("‖∇L‖", "standard", _NONE),
    "parameter_norm": Measure("‖θ‖", "Jiang et al. 2019", _NONE),
    "distance_from_initialization": Measure("‖θ − θ₀‖", "Nagarajan & Kolter 2019", _NONE),
    "fisher_rao_norm": Measure("√(θᵀFθ), F the empirical Fisher matrix", "Liang et al. 2019", _RESCALING),
    "relative_flatness": Measure(
        "Σ ⟨w_s, w_t⟩ tr H_st of the last layer", "Petzka et al. 2021", "layer rescaling; not that of single neurons"
    ),
    "pac_bayes_flatness": Measure("1/σ² of the noise that raises the loss by 0.1", "Jiang et al. 2019", _ROTATION),
    "pac_bayes_flatness_magnitude_aware": Measure(
        "the same with noise in proportion to each weight", "Jiang et al. 2019", f"{_RESCALING}, nearly"
    ),
    "sam_sharpness_l2": Measure("worst rise for ‖ε‖₂ ≤ 0.05", "Foret et al. 2021", _NONE),
    "sam_sharpness_linf": Measure("worst rise for |ε_j| ≤ 0.001", "Keskar et al. 2017", _NONE),
    "asam_sharpness_l2": Measure("worst rise for ‖ε/θ‖₂ ≤ 0.5", "Kwon et al. 2021", _RESCALING),
    "asam_sharpness_linf": Measure("worst rise for |ε_j| ≤ 0.002·|θ_j|", "Kwon et al. 2021", _RESCALING),
    "average_case_sharpness": Measure("mean rise for ε ~ N(0, 0.05²I)", "Andriushchenko et al. 2023", _NONE),
}
