"""What a report and a certificate ask of a network: class scores, and the 0–1 error."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from renyi_lab._utils.forward import explained
from renyi_lab._utils.minibatches import batches
from renyi_lab._utils.model_state import training_flags
from renyi_lab._utils.random import preserved_rng
from renyi_lab._utils.validation import one_logit_hint
from renyi_lab.training import evaluate


def chance_error(network: nn.Module, data: Dataset[Any], name: str) -> float:
    """1 − 1/#classes, if the network gives class scores and the targets of the data are class indices."""
    with preserved_rng(), training_flags(network, False), torch.no_grad():
        inputs, targets = next(batches(data, 2, network))
        with explained(f"the network does not take the inputs of {name}, {tuple(inputs.shape)}"):
            outputs = network(inputs)
    hint = one_logit_hint(outputs)
    if targets.is_floating_point() or targets.ndim != 1:
        raise ValueError(
            f"{name}'s targets must be class indices of shape (N,), got {targets.dtype} and {tuple(targets.shape)} "
            f"for {len(targets)} samples: the bounds are about the 0–1 error.{hint}"
        )
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or outputs.shape[1] < 2:
        raise ValueError(
            f"the network must give scores of shape (batch, classes ≥ 2), got "
            f"{tuple(getattr(outputs, 'shape', ()))} for {len(targets)} samples.{hint}"
        )
    return 1 - 1 / outputs.shape[1]


def error_rate(network: nn.Module, data: Dataset[Any]) -> float:
    """The 0–1 error on data that `chance_error` has accepted."""
    accuracy = evaluate(network, data).accuracy
    if accuracy is None:
        raise ValueError("the network must give scores of shape (batch, classes ≥ 2), the data class indices.")
    return 1 - accuracy
