r"""Products with the Hessian of a model's mean loss, ``H v = ∇(∇L(θ)ᵀ v)``, without forming ``H``.

The gradient's graph is kept between products while it fits ``graph_budget``, so that a product costs one more backward
pass through it: about two gradients, instead of three where the graph is rebuilt.

Source:
    Pearlmutter 1994, *Fast exact multiplication by the Hessian*.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from renyi_lab._utils.gradient_hooks import suspended_hooks
from renyi_lab._utils.parameters import flatten, unflatten
from renyi_lab.operators._kept_graphs import BatchGraph, KeptGraphOperator


def hvp(loss: Tensor, params: Iterable[Tensor], vector: Tensor) -> Tensor:
    """One Hessian-vector product ``∇(∇loss · v)`` by double backward, in its shortest form.

    Args:
        loss: Scalar with a graph to ``params``.
        params: The tensors to differentiate in, ``n`` entries in all, such as ``model.parameters()``.
        vector: Flat vector of shape ``(n,)``.

    Returns:
        ``H v`` of shape ``(n,)``. No ``.grad`` is changed.

    Raises:
        ValueError: No parameters, a loss that is not a scalar or has no graph, or a vector of another shape.

    Example:
        >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> hvp((x**3).sum(), [x], torch.tensor([1.0, 1.0])).tolist()
        [6.0, 12.0]
    """
    params = list(params)
    if not params or loss.numel() != 1 or not loss.requires_grad:
        raise ValueError(
            f"hvp needs parameters and one loss computed from them, got {len(params)} parameters and a loss of shape "
            f"{tuple(loss.shape)} {'with' if loss.requires_grad else 'without'} a graph; do not detach it."
        )
    with suspended_hooks(params):  # a hook's gradient is not that of the loss
        gradients = torch.autograd.grad(loss, params, create_graph=True, materialize_grads=True)
        flat_gradient = flatten(gradients)
        if vector.shape != flat_gradient.shape:
            raise ValueError(f"vector must have shape {tuple(flat_gradient.shape)}, got {tuple(vector.shape)}.")
        if not any(gradient.requires_grad for gradient in gradients):  # the loss is linear in params
            return torch.zeros_like(flat_gradient)
        parts = unflatten(vector.to(flat_gradient), params)
        along = torch.stack([(g * v).sum() for g, v in zip(gradients, parts, strict=True)]).sum()
        return flatten(torch.autograd.grad(along, params, materialize_grads=True))


class HessianOperator(KeptGraphOperator):
    r"""The Hessian of a model's loss over a data set, ``H = ∇² (1/N) Σ_i ℓ(f_θ(x_i), y_i)``, as an operator.

    ``H @ v`` costs about two gradients while the graph is kept, and three where it is recomputed. Constructor arguments
    and errors are those of `ModelOperator`.

    Example:
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> H = HessianOperator(model, torch.nn.MSELoss(), (x, torch.zeros(2, 1)))
        >>> H.to_dense().tolist()
        [[1.0, 0.0], [0.0, 4.0]]

        A mean over labels that are not ignored, inside a function of one's own:

        >>> def loss_fn(outputs, y):
        ...     return torch.nn.functional.cross_entropy(outputs, y, ignore_index=9)
        >>> batches = [(x, torch.tensor([0, 9])), (x, torch.tensor([1, 0]))]
        >>> model = torch.nn.Linear(2, 2)
        >>> H = HessianOperator(model, loss_fn, batches, batch_mass=lambda batch: (batch[1] != 9).sum())
        >>> H.total_mass
        3.0
    """

    _silently_wrong: ClassVar[Mapping[str, str]] = {
        **KeptGraphOperator._silently_wrong,
        "WeightNormInterfaceBackward0": "torch leaves the norm's own derivative out of weight_norm's second "
        "derivative; torch.nn.utils.parametrize.remove_parametrizations gives a plain weight",
    }

    def _batch_graph(self, index: int) -> BatchGraph:
        parameters = list(self.parameters.values())
        loss = self.batch_loss(index)
        if not loss.requires_grad:
            return BatchGraph()
        with self.differentiation():
            gradient = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
        if any(tensor is not None and tensor.layout != torch.strided for tensor in gradient):
            raise ValueError("a parameter has a sparse gradient, which has no second derivative; use sparse=False.")
        return BatchGraph(gradient, parameters)
