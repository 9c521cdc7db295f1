r"""Products with the generalized Gauss–Newton matrix of a model's mean loss, without forming it.

    G = (1/N) Σ_i J_iᵀ ∇²_f ℓ(f_i, y_i) J_i ,      f_i = f_θ(x_i),  J_i = ∂f_i/∂θ ,

It is the Hessian without the curvature of the network itself: positive semi-definite for every loss that is convex in
the outputs, equal to the Hessian for a model that is linear in ``θ``, and to the Fisher matrix for cross-entropy.

Source: Schraudolph 2002, *Fast curvature matrix-vector products*; Martens 2020, arXiv:1412.1193, sections 8 and 9.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from renyi_lab._utils.random import seed_torch
from renyi_lab.operators._kept_graphs import KeptGraphOperator


class GGNOperator(KeptGraphOperator):
    r"""The generalized Gauss–Newton matrix ``(1/N) Σ_i J_iᵀ ∇²ℓ_i J_i`` of a model's loss, as an operator.

    Works with any loss of one output tensor, such as cross-entropy and mean squared error; ``G ⪰ 0`` holds where the
    loss is convex in the outputs, which is not checked. While the graph is kept ``G @ v`` costs four thirds of a
    gradient for linear layers, about two for convolutions, whose second derivative torch computes in full; one more
    where the graph is recomputed. Constructor arguments and errors are those of `ModelOperator`.

    Raises:
        ValueError: Batches or a ``loss_style`` for which the loss is not one of outputs and targets.
        TypeError: A model that does not return one tensor.

    Example:
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> G = GGNOperator(model, torch.nn.MSELoss(), (x, torch.zeros(2, 1)))
        >>> G.to_dense().tolist()
        [[1.0, 0.0], [0.0, 4.0]]
    """

    def _batch_graph(self, index: int) -> _Linearization:
        seed_torch(self.seed + index)
        outputs = self.model(self.batches[index].content[0])
        return _Linearization(
            list(self.parameters.values()),
            outputs,
            free_outputs := outputs.detach().requires_grad_(),
            self.output_loss(free_outputs, index),
        )

    def _output_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if not isinstance(outputs, Tensor):
            raise TypeError(
                f"model must return one tensor for a Gauss–Newton matrix, got {type(outputs).__name__}; "
                "wrap it in a module that returns the tensor alone, or use HessianOperator."
            )
        return super()._output_loss(outputs, targets)

    def _checked_loss(self) -> float:
        if self.loss_style != "output_target":
            raise ValueError(
                "a Gauss–Newton matrix needs the outputs that the loss is a function of: pass batches (x, y) and "
                f'loss_fn(outputs, y), or use HessianOperator; got loss_style="{self.loss_style}".'
            )
        return super()._checked_loss()


class _Linearization:
    """One batch's ``u ↦ Jᵀu`` and the gradient of its loss in the outputs, with the graphs of both."""

    def __init__(self, parameters: Sequence[Tensor], outputs: Tensor, free_outputs: Tensor, loss: Tensor) -> None:
        self.parameters, self.outputs, self.free_outputs = parameters, outputs, free_outputs
        self.used: list[int] = []
        self.derivatives: list[Tensor] = []
        if not (loss.requires_grad and outputs.requires_grad):
            return
        (self.slope,) = torch.autograd.grad(loss, free_outputs, create_graph=True)
        if not self.slope.requires_grad:  # the loss is (piecewise) linear in the outputs
            return
        # Jᵀu is linear in u: its own derivative in u, transposed, is J v, one backward pass through this graph.
        self.direction = torch.zeros_like(free_outputs, requires_grad=True)
        pulled_back = torch.autograd.grad(outputs, parameters, self.direction, create_graph=True, allow_unused=True)
        for index, tensor in enumerate(pulled_back):
            if tensor is not None and tensor.requires_grad:
                self.used.append(index)
                self.derivatives.append(tensor)

    def product(self, parts: Sequence[Tensor], keep_graph: bool, batched: bool) -> Sequence[Tensor]:
        """``Jᵀ (∇²ℓ (J v))`` for ``v`` given in parts shaped like the parameters (after a leading axis if batched)."""
        if not self.derivatives:
            return [torch.zeros_like(part) for part in parts]

        def chain(tops: Sequence[Tensor], bottoms: Sequence[Tensor], vectors: Sequence[Tensor]) -> tuple[Tensor, ...]:
            return torch.autograd.grad(
                tops, bottoms, vectors, retain_graph=keep_graph, is_grads_batched=batched, materialize_grads=True
            )

        pushed_forward = chain(self.derivatives, [self.direction], [parts[i] for i in self.used])
        curved = chain([self.slope], [self.free_outputs], pushed_forward)
        return chain([self.outputs], self.parameters, curved)
