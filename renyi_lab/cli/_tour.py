"""The main job from start to end: training, Hessian spectrum, Rényi entropy, a bound, and RSAM against SGD."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.utils.data import TensorDataset

from renyi_lab import plots
from renyi_lab._utils.figure import new_figure
from renyi_lab.bounds import Bound, isotropic_pac_bayes
from renyi_lab.datasets import mnist1d
from renyi_lab.models import mlp
from renyi_lab.operators import HessianOperator
from renyi_lab.optim import RSAM
from renyi_lab.posterior import gibbs_error
from renyi_lab.spectrum import AlphaChoice, Spectrum, choose_alpha, estimate_spectrum
from renyi_lab.training import Evaluation, History, evaluate, train

ALPHAS = (0.5, 1.0, 1.5, 2.0)
# Noise levels over which the bound is minimized, with its union bound. Heuristic: factors of 2 around the best found.
SIGMAS = (0.05, 0.1, 0.2, 0.4)
_WIDTHS = (40, 100, 100, 10)
_CHANCE_ERROR = 0.9
# Epochs, Hessian products, and draws from the posterior. Heuristic: under a minute on two cores, and half of that.
_FULL_EFFORT = (60, 200, 50)
_QUICK_EFFORT = (20, 150, 10)
_WARMUP_EPOCHS = 6  # as the authors' example


@dataclass(frozen=True, eq=False)
class Tour:
    """Everything that `run_tour` measured."""

    spectrum: Spectrum
    choice: AlphaChoice
    bound: Bound
    histories: dict[str, History]
    train_results: dict[str, Evaluation]
    test_results: dict[str, Evaluation]
    seconds: float


def run_tour(
    *, seed: int = 0, device: torch.device | str = "cpu", quick: bool = False, progress: bool | None = None
) -> Tour:
    """Train an MLP on MNIST-1D with SGD and with RSAM, and measure the Hessian of the first.

    Args:
        seed: Random seed for the initial weights, the batch order and the probes.
        device: Device of the models, such as ``"cpu"`` or ``"cuda:0"``.
        quick: Whether to train for a third of the epochs with fewer Hessian products, to see that everything works.
        progress: Whether to show progress bars. Default: in a terminal or notebook.

    Returns:
        The spectrum, the chosen order, the bound, and histories and evaluations by name of the optimizer.
    """
    started = time.perf_counter()
    train_set, test_set = mnist1d()
    epochs, num_matvecs, num_draws = _QUICK_EFFORT if quick else _FULL_EFFORT
    # The other settings are train's defaults, those of the paper's example.
    optimizers: dict[str, dict[str, Any]] = {
        "SGD": {"optimizer": "sgd"},
        "RSAM": {"optimizer": RSAM, "warmup_epochs": _WARMUP_EPOCHS},
    }
    models = {name: mlp(*_WIDTHS, seed=seed).to(device) for name in optimizers}
    histories = {
        name: train(models[name], train_set, epochs=epochs, test_set=test_set, seed=seed, progress=progress, **settings)
        for name, settings in optimizers.items()
    }
    operator = HessianOperator(models["SGD"], nn.functional.cross_entropy, train_set)
    spectrum = estimate_spectrum(operator, num_matvecs=num_matvecs, seed=seed, progress=progress)
    bound = _bound(models["SGD"], mlp(*_WIDTHS, seed=seed).to(device), train_set, num_draws, seed)
    return Tour(
        spectrum,
        choose_alpha(spectrum),
        bound,
        histories,
        {name: evaluate(model, train_set) for name, model in models.items()},
        {name: evaluate(model, test_set) for name, model in models.items()},
        time.perf_counter() - started,
    )


def _bound(model: nn.Module, initial: nn.Module, train_set: TensorDataset, num_draws: int, seed: int) -> Bound:
    """The smallest isotropic PAC-Bayes bound over ``SIGMAS``, corrected for the choice."""
    squared_distance = sum(
        float((now.detach() - before.detach()).square().sum())
        for now, before in zip(model.parameters(), initial.parameters(), strict=True)
    )
    bounds = []
    for sigma in SIGMAS:
        error = gibbs_error(model, train_set, sigma, num_draws, seed)
        count = len(train_set)
        bounds.append(
            isotropic_pac_bayes(
                error.value, squared_distance, sigma, count, num_draws=num_draws, num_sigmas=len(SIGMAS)
            )
        )
    return min(bounds, key=float).against(_CHANCE_ERROR)


def tour_figure(tour: Tour) -> Figure:
    """Spectrum, entropy against α, and the two trainings side by side."""
    figure = new_figure(13, 3.6)
    left, middle, right = figure.subplots(1, 3)
    plots.plot_spectrum(left, tour.spectrum)
    left.set_title("Hessian spectrum of the trained network")
    plots.plot_entropy_curve(middle, tour.spectrum, np.linspace(0.5, 4, 71), chosen=tour.choice.alpha)
    middle.set_title("Rényi entropy of the spectrum")
    plots.plot_histories(right, tour.histories)
    right.set_title("RSAM beside SGD")
    return figure
