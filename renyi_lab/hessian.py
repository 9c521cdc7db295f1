r"""Products with the Hessian of a model's mean loss, ``H v = ∇(∇L(θ)ᵀ v)``, without forming ``H``.

The gradient's graph is kept between products while it fits ``graph_budget``, so that a product costs one more backward
pass through it, about two gradients (Pearlmutter 1994; the kept graph is what brings three down to two).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from renyi_lab._graph_memory import default_graph_budget, saved_bytes
from renyi_lab._model_state import Fingerprint
from renyi_lab.model_operator import ModelOperator

# Vectors per batched product: enough to fill a GPU with a small network, few enough to keep intermediates small. Our
# choice.
_VECTORS_AT_ONCE = 32


def hvp(loss: Tensor, params: Iterable[Tensor], vector: Tensor) -> Tensor:
    """One Hessian-vector product ``∇(∇loss · v)`` by double backward, in its shortest form.

    Args:
        loss: Scalar with a graph to ``params``.
        params: The tensors that the Hessian is about, ``n`` entries in all, such as ``model.parameters()``.
        vector: Flat vector of shape ``(n,)``.

    Returns:
        ``H v`` of shape ``(n,)``. No ``.grad`` is touched.

    Example:
        >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> hvp((x**3).sum(), [x], torch.tensor([1.0, 1.0])).tolist()
        [6.0, 12.0]
    """
    params = list(params)
    gradients = torch.autograd.grad(loss, params, create_graph=True, materialize_grads=True)
    flat_gradient = torch.cat([gradient.reshape(-1) for gradient in gradients])
    if vector.shape != flat_gradient.shape:
        raise ValueError(f"vector must have shape {tuple(flat_gradient.shape)}, got {tuple(vector.shape)}.")
    if not flat_gradient.requires_grad:  # the loss is linear in params
        return torch.zeros_like(flat_gradient)
    products = torch.autograd.grad(flat_gradient, params, vector.to(flat_gradient), materialize_grads=True)
    return torch.cat([product.reshape(-1) for product in products])


class HessianOperator(ModelOperator):
    r"""The Hessian of a model's loss over a data set, ``H = ∇² (1/N) Σ_i ℓ(f_θ(x_i), y_i)``, as an operator.

    ``H @ v`` costs about two gradients while the graph is kept, three where it is recomputed. Constructor arguments and
    errors are those of `ModelOperator`.

    Example:
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> H = HessianOperator(model, torch.nn.MSELoss(), (x, torch.zeros(2, 1)))
        >>> H.to_dense().tolist()
        [[1.0, 0.0], [0.0, 4.0]]
    """

    _graphs: list[_Gradient | None] | None = None
    _fingerprint: Fingerprint | None = None
    _seen_nonzero = False

    @property
    def num_batches_kept(self) -> int:
        """For how many batches the graph is kept now (0 before the first product)."""
        return sum(graph is not None for graph in self._graphs or [])

    def _matvec(self, vector: Tensor) -> Tensor:
        parts = self._unflatten(vector)
        product = self._sum_over_batches(lambda gradient, keep: self._flatten(gradient.product(parts, keep)))
        if not self._seen_nonzero:
            self._seen_nonzero = bool(product.any())
            if not self._seen_nonzero and bool(vector.all()):  # a unit vector's product may well be zero
                warnings.warn(
                    "the Hessian seems to be identically zero: the loss does not depend on these parameters, or is "
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
        parts = [
            part.reshape(len(rows), *shape)
            for part, shape in zip(rows.split(self._sizes, 1), self._shapes, strict=True)
        ]
        return self._sum_over_batches(
            lambda gradient, keep: torch.cat(
                [product.reshape(len(rows), -1) for product in gradient.product(parts, keep, batched=True)], dim=1
            )
        )

    def _sum_over_batches(self, product: Callable[[_Gradient, bool], Tensor]) -> Tensor:
        """Add up ``product(gradient, keep_graph)`` over all batches, recomputing the gradients that are not kept."""
        graphs = self._kept_graphs()
        with _explained_second_derivative():
            results = [product(graph, True) for graph in graphs if graph is not None]
            recomputed = [index for index, graph in enumerate(graphs) if graph is None]
            if recomputed:
                with self._evaluation_point():
                    results += [product(self._gradient_of(index), False) for index in recomputed]
        return torch.stack(results).sum(0) if len(results) > 1 else results[0]

    def _kept_graphs(self) -> list[_Gradient | None]:
        """Graphs of as many batches as the budget allows, built when first asked and after a change of the weights."""
        if self._graphs is None or self._fingerprint is None or not self._fingerprint.matches(self.model):
            self._graphs = None
            affordable = self._affordable_batches()
            with _explained_second_derivative(), self._evaluation_point():
                graphs = [self._gradient_of(i) if kept else None for i, kept in enumerate(affordable)]
            self._graphs, self._fingerprint = graphs, Fingerprint(self.model)
        return self._graphs

    def _affordable_batches(self) -> list[bool]:
        budget = default_graph_budget(self.device) if self.graph_budget is None else self.graph_budget
        if budget == 0:
            return [False] * len(self._batches)
        outside = [*self.model.parameters(), *self.model.buffers()]
        with self._evaluation_point():
            bytes_per_sample = saved_bytes(lambda: self._gradient_of(0), outside) / self._batches[0].size
        costs = torch.tensor([batch.size * bytes_per_sample for batch in self._batches], dtype=torch.float64)
        return [bool(total <= budget) for total in costs.cumsum(0)]

    def _gradient_of(self, index: int) -> _Gradient:
        parameters = list(self._parameters.values())
        with torch.enable_grad():
            loss = self._weighted_loss(index)
            if not loss.requires_grad:
                return _Gradient(parameters, [None] * len(parameters))
            tensors = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
        return _Gradient(parameters, tensors)


class _Gradient:
    """One batch's gradient with the graph that its second derivative is taken through."""

    def __init__(self, parameters: Sequence[Tensor], tensors: Sequence[Tensor | None]) -> None:
        self.parameters = parameters
        self.used = [i for i, tensor in enumerate(tensors) if tensor is not None and tensor.requires_grad]
        self.outputs = [tensor for tensor in tensors if tensor is not None and tensor.requires_grad]

    def product(self, parts: Sequence[Tensor], keep_graph: bool, batched: bool = False) -> Sequence[Tensor]:
        """``H v`` for ``v`` given in parts shaped like the parameters (with a leading axis when ``batched``)."""
        if not self.outputs:
            return [torch.zeros_like(part) for part in parts]
        return torch.autograd.grad(
            self.outputs,
            self.parameters,
            [parts[i] for i in self.used],
            retain_graph=keep_graph,
            is_grads_batched=batched,
            materialize_grads=True,
        )


@contextmanager
def _explained_second_derivative() -> Iterator[None]:
    """Turn torch's message about a missing second derivative into one that names the mend."""
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        message = str(error)
        if "derivative for" in message or "double backward" in message or "does not support" in message:
            raise RuntimeError(
                f"a layer of the model cannot be differentiated twice ({message.splitlines()[0]}). Replace it by "
                f"plain torch "
                "operations, or leave its parameters and those before it out with params=."
            ) from error
        raise
