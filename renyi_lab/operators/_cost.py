"""What a spectrum of an operator costs, from a short measurement of its own products."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

from renyi_lab._utils.fields import check_fields
from renyi_lab._utils.threads import one_thread
from renyi_lab._utils.validation import check_int
from renyi_lab.operators._base import DENSE_LIMIT, LinearOperator

# Products that are timed after the first one: so many, unless they take longer than a second (heuristic).
_FEWEST_TIMED, _MOST_TIMED, _LONG_ENOUGH = 2, 7, 1.0
_LARGEST_SAMPLE = 2**22  # entries of the vectors, and of the matrix, with which other work is timed
# Of the products of an estimate, those of the long run, whose vectors are kept; vectors that are in memory beside them;
# and entries of the probes of short runs that are in memory at a time, each in some vectors.
_LONG_RUN, _WORKING_VECTORS, _PROBE_ENTRIES, _PER_PROBE = 0.75, 8, 2**24, 6


@dataclass(frozen=True)
class Cost:
    """Time and memory of a spectrum, as `ModelOperator.estimate_cost` measured them.

    Attributes:
        num_matvecs: Number of products.
        seconds_per_product: Median time of a product, in seconds.
        seconds: About how long all of it takes: the products, keeping the Lanczos vectors orthogonal, and (for an exact
            spectrum) the eigenvalues.
        fastest: The same with the fastest product that was timed.
        slowest: The same with the slowest one; another load of the machine changes it beyond that.
        memory: Bytes of everything below.
        graph_memory: Bytes of the graphs that are kept between products, and of the intermediate results of one batch.
        vector_memory: Bytes of the vectors that `estimate_spectrum` keeps, on one process, or of the dense matrix and
            its copies for an exact spectrum.
        model_memory: Bytes of parameters, buffers and frozen data, which are in memory already.
        is_exact: Whether so many products give an exact spectrum, by a dense matrix.
    """

    num_matvecs: int
    seconds_per_product: float
    seconds: float
    fastest: float
    slowest: float
    memory: int
    graph_memory: int
    vector_memory: int
    model_memory: int
    is_exact: bool

    def __post_init__(self) -> None:
        check_fields(self)

    def __repr__(self) -> str:
        time_range = f"{_duration(self.fastest)} to {_duration(self.slowest)}"
        noun = "product" if self.num_matvecs == 1 else "products"
        kind = f"{noun}, an exact spectrum" if self.is_exact else noun
        return (
            f"{self.num_matvecs:,} {kind}: about {_duration(self.seconds)} ({time_range}); {format_bytes(self.memory)}"
        )


def measure_cost(
    operator: LinearOperator, num_matvecs: int, model: int, graphs: Callable[[], int], per_entry: float | None = None
) -> Cost:
    """The cost of ``num_matvecs`` products with ``operator``, some of which are made and timed.

    Args:
        operator: The operator.
        num_matvecs: Number of products; from the number of rows on, an exact spectrum needs that many.
        model: Bytes of the model and its data.
        graphs: Gives the bytes of kept graphs, after the first product.
        per_entry: Bytes of each entry of a Lanczos vector that is kept, 0 where none is; ``None``: those of the dtype.
    """
    is_exact = operator.dim <= min(num_matvecs, DENSE_LIMIT)
    count = min(num_matvecs, operator.dim) if is_exact else num_matvecs
    item = torch.finfo(operator.dtype).bits // 8
    first, timed = _time_products(operator)
    kept_item = item if per_entry is None else per_entry
    others = _eigenvalue_seconds(operator.dim) if is_exact else _orthogonal_seconds(operator, count, kept_item)

    def total(seconds: float) -> float:
        return max(first, seconds) + (count - 1) * seconds + others

    # The dense matrix, its copy in double precision, the symmetrised one, and what the eigenvalues' routine needs.
    vectors = operator.dim**2 * (item + 3 * 8) if is_exact else _vector_bytes(operator.dim, count, item, kept_item)
    kept = graphs()
    middle = median(timed)
    return Cost(
        num_matvecs=count,
        seconds_per_product=middle,
        seconds=total(middle),
        fastest=total(min(timed)),
        slowest=total(max(timed)),
        memory=model + kept + vectors,
        graph_memory=kept,
        vector_memory=vectors,
        model_memory=model,
        is_exact=is_exact,
    )


def _vector_bytes(dim: int, count: int, item: int, kept_item: float) -> int:
    """Bytes of the vectors of an estimate from ``count`` products."""
    probes = min(count * (1 - _LONG_RUN), max(1, _PROBE_ENTRIES // dim) * _PER_PROBE)
    return int(dim * (_LONG_RUN * count * kept_item + (_WORKING_VECTORS + probes) * item))


def _time_products(operator: LinearOperator) -> tuple[float, list[float]]:
    """Seconds of the first product, which builds the graphs, and of a few others; those of the slowest rank."""
    generator = torch.Generator("cpu").manual_seed(0)
    vector = torch.randn(operator.dim, generator=generator, device="cpu").to(operator.device, operator.dtype)

    def seconds() -> float:
        start = time.perf_counter()
        float((operator @ vector)[0])  # waits for a GPU
        elapsed = time.perf_counter() - start
        return elapsed if operator.ranks is None else max(operator.ranks.gather(elapsed))

    with operator.unchanged():
        first, timed = seconds(), [seconds()]
        while len(timed) < _FEWEST_TIMED or (len(timed) < _MOST_TIMED and sum(timed) < _LONG_ENOUGH):
            timed.append(seconds())
    return first, timed


@one_thread()  # as in Lanczos
def _orthogonal_seconds(operator: LinearOperator, count: int, per_entry: float) -> float:
    """Seconds that keeping ``count`` Lanczos vectors orthogonal takes: at step ``j``, ``j`` of them, twice.

    Those that are kept in half precision are converted, and used three times.
    """
    if per_entry == 0:
        return 0.0
    rows = min(32, max(1, _LARGEST_SAMPLE // operator.dim))
    basis = torch.ones(rows, operator.dim, dtype=operator.dtype, device=operator.device)
    rounded = per_entry < torch.finfo(operator.dtype).bits // 8 and operator.ranks is None
    kept = basis.bfloat16() if rounded else basis
    start = time.perf_counter()
    for _ in range(2):
        dots = basis[0] @ (kept.to(basis.dtype) if rounded else kept).T
        float((dots @ (kept.to(basis.dtype) if rounded else kept))[0])
    return (time.perf_counter() - start) / 2 * (1.5 if rounded else 1.0) / rows * count**2


@one_thread()
def _eigenvalue_seconds(dim: int) -> float:
    """Seconds that ``dim`` eigenvalues take, from those of a smaller matrix."""
    sample = min(dim, 256)
    matrix = torch.eye(sample, dtype=torch.float64, device="cpu") + 1 / sample
    start = time.perf_counter()
    torch.linalg.eigvalsh(matrix)
    return float((time.perf_counter() - start) * (dim / sample) ** 3)


def format_bytes(number: int) -> str:
    """Bytes for readers, such as ``"310 MB"``."""
    check_int("number", number, 0)
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{max(1, round(number / 1000))} kB"


def _duration(seconds: float) -> str:
    """Seconds for readers, such as ``"12 s"``."""
    if seconds < 0.95:
        return f"{seconds:.1g} s"
    if seconds < 100:
        return f"{seconds:.2g} s"
    if seconds < 6000:
        return f"{seconds / 60:.2g} min"
    return f"{seconds / 3600:.2g} h"
