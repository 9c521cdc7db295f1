"""Parts of batches along their first dimension, and batches put together."""

from __future__ import annotations

from renyi_lab._utils.batches import Batch, map_tensors, tensors_in
from renyi_lab._utils.structures import join_rows, rows


def cut(batch: Batch, first: int | None = None) -> tuple[Batch, Batch] | None:
    """The first samples, by default a third, and the rest of a batch, unlike in size so that their masses differ.

    ``None`` if it has no rows.

    Tensors without dimensions belong to both parts.
    """
    if batch.size < 2 or any(tensor.ndim and len(tensor) != batch.size for tensor in tensors_in(batch.content)):
        return None
    at = first or -(-batch.size // 3)
    before, after = (rows(batch.content, part) for part in (slice(at), slice(at, None)))
    return Batch(before, at), Batch(after, batch.size - at)


def a_few_of(first: Batch, second: Batch) -> Batch | None:
    """One sample of a batch and two of another; ``None`` where they do not fit together."""
    one, two = start_of(first, 1), start_of(second, 2)
    return None if one is None or two is None else joined(one, two)


def start_of(batch: Batch, size: int) -> Batch | None:
    """The first samples of a batch, at most ``size``; ``None`` if it has no rows."""
    if batch.size <= size:
        return batch
    parts = cut(batch, size)
    return parts and parts[0]


def joined(first: Batch, second: Batch) -> Batch | None:
    """Two batches as one; ``None`` where their tensors do not fit."""
    ours, theirs = tensors_in(first.content), tensors_in(second.content)
    pairs = list(zip(ours, theirs, strict=False))
    if len(ours) != len(theirs) or any(a.ndim == 0 or a.shape[1:] != b.shape[1:] for a, b in pairs):
        return None
    others = iter([tensor for _, tensor in pairs])
    content = map_tensors(first.content, lambda tensor: join_rows(tensor, next(others)))
    return Batch(content, first.size + second.size)
