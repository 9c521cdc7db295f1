r"""Products with the generalized Gauss–Newton matrix of a model's mean loss, without forming it.

    G = (1/N) Σ_i J_iᵀ ∇²_f ℓ(f_i, y_i) J_i ,      f_i = f_θ(x_i),  J_i = ∂f_i/∂θ

It is the Hessian without the curvature of the network itself: positive semi-definite for every loss that is convex in
the outputs, equal to the Hessian for a model that is linear in ``θ``, and to the Fisher matrix for cross-entropy.

Source:
    Schraudolph 2002, *Fast curvature matrix-vector products*; Martens 2020, arXiv:1412.1193, sections 8 and 9.
"""

from __future__ import annotations

import torch
from torch import Tensor

from renyi_lab.operators._kept_graphs import BatchGraph, KeptGraphOperator


class GGNOperator(KeptGraphOperator):
    r"""The generalized Gauss–Newton matrix ``(1/N) Σ_i J_iᵀ ∇²ℓ_i J_i`` of a model's loss, as an operator.

    Works with any loss of one output tensor, such as cross-entropy and mean squared error; ``G ⪰ 0`` holds where the
    loss is convex in the outputs, which is not checked. While the graph is kept, ``G @ v`` costs four thirds of a
    gradient for linear layers and about two for convolutions, whose second derivative torch computes in full; one more
    where the graph is recomputed. Constructor arguments are those of `ModelOperator`, as are its errors beside these:

    Raises:
        ValueError: Batches or a ``loss_style`` for which the loss is not a function of outputs and targets.
        TypeError: A model that does not return one tensor.

    Example:
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> G = GGNOperator(model, torch.nn.MSELoss(), (x, torch.zeros(2, 1)))
        >>> G.to_dense().tolist()
        [[1.0, 0.0], [0.0, 4.0]]
    """

    def _batch_graph(self, index: int) -> BatchGraph:
        outputs = self.outputs(index)
        free_outputs = outputs.detach().requires_grad_()
        loss = self.output_loss(free_outputs, index)
        if not (loss.requires_grad and outputs.requires_grad):
            return BatchGraph()
        (slope,) = torch.autograd.grad(loss, free_outputs, create_graph=True)
        if not slope.requires_grad:  # the loss is (piecewise) linear in the outputs
            return BatchGraph()
        # Jᵀu is linear in u: the derivative of (Jᵀu)·v in u is J v, one backward pass through the graph of Jᵀu.
        u = torch.zeros_like(free_outputs, requires_grad=True)
        parameters = list(self.parameters.values())
        with self.differentiation():
            transposed = torch.autograd.grad(outputs, parameters, u, create_graph=True, allow_unused=True)
        return BatchGraph(transposed, [u], ([slope], [free_outputs]), ([outputs], parameters))

    def output_loss(self, outputs: Tensor, index: int) -> Tensor:
        """As `ModelOperator.output_loss`; refuses outputs that are not one tensor."""
        if not isinstance(outputs, Tensor):
            raise TypeError(
                f"model must return one tensor for a Gauss–Newton matrix, got {type(outputs).__name__}; "
                "wrap it in a module that returns the tensor alone, or use HessianOperator."
            )
        return super().output_loss(outputs, index)

    def _checked_loss(self) -> float:
        if self.loss_style != "output_target":
            raise ValueError(
                "a Gauss–Newton matrix needs the outputs that the loss is a function of: pass batches (x, y) and "
                f'loss_fn(outputs, y), or use HessianOperator; got loss_style="{self.loss_style}".'
            )
        return super()._checked_loss()
