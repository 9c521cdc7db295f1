"""A certificate for a network in one call: a prior from one part of the data, bounds from the rest.

1. *Prior.* Train on a part S₀ of the data under weight noise: θ₀. S₀ may decide anything, since the bounds use the
   other N samples alone.
2. *Held-out route.* The network θ₀ itself on those N, exact binomial tail. No divergence, no noise.
3. *Noisy prior.* P = N(θ₀, σ²I) is its own posterior, KL = 0: a held-out bound too, of the noisy network.
4. *Moved.* Q = N(θ, σ²I), θ trained on from θ₀ on the N samples; KL = ‖θ−θ₀‖²/(2σ²).
5. *Curvature.* Q = N(θ, (I/σ² + βC)⁻¹), C the leading part of the Gauss–Newton matrix.

The failure probability δ is split: δ_h for route 2; δ_p for PAC-Bayes, divided among the grid of σ, which holds for all
Q at once, however they were found; δ_m for the draws that measure a posterior's loss, divided among the routes 3 to 5.
Candidates are compared on draws of their own and the best are measured with fresh ones, so that the choice needs no
share of δ.

Sources: Langford & Seeger 2001; Langford & Caruana 2001; data-dependent priors: Ambroladze et al. 2006; Dziugaite et
al. 2021, arXiv:2006.10929; Pérez-Ortiz et al. 2021, arXiv:2007.12911.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset, Subset, TensorDataset

from renyi_lab._utils.batches import is_tensor_data_set
from renyi_lab._utils.data_sets import Pair, check_data
from renyi_lab._utils.minibatches import moved
from renyi_lab._utils.progress import progress_bar
from renyi_lab._utils.random import seeded_rng
from renyi_lab._utils.validation import check_delta, check_int, check_real
from renyi_lab.bounds._certificate import Certificate
from renyi_lab.bounds._classifier import chance_error
from renyi_lab.bounds._noisy_training import train_posterior, train_prior
from renyi_lab.bounds._pac_bayes import DELTA
from renyi_lab.bounds._search import PosteriorSearch, held_out_route, with_test_error

# Penalties on ‖θ−θ₀‖² in training, relative to its weight in the bound. Heuristic: trying several needs no share of δ.
_PENALTIES = (1.0, 3.0, 10.0)
_NOISY = "random weights around those"


def certify(
    model_factory: Callable[[], nn.Module],
    train_set: Dataset[Any] | Pair,
    *,
    test_set: Dataset[Any] | Pair | None = None,
    prior_fraction: float = 0.75,
    delta: float = DELTA,
    noise: float = 0.05,
    epochs: int = 100,
    lr: float = 0.1,
    batch_size: int = 128,
    num_draws: int = 5000,
    num_directions: int = 20,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool | None = None,
) -> Certificate:
    """Train a classifier and bound its expected 0–1 error, by the five steps of the module's text.

    One call is one certificate. To try several settings on the same data and keep the best, divide ``delta`` by their
    number beforehand: that choice would otherwise be made on the bound's own samples.

    Args:
        model_factory: Makes an untrained network with scores (batch, classes), such as `models.cnn1d`; called once.
        train_set: Samples of (input, class index), i.i.d.: a data set, or a pair of tensors (x, y).
        test_set: Samples for the test error beside the bounds; no choice depends on them. Default ``None``.
        prior_fraction: Share of ``train_set`` for the prior, in (0, 1). Default 0.75 (heuristic: 0.5 was weaker).
        delta: Allowed probability of failure δ in (0, 1). Default 0.05 (customary).
        noise: Standard deviation > 0 of the noise that the prior is trained under, in units of the weights. Default
            0.05 (heuristic: half of the initial weights of `models.cnn1d`).
        epochs: Passes over the prior's part in training. Default 100 (heuristic, for networks as small as
            `models.cnn1d`).
        lr: Learning rate, positive. Default 0.1, as in `renyi_lab.train`.
        batch_size: Samples per step of training. Default 128, as in `renyi_lab.train`.
        num_draws: Number of draws of the weights, for each of three posteriors. Default 5000 (heuristic: they add half
            a percent of error).
        num_directions: Number of directions of the curvature. Default 20 (heuristic: twice the ten classes of the
            package's data).
        seed: Random seed for the initialisation, split, training and draws.
        device: Device to train on. Default ``None``: where the network is.
        progress: Show bars; ``None``: in a terminal or notebook.

    Returns:
        The bounds of all routes, which hold at once; its value is the smallest.

    Raises:
        TypeError: A factory that does not make a network, or a data set of the wrong kind.
        ValueError: A split that leaves fewer than 2 samples on a side, targets that are not class indices, or an
            argument outside its range.

    Example:
        >>> from renyi_lab import datasets, models
        >>> train_set, test_set = datasets.digits()
        >>> certificate = certify(lambda: models.mlp(64, 32, 10), train_set, epochs=10, num_draws=500)
        >>> certificate.value < 0.3 and certificate.bound.value == certificate.value
        True
    """
    started = time.perf_counter()
    delta, noise = check_delta(delta), check_real("noise", noise, 0.0, open_minimum=True)
    epochs, num_draws = check_int("epochs", epochs), check_int("num_draws", num_draws)
    num_directions, seed = check_int("num_directions", num_directions), check_int("seed", seed, minimum=0)
    lr, batch_size = check_real("lr", lr, 0.0, open_minimum=True), check_int("batch_size", batch_size)
    settings = {"lr": lr, "batch_size": batch_size, "progress": progress}
    data = check_data("train_set", train_set)
    test_set = None if test_set is None else check_data("test_set", test_set)
    prior_part, bound_part = _split(data, prior_fraction, seed)
    n = len(bound_part)  # type: ignore[arg-type]  # _split() gives sized data sets
    network = _make(model_factory, seed, device)
    chance = chance_error(network, bound_part, "train_set")
    if test_set is not None:  # before minutes of training
        chance_error(network, test_set, "test_set")

    with progress_bar(5, "certificate", progress) as bar:
        train_prior(network, prior_part, noise, epochs, seed, **settings)
        bar.update()
        routes = [held_out_route(network, bound_part, n, delta, chance)]
        search = PosteriorSearch(network, bound_part, n, noise, delta, chance, num_draws, seed, progress)
        bar.update()
        routes.append(search.route("noisy prior", f"{_NOISY} of the prior network, KL = 0", [network]))
        bar.update()
        post = settings | {"lr": lr / 10}
        means = [
            train_posterior(network, bound_part, n, noise, penalty, max(1, epochs // 4), seed + 3, **post)
            for penalty in _PENALTIES
        ]
        routes.append(search.route("moved", f"{_NOISY} of a network trained on from the prior's", means))
        bar.update()
        certifies = f"{_NOISY} of either, with less noise where the loss curves"
        routes.append(search.route("curvature", certifies, [network, *means], search.curvature(num_directions)))
        bar.update()
    if test_set is not None:
        routes = [with_test_error(route, test_set, seed) for route in routes]
    return Certificate(tuple(routes), delta, len(prior_part), n, time.perf_counter() - started)  # type: ignore[arg-type]


def _split(data: Dataset[Any], prior_fraction: float, seed: int) -> tuple[Dataset[Any], Dataset[Any]]:
    """A random split: the prior's part and the bound's."""
    fraction = check_real("prior_fraction", prior_fraction, 0.0, 1.0, open_minimum=True, open_maximum=True)
    size = len(data)  # type: ignore[arg-type]  # check_data() made sure that it has a length
    count = round(fraction * size)
    if min(count, size - count) < 2:
        raise ValueError(
            f"prior_fraction={fraction:g} of {size} samples leaves {count} for the prior and {size - count} for the "
            "bound; each needs at least 2."
        )
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed), device="cpu")
    if is_tensor_data_set(data):
        x, y = data.tensors
        order = order.to(x.device)
        return TensorDataset(x[order[:count]], y[order[:count]]), TensorDataset(x[order[count:]], y[order[count:]])
    return Subset(data, order[:count].tolist()), Subset(data, order[count:].tolist())


def _make(model_factory: Callable[[], nn.Module], seed: int, device: torch.device | str | None) -> nn.Module:
    if isinstance(model_factory, nn.Module) or not callable(model_factory):
        raise TypeError(
            f"model_factory must be a function that makes an untrained network, got {type(model_factory).__name__}: "
            "pass models.cnn1d, or lambda: models.mlp(40, 100, 10). (A trained one has seen the samples of the bound.)"
        )
    with seeded_rng(seed):
        network = model_factory()
    if not isinstance(network, nn.Module):
        raise TypeError(f"model_factory must return a torch.nn.Module, got {type(network).__name__}.")
    with moved(network, device):
        return network
