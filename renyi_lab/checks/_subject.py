"""What was checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from renyi_lab._utils.batches import Batch


@dataclass(frozen=True)
class Subject:
    """The model, data and loss of a check-up.

    Attributes:
        model: Name of the model's class.
        loss_fn: Name of the loss.
        blocks: Shapes of all parameters by name.
        num_parameters: Number of entries of trainable parameters.
        num_frozen: Number of entries of frozen ones.
        num_samples: Number of samples.
        num_batches: Number of batches.
        precision: The arithmetic, such as ``"float32 on cpu"``.
        mode: ``"eval"`` or ``"train"``.
        loss: The loss; NaN where it could not be computed.
    """

    model: str
    loss_fn: str
    blocks: Mapping[str, tuple[int, ...]]
    num_parameters: int
    num_frozen: int
    num_samples: int
    num_batches: int
    precision: str
    mode: str
    loss: float = float("nan")

    def __str__(self) -> str:
        samples = "1 sample" if self.num_samples == 1 else f"{self.num_samples:,} samples"
        return f"{self.model} ({self.num_parameters:,} parameters, {samples})"


def subject_of(model: nn.Module, loss_fn: Callable[..., Any], batches: Sequence[Batch], mode: str) -> Subject:
    """Describe the model, the loss and the data."""
    parameters = dict(model.named_parameters())
    trainable = [parameter for parameter in parameters.values() if parameter.requires_grad and parameter.numel()]
    kinds = {str(parameter.dtype).removeprefix("torch.") for parameter in parameters.values()}
    return Subject(
        model=type(model).__name__,
        loss_fn=str(getattr(loss_fn, "__name__", type(loss_fn).__name__)),
        blocks={name: tuple(parameter.shape) for name, parameter in parameters.items()},
        num_parameters=sum(parameter.numel() for parameter in trainable),
        num_frozen=sum(p.numel() for p in parameters.values() if not p.requires_grad),
        num_samples=sum(batch.size for batch in batches),
        num_batches=len(batches),
        precision=f"{', '.join(sorted(kinds))} on {trainable[0].device}",
        mode=mode,
    )
