"""Curvature products by differentiating through a graph, which is kept between products while memory allows."""

from __future__ import annotations

import itertools
import math
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from renyi_lab._utils.batches import Batch, tensors_in
from renyi_lab._utils.evaluation import full_precision
from renyi_lab._utils.exclusive import exclusive
from renyi_lab._utils.fingerprint import Fingerprint
from renyi_lab._utils.gradient_hooks import suspended_hooks
from renyi_lab._utils.interrupts import restoring
from renyi_lab._utils.parameters import ParameterSelection
from renyi_lab._utils.ranks import agreed, checksum
from renyi_lab._utils.threads import one_thread
from renyi_lab.operators._batched_choice import BatchedChoice
from renyi_lab.operators._graph_memory import default_graph_budget, saved_bytes
from renyi_lab.operators._graph_nodes import Top, edge, reason_to_refuse
from renyi_lab.operators._model import ModelOperator
from renyi_lab.operators._symmetry import SymmetryCheck

Kind = TypeVar("Kind", bound="KeptGraphOperator")
Link = tuple[Sequence[Tensor], Sequence[Tensor]]

# Bytes of graphs that are kept after a product which may be the only one. Heuristic: little beside torch itself, and
# enough for small networks, whose graphs are then built once.
_EARLY_BUDGET = 2**22

_NOT_TWICE = (
    "a layer of the model cannot be differentiated twice ({}). Replace it by plain torch operations, leave its "
    "parameters and those before it out with params=, or use HessianOperator(..., "
    'method="finite_difference"), which needs gradients only.'
)
NOT_SYMMETRIC = (
    "the products are not those of a symmetric matrix: some operation of the model has a gradient that is not its "
    "derivative (a gradient reversal, a scaled, clipped or straight-through gradient), or a result that changes from "
    "one evaluation to the next; remove it, or leave its parameters out with params=."
)


class BatchGraph:
    """The graph of one batch's first derivatives, and the curvature product that goes through it.

    The product is a chain of vector-Jacobian products: the derivative of each link's ``tops``, weighted with the result
    of the link before, in its ``bottoms``.

    Args:
        derivatives: First derivatives in each parameter, the ``tops`` of the first link; ``None`` or one without a
            graph where the second derivative is zero.
        bottoms: The ``bottoms`` of the first link.
        links: Further links ``(tops, bottoms)``; the last one's ``bottoms`` are the parameters.
    """

    def __init__(self, derivatives: Sequence[Tensor | None] = (), bottoms: Sequence[Tensor] = (), *links: Link) -> None:
        used = {i: tensor for i, tensor in enumerate(derivatives) if tensor is not None and tensor.requires_grad}
        self.used, self.ndims = tuple(used), tuple(tensor.ndim for tensor in used.values())
        # Of the tops only the place in the graph is kept: their values would be a gradient for each batch.
        chain = ((used.values(), bottoms), *links)
        self.links: list[tuple[Any, Sequence[Tensor]]] = [([edge(top) for top in tops], parts) for tops, parts in chain]
        self.derivatives: Sequence[Top] = self.links[0][0]

    def product(self, parts: Sequence[Tensor], keep_graph: bool) -> Sequence[Tensor]:
        """The matrix times vectors, both in parts shaped like the parameters, after a leading axis for several."""
        if not self.derivatives:
            return [torch.zeros_like(part) for part in parts]
        vectors: Sequence[Tensor] = [parts[i] for i in self.used]
        batched = vectors[0].ndim > self.ndims[0]
        try:
            for tops, bottoms in self.links:
                vectors = torch.autograd.grad(
                    tops, bottoms, vectors, retain_graph=keep_graph, is_grads_batched=batched, materialize_grads=True
                )
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # after a forward pass and a gradient without errors
            likely = _NOT_TWICE.format(str(error).partition("\n")[0])
            raise RuntimeError(f"the product failed; most likely {likely}") from error
        return vectors


