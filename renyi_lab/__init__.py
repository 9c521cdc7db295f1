"""Spectra of loss Hessians, Rényi entropy and Rényi sharpness, generalization bounds, and RSAM.

Example::

    import renyi_lab as rl

    train_set, test_set = rl.datasets.mnist1d()
    model = rl.models.mlp(40, 100, 100, 10)
    rl.train(model, train_set, epochs=60, lr=0.1, seed=0)
    H = rl.HessianOperator(model, torch.nn.functional.cross_entropy, train_set)
    spectrum = rl.estimate_spectrum(H, num_matvecs=200)
    spectrum.renyi_sharpness(alpha=1.5)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from renyi_lab._utils.device import default_device
from renyi_lab._utils.estimate import Estimate
from renyi_lab._version import __version__
from renyi_lab.krylov import Tridiagonal, hutchinson_trace, lanczos, lanczos_steps, power_iteration
from renyi_lab.operators import (
    GGNOperator,
    HessianOperator,
    LinearOperator,
    MatrixOperator,
    as_operator,
    dense_hessian,
    hvp,
    matrix_with_spectrum,
)
from renyi_lab.optim import ASAM, RSAM, SAGM, SAM, FisherSAM, SharpnessAware
from renyi_lab.spectrum import (
    AlphaChoice,
    Spectrum,
    choose_alpha,
    effective_number,
    escort_probabilities,
    estimate_spectrum,
    exact_spectrum,
    gram_spectrum,
    renyi_entropy,
)

if TYPE_CHECKING:
    from renyi_lab import (
        bounds,
        checks,
        counterexamples,
        datasets,
        diagrams,
        exercises,
        models,
        optim,
        perturbation,
        plots,
        sharpness,
        study,
        widgets,
    )
    from renyi_lab.checks import Checkup, checkup
    from renyi_lab.perturbation import reparametrize
    from renyi_lab.posterior import GibbsError, gibbs_error
    from renyi_lab.sharpness import Comparison, SharpnessReport, compare, renyi_sharpness, sharpness_report
    from renyi_lab.training import DivergenceError, Evaluation, History, evaluate, train

# Names and modules of the higher stages are imported at first use: matplotlib, ipywidgets and others load slowly.
_LAZY_NAMES = {
    "train": "training",
    "evaluate": "training",
    "DivergenceError": "training",
    "History": "training",
    "Evaluation": "training",
    "GibbsError": "posterior",
    "gibbs_error": "posterior",
    "reparametrize": "perturbation",
    "Comparison": "sharpness",
    "SharpnessReport": "sharpness",
    "compare": "sharpness",
    "renyi_sharpness": "sharpness",
    "sharpness_report": "sharpness",
    "Checkup": "checks",
    "checkup": "checks",
}

__all__ = [
    "ASAM",
    "RSAM",
    "SAGM",
    "SAM",
    "AlphaChoice",
    "Checkup",
    "Comparison",
    "DivergenceError",
    "Estimate",
    "Evaluation",
    "FisherSAM",
    "GGNOperator",
    "GibbsError",
    "HessianOperator",
    "History",
    "LinearOperator",
    "MatrixOperator",
    "SharpnessAware",
    "SharpnessReport",
    "Spectrum",
    "Tridiagonal",
    "__version__",
    "as_operator",
    "bounds",
    "checks",
    "checkup",
    "choose_alpha",
    "compare",
    "counterexamples",
    "course",
    "datasets",
    "default_device",
    "dense_hessian",
    "diagrams",
    "effective_number",
    "escort_probabilities",
    "estimate_spectrum",
    "evaluate",
    "exact_spectrum",
    "exercises",
    "gibbs_error",
    "gram_spectrum",
    "hutchinson_trace",
    "hvp",
    "lanczos",
    "lanczos_steps",
    "matrix_with_spectrum",
    "models",
    "optim",
    "perturbation",
    "plots",
    "power_iteration",
    "renyi_entropy",
    "renyi_sharpness",
    "reparametrize",
    "sharpness",
    "sharpness_report",
    "study",
    "train",
    "widgets",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY_NAMES:
        return getattr(importlib.import_module(f"renyi_lab.{_LAZY_NAMES[name]}"), name)
    if name in __all__:
        return importlib.import_module(f"renyi_lab.{name}")
    raise AttributeError(f"module 'renyi_lab' has no attribute {name!r}; public names: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
