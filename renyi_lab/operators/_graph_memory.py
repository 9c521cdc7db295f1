"""The memory that autograd graphs take and may take."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import psutil
import torch
from torch import Tensor

from renyi_lab._utils.device import check_device
from renyi_lab._utils.validation import check_closure, check_instance, is_iterable, shown

# Heuristic: leaves room for the products' own intermediates and for a Krylov basis.
BUDGET_SHARE = 0.25


def default_graph_budget(device: torch.device) -> int:
    """A quarter of the free memory on ``device``, in bytes."""
    return int(BUDGET_SHARE * free_bytes(device))


def free_bytes(device: torch.device) -> int:
    """Free memory on a device.

    Raises:
        TypeError: ``device`` is neither a device nor the name of one.
        ValueError: There is no such device.
    """
    device = check_device(device)
    try:
        if device.type == "cuda":
            return int(torch.cuda.mem_get_info(device)[0])
        if device.type == "mps":
            return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    except (RuntimeError, AssertionError) as error:  # torch asserts where it is built without CUDA
        raise ValueError(f"device={str(device)!r} cannot be used here ({error}); see default_device().") from error
    return int(psutil.virtual_memory().available)


def saved_bytes(build_graph: Callable[[], object], outside: Iterable[Tensor]) -> int:
    """Bytes that a graph built by ``build_graph`` keeps alive, without the storages of ``outside`` tensors.

    Raises:
        TypeError: ``build_graph`` takes arguments, or ``outside`` does not hold tensors.
    """
    check_closure("build_graph", build_graph, ", which returns what the graph belongs to.")
    if not is_iterable(outside):
        raise TypeError(f"outside must be a sequence of tensors, got {shown(outside)}.")
    outside = [check_instance("each of outside", tensor, Tensor) for tensor in outside]
    known = {tensor.untyped_storage().data_ptr() for tensor in outside if tensor.layout == torch.strided}
    found: dict[int, int] = {}
    holders: list[list[Tensor]] = []

    def note(tensor: Tensor) -> list[Tensor]:
        if tensor.layout == torch.strided:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in known:
                found[storage.data_ptr()] = storage.nbytes()
        holders.append([tensor])
        return holders[-1]

    try:
        with torch.autograd.graph.saved_tensors_hooks(note, lambda holder: holder[0]):
            graph = build_graph()
        del graph
    finally:
        # A node that holds its own output through a hook is a cycle that Python's garbage collector cannot see.
        for holder in holders:
            holder.clear()
    return sum(found.values())
