"""Processes of a torch.distributed group that compute the same from parts of the data, or of the vectors, of their own.

A collective operation waits for all ranks. So what one rank does alone stands inside `Ranks.agreed`: where a rank
fails, every rank raises, with its message, instead of waiting for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import torch
from torch import Tensor

# Differences of a number that every rank computes from the same vector, relative to the vector's norm. Heuristic:
# processors of different kinds round differently; other weights or probes differ by about 1.
_SAME = 1e-4
_KINDS = (ValueError, TypeError)  # of errors that all raise, so that all catch them or none does


class Ranks:
    """The processes of a torch.distributed group.

    Args:
        group: The process group, such as ``torch.distributed.group.WORLD``.
        device: Device of the tensors that are exchanged.

    Attributes:
        group: As the argument.
        rank: Number of this process in the group.
        size: Number of processes.

    Raises:
        TypeError: ``group`` is not a process group.
        ValueError: This process is not in the group.
    """

    def __init__(self, group: Any, device: torch.device) -> None:
        import torch.distributed as dist

        if not dist.is_available() or not dist.is_initialized():
            raise ValueError(
                "process_group needs torch.distributed.init_process_group() first; start the program by torchrun."
            )
        if not isinstance(group, dist.ProcessGroup):
            raise TypeError(
                f"process_group must be a torch.distributed process group, got {type(group).__name__}; use "
                "torch.distributed.group.WORLD for all processes."
            )
        self.group, self.device = group, device
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        if self.rank < 0:
            raise ValueError("process_group does not hold this process.")

    def __deepcopy__(self, memo: dict[int, Any]) -> Ranks:
        return self  # a process group is no value

    def sum_(self, tensor: Tensor) -> Tensor:
        """Replace a contiguous tensor by its sum over the ranks, the same bits on each, and return it."""
        return self._reduce_(tensor, "SUM")

    def max_(self, tensor: Tensor) -> Tensor:
        """Replace a contiguous tensor by its largest values over the ranks, and return it."""
        return self._reduce_(tensor, "MAX")

    def sum(self, number: float) -> float:
        """The sum of a number over the ranks, added in the order of the ranks."""
        return float(sum(self.gather(number)))

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, in their order; any that can be pickled, from processes of one's own program."""
        import torch.distributed as dist

        values: list[Any] = [None] * self.size
        with _explained():
            dist.all_gather_object(values, value, group=self.group)
        return values

    def concatenate(self, part: Tensor, length: int) -> Tensor:
        """The parts ``(k, columns)`` of all ranks next to each other, ``(k, length)``; see `columns`."""
        import torch.distributed as dist

        width = -(-length // self.size)
        padded = part.new_zeros(part.shape[0], width)
        padded[:, : part.shape[1]] = part
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        with _explained():
            dist.all_gather(parts, padded, group=self.group)
        return torch.cat(parts, dim=1)[:, :length]

    def columns(self, length: int) -> slice:
        """Which of so many columns this rank holds: ``⌈length/size⌉`` of them, the last ranks fewer."""
        width = -(-length // self.size)
        return slice(min(self.rank * width, length), min((self.rank + 1) * width, length))

    def check_equal(self, settings: dict[str, Any]) -> None:
        """Raise ``ValueError`` on every rank where one of these settings differs between ranks.

        Args:
            settings: Values by what they are, for the message.
        """
        everywhere = self.gather(settings)
        for name in settings:
            values = [each.get(name) for each in everywhere]
            other = next((rank for rank, value in enumerate(values) if value != values[0]), None)
            if other is not None:
                raise ValueError(
                    f"the ranks of the process group differ in their {name}: {_shown(values[0])} on rank 0, "
                    f"{_shown(values[other])} on rank {other}; pass the same on every rank."
                )

    @contextlib.contextmanager
    def agreed(self, numbers: Callable[[], Tensor] | None = None, what: str = "vectors") -> Iterator[None]:
        """A part that each rank computes alone; where one fails, all raise.

        Args:
            numbers: Gives the `checksum`, after that part, of tensors that must be the same on every rank up to
                rounding.
            what: What they are, for the message.

        Raises:
            RuntimeError: Another rank failed (``ValueError`` or ``TypeError`` if its error was one), with its message;
                or the tensors differ.
        """
        failure: Exception | None = None
        found = torch.zeros(0, dtype=torch.float64, device=self._number_device)
        try:
            yield
            if numbers is not None:
                found = numbers().to(found).nan_to_num()
        except Exception as error:
            failure = error
        # Ranks that fail have no numbers, and a reduction needs equally many on all.
        flag = torch.tensor([float(failure is not None)], dtype=torch.float64, device=self._number_device)
        if float(self.max_(flag)):
            self._raise(failure)
        if len(found) == 0:
            return
        highest, lowest = self.max_(torch.cat([found, -found])).chunk(2)
        norms = highest.chunk(2)[1]  # each tensor has its own: large weights hide no others
        if bool(((highest + lowest) > _SAME * norms.repeat(2)).any()):
            raise RuntimeError(
                f"the {what} differ between the ranks of the process group; they must be the same on every rank: the "
                "same weights, seeds and sequence of calls."
            )

    def _raise(self, failure: Exception | None) -> NoReturn:
        """Raise this rank's own failure, or that of the first rank that failed."""
        base = next((kind for kind in _KINDS if isinstance(failure, kind)), RuntimeError)
        own = None if failure is None else (base, f"{type(failure).__name__}: {failure}")
        everywhere = self.gather(own)
        if failure is not None:
            raise failure
        rank, (kind, text) = next((rank, other) for rank, other in enumerate(everywhere) if other is not None)
        raise kind(f"rank {rank} of the process group failed: {text}")

    @property
    def _number_device(self) -> torch.device:
        return torch.device("cpu") if self.device.type == "mps" else self.device

    def _reduce_(self, tensor: Tensor, operation: str) -> Tensor:
        import torch.distributed as dist

        with _explained():
            dist.all_reduce(tensor, getattr(dist.ReduceOp, operation), group=self.group)
        return tensor


def agreed(
    ranks: Ranks | None, numbers: Callable[[], Tensor] | None = None, what: str = "vectors"
) -> contextlib.AbstractContextManager[None]:
    """`Ranks.agreed`, or nothing without ranks."""
    return contextlib.nullcontext() if ranks is None else ranks.agreed(numbers, what)


def checksum(*tensors: Tensor) -> Tensor:
    """Their sums and norms in double precision, of which at least one changes with the values, ``(2k,)``."""
    wide = torch.float32 if tensors[0].device.type == "mps" else torch.float64
    sums = [tensor.detach().sum(dtype=wide) for tensor in tensors]
    norms = [torch.linalg.vector_norm(tensor.detach(), dtype=wide) for tensor in tensors]
    return torch.stack([*sums, *norms])


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Say what the error of a collective operation means; torch's own names a socket."""
    try:
        yield
    except RuntimeError as error:
        raise RuntimeError(
            "a process of the group has ended or has not answered within its timeout (the argument timeout of "
            f"torch.distributed.init_process_group); see its own message, if it left one. [{error}]"
        ) from error


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
