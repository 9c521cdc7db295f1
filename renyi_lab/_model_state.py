"""Guards that leave a model as it was found, and the checks that a Hessian product needs of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from renyi_lab._random import preserved_rng


def unwrap_model(model: nn.Module) -> nn.Module:
    """The plain module under ``torch.compile``, ``DataParallel`` or ``DistributedDataParallel``.

    Compiled and distributed wrappers do not support differentiating twice; the module inside computes the
    same function. Fully sharded modules hold only a part of the parameters and are refused.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}.")
    if type(model).__name__ in {"FullyShardedDataParallel", "FSDPModule"} or "FSDPModule" in {
        base.__name__ for base in type(model).__mro__
    }:
        raise TypeError("model is fully sharded (FSDP): gather it into a plain module before asking for its Hessian.")
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod
        elif isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        else:
            return model


@contextlib.contextmanager
def training_flags(model: nn.Module, training: bool) -> Iterator[None]:
    """Put every submodule into one mode and each back into its own on exit."""
    flags = [(module, module.training) for module in model.modules()]
    try:
        model.train(training)
        yield
    finally:
        for module, flag in flags:
            module.training = flag


@contextlib.contextmanager
def preserved_buffers(model: nn.Module) -> Iterator[None]:
    """Put back what a forward pass changes in the buffers (batch-norm statistics, counters)."""
    saved = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, before in saved:
            if not torch.equal(buffer.detach(), before):
                # Through .data, so that a graph kept for later products does not see a new version.
                buffer.data.copy_(before)


@contextlib.contextmanager
def differentiable_twice(model: nn.Module) -> Iterator[None]:
    """Choose kernels that have a second derivative: MATH attention, and no cuDNN around recurrent layers."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if any(isinstance(module, nn.RNNBase) for module in model.modules()):
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        yield


@contextlib.contextmanager
def evaluation_point(model: nn.Module, training: bool, seed: int = 0) -> Iterator[None]:
    """Everything a forward pass for a Hessian needs: mode, kernels, a fixed seed; all restored on exit."""
    with preserved_rng(), training_flags(model, training), preserved_buffers(model), differentiable_twice(model):
        torch.manual_seed(seed)
        yield


def stochastic_layers(model: nn.Module) -> list[str]:
    """Names of layers whose output in training mode depends on chance or on the batch."""
    kinds = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)
    return [name or type(module).__name__ for name, module in model.named_modules() if isinstance(module, kinds)]


def parameter_versions(parameters: list[Tensor]) -> tuple[tuple[int, int], ...]:
    """A fingerprint that changes when a parameter is replaced or modified in place."""
    return tuple((parameter.data_ptr(), parameter._version) for parameter in parameters)
