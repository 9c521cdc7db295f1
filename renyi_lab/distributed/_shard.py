"""The part of a data set that one process keeps."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

import torch
from torch.utils.data import Dataset, Subset

from renyi_lab._utils.batches import is_pair
from renyi_lab._utils.validation import check_int


def shard(data: Any, rank: int, num_ranks: int) -> Any:
    """The part of the data that one rank keeps: consecutive samples, equally many on each up to one.

    Args:
        data: ``(x, y)`` or a data set with a length.
        rank: Number of the rank.
        num_ranks: Number of ranks.

    Returns:
        The part, of the same kind (a ``Subset`` of a data set); it may be empty.

    Raises:
        ValueError: ``rank`` is not one of ``num_ranks``, or inputs and targets differ in length.
        TypeError: Data that are neither, such as a DataLoader, whose batches cannot be divided evenly.

    Example:
        >>> x, y = torch.arange(5.0), torch.zeros(5)
        >>> shard((x, y), rank=1, num_ranks=2)[0].tolist()
        [3.0, 4.0]
    """
    check_int("rank", rank, 0, check_int("num_ranks", num_ranks) - 1)
    if isinstance(data, (tuple, list)) and is_pair(data):
        if len(data[0]) != len(data[1]):
            raise ValueError(f"inputs and targets must have equally many samples, got {len(data[0])}, {len(data[1])}.")
        return tuple(part.tensor_split(num_ranks)[rank] for part in data)
    if isinstance(data, Dataset) and isinstance(data, Sized):
        return Subset(data, torch.arange(len(data)).tensor_split(num_ranks)[rank].tolist())
    raise TypeError(
        f"data must be a pair of tensors (x, y) or a data set with a length to be shared among ranks, got "
        f"{type(data).__name__}; pass the data set instead of a loader."
    )
