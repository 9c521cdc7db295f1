"""Lengths of weights and gradients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from renyi_lab._utils.estimate import Estimate
from renyi_lab._utils.parameters import flatten
from renyi_lab._utils.validation import check_finite
from renyi_lab.operators import ModelOperator, check_operator


def parameter_norm(operator: ModelOperator) -> Estimate:
    """``‖θ‖₂`` of the operator's (trainable) parameters.

    Invariance: none under layer rescaling.

    Source: Jiang et al. 2019, arXiv:1912.02178, appendix C.4 (there squared).
    """
    return Estimate(_length(_weights(check_operator(operator))))


def distance_from_initialization(
    operator: ModelOperator, initial_parameters: Mapping[str, Tensor] | Iterable[Tensor]
) -> Estimate:
    """``‖θ − θ₀‖₂``, how far training has moved the operator's (trainable) parameters.

    Invariance: none under layer rescaling.

    Args:
        operator: A `HessianOperator`.
        initial_parameters: ``θ₀``: a copy of the state dict from before training (entries that are no parameters are
            ignored), or one tensor for each of ``model.parameters()``, in their order.

    Raises:
        ValueError: A parameter missing, of another shape, or the model's own memory instead of a copy.

    Source: Nagarajan & Kolter 2019, arXiv:1901.01672; Jiang et al. 2019, appendix C.4 (there squared).
    """
    names = [name for name, _ in check_operator(operator).model.named_parameters()]
    initial = _by_name(initial_parameters, names)
    differences = []
    for name, parameter in operator.parameters.items():
        if name not in initial:
            raise ValueError(f"initial_parameters lacks {name!r}; pass the whole state dict of the initialisation.")
        before = initial[name]
        if before.shape != parameter.shape:
            raise ValueError(
                f"initial_parameters holds {name!r} of shape {tuple(before.shape)}, the model {tuple(parameter.shape)}."
            )
        if before.data_ptr() == parameter.data_ptr():
            raise ValueError(
                f"initial_parameters holds the model's own {name!r}, which moved along with training; keep a copy "
                "before training: copy.deepcopy(model.state_dict())."
            )
        differences.append(parameter.detach().double() - before.detach().to(parameter.device).double())
    vector = flatten(differences)
    check_finite("initial_parameters", vector, "a checkpoint of a diverged model.")
    return Estimate(_length(vector))


def gradient_norm(operator: ModelOperator) -> Estimate:
    """``‖∇L(θ)‖₂``: zero at a minimum, so it says whether the other measures speak of one.

    Invariance: none under layer rescaling.

    Source: Jiang et al. 2019, appendix C.5, use its variance along training; the norm itself is standard.
    """
    return Estimate(_length(check_operator(operator).gradient()))


def _by_name(initial: Mapping[str, Tensor] | Iterable[Tensor], names: list[str]) -> dict[str, Tensor]:
    if isinstance(initial, Mapping):
        found = dict(initial)
    elif isinstance(initial, Iterable) and not isinstance(initial, (str, Tensor)):
        tensors = list(initial)
        if len(tensors) != len(names):
            raise ValueError(
                f"initial_parameters holds {len(tensors)} tensors, but the model has {len(names)} parameters; pass "
                "[p.detach().clone() for p in model.parameters()] from before training, or a copy of the state dict."
            )
        found = dict(zip(names, tensors, strict=True))
    else:
        raise TypeError(f"initial_parameters must be a state dict or a list of tensors, got {type(initial).__name__}.")
    if wrong := [name for name in names if name in found and not isinstance(found[name], Tensor)]:
        raise TypeError(f"initial_parameters must hold tensors, got {type(found[wrong[0]]).__name__} for {wrong[0]!r}.")
    return found


def _weights(operator: ModelOperator) -> Tensor:
    return operator.flatten(operator.parameters.values())


def _length(vector: Tensor) -> float:
    # In double precision where the device has it: squares of large weights overflow in single precision.
    return float(torch.linalg.vector_norm(vector.cpu().double()))
