"""Small trained networks with their dense Hessians and all eigenvalues, computed once and cached."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import renyi_lab as rl
from renyi_lab._utils.progress import progress_bar


@dataclass(frozen=True)
class Network:
    """How a network is made and trained; the cache file is named after it."""

    kind: str
    sizes: tuple[int, ...]
    epochs: int = 60
    num_samples: int = 5000
    seed: int = 0

    @property
    def name(self) -> str:
        return f"{self.kind} {'-'.join(map(str, self.sizes))}"

    @property
    def description(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    def model(self) -> torch.nn.Module:
        if self.kind == "mlp":
            return rl.models.mlp(*self.sizes, seed=self.seed)
        return rl.models.cnn1d(channels=self.sizes[0], seed=self.seed)

    def operator(self) -> rl.HessianOperator:
        """The Hessian of the trained network over its training data."""
        train_set, _ = rl.datasets.mnist1d(num_samples=self.num_samples)
        model = self.model()
        rl.train(model, train_set, epochs=self.epochs, seed=self.seed)
        return rl.HessianOperator(model, torch.nn.CrossEntropyLoss(), train_set.tensors)


@dataclass(frozen=True, eq=False)
class Solved:
    """A dense Hessian, ``(n, n)`` in single precision, with all its eigenvalues."""

    matrix: Tensor
    eigenvalues: NDArray[np.float64]


class CacheError(Exception):
    """A cache file was not written by this benchmark, or is damaged."""


def solved(network: Network, cache: Path) -> Solved:
    """Read from the cache, or compute and store there."""
    digest = hashlib.sha256(network.description.encode()).hexdigest()[:12]
    path = cache / f"hessian-{network.kind}-{digest}.npz"
    if path.exists():
        return _read(path, network)
    result = _solve(network.operator(), network.name)
    cache.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")  # renamed when complete
    try:
        with partial.open("wb") as file:
            np.savez(
                file,
                matrix=result.matrix.numpy(),
                eigenvalues=result.eigenvalues,
                network=np.array(network.description),
            )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return result


def _solve(hessian: rl.HessianOperator, name: str) -> Solved:
    n, width = hessian.shape[0], 16
    columns = []
    with progress_bar(n, f"dense Hessian of {name}") as bar:
        for start in range(0, n, width):
            unit_vectors = torch.zeros(n, min(width, n - start), dtype=hessian.dtype)
            unit_vectors[start : start + width] = torch.eye(unit_vectors.shape[1])
            columns.append(hessian @ unit_vectors)
            bar.update(unit_vectors.shape[1])
    dense = torch.cat(columns, dim=1)
    dense = (dense + dense.T) / 2
    return Solved(dense, torch.linalg.eigvalsh(dense.double()).numpy())


def _read(path: Path, network: Network) -> Solved:
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            matrix, eigenvalues, description = file["matrix"], file["eigenvalues"], str(file["network"])
        if description != network.description:
            raise CacheError("it belongs to another network")
        if matrix.dtype != np.float32 or matrix.shape != (len(eigenvalues),) * 2:
            raise CacheError("the matrix does not fit the eigenvalues")
    except Exception as error:
        raise CacheError(
            f"{path} was not written by this benchmark, or is damaged ({error}). Move it away, or name another folder "
            "with --cache."
        ) from error
    return Solved(torch.from_numpy(matrix), eigenvalues)
