"""Copies of tensors, to tell later whether their values have changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from renyi_lab._utils.model_state import same_values

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class StoredValues:
    """The values of some tensors.

    On an accelerator all tensors of one kind are compared at once, bit by bit, and the host waits for the device a
    single time, however many tensors there are.

    Args:
        tensors: The tensors, which are copied.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._kinds = [_kind(tensor) for tensor in tensors]
        self._single = [tensor.clone() for tensor in tensors if not _joins_others(tensor)]
        self._joined = _joined(tensors)

    def match(self, tensors: Sequence[Tensor]) -> bool:
        """Whether tensors of the same kinds have the same values, entries that are NaN counting as equal."""
        if [_kind(tensor) for tensor in tensors] != self._kinds:
            return False
        single = [tensor for tensor in tensors if not _joins_others(tensor)]
        if not all(map(same_values, single, self._single)):
            return False
        differences: dict[torch.device, list[Tensor]] = defaultdict(list)
        for kind, bits in _joined(tensors).items():
            differences[kind[0]].append((bits != self._joined[kind]).any())
        return not any(bool(torch.stack(found).any()) for found in differences.values())


def _kind(tensor: Tensor) -> tuple[object, ...]:
    return tensor.layout, tensor.shape, tensor.dtype, tensor.device


def _joins_others(tensor: Tensor) -> bool:
    return tensor.device.type != "cpu" and tensor.layout == torch.strided and not tensor.is_quantized


def _joined(tensors: Sequence[Tensor]) -> dict[tuple[torch.device, int], Tensor]:
    """The bits of all tensors that are compared at once, by device and size of an entry; always new memory."""
    bits: dict[tuple[torch.device, int], list[Tensor]] = defaultdict(list)
    for tensor in filter(_joins_others, tensors):
        entries = (torch.view_as_real(tensor) if tensor.is_complex() else tensor).reshape(-1)
        size = entries.element_size()
        bits[tensor.device, size].append(entries.view(_INTEGERS[size]))
    return {kind: torch.cat(parts) if len(parts) > 1 else parts[0].clone() for kind, parts in bits.items()}
