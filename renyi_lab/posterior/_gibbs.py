"""The loss of a network whose weights carry Gaussian noise: the Gibbs classifier of the PAC-Bayes bounds.

`gibbs_error` adds the same noise to every weight; `GaussianPosterior` less of it where the loss is curved. Both measure
the error with `mean_error`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import Dataset

from renyi_lab._utils.bernoulli_kl import kl_inverse_upper
from renyi_lab._utils.data_sets import Pair, check_data
from renyi_lab._utils.exclusive import exclusive
from renyi_lab._utils.fields import check_fields
from renyi_lab._utils.forward import explained
from renyi_lab._utils.minibatches import batches
from renyi_lab._utils.model_state import training_flags
from renyi_lab._utils.progress import progress_bar
from renyi_lab._utils.random import preserved_rng
from renyi_lab._utils.threads import one_thread_if_small
from renyi_lab._utils.validation import check_delta, check_int, check_labels, check_real, one_logit_hint

_BATCH_SIZE = 2048  # heuristic: evaluation needs no gradients; it changes speed and memory only


@dataclass(frozen=True)
class GibbsError:
    """Average 0–1 error over random draws of the weights, as `gibbs_error` returns it.

    Attributes:
        value: Average error, in [0, 1].
        standard_error: Standard error of that average, from the spread over the draws (``inf`` for a single draw).
        draws: Error of each draw; where draws are measured on blocks of unequal size, their mistakes over the largest
            size.
        sigma: Standard deviation of the noise, in units of the weights.
        stretch: ``value`` over the mean of ``draws``: 1 where blocks are of equal size, or there is one.
    """

    value: float
    standard_error: float
    draws: tuple[float, ...] = field(repr=False)
    sigma: float
    stretch: float = field(default=1.0, repr=False)

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def num_draws(self) -> int:
        """Number of draws that were averaged."""
        return len(self.draws)

    def __float__(self) -> float:
        return self.value

    def upper_limit(self, delta: float) -> float:
        """What E_Q[error] exceeds with probability δ at most, over the draws: the smaller of two limits.

            kl⁻¹(average, log(2/δ)/m)   and   average + √(2 V log(4/δ)/m) + 7 log(4/δ) / (3(m−1))

        Both hold for m independent draws in [0, 1], of whatever distributions; V is their sample variance. The second
        is smaller where draws agree. Each has half of δ: Chernoff's one-sided bound needs no more than log(1/δ).

        Args:
            delta: Allowed probability of failure δ in (0, 1).

        Source:
            Langford & Caruana 2001; Maurer & Pontil 2009, *Empirical Bernstein bounds*, Theorem 11.
        """
        delta = check_delta(delta)
        draws, m = torch.tensor(self.draws, dtype=torch.float64, device="cpu"), self.num_draws
        average = min(1.0, float(draws.mean()))
        limit = kl_inverse_upper(average, math.log(2 / delta) / m)
        if m > 1:
            spread, log_term = float(draws.var()), math.log(4 / delta)
            limit = min(limit, average + math.sqrt(2 * spread * log_term / m) + 7 * log_term / (3 * (m - 1)))
        return min(1.0, self.stretch * limit)


def gibbs_error(
    model: nn.Module, data_set: Dataset[Any] | Pair, sigma: float, num_draws: int = 100, seed: int = 0
) -> GibbsError:
    """Measure E_Q[0–1 error on the data set] for Q = N(θ, σ²I) over the trainable weights.

        (1/m) Σ_k (1/N) Σ_i 1[ argmax f_{θ+σ z_k}(x_i) ≠ y_i ],   z_k ~ N(0, I)

    The noisy weights are handed to the forward pass beside the model's own, which are never written to. The model
    runs in evaluation mode; its modes and buffers, and every global random state, are restored, errors included.

    Args:
        model: Maps a batch to scores of shape (batch, classes ≥ 2).
        data_set: Data set of (input, class index), or a pair of tensors (x, y).
        sigma: Standard deviation σ ≥ 0 of the noise, in units of the weights.
        num_draws: Number m ≥ 1 of draws. Default 100 (heuristic: a standard error of at most 0.05, and far less where
            draws agree).
        seed: Random seed for the noise.

    Raises:
        TypeError: A model that is not a module, or a data set of the wrong kind.
        ValueError: An empty data set, scores that are not (batch, classes), no trainable weight, or an argument
            outside its range.

    Source:
        Langford & Caruana 2001; `renyi_lab.bounds.isotropic_pac_bayes` turns the result into a bound.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}.")
    sigma = check_real("sigma", sigma, 0.0)
    with exclusive():  # another thread may have put its draws in their place
        weights = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    if not weights:
        raise ValueError("model has no trainable weight (requires_grad=True), so there is nothing to add noise to.")

    def draw(generator: torch.Generator) -> dict[str, Tensor]:
        noise = {
            name: torch.randn(w.shape, generator=generator, dtype=w.dtype, device="cpu") for name, w in weights.items()
        }
        return {name: w + sigma * noise[name].to(w.device) for name, w in weights.items()}

    return mean_error(model, draw, data_set, num_draws, sigma, seed)


