"""The loss of a network whose weights carry Gaussian noise: the Gibbs classifier of the PAC-Bayes bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import Dataset

from renyi_lab._minibatches import Pair, batches, check_data
from renyi_lab._model_state import training_flags
from renyi_lab._random import preserved_rng
from renyi_lab._validation import check_int, check_real

_BATCH_SIZE = 2048  # our choice: evaluation without gradients; it changes speed and memory only


@dataclass(frozen=True)
class GibbsError:
    """Average 0–1 error over random draws of the weights, as `gibbs_error` returns it.

    Args:
        value: average error, in [0, 1].
        standard_error: of that average, from the spread over the draws (``inf`` for a single draw).
        draws: the error of each draw.
        sigma: standard deviation of the noise, in units of the weights.
    """

    value: float
    standard_error: float
    draws: tuple[float, ...] = field(repr=False)
    sigma: float

    @property
    def num_draws(self) -> int:
        """How many draws were averaged."""
        return len(self.draws)

    def __float__(self) -> float:
        return self.value


def gibbs_error(
    model: nn.Module, data_set: Dataset[Any] | Pair, sigma: float, num_draws: int = 100, seed: int = 0
) -> GibbsError:
    """Measure E_Q[0–1 error on the data set] for Q = N(θ, σ²I) over the trainable weights.

        (1/m) Σ_k (1/N) Σ_i 1[ argmax f_{θ+σ z_k}(x_i) ≠ y_i ],   z_k ~ N(0, I)

    The noisy weights are handed to the forward pass beside the model's own, which are never written to. The model
    runs in evaluation mode; its modes and buffers, and every global random state, are put back, errors included.

    Args:
        model: maps a batch to scores of shape (batch, classes ≥ 2).
        data_set: a data set of (input, class index), or a pair of tensors (x, y).
        sigma: σ ≥ 0, in units of the weights.
        num_draws: m ≥ 1. Default 100, our choice: a standard error of at most 0.05, and far less where draws agree.
        seed: of the noise.

    Raises:
        TypeError: a model that is no module, or a data set of the wrong kind.
        ValueError: an empty data set, scores that are not (batch, classes), no trainable weight, or an argument
            outside its range.

    Source: Langford & Caruana 2001; `renyi_lab.bounds.isotropic_pac_bayes` turns the result into a bound.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}.")
    sigma, num_draws = check_real("sigma", sigma, 0.0), check_int("num_draws", num_draws)
    weights = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    if not weights:
        raise ValueError("model has no trainable weight (requires_grad=True), so there is nothing to add noise to.")
    data_set = check_data("data_set", data_set)
    generator = torch.Generator().manual_seed(check_int("seed", seed, minimum=0))
    with preserved_rng(), training_flags(model, False), torch.no_grad():
        pairs = list(batches(data_set, _BATCH_SIZE, model))
        draws = []
        for _ in range(num_draws):
            noisy = {name: _with_noise(weight, sigma, generator) for name, weight in weights.items()}
            draws.append(_error(model, noisy, pairs))
    errors = torch.tensor(draws, dtype=torch.float64)
    spread = float(errors.std()) / math.sqrt(num_draws) if num_draws > 1 else math.inf
    return GibbsError(float(errors.mean()), spread, tuple(draws), sigma)


def _with_noise(weight: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    return weight + sigma * noise.to(weight.device)


def _error(model: nn.Module, weights: dict[str, Tensor], pairs: list[Pair]) -> float:
    """The share of samples that the model misclassifies with these weights; a NaN score counts as a mistake."""
    wrong = count = 0
    for x, y in pairs:
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        scores = functional_call(model, {**weights, **buffers}, (x,))
        if not isinstance(scores, Tensor) or scores.ndim != 2 or scores.shape[1] < 2 or y.shape != scores.shape[:1]:
            raise ValueError(
                f"model must give scores of shape (batch, classes ≥ 2) for class indices of shape (batch,), got "
                f"{tuple(getattr(scores, 'shape', ()))} for {tuple(y.shape)}."
            )
        wrong += int(((scores.argmax(dim=1) != y) | scores.isnan().any(dim=1)).sum())
        count += len(y)
    return wrong / count
