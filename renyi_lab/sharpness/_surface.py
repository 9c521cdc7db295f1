"""The loss as a function of the flat vector of trainable weights, the model itself left alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from renyi_lab._batches import Batch, map_tensors
from renyi_lab._validation import check_int
from renyi_lab.model_operator import ModelOperator


class LossSurface:
    """``θ ↦ L(θ)`` and its gradient over an operator's frozen batches and chosen parameters.

    Args:
        operator: A `HessianOperator`, or any other `ModelOperator`.

    Raises:
        TypeError: ``operator`` is something else.
    """

    def __init__(self, operator: ModelOperator) -> None:
        self.operator = check_operator(operator)
        self._parameters = list(operator._parameters.values())
        self.start = operator._flatten(self._parameters).clone()
        """Weights of the model, flat, ``(n,)``."""

    def loss(self, weights: Tensor) -> float:
        """``L(θ)``; may be infinite or NaN far from the model's own weights."""
        with self._at(weights), torch.no_grad():
            return sum(float(self.operator._weighted_loss(index)) for index in self._indices)

    def loss_and_gradient(self, weights: Tensor) -> tuple[float, Tensor]:
        """``L(θ)`` and ``∇L(θ)``, flat."""
        total, gradient = 0.0, torch.zeros_like(self.start)
        with self._at(weights), torch.enable_grad():
            for index in self._indices:
                loss = self.operator._weighted_loss(index)
                total += float(loss.detach())
                if loss.requires_grad:
                    parts = torch.autograd.grad(loss, self._parameters, materialize_grads=True)
                    gradient += self.operator._flatten(parts)
        return total, gradient

    @property
    def _indices(self) -> range:
        return range(len(self.operator._batches))

    @contextmanager
    def _at(self, weights: Tensor) -> Iterator[None]:
        """Other memory behind the parameters for a while: theirs is not written to, so that it returns bit for bit."""
        own = [parameter.data for parameter in self._parameters]
        try:
            for parameter, part in zip(self._parameters, self.operator._unflatten(weights), strict=True):
                parameter.data = part
            with self.operator._evaluation_point():
                yield
        finally:
            for parameter, data in zip(self._parameters, own, strict=True):
                parameter.data = data


def check_operator(operator: ModelOperator) -> ModelOperator:
    """Return ``operator`` if it knows a model and a loss, or raise."""
    if not isinstance(operator, ModelOperator):
        raise TypeError(
            f"operator must be a HessianOperator, got {type(operator).__name__}; this measure evaluates the loss: "
            "pass HessianOperator(model, loss_fn, data)."
        )
    return operator


def random_subset(batches: list[Batch], name: str, num_samples: int | None, seed: int) -> list[Batch]:
    """At most ``num_samples`` samples, drawn without replacement over all batches (data may be sorted by class)."""
    total = sum(batch.size for batch in batches)
    if num_samples is None or check_int(name, num_samples) >= total:
        return batches
    chosen = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:num_samples].sort().values
    parts, start = [], 0
    for batch in batches:
        inside = chosen[(chosen >= start) & (chosen < start + batch.size)] - start
        if len(inside):
            parts.append(Batch(map_tensors(batch.content, lambda t, i=inside, b=batch: _rows(t, i, b)), len(inside)))
        start += batch.size
    return parts


def _rows(tensor: Tensor, indices: Tensor, batch: Batch) -> Tensor:
    if tensor.ndim == 0 or tensor.shape[0] != batch.size:
        raise ValueError(
            f"a subset of samples cannot be taken of batches with a tensor of shape {tuple(tensor.shape)} beside "
            f"{batch.size} samples; pass fewer data, and num_samples=None and perturbation_samples=None."
        )
    return tensor[indices.to(tensor.device)]