def mean_error(
    model: nn.Module,
    draw: Callable[[torch.Generator], dict[str, Tensor]],
    data_set: Dataset[Any] | Pair,
    num_draws: int,
    sigma: float,
    seed: int,
    block_size: int | None = None,
    progress: bool | None = False,
) -> GibbsError:
    """Average the error of ``model`` over draws of its weights, each on one block of samples (by default on all)."""
    num_draws, seed = check_int("num_draws", num_draws), check_int("seed", seed, minimum=0)
    data_set = check_data("data_set", data_set)
    size = len(data_set)  # type: ignore[arg-type]  # check_data() made sure that it has a length
    count = 1 if block_size is None else max(1, size // check_int("block_size", block_size))
    rounds = math.ceil(num_draws / count)
    generator = torch.Generator().manual_seed(seed)
    draws = np.empty((rounds, count))
    with (
        progress_bar(rounds * count, "draws of the weights", progress) as bar,
        preserved_rng(),
        training_flags(model, False),
        torch.no_grad(),
    ):
        x, y = (torch.cat(parts) for parts in zip(*batches(data_set, _BATCH_SIZE, model), strict=True))
        blocks = list(zip(x.tensor_split(count), y.tensor_split(count), strict=True))
        with one_thread_if_small(model, x[:_BATCH_SIZE]):
            for one_round in draws:
                for index, (inputs, labels) in enumerate(blocks):
                    one_round[index] = _error(model, draw(generator), inputs, labels)
                bar.update(count)
    shares = np.array([len(labels) for _, labels in blocks]) / size
    per_round = draws @ shares
    spread = float(per_round.std(ddof=1)) / math.sqrt(rounds) if rounds > 1 else math.inf
    stretch = float(shares.max()) * count
    scaled = draws * shares / shares.max()
    return GibbsError(float(per_round.mean()), spread, tuple(scaled.ravel().tolist()), sigma, stretch)


def _error(model: nn.Module, weights: dict[str, Tensor], inputs: Tensor, labels: Tensor) -> float:
    """The share of samples that the model misclassifies with these weights; a NaN score counts as a mistake."""
    wrong = 0
    for x, y in zip(inputs.split(_BATCH_SIZE), labels.split(_BATCH_SIZE), strict=True):
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        with explained(f"model does not take inputs of shape {tuple(x.shape)} and {x.dtype}"):
            scores = functional_call(model, {**weights, **buffers}, (x,))
        if not isinstance(scores, Tensor) or scores.ndim != 2 or scores.shape[1] < 2 or y.shape != scores.shape[:1]:
            raise ValueError(
                f"model must give scores of shape (batch, classes ≥ 2) for class indices of shape (batch,), got "
                f"{tuple(getattr(scores, 'shape', ()))} for {tuple(y.shape)}.{one_logit_hint(scores)}"
            )
        if y.is_floating_point() or y.is_complex():
            raise TypeError(f"data_set must hold class indices as integers, got labels of {y.dtype}; use y.long().")
        check_labels(scores, y, ignored=None)
        wrong += int(((scores.argmax(dim=1) != y) | scores.isnan().any(dim=1)).sum())
    return wrong / len(labels)