class KeptGraphOperator(ModelOperator):
    """A `ModelOperator` whose matrix is a sum over batches of products through a `BatchGraph`.

    Graphs of as many batches as ``graph_budget`` allows are kept until the weights change; the others are rebuilt for
    each product. A first product outside of `unchanged` may be the only one: it keeps the first batch's graph and small
    ones, the second one keeps the others. A subclass implements `_batch_graph`.
    """

    _graphs: list[BatchGraph | None] | None = None
    _affordable: Sequence[bool] = ()  # batches whose graph may be kept
    _fingerprint: Fingerprint | None = None
    _seen_nonzero = False
    _graph_checked = False
    _symmetry: SymmetryCheck | None = None
    _choice: BatchedChoice | None = None
    _is_unchanged = False  # inside `unchanged`
    _verified: tuple[nn.Parameter, ...] | None = None  # the parameters, when the kept graphs are known to be theirs
    # Nodes of a first derivative's graph through which torch would silently give a wrong product.
    _silently_wrong: ClassVar[Mapping[str, str]] = {
        "torch::autograd::Error": "a function marked once_differentiable counts as constant in the second derivative"
    }

    @abstractmethod
    def _batch_graph(self, index: int) -> BatchGraph: ...

    @property
    def num_batches_kept(self) -> int:
        """Number of batches whose graph is kept now (0 before the first product)."""
        return sum(graph is not None for graph in self._graphs or [])

    def restricted(self: Kind, params: ParameterSelection = None, batches: Sequence[Batch] | None = None) -> Kind:
        """As `ModelOperator.restricted`."""
        self._choice = self._choice or BatchedChoice()  # measured once for all parts
        part = super().restricted(params, batches)
        part._seen_nonzero, part._graph_checked = False, False
        return part

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes over: all but the graphs, which belong to one model and cannot be copied."""
        state = dict(vars(self))
        for name in ("_graphs", "_fingerprint", "_symmetry", "_is_unchanged", "_verified"):
            state.pop(name, None)
        return state

    @restoring
    def unchanged(self) -> Iterator[None]:
        """A context for many products in a row, in which the model does not change: that the kept graphs are still the
        model's is then checked once, and a product never waits for a GPU.

        Otherwise each product compares all weights and buffers with copies, since changes through ``.data`` leave no
        other trace.
        """
        if self._is_unchanged:
            yield
            return
        self._is_unchanged = True
        try:
            yield
        finally:
            self._is_unchanged, self._verified = False, None

    def _matvec(self, vector: Tensor) -> Tensor:
        product = self._product(vector)
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
        # Batched products pay where many small kernels are launched, not on a CPU; and ranks must choose the same.
        if self.device.type != "cuda" or self.ranks is not None:
            return super()._matmat(vectors)
        self._choice = self._choice or BatchedChoice()
        with self.unchanged():
            return self._choice.products(self._product, vectors.T).T

    def _product(self, vectors: Tensor) -> Tensor:
        """The matrix times one vector ``(n,)`` or rows ``(k, n)``: the sum over batches."""
        product = self._unchecked_product(vectors)
        check = self._symmetry
        if check is not None and not check.passes(vectors, product):
            # Two vectors may lie where the matrix is zero up to rounding: two random ones decide.
            generator = torch.Generator("cpu").manual_seed(0)
            u, v = torch.randn(2, self.dim, generator=generator, device="cpu").to(self.device, self.dtype)
            if not check.agree(u, self._unchecked_product(u), v, self._unchecked_product(v)):
                raise RuntimeError(NOT_SYMMETRIC)
        return product

    @exclusive()
    def _unchecked_product(self, vectors: Tensor) -> Tensor:
        if self.ranks is None:
            return self._own_product(vectors)
        same = agreed(self.ranks, lambda: checksum(vectors, *self.parameters.values()), "vectors or weights")
        with same:
            product = self._own_product(vectors)
        return self.ranks.sum_(product)

    def _own_product(self, vectors: Tensor) -> Tensor:
        """The part of the product that comes from this process's batches."""
        parameters = self._verified or tuple(self.parameters.values())
        with one_thread():  # built once, too rarely to find out which number of threads is faster
            graphs = self._kept_graphs()
        self._verified = parameters if self._is_unchanged else None
        parts, total = self.unflatten(vectors), torch.zeros_like(vectors)
        # What a product computes again has the flags, kernels, state and seeds of the first time.
        point = self.evaluation_point() if self._recomputes or None in graphs else full_precision()
        with self._threads["product"].run(), suspended_hooks(parameters), point:
            for index, kept in enumerate(graphs):
                graph = kept or self._checked_graph(index)
                if self._recomputes:
                    self._begin(index)
                with self.differentiation():
                    total += self.flatten(graph.product(parts, keep_graph=kept is not None))
        return total

    def _kept_graphs(self) -> list[BatchGraph | None]:
        """Graphs of as many batches as the budget allows, built at the first two products after the model changes."""
        if self._verified and self._graphs is not None:
            return self._graphs
        if self._graphs is not None and self._fingerprint is not None and self._fingerprint.matches(self._roots):
            self._keep(self._graphs, self._affordable)
            return self._graphs
        self._graphs = None
        self._affordable, early = self._affordable_batches()
        graphs: list[BatchGraph | None] = [None] * len(self.batches)
        self._keep(graphs, self._affordable if self._is_unchanged else early)
        self._graphs, self._fingerprint = graphs, Fingerprint(self._roots)
        self._symmetry = SymmetryCheck(abs(self.loss), self.eps)
        return graphs

    def _keep(self, graphs: list[BatchGraph | None], wanted: Sequence[bool]) -> None:
        missing = {index for index, graph in enumerate(graphs) if wanted[index] and graph is None}
        if missing:
            with self.evaluation_point():
                graphs[:] = [self._checked_graph(i) if i in missing else graph for i, graph in enumerate(graphs)]

    def _affordable_batches(self) -> tuple[list[bool], list[bool]]:
        """Whether each batch's graph may be kept, and whether at once: the first batch's is needed in any case."""
        budget = default_graph_budget(self.device) if self.graph_budget is None else self.graph_budget
        costs = self._graph_costs() if budget else None
        totals = list(itertools.accumulate(costs or [math.inf] * len(self.batches)))
        early = min(budget, max([_EARLY_BUDGET, *totals[:1]]))
        return [total <= budget for total in totals], [total <= early for total in totals]

    def _graph_costs(self) -> list[float] | None:
        """Bytes of each batch's graph, from those of the first; ``None`` where they cannot be counted."""
        outside = [tensor for batch in self.batches for tensor in tensors_in(batch.content)]
        outside += [tensor for root in self._roots for tensor in (*root.parameters(), *root.buffers())]
        if not self.batches:
            return []
        try:
            with self.evaluation_point(), torch.enable_grad():
                bytes_per_sample = saved_bytes(lambda: self._batch_graph(0), outside) / self.batches[0].size
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # torch.func does not let saved tensors be noted; other errors will be met again
            return None
        return [batch.size * bytes_per_sample for batch in self.batches]

    def _graph_bytes(self) -> int:
        """As `ModelOperator._graph_bytes`: a product's intermediate results are about as large as a batch's graph."""
        costs = self._graph_costs() or [0.0]
        kept = sum(cost for cost, graph in zip(costs, self._graphs or [], strict=False) if graph is not None)
        return int(kept + max(costs, default=0.0))

    def _checked_graph(self, index: int) -> BatchGraph:
        with torch.enable_grad():
            graph = self._noted(self._batch_graph, index)
        if not self._graph_checked:
            if reason := reason_to_refuse(self._silently_wrong, graph.derivatives):
                raise RuntimeError(_NOT_TWICE.format(reason))
            self._graph_checked = True
        return graph
