"""Stage 3: the spectrum as nodes and weights, its entropy and density, and the choice of α."""

from renyi_lab.spectrum._alpha_rule import AlphaChoice, choose_alpha
from renyi_lab.spectrum._density import LOG_BANDWIDTH_DECADES, spectral_density
from renyi_lab.spectrum._entropy import effective_number, escort_probabilities, renyi_entropy
from renyi_lab.spectrum._errors import Sampling
from renyi_lab.spectrum._estimate import estimate_spectrum, exact_spectrum
from renyi_lab.spectrum._gram import gram_spectrum
from renyi_lab.spectrum._rule import QuadratureRule
from renyi_lab.spectrum._spectrum import Spectrum, check_spectrum
from renyi_lab.spectrum._weighted_entropy import entropy_influence, weighted_escort, weighted_renyi_entropy

__all__ = [
    "LOG_BANDWIDTH_DECADES",
    "AlphaChoice",
    "QuadratureRule",
    "Sampling",
    "Spectrum",
    "check_spectrum",
    "choose_alpha",
    "effective_number",
    "entropy_influence",
    "escort_probabilities",
    "estimate_spectrum",
    "exact_spectrum",
    "gram_spectrum",
    "renyi_entropy",
    "spectral_density",
    "weighted_escort",
    "weighted_renyi_entropy",
]
