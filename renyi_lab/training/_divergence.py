"""The error that `train` raises when training diverges."""

from __future__ import annotations

from torch.optim import Optimizer

from renyi_lab.optim import SharpnessAware


class DivergenceError(ValueError):
    """Raised by `train` when a loss or weight is not finite; the weights are then those from before training."""


def divergence_error(epoch: int, symptom: str, optimizer: Optimizer) -> DivergenceError:
    """The error for this symptom, with likely causes.

    Args:
        epoch: Index of the epoch, from 0.
        symptom: What is not finite.
        optimizer: Optimizer of the training, whose settings may be a cause.
    """
    group = optimizer.param_groups[0]
    lr = float(group["lr"])
    rho = f"rho={group['rho']:g} is, " if isinstance(optimizer, SharpnessAware) else ""
    return DivergenceError(
        f"training diverged in epoch {epoch + 1}: {symptom}. Likely causes: lr={lr:g} is too large "
        f"(try lr={lr / 3:.2g}), {rho}or loss_fn has no finite value at these outputs. "
        "The weights from before training are restored."
    )
