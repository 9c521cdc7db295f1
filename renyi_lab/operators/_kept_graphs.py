"""Curvature products by differentiating through a graph, which is kept between products while memory allows."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from renyi_lab._utils.model_state import Fingerprint
from renyi_lab.operators._graph_memory import default_graph_budget, saved_bytes
from renyi_lab.operators._model import ModelOperator

_NOT_TWICE = (
    "a layer of the model cannot be differentiated twice ({}). Replace it by plain torch operations, or leave its "
    "parameters and those before it out with params=."
)
# Vectors per batched product: enough to fill a GPU with a small network, few enough to keep intermediates small. Our
# choice.
_VECTORS_AT_ONCE = 32


class BatchGraph(Protocol):
    """What is kept of one batch: first derivatives, and the product that goes through their graph."""

    @property
    def derivatives(self) -> Sequence[Tensor]:
        """Tensors at the top of the graph."""

    def product(self, parts: Sequence[Tensor], keep_graph: bool, batched: bool) -> Sequence[Tensor]:
        """The matrix times a vector, both in parts shaped like the parameters (after a leading axis if batched)."""


class KeptGraphOperator(ModelOperator):
    """A `ModelOperator` whose matrix is a sum over batches of products through a `BatchGraph`.

    Graphs of as many batches as ``graph_budget`` allows are kept until the weights change; the others are built anew
    for each product. A subclass says how: `_batch_graph`.
    """

    _graphs: list[BatchGraph | None] | None = None
    _fingerprint: Fingerprint | None = None
    _seen_nonzero = False
    _graph_checked = False
    # Nodes of a first derivative's graph through which torch would give a wrong product without a word.
    _silently_wrong: ClassVar[Mapping[str, str]] = {
        "torch::autograd::Error": "a function marked once_differentiable counts as constant in the second derivative"
    }

    @abstractmethod
    def _batch_graph(self, index: int) -> BatchGraph: ...

    @property
    def num_batches_kept(self) -> int:
        """For how many batches the graph is kept now (0 before the first product)."""
        return sum(graph is not None for graph in self._graphs or [])

    def _matvec(self, vector: Tensor) -> Tensor:
        parts = self.unflatten(vector)
        product = self._sum_over_batches(lambda graph, keep: self.flatten(graph.product(parts, keep, batched=False)))
        if not self._seen_nonzero:
            self._seen_nonzero = bool(product.any())
            if not self._seen_nonzero and bool(vector.all()):  # a unit vector's product may well be zero
                warnings.warn(
                    "the matrix seems to be identically zero: the loss does not depend on these parameters, or is "
                    "piecewise linear in them (one layer of a ReLU network under an absolute-error loss, say).",
                    stacklevel=3,
                )
        return product

    def _matmat(self, vectors: Tensor) -> Tensor:
        # Several vectors at once pay where many small kernels wait for each other: on a GPU, not on a CPU.
        if self.device.type != "cuda":
            return super()._matmat(vectors)
        return torch.cat([self._batched_product(chunk) for chunk in vectors.T.split(_VECTORS_AT_ONCE)]).T

    def _batched_product(self, rows: Tensor) -> Tensor:
        parts = self.unflatten(rows)
        return self._sum_over_batches(
            lambda graph, keep: torch.cat(
                [product.reshape(len(rows), -1) for product in graph.product(parts, keep, batched=True)], dim=1
            )
        )

    def _sum_over_batches(self, product: Callable[[BatchGraph, bool], Tensor]) -> Tensor:
        """Add up ``product(graph, keep_graph)`` over all batches, building the graphs that are not kept."""
        graphs = self._kept_graphs()
        with _explained_second_derivative():
            results = [product(graph, True) for graph in graphs if graph is not None]
            recomputed = [index for index, graph in enumerate(graphs) if graph is None]
            if recomputed:
                with self.evaluation_point():
                    results += [product(self._checked_graph(index), False) for index in recomputed]
        return torch.stack(results).sum(0) if len(results) > 1 else results[0]

    def _kept_graphs(self) -> list[BatchGraph | None]:
        """Graphs of as many batches as the budget allows, built when first asked and after a change of the weights."""
        if self._graphs is None or self._fingerprint is None or not self._fingerprint.matches(self.model):
            self._graphs = None
            affordable = self._affordable_batches()
            with _explained_second_derivative(), self.evaluation_point():
                graphs = [self._checked_graph(i) if kept else None for i, kept in enumerate(affordable)]
            self._graphs, self._fingerprint = graphs, Fingerprint(self.model)
        return self._graphs

    def _affordable_batches(self) -> list[bool]:
        budget = default_graph_budget(self.device) if self.graph_budget is None else self.graph_budget
        if budget == 0:
            return [False] * len(self.batches)
        outside = [*self.model.parameters(), *self.model.buffers()]
        with self.evaluation_point():
            bytes_per_sample = saved_bytes(lambda: self._checked_graph(0), outside) / self.batches[0].size
        costs = torch.tensor([batch.size * bytes_per_sample for batch in self.batches], dtype=torch.float64)
        return [bool(total <= budget) for total in costs.cumsum(0)]

    def _checked_graph(self, index: int) -> BatchGraph:
        with torch.enable_grad():
            graph = self._batch_graph(index)
        if not self._graph_checked:
            _refuse(self._silently_wrong, graph.derivatives)
            self._graph_checked = True
        return graph


def _refuse(reasons: Mapping[str, str], derivatives: Sequence[Tensor]) -> None:
    nodes = [tensor.grad_fn for tensor in derivatives if tensor.grad_fn is not None]
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        if node.name() in reasons:
            raise RuntimeError(_NOT_TWICE.format(reasons[node.name()]))
        new = {following for following, _ in node.next_functions if following is not None} - seen
        seen |= new
        nodes.extend(new)


@contextmanager
def _explained_second_derivative() -> Iterator[None]:
    """Turn torch's message about a missing second derivative into one that names the mend."""
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        message = str(error)
        if "derivative for" in message or "double backward" in message or "does not support" in message:
            raise RuntimeError(_NOT_TWICE.format(message.splitlines()[0])) from error
        raise
