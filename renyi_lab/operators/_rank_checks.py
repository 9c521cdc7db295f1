"""Whether the ranks of a process group make the same operator, each with data of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from renyi_lab._utils.batches import Batch, tensors_in
from renyi_lab._utils.masses import LossReduction
from renyi_lab._utils.ranks import Ranks, checksum


def device_of(model: Any) -> torch.device:
    """Where a model is, before anything about it is checked; the CPU for what is none."""
    parameters = model.parameters() if isinstance(model, nn.Module) else iter(())
    return next((parameter.device for parameter in parameters), torch.device("cpu"))


def agreed_style(ranks: Ranks, style: str, has_data: bool) -> str:
    """How the loss is called, which a rank without data learns from the others.

    Args:
        ranks: The ranks.
        style: What this rank's batches say.
        has_data: Whether it has any.
    """
    everywhere = ranks.gather((style, has_data))
    others = [each for each, holds in everywhere if holds]
    ranks.check_equal({"kind of batches": style if has_data or not others else others[0]})
    return style if has_data or not others else str(others[0])


def check_ranks(
    ranks: Ranks,
    modules: Sequence[nn.Module],
    batches: Sequence[Batch],
    settings: dict[str, Any],
    reduction: LossReduction,
) -> None:
    """Raise on every rank where the ranks have other settings or weights, or the same data.

    Args:
        ranks: The ranks.
        modules: The model, and the modules that the loss uses beside it.
        batches: This rank's batches.
        settings: What must be the same, by what it is.
        reduction: How the loss reduces a batch.

    Raises:
        ValueError: Settings differ, or two ranks hold the same data.
        RuntimeError: Weights or buffers differ.
    """
    tensors = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    weight = None if reduction.nearest is None else reduction.nearest.class_weight
    state = [tensor for tensor in (*tensors, weight) if tensor is not None and tensor.is_floating_point()]
    ranks.check_equal(settings | {"shapes of weights and buffers": [tuple(tensor.shape) for tensor in state]})
    with ranks.agreed(lambda: checksum(*state), "model's or loss's weights or buffers"):
        pass
    with ranks.agreed():
        own = _fingerprint(batches)
    everywhere = ranks.gather(own)
    for rank, other in enumerate(everywhere):
        if other and other in everywhere[:rank]:
            raise ValueError(
                f"ranks {everywhere.index(other)} and {rank} of the process group hold the same data; each must hold "
                "a part of its own, such as renyi_lab.distributed.shard(data, rank, num_ranks)."
            )
    shapes = [reduction.target_shapes(batch.content) for batch in batches[:1]]
    first = [shape for each in ranks.gather(shapes) for shape in each]
    reduction.check_shapes(first, lambda: batches[-1].content if batches else None)


def _fingerprint(batches: Sequence[Batch]) -> str:
    """A hash of the data's shapes and bytes; empty without data. Sums would be the same for one-hot vectors."""
    tensors = [tensor for batch in batches for tensor in tensors_in(batch.content) if tensor.numel()]
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(repr((tuple(tensor.shape), tensor.dtype)).encode())
        found.update(_bytes(tensor))
    return found.hexdigest() if tensors else ""


def _bytes(tensor: Tensor) -> memoryview:
    values = tensor.detach().to_dense() if tensor.layout != torch.strided else tensor.detach()
    values = values.resolve_conj().resolve_neg().cpu().contiguous()
    return values.reshape(-1).view(torch.uint8).numpy().data
