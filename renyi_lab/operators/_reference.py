"""References for tests: a slow, simple dense Hessian, and matrices with a prescribed spectrum."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from renyi_lab._utils.arrays import real_array
from renyi_lab._utils.forward import explained
from renyi_lab._utils.parameters import check_uniform, flatten, unflatten
from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_finite, check_instance, check_int, check_loss_fn


def dense_hessian(
    model: nn.Module, loss_fn: Callable[[Tensor, Tensor], Tensor], data: tuple[Tensor, Tensor], chunk_size: int = 64
) -> Tensor:
    """The Hessian of ``loss_fn(model(x), y)`` in all parameters, by reverse-over-forward differentiation.

    A computation independent of `HessianOperator` (``torch.func``) to compare it with; for small networks.

    Args:
        model: Module, evaluated in its current mode.
        loss_fn: Loss of outputs and targets.
        data: ``(x, y)``.
        chunk_size: Number of columns computed at once; limits memory.

    Returns:
        Symmetric matrix of shape ``(n, n)`` in the parameters' dtype.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: ``chunk_size < 1``, no parameter, data on which the loss cannot be computed, or a loss that
            is not finite.
    """
    check_instance("model", model, nn.Module)
    check_loss_fn(loss_fn)
    check_int("chunk_size", chunk_size)
    if not isinstance(data, (tuple, list)) or len(data) != 2 or not all(isinstance(part, Tensor) for part in data):
        raise TypeError(f"data must be a pair of tensors (x, y), got {type(data).__name__}.")
    if not any(True for _ in model.parameters()):
        raise ValueError(f"model ({type(model).__name__}) has no parameters, so it has no Hessian.")
    check_uniform(dict(model.named_parameters()))
    inputs, targets = data
    if not targets.is_floating_point() and not targets.is_complex():
        targets = targets.long()  # labels of fewer bits, which the derivatives of torch's losses do not take
    names = [name for name, _ in model.named_parameters()]
    flat = flatten(model.parameters())

    def loss(vector: Tensor) -> Tensor:
        weights = dict(zip(names, unflatten(vector, model.parameters()), strict=True))
        return loss_fn(torch.func.functional_call(model, weights, (inputs,)), targets)

    def column(direction: Tensor) -> Tensor:
        # This order, since forward over reverse fails for mse_loss (torch 2.13: "ZeroTensors are immutable").
        product: Tensor = torch.func.grad(lambda vector: torch.func.jvp(loss, (vector,), (direction,))[1])(flat)
        return product

    with explained("data or loss_fn does not fit the model"):
        value = loss(flat)
    if not isinstance(value, Tensor) or value.ndim:
        raise ValueError("loss_fn must return one number as a tensor, such as a mean over the samples.")
    check_finite("the loss", value.detach(), "weights or data that are not finite, or a mean over no labels.")
    unit_vectors = torch.eye(len(flat), dtype=flat.dtype, device=flat.device)
    hessian: Tensor = torch.vmap(column, chunk_size=chunk_size)(unit_vectors)
    return (hessian + hessian.T).detach() / 2


def matrix_with_spectrum(eigenvalues: Sequence[float] | FloatArray | Tensor, seed: int = 0) -> Tensor:
    """A random symmetric double-precision matrix ``Q diag(λ) Qᵀ`` with a prescribed spectrum, ``Q`` Haar-distributed.

    Args:
        eigenvalues: Spectrum ``λ`` of shape ``(n,)``; repeated and zero values are allowed.
        seed: Random seed for ``Q``.

    Raises:
        ValueError: ``eigenvalues`` is not a vector, is empty, or holds NaN or infinity.

    Example:
        >>> A = matrix_with_spectrum([3.0, 1.0, 1.0])
        >>> torch.linalg.eigvalsh(A).round(decimals=9).tolist()
        [1.0, 1.0, 3.0]
    """
    values = torch.from_numpy(real_array("eigenvalues", eigenvalues))
    if values.ndim != 1 or values.numel() == 0:
        raise ValueError(f"eigenvalues must be a vector with at least one entry, got shape {tuple(values.shape)}.")
    if not values.isfinite().all():
        raise ValueError("eigenvalues must be finite, but some are NaN or infinite.")
    generator = torch.Generator().manual_seed(check_int("seed", seed, 0))
    gaussian = torch.randn(len(values), len(values), dtype=torch.float64, generator=generator, device="cpu")
    orthogonal = torch.linalg.qr(gaussian).Q  # Haar up to the signs of its columns, which cancel in the product
    matrix: Tensor = (orthogonal * values) @ orthogonal.T
    symmetric = matrix / 2 + matrix.T / 2
    if not bool(symmetric.isfinite().all()):
        raise ValueError(f"eigenvalues up to {float(values.abs().max()):g} overflow in the matrix; divide them all.")
    return symmetric
