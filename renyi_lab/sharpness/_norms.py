"""Norms of weights and gradients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from renyi_lab._utils.estimate import Estimate
from renyi_lab._utils.parameters import flatten, plain_name
from renyi_lab._utils.validation import check_finite, printed
from renyi_lab.operators import ModelOperator, check_operator


def parameter_norm(operator: ModelOperator) -> Estimate:
    """``‖θ‖₂`` of the operator's (trainable) parameters.

    Invariance: none under layer rescaling.

    Args:
        operator: A `HessianOperator`.

    Source: Jiang et al. 2019, arXiv:1912.02178, appendix C.4 (there squared).
    """
    return Estimate(_norm(weights(operator)))


def distance_from_initialization(
    operator: ModelOperator, initial_parameters: Mapping[str, Tensor] | Iterable[Tensor]
) -> Estimate:
    """``‖θ − θ₀‖₂``, the distance of the operator's (trainable) parameters from their initial values.

    Invariance: none under layer rescaling.

    Args:
        operator: A `HessianOperator`.
        initial_parameters: Initial values ``θ₀``: a copy of the state dict from before training (entries that are not
            parameters are ignored), or one tensor for each of ``model.parameters()``, in their order.

    Raises:
        TypeError: ``operator`` has no parameters, or ``initial_parameters`` holds no tensors.
        ValueError: A parameter is missing, not finite, of another shape, or the model's own memory instead of a copy.

    Source: Nagarajan & Kolter 2019, arXiv:1901.01672; Jiang et al. 2019, appendix C.4 (there squared).
    """
    initial = initial_weights(operator, initial_parameters)
    differences = [p.detach().cpu().double() - initial[name] for name, p in operator.parameters.items()]
    return Estimate(_norm(flatten(differences)))


def initial_weights(
    operator: ModelOperator, initial_parameters: Mapping[str, Tensor] | Iterable[Tensor]
) -> dict[str, Tensor]:
    """The initial values of the operator's parameters by name, checked, in double precision on the CPU."""
    names = [name for name, _ in check_operator(operator).model.named_parameters()]
    initial = _by_name(initial_parameters, names)
    for name, parameter in operator.parameters.items():
        if name not in initial:
            raise ValueError(f"initial_parameters lacks {name!r}; pass the full state dict of the initialisation.")
        before = initial[name]
        if before.shape != parameter.shape:
            raise ValueError(
                f"initial_parameters holds {name!r} of shape {tuple(before.shape)}, the model {tuple(parameter.shape)}."
            )
        if before.data_ptr() == parameter.data_ptr():
            raise ValueError(
                f"initial_parameters holds the model's own {name!r}, which training changes too; keep a copy from "
                "before training: copy.deepcopy(model.state_dict())."
            )
        check_finite(f"initial_parameters[{name!r}]", before, "a checkpoint of a diverged model.")
    return {name: initial[name].detach().cpu().double() for name in operator.parameters}


def gradient_norm(operator: ModelOperator) -> Estimate:
    """``‖∇L(θ)‖₂``: zero at a minimum, so it shows whether the other measures are taken at one.

    Invariance: none under layer rescaling.

    Args:
        operator: A `HessianOperator`.

    Source: Jiang et al. 2019, appendix C.5, use its variance along training; the norm itself is standard.
    """
    return Estimate(_norm(check_operator(operator).gradient()))


def weights(operator: ModelOperator) -> Tensor:
    """The operator's parameters as one vector, ``(n,)``."""
    return check_operator(operator).flatten(operator.parameters.values())


def _by_name(initial: Mapping[str, Tensor] | Iterable[Tensor], names: list[str]) -> dict[str, Tensor]:
    if isinstance(initial, Mapping):
        # A state dict of a compiled or data-parallel model has the wrapper's prefix.
        plain = {plain_name(str(name)): value for name, value in initial.items()}
        found = {**initial, **{name: plain[plain_name(name)] for name in names if plain_name(name) in plain}}
        found |= {name: initial[name] for name in names if name in initial}
    elif isinstance(initial, Iterable) and not isinstance(initial, (str, Tensor, np.ndarray)):
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
        raise TypeError(
            f"initial_parameters must hold tensors, got {type(found[wrong[0]]).__name__} for {printed(wrong[0])}."
        )
    return found


def _norm(vector: Tensor) -> float:
    # In double precision: squares of large weights overflow in single precision.
    return float(torch.linalg.vector_norm(vector.cpu().double()))
