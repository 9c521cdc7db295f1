"""Where Lanczos vectors are kept: on the operator's device, in the host's memory, or shared among processes.

All vectors are needed to keep a new one orthogonal, ``m·n`` numbers after ``m`` steps; a vector itself is always whole
and on the operator's device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from renyi_lab._utils.arrays import finite_array
from renyi_lab._utils.fields import check_fields
from renyi_lab._utils.ranks import Ranks, agreed
from renyi_lab._utils.threads import one_thread
from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_choice, check_instance, check_int, check_tensor, shown
from renyi_lab.operators import LinearOperator, format_bytes, free_bytes

PLACES = ("device", "cpu", "sharded")
_DTYPES = (torch.bfloat16, torch.float32, torch.float64)
_ENTRIES = 2**18  # of a basis in another dtype that are converted at a time; heuristic: what a cache holds


@dataclass(frozen=True)
class Storage:
    """How a basis is stored.

    Attributes:
        place: ``"device"``, ``"cpu"`` or ``"sharded"``: each rank of the operator's process group keeps some columns.
        dtype: Data type; ``None`` is the operator's. Vectors are rounded to it, which costs them some orthogonality.
    """

    place: str = "device"
    dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        check_choice("place", self.place, PLACES)

    @classmethod
    def of_options(cls, operator: LinearOperator, basis: Any, basis_dtype: Any) -> Storage:
        """The storage that the arguments of those names ask for.

        Args:
            operator: Symmetric; the vectors are ones that it multiplies.
            basis: As `place`.
            basis_dtype: As `dtype`.

        Raises:
            TypeError: ``basis_dtype`` is not a dtype.
            ValueError: As in `checked`.
        """
        check_choice("basis", basis, PLACES)
        if basis_dtype is not None and not isinstance(basis_dtype, torch.dtype):
            raise TypeError(f"basis_dtype must be a dtype such as torch.bfloat16, got {shown(basis_dtype)}.")
        return cls(basis, basis_dtype).checked(operator)

    def checked(self, operator: LinearOperator) -> Storage:
        """Return self when ``operator`` can have such a basis or raise.

        Raises:
            ValueError: An unknown place, ``"sharded"`` without a process group, or another dtype than bfloat16, float32
                and float64, or a wider one than the operator's.
        """
        check_instance("operator", operator, LinearOperator, "such as as_operator(matrix)")
        if self.place == "sharded" and operator.vector_ranks is None:
            raise ValueError(
                'basis="sharded" needs an operator with process_group=, or of a model that fully_shard has sharded, '
                'whose processes share the basis; use basis="cpu" or basis_dtype=torch.bfloat16 on one process.'
            )
        own = operator.dtype
        if self.dtype is not None and (self.dtype not in _DTYPES or _bytes(self.dtype) > _bytes(own)):
            raise ValueError(
                f"basis_dtype must be torch.bfloat16, torch.float32 or torch.float64, no wider than the operator's "
                f"{own}, got {self.dtype!r}."
            )
        return self

    def device_for(self, operator: LinearOperator) -> torch.device:
        """Device that the vectors are on."""
        check_instance("operator", operator, LinearOperator, "such as as_operator(matrix)")
        return torch.device("cpu") if self.place == "cpu" else operator.device

    def num_bytes(self, operator: LinearOperator, num_vectors: int) -> int:
        """Memory of so many vectors on one rank."""
        self.checked(operator)
        check_int("num_vectors", num_vectors, 0)
        sharing = operator.vector_ranks if self.place == "sharded" else None
        size = 1 if sharing is None else sharing.size
        return num_vectors * -(-operator.dim // size) * _bytes(self.dtype or operator.dtype)

    def check_memory(self, operator: LinearOperator, num_vectors: int) -> None:
        """Raise where so many vectors do not fit into free memory, on any rank, with what would.

        Raises:
            ValueError: They do not fit.
        """
        self.checked(operator)
        with agreed(operator.vector_ranks):
            self._check_own_memory(operator, num_vectors)

    def _check_own_memory(self, operator: LinearOperator, num_vectors: int) -> None:
        device = self.device_for(operator)
        needed, free = self.num_bytes(operator, num_vectors), free_bytes(device)
        if needed <= free:
            return
        where = "on each rank" if self.place == "sharded" else f"on {device}"
        fitting = [text for text, storage in self._others(operator) if storage._fits(operator, num_vectors)]
        fitting += ['reorthogonalize="none", which keeps none and gives larger errors']
        raise ValueError(
            f"a basis of {num_vectors} vectors of {operator.dim:,} entries takes {format_bytes(needed)}, but "
            f"{format_bytes(free)} are free {where}; use fewer products, or {', or '.join(fitting)}."
        )

    def _others(self, operator: LinearOperator) -> list[tuple[str, Storage]]:
        found = [("basis_dtype=torch.bfloat16", Storage(self.place, torch.bfloat16))]
        if operator.device.type != "cpu" and self.place != "cpu":
            found += [('basis="cpu"', Storage("cpu", self.dtype))]
        if operator.vector_ranks is not None and self.place != "sharded":
            found += [('basis="sharded"', Storage("sharded", self.dtype))]
        return found

    def _fits(self, operator: LinearOperator, num_vectors: int) -> bool:
        return self.num_bytes(operator, num_vectors) <= free_bytes(self.device_for(operator))


class Basis:
    """Orthonormal vectors as rows, to which more are appended.

    Args:
        operator: Symmetric; the vectors are ones that it multiplies.
        capacity: Number of vectors for which memory is reserved, at least 2; half as many more are taken as needed.
        storage: Where and how they are stored.

    Raises:
        TypeError: An argument of another type.
        ValueError: The operator cannot have such a basis, or it does not fit into memory.
    """

    def __init__(self, operator: LinearOperator, capacity: int, storage: Storage | None = None) -> None:
        storage = Storage() if storage is None else check_instance("storage", storage, Storage)
        self._operator, self._storage = operator, storage.checked(operator)
        check_int("capacity", capacity)
        self.dim, self._dtype, self._device = operator.dim, operator.dtype, operator.device
        self._ranks: Ranks | None = operator.vector_ranks if storage.place == "sharded" else None
        self._columns = slice(0, self.dim) if self._ranks is None else self._ranks.columns(self.dim)
        place = storage.device_for(operator)
        width = self._columns.stop - self._columns.start
        self._memory = torch.empty(max(2, capacity), width, dtype=storage.dtype or operator.dtype, device=place)
        self._length = 0
        self._corrections: list[tuple[Tensor, Tensor]] = []  # of the entries that were rounded most

    def __len__(self) -> int:
        return self._length

    @property
    def rows(self) -> Tensor:
        """The vectors that this process keeps, ``(m, n)``; some columns of them where they are sharded."""
        return self._memory[: self._length]

    @property
    def rounding(self) -> float:
        """Relative size of the eigenvalues that are hidden by the rounding of the stored vectors; 0 without.

        Orthogonal to rounded vectors is orthogonal to the vectors up to a part of ``u/√n``, with the unit roundoff
        ``u``: the roundings of many entries mostly cancel, and the few largest are kept. Heuristic: ``eps/(256 √n)``;
        on diagonal matrices, whose eigenvectors have a single entry, errors are those of vectors that are not rounded.
        """
        return torch.finfo(self._memory.dtype).eps / 256 / self.dim**0.5 if self.is_rounded else 0.0

    @property
    def is_rounded(self) -> bool:
        """Whether the vectors are stored less precisely than they are."""
        return self._memory.dtype != self._dtype

    def append(self, vector: Tensor) -> None:
        """Store one more vector ``(n,)``."""
        if self._checked("vector", vector).ndim != 1:
            raise ValueError(f"vector must be one vector ({self.dim},), got {tuple(vector.shape)}.")
        if self._length == len(self._memory):
            self._storage.check_memory(self._operator, self._length + self._length // 2)
            self._memory = torch.cat([self._memory, torch.empty_like(self._memory[: self._length // 2])])
        own = vector[self._columns].to(self._memory.device)
        self._memory[self._length] = own
        if self.is_rounded:
            self._corrections.append(_largest_errors(own, self._memory[self._length]))
        self._length += 1

    def leading(self, num_vectors: int) -> Basis:
        """The first vectors, in the same memory."""
        check_int("num_vectors", num_vectors, 0, len(self))
        part = Basis.__new__(Basis)
        vars(part).update(vars(self), _length=num_vectors, _corrections=self._corrections[:num_vectors])
        return part

    def remove_from(self, rows: Tensor, coefficients: FloatArray | None = None) -> Tensor:
        """A vector ``(n,)`` or rows ``(k, n)`` minus their components along the basis, as a new tensor.

        Args:
            rows: What is projected.
            coefficients: Orthonormal rows ``(j, m)``: only the components along ``coefficients @ basis`` are removed.
        """
        self._checked("rows", rows)
        if coefficients is not None:
            coefficients = finite_array("coefficients", coefficients, None, len(self))
        if len(self) == 0 or (coefficients is not None and len(coefficients) == 0):
            return rows.clone()
        parts = self._dots(rows)
        if coefficients is not None:
            chosen = torch.from_numpy(np.ascontiguousarray(coefficients)).to(parts)
            parts = (parts @ chosen.T) @ chosen
        return rows - self.combine(parts)

    @one_thread()  # two threads are no faster up to 270,000 parameters, and many times slower on a busy machine
    def combine(self, coefficients: Tensor) -> Tensor:
        """``coefficients @ basis``: a vector ``(n,)`` for coefficients ``(m,)``, or rows ``(k, n)`` for ``(k, m)``."""
        check_instance("coefficients", coefficients, Tensor)
        if coefficients.ndim not in (1, 2) or coefficients.shape[-1] != len(self):
            raise ValueError(f"coefficients must be ({len(self)},) or rows of that, got {tuple(coefficients.shape)}.")
        factors = coefficients.to(self._memory.device).to(self._dtype)
        if self._is_plain:
            return factors @ self.rows
        own = factors.new_empty(*factors.shape[:-1], self._memory.shape[1])
        for columns, block in self._blocks():
            own[..., columns] = factors @ block
        for index, (places, errors) in enumerate(self._corrections):
            own.index_add_(-1, places, factors[..., index, None] * errors)
        if self._ranks is None:
            return own.to(self._device)
        whole = self._ranks.concatenate(own.reshape(-1, own.shape[-1]), self.dim)
        return whole.reshape(*own.shape[:-1], self.dim)

    def _checked(self, name: str, vectors: Any) -> Tensor:
        """``vectors``, one or several as rows, of the operator's length, dtype and device, or raise."""
        found = check_tensor(name, vectors, self._device)
        if found.ndim not in (1, 2) or found.shape[-1] != self.dim or found.dtype != self._dtype:
            raise ValueError(
                f"{name} must be {self._dtype} of length {self.dim}, got {found.dtype} {tuple(found.shape)}."
            )
        return found

    @one_thread()
    def _dots(self, rows: Tensor) -> Tensor:
        """``rows @ basis.T``."""
        if self._is_plain:
            return rows @ self.rows.T
        own = rows[..., self._columns].to(self._memory.device)
        dots = own.new_zeros(*rows.shape[:-1], len(self))
        for columns, block in self._blocks():
            dots += own[..., columns] @ block.T
        for index, (places, errors) in enumerate(self._corrections):
            dots[..., index] += own[..., places] @ errors
        return (dots if self._ranks is None else self._ranks.sum_(dots)).to(rows.device)

    @property
    def _is_plain(self) -> bool:
        return self._ranks is None and (self._memory.dtype, self._memory.device) == (self._dtype, self._device)

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Columns and their entries in the operator's dtype, as much at a time as a small copy holds."""
        total = self._memory.shape[1]
        width = total if self._memory.dtype == self._dtype else max(1, _ENTRIES // len(self))
        for start in range(0, total, max(1, width)):
            columns = slice(start, min(start + width, total))
            yield columns, self.rows[:, columns].to(self._dtype)


@dataclass(frozen=True, eq=False)
class Subspace:
    """The span of orthonormal combinations of a basis, which take no memory of their own.

    Attributes:
        basis: The basis of ``m`` vectors.
        coefficients: Orthonormal rows ``(k, m)``.
    """

    basis: Basis
    coefficients: FloatArray

    def __post_init__(self) -> None:
        check_fields(self)
        finite_array("coefficients", self.coefficients, None, len(self.basis))

    def remove_from(self, rows: Tensor) -> Tensor:
        """A vector or rows minus their components along the subspace, as a new tensor."""
        return self.basis.remove_from(rows, self.coefficients)

    @property
    def is_rounded(self) -> bool:
        """As of the basis."""
        return self.basis.is_rounded

    def leading(self, dim: int) -> Subspace:
        """The span of the first combinations."""
        check_int("dim", dim, 0, len(self.coefficients))
        return Subspace(self.basis, self.coefficients[:dim])


def _largest_errors(vector: Tensor, rounded: Tensor) -> tuple[Tensor, Tensor]:
    """Places and values of what rounding took from the entries that it changed most.

    A few large entries, as where an eigenvector lies in few weights, would else make most of the error, and it would
    be the same in all vectors. Heuristic: a thousandth of the entries and 64.
    """
    errors = vector - rounded.to(vector.dtype)
    places = errors.abs().topk(min(len(errors), 64 + len(errors) // 1000), sorted=False).indices
    return places, errors[places]


def orthogonal_to(rows: Tensor, *spaces: Tensor | Basis | Subspace) -> Tensor:
    """A vector or rows minus the components along ``spaces``, removed twice (Kahan: "twice is enough").

    Rounded vectors leave a share of each component, a few thousandths in bfloat16, and are used three times.

    Args:
        rows: The vector ``(n,)`` or rows ``(k, n)``.
        spaces: Orthonormal rows, as tensors, as a `Basis` or as a `Subspace` of one.
    """
    rounded = any(isinstance(space, (Basis, Subspace)) and space.is_rounded for space in spaces)
    for _ in range(3 if rounded else 2):
        for space in spaces:
            rows = _without(rows, space) if isinstance(space, Tensor) else space.remove_from(rows)
    return rows


@one_thread()
def _without(rows: Tensor, basis: Tensor) -> Tensor:
    return rows - (rows @ basis.T) @ basis


def _bytes(dtype: torch.dtype) -> int:
    return torch.finfo(dtype).bits // 8
