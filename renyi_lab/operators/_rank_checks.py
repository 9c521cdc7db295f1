"""Whether the ranks of a process group make the same operator, each with data of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from renyi_lab._utils.batches import Batch, tensors_in
from renyi_lab._utils.masses import LossReduction
from renyi_lab._utils.ranks import Ranks, checksum


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
    ranks: Ranks, model: nn.Module, batches: Sequence[Batch], settings: dict[str, Any], reduction: LossReduction
) -> None:
    """Raise on every rank where the ranks have other settings or weights, or the same data.

    Args:
        ranks: The ranks.
        model: The model.
        batches: This rank's batches.
        settings: What must be the same, by what it is.
        reduction: How the loss reduces a batch.

    Raises:
        ValueError: Settings differ, or two ranks hold the same data.
        RuntimeError: Weights or buffers differ.
    """
    ranks.check_equal(settings)
    state = [tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point()]
    with ranks.agreed(lambda: checksum(*state), "weights or buffers"):
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


def _fingerprint(batches: Sequence[Batch]) -> tuple[Any, ...]:
    """Sizes, sums and norms of the data, which samples of a continuous distribution do not share."""
    tensors = [tensor for batch in batches for tensor in tensors_in(batch.content) if tensor.numel()]
    sizes = tuple(batch.size for batch in batches)
    return (sizes, *checksum(*(tensor.double() for tensor in tensors)).tolist()) if tensors else ()
