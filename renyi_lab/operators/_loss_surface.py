"""The loss as a function of the flat vector of trainable weights; the model itself is not changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from renyi_lab._utils.batches import Batch, map_tensors, tensors_in
from renyi_lab._utils.exclusive import exclusive
from renyi_lab._utils.interrupts import restoring
from renyi_lab._utils.ranks import Ranks, agreed
from renyi_lab._utils.structures import take_rows
from renyi_lab._utils.validation import check_instance, check_int, check_tensor, shown
from renyi_lab.operators._model import ModelOperator
from renyi_lab.operators._shards import weights_at


class LossSurface:
    """``θ ↦ L(θ)`` and its gradient over an operator's frozen batches and selected parameters.

    Args:
        operator: A `HessianOperator`, or any other `ModelOperator`.

    Attributes:
        start: The model's weights at construction as a flat vector, shape ``(n,)``.

    Raises:
        TypeError: ``operator`` is not a `ModelOperator`.
    """

    def __init__(self, operator: ModelOperator) -> None:
        self.operator = check_operator(operator)
        with exclusive():  # another thread may have moved the weights for a while
            self.start = operator.flatten(operator.parameters.values())

    def loss(self, weights: Tensor) -> float:
        """``L(θ)``; may be infinite or NaN far from the model's weights."""
        with self._at(weights):
            return self.operator.total_loss()

    def loss_and_gradient(self, weights: Tensor) -> tuple[float, Tensor]:
        """``L(θ)`` and the flat ``∇L(θ)``."""
        with self._at(weights):
            return self.operator.loss_and_gradient()

    @restoring
    def _at(self, weights: Tensor) -> Iterator[None]:
        """Point the parameters to ``weights``; their own memory is not written to and is restored bit for bit."""
        weights = check_tensor("weights", weights, self.start.device).to(self.start.dtype)
        if weights.shape != self.start.shape:
            raise ValueError(f"weights must have shape {tuple(self.start.shape)}, got {tuple(weights.shape)}.")
        with weights_at(list(self.operator.parameters.values()), self.operator.unflatten(weights)):
            yield


def check_operator(operator: ModelOperator) -> ModelOperator:
    """Return ``operator`` when it is a `ModelOperator` or raise."""
    if not isinstance(operator, ModelOperator):
        raise TypeError(
            f"operator must be a HessianOperator, got {type(operator).__name__}; this measure evaluates the loss: "
            "pass HessianOperator(model, loss_fn, data)."
        )
    return operator


def random_subset(
    batches: Sequence[Batch], name: str, num_samples: int | None, seed: int, ranks: Ranks | None = None
) -> Sequence[Batch]:
    """At most ``num_samples`` samples, drawn without replacement over all batches (data may be sorted by class).

    Those of other ranks count as standing before and behind, in the order of the ranks.
    """
    _checked_ranks(ranks)
    before, total = _position(sum(batch.size for batch in _checked(batches)), ranks)
    check_int("seed", seed, 0)
    check_instance("name", name, str)
    if num_samples is None or check_int(name, num_samples) >= total:
        return batches
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed), device="cpu")
    with agreed(ranks):
        return _samples(batches, order[:num_samples] - before)


def _checked_ranks(ranks: Any) -> None:
    if ranks is not None:
        check_instance("ranks", ranks, Ranks, "such as operator.ranks, or None")


def _position(own: int, ranks: Ranks | None) -> tuple[int, int]:
    """How many samples the ranks before this one have, and how many all have."""
    everywhere = [own] if ranks is None else ranks.gather(own)
    return sum(everywhere[: 0 if ranks is None else ranks.rank]), sum(everywhere)


def without_groups(
    batches: Sequence[Batch], most_groups: int, seed: int, ranks: Ranks | None = None
) -> list[Sequence[Batch]]:
    """For each of the random groups of samples, of equal sizes up to one, the batches without it.

    Where the samples of a batch cannot be taken apart, as in graphs, a group is made of whole batches.

    Args:
        batches: The batches.
        most_groups: Number of groups, unless there are fewer samples or batches to make them of.
        seed: Random seed of the groups.
        ranks: Processes with batches of their own, to which the groups extend.

    Raises:
        TypeError: ``batches`` are no frozen batches.
        ValueError: Fewer than two groups, which would leave nothing.
    """
    check_int("most_groups", most_groups, 2)
    _checked(batches)
    _checked_ranks(ranks)
    by_sample = all(t.ndim and len(t) == batch.size for batch in batches for t in tensors_in(batch.content))
    if ranks is not None:
        by_sample = all(ranks.gather(by_sample))
    before, total = _position(sum(batch.size for batch in batches) if by_sample else len(batches), ranks)
    order = torch.randperm(total, generator=torch.Generator().manual_seed(check_int("seed", seed, 0)), device="cpu")
    groups = order.tensor_split(min(most_groups, total))
    kept = [torch.cat([other for other in groups if other is not group]) - before for group in groups]
    if by_sample:
        return [_samples(batches, chosen) for chosen in kept]
    own = [chosen[(chosen >= 0) & (chosen < len(batches))].sort().values for chosen in kept]
    return [[batches[index] for index in chosen.tolist()] for chosen in own]


def _checked(batches: Any) -> Sequence[Batch]:
    if not isinstance(batches, Sequence) or not all(isinstance(batch, Batch) for batch in batches):
        raise TypeError(f"batches must be those of an operator, operator.batches, got {shown(batches)}.")
    return batches


def _samples(batches: Sequence[Batch], chosen: Tensor) -> Sequence[Batch]:
    """The samples with these indices over all batches, in ascending order."""
    chosen = chosen.sort().values
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
            f"a subset of samples cannot be taken of a batch of {batch.size} samples that holds a tensor of shape "
            f"{tuple(tensor.shape)}; pass fewer data, with num_samples=None and perturbation_samples=None."
        )
    return take_rows(tensor, indices.to(tensor.device))
