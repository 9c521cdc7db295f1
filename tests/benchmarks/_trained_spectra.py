"""Spectra of real Hessians for `coverage.py`: networks trained on MNIST-1D, and blocks of them, diagonalised densely.

    python tests/benchmarks/_trained_spectra.py

writes all eigenvalues to ``data/trained_spectra.npz``, which is committed: neither the benchmark nor a test trains.
Training runs in single precision, the Hessian over 1000 training samples and its eigendecomposition in double precision
(about ten minutes on one core). The eigenvalues are stored in single precision: a benchmark needs a spectrum like a
network's, not that of one particular network.

The last layer under squared error is the case of repeated eigenvalues that users meet: its block is ``I_C ⊗ A``, with
``C`` the number of classes and ``A`` the second moments of the layer's inputs, so each eigenvalue occurs ``C`` times.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from _spectra import TRAINED_PATH, trained_spectra
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

import renyi_lab as rl
from renyi_lab._utils.progress import progress_bar

NUM_CLASSES, NUM_SAMPLES = 10, 1000


def squared_error(outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean squared distance of the outputs to the one-hot labels."""
    return (outputs - F.one_hot(labels, NUM_CLASSES).to(outputs)).square().sum(1).mean()


def brier_score(outputs: Tensor, labels: Tensor) -> Tensor:
    """Squared error of the predicted probabilities."""
    return squared_error(outputs.softmax(1), labels)


@dataclass(frozen=True)
class Case:
    """A network, how it is trained (``epochs=0``: not at all), and the Hessian that is taken of it."""

    model: Callable[[], nn.Module]
    epochs: int
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    block: str | None = None
    training: dict[str, Any] = field(default_factory=lambda: {"lr": 0.1})


def _mlp(*hidden: int, seed: int, activation: str = "relu") -> Callable[[], nn.Module]:
    return lambda: rl.models.mlp(40, *hidden, NUM_CLASSES, activation=activation, seed=seed)


CASES = {
    "MLP": Case(_mlp(40, 40, seed=3), 60),
    "MLP after one epoch": Case(_mlp(40, 40, seed=4), 1),
    "MLP at initialization": Case(_mlp(40, 40, seed=4), 0),
    "tanh MLP, Brier score": Case(_mlp(40, 40, seed=5, activation="tanh"), 40, brier_score),
    "GELU MLP, Adam": Case(_mlp(60, 30, seed=6, activation="gelu"), 40, training={"lr": 0.003, "optimizer": "adam"}),
    "CNN": Case(lambda: rl.models.cnn1d(channels=18, seed=1), 30),
    "first layer of an MLP": Case(_mlp(60, 60, seed=7), 60, block="layer1"),
    "last layer, squared error": Case(_mlp(60, 200, seed=8), 40, squared_error, "layer3", {"lr": 0.03}),
    "wide last layer, squared error": Case(
        _mlp(400, seed=9, activation="tanh"), 40, squared_error, "layer2", {"lr": 0.03}
    ),
}


def eigenvalues(case: Case) -> NDArray[np.float32]:
    """Train, and diagonalise the Hessian over the first training samples, ascending."""
    train_set, _ = rl.datasets.mnist1d()
    model = case.model()
    if case.epochs:
        settings = {"seed": 0, "progress": False, **case.training}
        rl.train(model, train_set, epochs=case.epochs, loss_fn=case.loss, **settings)
    x, y = (part[:NUM_SAMPLES] for part in train_set.tensors)
    hessian = rl.HessianOperator(model.double(), case.loss, (x.double(), y), params=case.block)
    return rl.exact_spectrum(hessian).nodes.astype(np.float32)


def main(arguments: list[str] | None = None) -> None:
    """Make all spectra, or those named, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", default=list(CASES), help="default: all")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    made = trained_spectra() if TRAINED_PATH.exists() else {}
    with progress_bar(len(options.names), "dense Hessians") as bar:
        for name in options.names:
            made[name] = eigenvalues(CASES[name])
            known = {case: made[case].astype(np.float32) for case in CASES if case in made}
            np.savez_compressed(TRAINED_PATH, **known)
            bar.update()


if __name__ == "__main__":
    main()
