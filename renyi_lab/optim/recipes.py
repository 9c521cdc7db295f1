"""Recipes for two-pass training: mixed precision, batch norm, several processes, accumulation, clipping, compilation.

**Mixed precision.** With bfloat16 nothing changes: put ``torch.autocast`` around the forward pass in the closure. With
float16 the closure scales the loss, and `amp_step` replaces ``optimizer.step(closure)``; it skips the step when the
gradient of either pass overflows:

    def closure():
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.float16):
            loss = loss_fn(model(x), y)
        scaler.scale(loss).backward()
        return loss
    loss = amp_step(optimizer, scaler, closure)

**Batch norm.** Both passes are training passes, so by default the running statistics are updated twice per step, once
at θ + ε. `statistics_once` in the closure leaves them unchanged in the second:

    with statistics_once(optimizer, model):
        loss = loss_fn(model(x), y)

**Several processes.** ``DistributedDataParallel`` and ``fully_shard`` (FSDP2) average the gradient in every backward
pass. All processes then make the same perturbation, that of the whole batch (global): norms, sums and maxima run over
the shards of all processes, and so do ``max_norm``, ``max_grad_norm`` and ``perturbation_norm``. A script for
``torchrun --nproc-per-node=2 train.py``:

    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    for block in model.blocks:
        fully_shard(block)                      # from torch.distributed.fsdp
    fully_shard(model)                          # or: model = DistributedDataParallel(model)
    optimizer = RSAM(model.parameters(), torch.optim.AdamW, lr=1e-3)    # after sharding
    for x, y in loader:                         # with a DistributedSampler
        def closure():
            optimizer.zero_grad()
            loss = loss_fn(model(x), y)
            loss.backward()
            return loss
        optimizer.step(closure)

*Ragged batches.* What is averaged are the gradients of the processes, whatever their numbers of samples. For the mean
over all samples, divide a process's summed loss by the number of samples of all processes together, and multiply it by
the number of processes.

*FSDP2.* A forward pass after ``backward()`` leaves the weights of the outermost module gathered, and later passes would
miss that they have moved: end such a closure with ``model.reshard()``. `torch.distributed.checkpoint.state_dict` calls
``step()`` without a closure; give it ``optimizer.base``, which shares all state, and save ``optimizer.steps_taken``
beside it if there is a warm-up. FSDP1 (``FullyShardedDataParallel``) is refused.

With `local_perturbation` around forward *and* backward each process perturbs by its own gradient (the m-sharpness of
Foret et al. 2021, section 4.1; one all-reduce fewer, except in SAGM, whose step needs the mean of the first gradients):

    with local_perturbation(optimizer, ddp_model):
        loss = loss_fn(ddp_model(x), y)
        loss.backward()

`perturbation_norm` is then that of this process. `amp_step` skips a step in all processes when one of them overflows.

**Gradient accumulation.** The closure runs over the whole window, so that θ + ε belongs to the same data as the step:

    def closure():
        optimizer.zero_grad()
        total = 0.0
        for x, y in window:
            loss = loss_fn(model(x), y) / len(window)
            loss.backward()
            total += loss.detach()
        return total

**Clipping.** ``max_grad_norm=`` of the optimizer clips the gradient at θ + ε, the one that the base steps with.
Clipping inside the closure shortens the first gradient as well: SAM does not depend on its length, but RSAM does.

**Groups.** ``[{"params": ..., "rho": 0.1, "lr": 0.01}, ...]``; ``rho`` = 0 leaves a group unperturbed. ``alpha`` too in
RSAM. Norms and sums run over all groups together.

**Compiled models.** ``torch.compile(model)`` works as it is: the weights change in place.

**A penalty on the spectrum.** `collision_entropy_penalty` estimates −H₂ of the true Hessian, for any optimizer. Its
gradient is a third derivative, noisy and at times large, so it is clipped together with that of the loss, and it starts
after some plain epochs, once the trace is clearly positive:

    generator = torch.Generator().manual_seed(0)
    for epoch in range(epochs):
        for x, y in loader:
            loss = loss_fn(model(x), y)
            if epoch >= 3:
                loss = loss + 0.1 * collision_entropy_penalty(loss, model.parameters(), generator=generator).value
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()

Compare with training at a coefficient whose sign is random at each step: the noise of the penalty's gradient alone
lowers the sharpness.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from renyi_lab._utils.interrupts import atomic, restoring
from renyi_lab._utils.validation import check_closure, check_instance
from renyi_lab.optim._gradients import gradients, gradients_of_each
from renyi_lab.optim._shards import Shards, laid_out_like, local_parts
from renyi_lab.optim._sharpness_aware import SharpnessAware, back_at_the_end, evaluated
from renyi_lab.optim._vectors import multiply_


def amp_step(optimizer: SharpnessAware, scaler: Any, closure: Callable[[], Any]) -> Any:
    """Take one step with scaled float16 gradients and update the scaler; skip the step if either pass overflowed.

    Args:
        optimizer: Optimizer to step with. Its weights stay at θ, bit for bit, when the step is skipped.
        scaler: A ``torch.amp.GradScaler``; ``scaler.update()`` is called here, once.
        closure: Function that clears the gradients, computes the loss, calls ``scaler.scale(loss).backward()`` and
            returns the loss.

    Returns:
        What the closure returned at θ.

    Raises:
        TypeError: An argument of the wrong type.
        RuntimeError: As in `SharpnessAware.step`, or the closure does not scale the loss.
    """
    check_instance("optimizer", optimizer, SharpnessAware)
    check_instance("scaler", scaler, torch.amp.GradScaler)
    check_closure("closure", closure, "; it must call scaler.scale(loss).backward() and return the loss.")
    with back_at_the_end(optimizer):
        loss = evaluated(closure)
        if _finite(optimizer) and not optimizer.warming_up:
            # Not by the scaler's unscale_(), which works once between updates and is needed in the second pass.
            parts = _gradient_parts(optimizer)
            multiply_(parts, torch.tensor(1.0 / scaler.get_scale(), device=parts[0].device))
            optimizer.first_step()
            evaluated(closure)
        _scaled_step(optimizer, scaler)
    return loss


@atomic
def _scaled_step(optimizer: SharpnessAware, scaler: Any) -> None:
    try:
        scaler.unscale_(optimizer)
    except AssertionError as error:  # torch's, for a scaler that has scaled nothing
        raise RuntimeError("closure must scale the loss, as in scaler.scale(loss).backward().") from error
    scaler.update()  # lowers the scale after an overflow in the latest pass, raises it after enough good steps
    if _finite(optimizer):
        if optimizer.in_second_pass:
            optimizer.second_step()
        else:
            optimizer._base_step()


@restoring
def statistics_once(optimizer: SharpnessAware, model: nn.Module) -> Iterator[None]:
    """Leave batch norm's running statistics unchanged in the second pass; it still normalises by the batch.

    Args:
        optimizer: Optimizer whose pass it is. In the first pass the block runs as without this context.
        model: Model with the batch-norm layers, if any.
    """
    check_instance("optimizer", optimizer, SharpnessAware)
    check_instance("model", model, nn.Module)
    layers = [
        module
        for module in (model.modules() if optimizer.in_second_pass else ())
        if isinstance(module, _BatchNorm) and module.training and module.track_running_stats
    ]
    try:
        for layer in layers:
            layer.track_running_stats = False
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


@restoring
def local_perturbation(optimizer: SharpnessAware, model: nn.parallel.DistributedDataParallel) -> Iterator[None]:
    """Let each process perturb by its own gradient: no averaging in the first pass of a two-pass step.

    Args:
        optimizer: Optimizer whose pass it is. In the second pass, and in warm-up, gradients are averaged as usual.
        model: The wrapped model. Both its forward and its backward pass belong inside the block.

    Raises:
        TypeError: If ``model`` is not a ``DistributedDataParallel``.
    """
    if not isinstance(model, nn.parallel.DistributedDataParallel):
        raise TypeError(
            f"model must be a DistributedDataParallel, got {type(model).__name__}: in a single process the "
            "perturbation is always local, and with sharded parameters (FSDP) it is always global."
        )
    if optimizer.in_second_pass or optimizer.warming_up:
        yield
        return
    optimizer._local_group = model.process_group
    try:
        with model.no_sync():
            yield
    except BaseException:
        optimizer._local_group = None
        raise


def _finite(optimizer: SharpnessAware) -> bool:
    """Whether all gradients are finite in all processes; waits for the device, as a gradient scaler does anyway.

    Where they are not, but those of this process are, one is set to infinity, so that the scalers of all processes
    lower their scales together.
    """
    params, grads, _ = gradients_of_each(optimizer.param_groups, optimizer._local_group)
    with torch.no_grad():
        shards = Shards(laid_out_like(grads, params))
        overflows = (~torch.isfinite(shards.total(shards.parts, math.inf))).float()
        alone = bool(overflows)
        if optimizer._local_group is not None:
            dist.all_reduce(overflows, dist.ReduceOp.MAX, group=optimizer._local_group)
            if bool(overflows) and not alone:
                local_parts(grads)[0].fill_(math.inf)
    return not bool(overflows)


@torch.no_grad()
def _gradient_parts(optimizer: SharpnessAware) -> list[Tensor]:
    """What this process holds of the gradients."""
    return local_parts(gradients(optimizer.param_groups)[1])
