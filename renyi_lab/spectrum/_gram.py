r"""The exact Hessian spectrum of a squared loss where a model interpolates its data, from gradients of the outputs.

    L(θ) = Σ_k c_k (f_k(θ) − y_k)² ,   f = y   ⇒   H = 2 Σ_k c_k ∇f_k ∇f_kᵀ = GᵀG ,   G_k = √(2 c_k) ∇f_k

``f_k`` runs over all outputs of all samples. The ``n × n`` matrix ``GᵀG`` has the non-zero eigenvalues of the
``N × N`` Gram matrix ``GGᵀ``, and ``n − N`` more zeros: with 100 samples a matrix of 100 rows is enough, whatever the
number of parameters. The neglected part of the Hessian, ``R = 2 Σ_k c_k (f_k − y_k) ∇²f_k``, is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from renyi_lab._utils.parameters import ParameterSelection
from renyi_lab._utils.threads import one_thread
from renyi_lab.operators import DENSE_LIMIT, GGNOperator, HessianOperator
from renyi_lab.spectrum._spectrum import Spectrum

# Largest relative size of the neglected part. Heuristic: its square root is that of rounding in double precision.
_INTERPOLATION = 1e-8
_NUM_PROBES = 3
# Outputs are moved by about this many units, past the point where Huber's loss becomes linear; larger outputs in
# proportion, so that rounding of the outputs does not hide the change of slope.
_FAR = 30.0


def gram_spectrum(
    model: nn.Module, loss_fn: Callable[..., Tensor], data: Any, *, params: ParameterSelection = None
) -> Spectrum:
    r"""All eigenvalues of the Hessian of a squared loss at interpolation, from the Gram matrix of output gradients.

    With ``N`` outputs (samples × outputs per sample) and ``n`` parameters, this costs ``N`` gradients and ``N·n``
    memory instead of ``n`` products and ``n²``. Where ``f = y`` the spectrum is that of the dense Hessian.

    Args:
        model: Any module that returns one tensor.
        loss_fn: A squared loss of outputs and targets, such as ``nn.MSELoss()`` or ``F.mse_loss``; any loss that is
            quadratic in each output by itself, with its minimum at the target.
        data: As for `HessianOperator`.
        params: Block of parameters, as for `HessianOperator`.

    Returns:
        An exact `Spectrum`: ``min(N, n)`` eigenvalues, and one node 0 that stands for the others. Its ``num_matvecs``
        is the number of gradients.

    Raises:
        ValueError: Another loss; batches that are not pairs of inputs and targets; outputs that differ from targets, so
            that the neglected part of the Hessian would exceed 1e-8 of it (1e-5 in single precision); more than 20,000
            outputs.
        TypeError: ``model``, ``data`` or ``loss_fn`` of a kind that `HessianOperator` refuses.

    Example:
        >>> model = nn.Linear(3, 1, bias=False)
        >>> x = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
        >>> spectrum = gram_spectrum(model, nn.MSELoss(), (x, model(x).detach()))
        >>> spectrum.nodes.tolist(), spectrum.weights.tolist()
        ([0.0, 1.0, 4.0], [1.0, 1.0, 1.0])
    """
    G = GGNOperator(model, loss_fn, data, params)
    with G.unchanged():
        rows = _gradient_rows(G)
        frozen = [batch.content for batch in G.batches]  # the same samples, should the loader shuffle them
        _check_interpolation(HessianOperator(model, loss_fn, frozen, params), G)
    small = rows if len(rows) <= G.dim else rows.T
    with one_thread():
        eigenvalues = torch.linalg.eigvalsh(small @ small.T).clamp_min(0.0).cpu().numpy()
    ones = np.ones(len(eigenvalues))
    zeros = G.dim - len(eigenvalues)
    if zeros:
        eigenvalues, ones = np.insert(eigenvalues, 0, 0.0), np.insert(ones, 0, zeros)
    return Spectrum(eigenvalues, ones, G.dim, len(rows), eps=torch.finfo(G.dtype).eps)


def _gradient_rows(G: GGNOperator) -> Tensor:
    """``G`` with ``H = GᵀG``: the scaled gradient of every output, ``(N, n)``, in double precision."""
    parameters, rows = list(G.parameters.values()), list[Tensor]()
    with G.evaluation_point(), torch.enable_grad():
        for index in range(len(G.batches)):
            outputs = G.outputs(index)
            curvature = _output_curvature(G, outputs.detach(), index).flatten()
            if len(rows) + len(curvature) > DENSE_LIMIT:
                raise ValueError(
                    f"data have more than {DENSE_LIMIT:,} outputs, too many for a dense Gram matrix; use "
                    "estimate_spectrum on a HessianOperator."
                )
            for output, scale in zip(outputs.flatten(), curvature.double().sqrt(), strict=True):
                gradient = torch.autograd.grad(output, parameters, retain_graph=True, materialize_grads=True)
                rows.append(scale * G.flatten(gradient).double())
    return torch.stack(rows)


def _output_curvature(G: GGNOperator, outputs: Tensor, index: int) -> Tensor:
    """Second derivative of the loss in each output; an error unless the loss is quadratic in each by itself."""

    def slope(at: Tensor) -> Tensor:
        free = at.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(G.output_loss(free, index), free, materialize_grads=True)
        return gradient

    generator = torch.Generator("cpu").manual_seed(0)
    signs = (torch.randint(2, outputs.shape, generator=generator) * 2 - 1).to(outputs)
    sizes = (1 + torch.rand(outputs.shape, generator=generator)).to(outputs)
    unit, here = max(1.0, float(outputs.abs().max())), slope(outputs)
    far = _FAR * unit * signs
    one_by_one = [(slope(outputs + step) - here) / step for step in (far, far * sizes, -unit * signs * sizes)]
    curvature = one_by_one[0]
    size = float(curvature.abs().max())
    tolerance = 1e3 * torch.finfo(outputs.dtype).eps * size
    if not 0 < size < math.inf or any(bool(((other - curvature).abs() > tolerance).any()) for other in one_by_one):
        raise ValueError(
            f"loss_fn must be a squared loss, but {_name(G.loss_fn)} is not quadratic in each output by itself; use "
            "exact_spectrum or estimate_spectrum on a HessianOperator."
        )
    if bool((curvature < 0).any()):
        raise ValueError(f"loss_fn must be a squared loss, but {_name(G.loss_fn)} is concave in an output.")
    return curvature


def _name(loss_fn: Any) -> str:
    return str(getattr(loss_fn, "__name__", None) or type(loss_fn).__name__)


def _check_interpolation(H: HessianOperator, G: GGNOperator) -> None:
    """An error where the neglected part ``H − GᵀG`` is not small beside the Hessian, by random probes."""
    generator = torch.Generator("cpu").manual_seed(0)
    probes = torch.randn(H.dim, _NUM_PROBES, generator=generator, dtype=torch.float64).to(H.device, H.dtype)
    kept, all_of_it = G @ probes, H @ probes
    neglected = float((all_of_it - kept).double().norm() / all_of_it.double().norm().clamp_min(1e-300))
    largest = max(_INTERPOLATION, 100 * torch.finfo(H.dtype).eps)
    if neglected > largest:
        raise ValueError(
            f"the model does not interpolate the data: outputs differ from targets (loss {H.loss:.3g}), and the part "
            f"of the Hessian that a Gram matrix neglects is {neglected:.2g} of it, more than {largest:.1g}. Train "
            "longer, or use exact_spectrum or estimate_spectrum on a HessianOperator."
        )
