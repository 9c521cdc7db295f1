"""Two-layer networks for which sharpness does not tell what generalizes: constructed, and trained by 1-SAM.

The setting of Wen, Li & Ma 2023 (arXiv:2307.11007): sparse parity, `renyi_lab.datasets.xor` with ``targets="signs"``;
networks of `renyi_lab.models.two_layer`; squared loss ``L = (1/n) Σ_i (f(x_i) − y_i)²``; interpolation, ``f = y``.
"""

from renyi_lab.counterexamples._constructed import four_neuron_network, memorizing_network, minimal_trace
from renyi_lab.counterexamples._interpolation import sign_accuracy, to_interpolation
from renyi_lab.counterexamples._one_sam import one_sam_gradients, train_one_sam

__all__ = [
    "four_neuron_network",
    "memorizing_network",
    "minimal_trace",
    "one_sam_gradients",
    "sign_accuracy",
    "to_interpolation",
    "train_one_sam",
]
