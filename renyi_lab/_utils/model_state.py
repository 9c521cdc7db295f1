"""Context managers that restore a model's state, and what a second derivative needs of a model."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from renyi_lab._utils.interrupts import restoring
from renyi_lab._utils.model_checks import check_differentiable, check_module, kept_flags

_SHARDED = "model is fully sharded (FSDP)"


def is_sharded(model: nn.Module) -> bool:
    """Whether FSDP2 has sharded the module's parameters over processes."""
    return "FSDPModule" in {base.__name__ for base in type(model).__mro__}


def unwrap_model(model: nn.Module, allow_sharded: bool = False) -> nn.Module:
    """The plain module under ``torch.compile``, ``DataParallel`` or ``DistributedDataParallel``.

    Compiled and distributed wrappers do not support double backward; the module inside computes the same function.
    Modules without values (lazy, on the meta device), of torch.export, and with quantised layers are refused, as are
    fully sharded ones, which hold only a part of the parameters, unless ``allow_sharded`` and made by ``fully_shard``.
    """
    check_module(model)
    check_differentiable(model)
    if "FullyShardedDataParallel" in {base.__name__ for base in type(model).__mro__}:
        raise TypeError(f"{_SHARDED}: gather it into a plain module before asking for its Hessian.")
    if not allow_sharded and any(map(is_sharded, model.modules())):
        raise TypeError(
            f"{_SHARDED}, whose layers cannot be differentiated twice: use HessianOperator(..., "
            'method="finite_difference"), or gather it into a plain module.'
        )
    while True:
        inner = getattr(model, "_orig_mod", None)
        if isinstance(inner, nn.Module):
            model = inner
        elif isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        else:
            return model


@restoring
def training_flags(model: nn.Module, training: bool) -> Iterator[None]:
    """Set the training flag of every submodule; restore each on exit."""
    with kept_flags(model):
        model.train(training)
        yield


@restoring
def without_gradients(leaves: Iterable[Tensor]) -> Iterator[None]:
    """Every ``.grad`` is ``None`` at the start of the block, and what it was, the same tensor, at the end."""
    before = [(leaf, leaf.grad) for leaf in leaves]
    try:
        for leaf, _ in before:
            leaf.grad = None
        yield
    finally:
        for leaf, gradient in before:
            leaf.grad = gradient


@restoring
def preserved_buffers(model: nn.Module) -> Iterator[None]:
    """Restore on exit what a forward pass changes in the buffers (batch-norm statistics, counters)."""
    saved = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    try:
        yield
    finally:
        for module, name, buffer, before in saved:
            module._buffers[name] = buffer  # a forward pass may have replaced it by another tensor
            if not same_values(buffer.detach(), before):
                # Through .data, which leaves the version number alone that autograd checks in kept graphs.
                buffer.data.copy_(before)


def same_values(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of the same kind are equal, entries that are NaN counting as equal."""
    if (one.layout, one.shape, one.dtype, one.device) != (other.layout, other.shape, other.dtype, other.device):
        return False
    if one.layout != torch.strided:
        one, other = one.to_sparse_coo().coalesce(), other.to_sparse_coo().coalesce()
        return torch.equal(one.indices(), other.indices()) and same_values(one.values(), other.values())
    if torch.equal(one, other):
        return True
    if not (one.is_floating_point() or one.is_complex()):
        return False
    return bool((one.isnan() == other.isnan()).all()) and torch.equal(one.nan_to_num(), other.nan_to_num())


@restoring
def without_fast_path() -> Iterator[None]:
    """Let transformer encoders compute the same without gradients as with them.

    Their fast path, which is taken without gradients only, returns zeros at padded positions.
    """
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def differentiable_twice() -> contextlib.AbstractContextManager[None]:
    """Compute attention by the kernel that has a second derivative."""
    return sdpa_kernel(SDPBackend.MATH)


@restoring
def plain_kernels(model: nn.Module) -> Iterator[None]:
    """Choose kernels that have a derivative in evaluation mode: no cuDNN in recurrent layers, nothing compiled."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(without_fast_path())
        if any(isinstance(module, nn.RNNBase) for module in model.modules()):
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        if any(_is_compiled(module) for module in model.modules()):
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


@restoring
def affine_batch_norm(model: nn.Module) -> Iterator[None]:
    """Compute batch-norm layers in evaluation mode as the affine map ``x·s + t`` that they are.

    The values are the same, but double backward through torch's general kernel makes a product with ResNet-20's Hessian
    a tenth slower.
    """
    plain = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    layers: list[Any] = [module for module in model.modules() if type(module) in plain]
    affine = [layer for layer in layers if not layer.training and layer.running_mean is not None]
    with replaced_forward(affine, _affine):
        yield


@restoring
def replaced_forward(layers: Iterable[nn.Module], forward: Callable[[Any, Tensor], Tensor]) -> Iterator[None]:
    """Call ``forward(layer, inputs)`` for the layers; those with a ``forward`` of their own keep it."""
    chosen = [layer for layer in layers if "forward" not in vars(layer)]
    try:
        for layer in chosen:
            layer.forward = functools.partial(forward, layer)
        yield
    finally:
        for layer in chosen:
            vars(layer).pop("forward", None)


def _affine(layer: Any, inputs: Tensor) -> Tensor:
    layer._check_input_dim(inputs)
    shape = [1, -1] + [1] * (inputs.ndim - 2)
    scale = (layer.running_var + layer.eps).rsqrt()
    if layer.weight is not None:
        scale = scale * layer.weight
    shift = -layer.running_mean * scale
    if layer.bias is not None:
        shift = shift + layer.bias
    outputs: Tensor = inputs * scale.view(shape) + shift.view(shape)
    return outputs


def _is_compiled(module: nn.Module) -> bool:
    return getattr(module, "_compiled_call_impl", None) is not None or isinstance(
        getattr(module, "_orig_mod", None), nn.Module
    )


def stochastic_layers(model: nn.Module) -> list[str]:
    """Names of dropout and batch-norm layers: in training mode they depend on random masks or on the batch."""
    kinds = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)
    return [name or type(module).__name__ for name, module in model.named_modules() if isinstance(module, kinds)]
