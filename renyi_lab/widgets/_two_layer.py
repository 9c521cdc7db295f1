r"""All eigenvalues of the Hessian of a two-layer ReLU network with one output and squared loss, also off interpolation.

With ``f(x) = Σ_k w_k relu(a_kᵀx)`` (a bias is one more input, which is 1), residuals ``r_i = f(x_i) − y_i`` and the
``n × p`` Jacobian ``J`` of the outputs,

    H = (2/n) JᵀJ + (2/n) Σ_i r_i ∇²f(x_i)

The second part only couples ``w_k`` and ``a_k`` of the same neuron, by ``v_k = (2/n) Σ_i r_i 1[a_kᵀx_i > 0] x_i``, and
has rank 2 per neuron. So ``H`` acts in at most ``n + 2m`` dimensions: those of the ``2m`` orthonormal vectors of the
neurons, and of what the gradients of the ``n`` outputs add to them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from renyi_lab._utils.threads import one_thread
from renyi_lab.operators import HessianOperator

_AGREES = 1e-3  # relative; heuristic: far above the rounding of single precision, far below any real difference


@dataclass(frozen=True)
class _Parts:
    """What the Hessian consists of; ``n`` samples, ``m`` neurons, ``d`` inputs."""

    features: Tensor  # relu(a_kᵀx_i), the gradients of the outputs by w, (n, m)
    slopes: Tensor  # w_k 1[a_kᵀx_i > 0]; times x_i these are the gradients by a_k, (n, m)
    coupling: Tensor  # v_k, (m, d)


class TwoLayerHessian:
    """The Hessian of ``layer2(relu(layer1(x)))`` with squared loss, at any weights; see `of`.

    Args:
        operator: The Hessian at some weights.
    """

    def __init__(self, operator: HessianOperator) -> None:
        inputs = torch.cat([batch.content[0] for batch in operator.batches]).double().cpu()
        self._operator = operator
        self._targets = torch.cat([batch.content[1].reshape(-1) for batch in operator.batches]).double().cpu()
        self._has_bias = "layer1.bias" in operator.parameter_names
        self._inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1) if self._has_bias else inputs

    @classmethod
    def of(cls, operator: HessianOperator) -> TwoLayerHessian | None:
        """The same Hessian, or ``None`` where it is that of another network or loss.

        Names of layers are not trusted: a product at the current weights is compared.
        """
        weights = {"layer1.weight", "layer2.weight"}
        is_squared = operator.loss_fn is F.mse_loss or type(operator.loss_fn) is nn.MSELoss
        if not is_squared or operator.reduction != "mean" or operator.loss_style != "output_target":
            return None
        if set(operator.parameter_names) not in (weights, weights | {"layer1.bias"}) or operator.num_frozen:
            return None
        first, second = (operator.parameters[name] for name in sorted(weights))
        inputs = [batch.content[0] for batch in operator.batches]
        flat = all(isinstance(x, Tensor) and x.ndim == 2 and x.shape[1:] == first.shape[1:] for x in inputs)
        single = all(batch.content[1].numel() == batch.size for batch in operator.batches)
        if not (flat and single and first.ndim == 2 and second.shape == (1, len(first))):
            return None
        hessian, vector = cls(operator), torch.randn(operator.dim, generator=torch.Generator().manual_seed(0))
        expected = (operator @ vector.to(operator.device, operator.dtype)).double().cpu()
        found = hessian._product(operator.flatten(operator.parameters.values()), vector.double())
        return hessian if float((found - expected).norm()) <= _AGREES * float(expected.norm()) else None

    @one_thread()
    def eigenvalues(self, weights: Tensor) -> Tensor:
        """The eigenvalues that need not be 0, in any order; all others are 0.

        Args:
            weights: Flat vector in the operator's order, ``(p,)``.
        """
        parts = self._parts(weights)
        length = parts.coupling.norm(dim=1)
        across = (parts.slopes * (self._inputs @ parts.coupling.T)) / length.clamp_min(torch.finfo(length.dtype).tiny)
        jacobian = torch.cat([parts.features, across], dim=1)  # in the 2m vectors of the neurons
        gram = parts.features @ parts.features.T + (parts.slopes @ parts.slopes.T) * (self._inputs @ self._inputs.T)
        rest, vectors = torch.linalg.eigh(gram - jacobian @ jacobian.T)
        outside = vectors * rest.clamp_min(0).sqrt()  # (n, n)
        factor = torch.cat([jacobian, outside], dim=1)
        matrix = 2 / len(self._inputs) * factor.T @ factor
        neurons = torch.arange(len(length))
        matrix[neurons, len(length) + neurons] += length
        matrix[len(length) + neurons, neurons] += length
        eigenvalues: Tensor = torch.linalg.eigvalsh(matrix)
        return eigenvalues

    def _split(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """``a``, with the bias as its last column, and ``w``."""
        operator = self._operator
        parts = dict(zip(operator.parameter_names, operator.unflatten(flat.to(operator.device)), strict=True))
        named = {name: part.double().cpu() for name, part in parts.items()}
        first = named["layer1.weight"]
        if self._has_bias:
            first = torch.cat([first, named["layer1.bias"][:, None]], dim=1)
        return first, named["layer2.weight"][0]

    def _parts(self, weights: Tensor) -> _Parts:
        first, second = self._split(weights)
        before = self._inputs @ first.T
        active = (before > 0).double()
        features = before * active
        residuals = 2 / len(before) * (features @ second - self._targets)
        return _Parts(features, active * second, (active * residuals[:, None]).T @ self._inputs)

    def _product(self, weights: Tensor, vector: Tensor) -> Tensor:
        parts, (first, second) = self._parts(weights), self._split(vector)
        along = parts.features @ second + (parts.slopes * (self._inputs @ first.T)).sum(dim=1)
        along = 2 / len(along) * along
        new_first = (parts.slopes * along[:, None]).T @ self._inputs + parts.coupling * second[:, None]
        new_second = parts.features.T @ along + (parts.coupling * first).sum(dim=1)
        named = {"layer1.weight": new_first, "layer2.weight": new_second[None]}
        if self._has_bias:
            named |= {"layer1.weight": new_first[:, :-1], "layer1.bias": new_first[:, -1]}
        return torch.cat([named[name].reshape(-1) for name in self._operator.parameter_names])
