"""Models whose weights are sharded over processes by FSDP2 (``torch.distributed.fsdp.fully_shard``).

Every process has the whole flat vector, and its own part of each weight and of the data. Forward and backward passes
exchange weights and gradients, so that all processes have to make the same number of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from renyi_lab._utils.exclusive import exclusive
from renyi_lab._utils.interrupts import restoring
from renyi_lab._utils.model_state import is_sharded
from renyi_lab._utils.parameters import is_distributed
from renyi_lab._utils.ranks import Ranks

# Where a group of parameters keeps a factor for its gradients; the second name is that of torch 2.6 and 2.7.
_OWN_FACTORS = ("gradient_divide_factor", "reduce_scatter_reduce_op")
# A release whose gloo gives the mean. Up to 2.8 it gives the sum, and 2.6 has no forward passes on the CPU either.
_KNOWN_TO_AVERAGE = "2.13"


class Shards:
    """The processes that a sharded model is distributed over.

    Args:
        model: The model, for which `is_sharded` is true.

    Attributes:
        parameters: The model's parameters, as the parts that this process holds.
        ranks: The processes.

    Raises:
        ValueError: A model that is sharded over a mesh of several dimensions, or only in part, or whose gradients are
            divided by a factor of one's own.
        RuntimeError: A model on the CPU, and a release of torch that sums its gradients instead of averaging them.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules: list[Any] = [module for module in model.modules() if is_sharded(module)]
        self.reshard()
        self.parameters = list(model.parameters())
        meshes = {getattr(parameter, "device_mesh", None) for parameter in self.parameters}
        mesh: Any = meshes.pop()
        if meshes or mesh is None or mesh.ndim != 1:
            raise ValueError(
                "the model's parameters must all be sharded over one mesh of one dimension; call "
                "fully_shard(model) on the whole model, without a second dimension of the mesh."
            )
        if mesh.device_type == "cpu" and not _averages_on_cpu(mesh.get_group()):
            raise RuntimeError(
                f"torch {torch.__version__} does not average the gradients of sharded models on a CPU; install "
                f"torch>={_KNOWN_TO_AVERAGE}, or shard the model over GPUs."
            )
        self.ranks = Ranks(mesh.get_group(), self.parameters[0].device)
        self._agreed = False
        if any(getattr(group, name, None) is not None for group in self._parameter_groups() for name in _OWN_FACTORS):
            raise ValueError(
                "the model's gradients are divided by a factor of its own (set_gradient_divide_factor), so that they "
                "are not those of the mean over processes; make the operator of a model without it."
            )

    def _parameter_groups(self) -> Iterator[Any]:
        for module in self._modules:
            state = module._get_fsdp_state()
            groups = getattr(state, "_fsdp_param_groups", None) or [getattr(state, "_fsdp_param_group", None)]
            yield from (group for group in groups if group is not None)

    def reshard(self) -> None:
        """Leave each process with its own part of the weights; a forward pass alone leaves it with the whole ones."""
        for module in self._modules:
            module.reshard()

    def undivided(self, loss: Tensor) -> Tensor:
        """The loss whose averaged gradients are the sum over processes of those of ``loss``."""
        return loss * self.ranks.size

    def sums(self, *numbers: float) -> list[float]:
        """The sums over processes of some numbers."""
        return [sum(of_all) for of_all in zip(*self.ranks.gather(numbers), strict=True)]

    def largest(self, number: int) -> int:
        """The largest of all processes' numbers."""
        return int(max(self.ranks.gather(number)))

    def agree(self, failure: str | None) -> None:
        """Raise when another process has failed.

        Args:
            failure: Why this process has failed, or ``None``.

        Raises:
            RuntimeError: Another process has failed and this one has not, with the other's message.
        """
        self._agreed = True
        for rank, other in enumerate(self.ranks.gather(failure)):
            if other is not None and failure is None:
                raise RuntimeError(f"process {rank} has failed: {other}")

    @contextmanager
    def construction(self) -> Iterator[None]:
        """A context for what a process does on its own up to the first `agree`; its failure ends the others too."""
        try:
            yield
        except Exception as error:
            if not self._agreed:
                self.agree(f"{type(error).__name__}: {error}")
            raise


def _averages_on_cpu(group: Any) -> bool:
    """Whether FSDP2 works on the CPU, and the mean over processes that it asks for is one."""
    if not hasattr(torch.cpu.Stream, "record_event"):
        return False
    distributed: Any = torch.distributed
    scatter = getattr(distributed, "reduce_scatter_single", None) or distributed.reduce_scatter_tensor
    mean = torch.empty(1, dtype=torch.float32)
    scatter(mean, torch.ones(group.size(), dtype=torch.float32), op=distributed.ReduceOp.AVG, group=group)
    return float(mean) == 1.0


@restoring
def weights_at(parameters: Sequence[Tensor], parts: Sequence[Tensor]) -> Iterator[None]:
    """Give the parameters the values ``parts``; they are restored bit for bit.

    Their own memory is not written to, save where they are sharded. Other Python threads, which would take these values
    for the model's own, wait until then.
    """
    with exclusive():
        yield from _weights_at(parameters, parts)


def _weights_at(parameters: Sequence[Tensor], parts: Sequence[Tensor]) -> Iterator[None]:
    own = [_local(parameter).clone() if is_distributed(parameter) else parameter.data for parameter in parameters]
    try:
        for parameter, part in zip(parameters, parts, strict=True):
            if is_distributed(parameter):
                _local(parameter).copy_(_local_part(part, parameter))
            else:
                parameter.data = part
        yield
    finally:
        for parameter, data in zip(parameters, own, strict=True):
            if is_distributed(parameter):
                _local(parameter).copy_(data)
            else:
                parameter.data = data


def _local(parameter: Any) -> Tensor:
    local: Tensor = parameter.detach().to_local()
    return local


def _local_part(part: Tensor, parameter: Any) -> Tensor:
    from torch.distributed.tensor import distribute_tensor

    return _local(distribute_tensor(part, parameter.device_mesh, parameter.placements, src_data_rank=None))
