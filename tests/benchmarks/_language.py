"""Text that ships with Python, a small language model trained on it, and what products and estimates with it cost.

Every measurement runs in a process of its own, so that its memory is that of one thing.
"""

from __future__ import annotations

import functools
import gc
import statistics
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from pydoc_data import topics
from typing import Any

import psutil
import torch
from _gpu_networks import GPT, Data, token_loss
from _memory import BYTES_PER_MB, PeakMemory
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import renyi_lab as rl

Record = dict[str, Any]
ORDER = 1.5
_ROWS = 16  # Lanczos vectors, on which reading them is timed


@dataclass(frozen=True)
class Shape:
    """Of a language model and of the sequences that it gets.

    Attributes:
        vocabulary: Number of characters.
        context: Largest number of characters in a sequence.
        width: Length of a character's vector.
        depth: Number of transformer layers.
        heads: Number of attention heads of a layer.
        length: Number of characters in a sequence here.
    """

    vocabulary: int
    context: int
    width: int
    depth: int
    heads: int
    length: int

    def model(self) -> GPT:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return GPT(self.vocabulary, self.context, self.width, self.depth, self.heads)

    def data(self, sequences: int) -> Data:
        """Sequences at equal distances in the text, and the characters that follow."""
        text = torch.tensor([min(byte, self.vocabulary - 1) for byte in _text()])
        starts = torch.arange(sequences) * ((len(text) - self.length - 1) // sequences)
        pieces = torch.stack([text[start : start + self.length + 1] for start in starts.tolist()])
        return pieces[:, :-1].clone(), pieces[:, 1:].clone()

    def describe(self) -> Record:
        return {**vars(self), "parameters": sum(p.numel() for p in self.model().parameters())}


@functools.cache
def _text() -> bytes:
    """Python's own manual, as `help()` shows it; a byte is a character."""
    return "".join(topics.topics.values()).encode("ascii", "replace")


def alone(function: Callable[..., Record], threads: int, *arguments: Any) -> Record:
    """The record of a function that runs in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        record = executor.submit(_with_threads, function, threads, arguments).result()
    print(f"{function.__name__}: {record}", flush=True)
    return record


def _with_threads(function: Callable[..., Record], threads: int, arguments: tuple[Any, ...]) -> Record:
    torch.set_num_threads(threads)
    return function(*arguments)


def train(shape: Shape, path: Path, sequences: int) -> Record:
    """Train a model for one pass over some sequences and write its weights to ``path``."""
    model, data, began = shape.model(), shape.data(sequences), time.perf_counter()
    untrained = _loss(model, data)
    optimizer = functools.partial(torch.optim.AdamW, lr=1e-3)
    rl.train(model, data, epochs=1, batch_size=8, optimizer=optimizer, loss_fn=token_loss, progress=False)
    torch.save(model.state_dict(), path)
    seconds = time.perf_counter() - began
    return {"sequences": sequences, "first_loss": untrained, "last_loss": _loss(model, data), "seconds": seconds}


def _loss(model: nn.Module, data: Data) -> float:
    """The loss of the first sequences."""
    with torch.no_grad():
        return float(token_loss(model(data[0][:16]), data[1][:16]))


def product(shape: Shape, sequences: int, method: str) -> Record:
    """Seconds and peak memory of a gradient, of a product with kept graphs, or with graphs built again each time."""
    model, data = shape.model().eval(), shape.data(sequences)
    parameters = list(model.parameters())
    vector = torch.randn(sum(p.numel() for p in parameters))
    gc.collect()
    with PeakMemory() as peak:
        if method == "gradient":
            with sdpa_kernel(SDPBackend.MATH):
                times = _seconds(lambda: torch.autograd.grad(token_loss(model(data[0]), data[1]), parameters))
        else:
            budget = 0 if method == "graph built again" else 10**12
            H = rl.HessianOperator(model, token_loss, data, graph_budget=budget)
            with H.unchanged():
                times = _seconds(lambda: H @ vector)
    return {"method": method, "sequences": sequences, **times, "peak_mb": _above(peak)}


def projection(shape: Shape) -> Record:
    """Seconds for removing a vector's components along some others, on one thread as in Lanczos."""
    vector = torch.ones(sum(p.numel() for p in shape.model().parameters()))
    rows = torch.ones(_ROWS, len(vector)) / len(vector) ** 0.5
    torch.set_num_threads(1)
    return {"bytes_read": 2 * rows.nbytes, **_seconds(lambda: vector - (vector @ rows.T) @ rows)}


def estimate(shape: Shape, path: Path, sequences: int, num_products: int, settings: Record) -> Record:
    """Time and peak memory of an entropy from so many products, and what the package expects before."""
    model, data = _loaded(shape, path), shape.data(sequences)
    settings = {name: getattr(torch, value) if name == "basis_dtype" else value for name, value in settings.items()}
    gc.collect()
    with PeakMemory() as first:
        H = rl.HessianOperator(model, token_loss, data, graph_budget=0, micro_batch_size=1)
        began = _Clock()
        expected = H.estimate_cost(num_products, **settings)
        share = began.processor_seconds() / began.seconds()
    gc.collect()
    began, load = _Clock(), psutil.getloadavg()[0]
    with PeakMemory() as second, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a large standard error, which the record has
        found = rl.estimate_spectrum(H, num_matvecs=num_products, progress=False, **settings).renyi_entropy(ORDER)
    seconds, processor_seconds = began.seconds(), began.processor_seconds()
    return {
        "products": num_products,
        "sequences": sequences,
        "loss": H.loss,
        "entropy": found.value,
        "error": found.standard_error,
        "seconds": seconds,
        "expected_seconds": expected.seconds,
        "processor_seconds": processor_seconds,
        "expected_processor_seconds": share * expected.seconds,
        "seconds_per_product": expected.seconds_per_product,
        "load": load,
        "peak_mb": (second.bytes - first.start) / BYTES_PER_MB,
        "expected_mb": (expected.memory - expected.model_memory) / BYTES_PER_MB,
        "peak_mb_of_cost": _above(first),
        "base_mb": first.start / BYTES_PER_MB,
    }


class _Clock:
    """Seconds since its construction, on the wall and of this process's processors."""

    def __init__(self) -> None:
        self._wall, self._processor = time.perf_counter(), time.process_time()

    def seconds(self) -> float:
        return time.perf_counter() - self._wall

    def processor_seconds(self) -> float:
        return time.process_time() - self._processor


def _loaded(shape: Shape, path: Path) -> nn.Module:
    model = shape.model()
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


def _seconds(call: Callable[[], object]) -> dict[str, float]:
    """Medians over some calls, after one that builds what is kept."""
    call()
    times: list[tuple[float, float]] = []
    while len(times) < 3 or (len(times) < 7 and sum(wall for wall, _ in times) < 5):
        began = _Clock()
        call()
        times.append((began.seconds(), began.processor_seconds()))
    wall, processor = (statistics.median(column) for column in zip(*times, strict=True))
    return {"seconds": wall, "processor_seconds": processor}


def _above(peak: PeakMemory) -> float:
    return (peak.bytes - peak.start) / BYTES_PER_MB
