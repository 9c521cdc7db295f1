"""Whether a model can be evaluated and differentiated: refusals that name the fix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from renyi_lab._utils.exclusive import exclusive
from renyi_lab._utils.interrupts import restoring

_NOT_MODULES = {
    "ExportedProgram": "pass the module that torch.export was given",
    "OptimizedModule": "pass the module that torch.compile was given",
    "type": "pass an instance of the class, not the class",
    "function": "pass the module that the function calls",
    "partial": "pass the module that the partial calls",
}
_QUANTIZED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")


def check_module(model: Any) -> nn.Module:
    """Return ``model`` when it is a module with all its weights, whose mode can be set, or raise.

    Raises:
        TypeError: Not a module, or one of torch.export.
        ValueError: Parameters that have no values yet.
    """
    if not isinstance(model, nn.Module):
        kind = type(model).__name__
        fix = f"; {_NOT_MODULES[kind]}" if kind in _NOT_MODULES else ""
        raise TypeError(f"model must be a torch.nn.Module, got {kind}{fix}.")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise ValueError(
                f"the model's {name!r} is not initialised yet (a lazy module); run the model once on a batch of inputs."
            )
        if tensor.device.type == "meta":
            raise ValueError(
                f"the model's {name!r} is on the meta device, which holds no values; make the model on a real device, "
                'or call model.to_empty(device="cpu") and load a state dict.'
            )
    _check_mode(model)
    return model


def check_differentiable(model: nn.Module) -> None:
    """Raise ``TypeError`` when the model has quantised layers, whose outputs have no derivatives."""
    for name, module in model.named_modules():
        if type(module).__module__.startswith(_QUANTIZED):
            raise TypeError(
                f"the model's {name or type(module).__name__!r} is quantised, so that nothing before it has a "
                "derivative; pass the model from before quantisation."
            )


@exclusive()
def _check_mode(model: nn.Module) -> None:
    """Raise ``TypeError`` when the mode cannot be set, as it is built into modules of torch.export."""
    try:
        with kept_flags(model):
            model.train(model.training)
    except (NotImplementedError, AttributeError) as error:
        raise TypeError(
            f"model ({type(model).__name__}) does not support train() and eval(), as modules of torch.export and "
            "torch.jit.freeze do not: dropout and batch norm are in the mode of the export. Pass the module that was "
            "exported or frozen."
        ) from error


@restoring
def kept_flags(model: nn.Module) -> Iterator[None]:
    """Restore the training flag of every submodule on exit."""
    flags = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag
