r"""Rescaling a network's layers without changing the function that it computes.

Scaling the layers of a positively homogeneous network by ``c_l > 0`` multiplies the output of layer ``l`` by
``C_l = Π_{k ≤ l} c_k``, if the biases are scaled too:

    W_l → c_l W_l,    b_l → C_l b_l,    f → C_L f,    so that f is unchanged when C_L = Π c_l = 1.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import fx, nn

from renyi_lab._utils.exclusive import exclusive
from renyi_lab._utils.model_state import unwrap_model
from renyi_lab._utils.validation import check_real, is_iterable, printed
from renyi_lab.perturbation._homogeneity import WEIGHT_LAYERS, has_hooks, is_one, output_factor


def scalable_layers(model: nn.Module) -> tuple[str, ...]:
    """Names of the layers that `reparametrize` takes scales for: linear and convolutional, in the order of their calls.

    Args:
        model: Network whose forward pass ``torch.fx`` can trace. It is not changed.

    Raises:
        TypeError: ``model`` is not a module.
        ValueError: Its forward pass cannot be traced, or it calls no such layer.

    Example:
        >>> scalable_layers(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1)))
        ('0', '2')
    """
    model = _copied(model)
    return tuple(_layers(model, _graph(model)))


def reparametrize(model: nn.Module, scales: Iterable[float] | Mapping[str, float]) -> nn.Module:
    r"""Return a copy of a positively homogeneous network with rescaled layers that computes the same function.

        W_l → c_l W_l,    b_l → (Π_{k ≤ l} c_k) b_l,    Π_l c_l = 1

    The Hessian's block of ``W_l`` is then multiplied by ``c_l^{−2}``: its Rényi entropy is unchanged, its trace, norm
    and largest eigenvalue are not. The whole Hessian becomes ``D⁻¹ H D⁻¹`` with ``D = blockdiag(c_l I)``, whose entropy
    differs.

    Args:
        model: Network of linear and convolutional layers, ReLU, leaky ReLU or PReLU, pooling, dropout, reshaping, and
            sums of branches with equal scale. Any other layer is allowed where its input is not scaled, such as a
            softmax at the end. The model itself is not changed.
        scales: Scales ``c_l > 0``, one for each of `scalable_layers` in order; or by name, 1 for those not named.

    Raises:
        TypeError: ``model`` is not a module, or a scale is not a number.
        ValueError: The scales do not multiply to 1, their number or a name is wrong, or they are beyond the dtype's
            range; or the network cannot be rescaled: the message says where, why and how to fix it.

    Source: Dinh, Pascanu, Bengio & Bengio 2017, *Sharp minima can generalize for deep nets*, arXiv:1703.04933,
    section 4 (two layers, without biases).

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))
        >>> scaled = reparametrize(model, [4.0, 0.25])
        >>> x = torch.ones(1, 3)
        >>> bool(scaled(x) == model(x)), bool((scaled[0].weight == 4 * model[0].weight).all())
        (True, True)
    """
    model = _copied(model)
    graph = _graph(model)
    scales = _checked_scales(scales, _layers(model, graph))
    _check_parameters(model, list(scales))
    for name, (weight_factor, bias_factor) in _follow(model, graph, scales).items():
        own = model.get_submodule(name)._parameters
        _multiply(f"{name}.weight", own["weight"], weight_factor)
        _multiply(f"{name}.bias", own["bias"], bias_factor)
    return model


def _copied(model: nn.Module) -> nn.Module:
    model = unwrap_model(model)
    try:
        with exclusive():  # another thread may have moved the weights for a while
            copied = copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"model ({type(model).__name__}) cannot be copied: {error}. Likely causes: torch.nn.utils.weight_norm or "
            "spectral_norm (call remove_weight_norm or remove_spectral_norm), or a result kept as an attribute."
        ) from error
    for parameter in copied.parameters():
        parameter.grad = None  # it belongs to the unscaled weights
    return copied


def _graph(model: nn.Module) -> fx.Graph:
    try:
        return fx.Tracer().trace(model)
    except Exception as error:  # a forward pass may raise anything when its input is a symbol instead of a tensor
        raise ValueError(
            f"the forward pass of {type(model).__name__} cannot be traced ({type(error).__name__}: {error}). It must "
            "not branch on values or shapes of its input; torch.nn.Sequential can always be traced."
        ) from error


def _layers(model: nn.Module, graph: fx.Graph) -> list[str]:
    modules = dict(model.named_modules())
    called = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    layers = [name for name in dict.fromkeys(called) if isinstance(modules[name], WEIGHT_LAYERS)]
    if not layers:
        raise ValueError(f"model ({type(model).__name__}) calls no linear or convolutional layer that could be scaled.")
    return layers


def _checked_scales(scales: Any, layers: list[str]) -> dict[str, float]:
    if isinstance(scales, Mapping):
        unknown = [name for name in scales if name not in layers]
        if unknown:
            raise ValueError(f"scales names {printed(unknown[0])}, but the layers to scale are {', '.join(layers)}.")
        return {name: _positive(name, scales.get(name, 1.0)) for name in layers}
    if isinstance(scales, str) or not is_iterable(scales):
        raise TypeError(f"scales must be numbers, one per layer, or a mapping from names, got {type(scales).__name__}.")
    values = scales.tolist() if hasattr(scales, "tolist") else list(scales)
    if not isinstance(values, list) or len(values) != len(layers):
        raise ValueError(f"scales must hold {len(layers)} numbers, for {', '.join(layers)}; got {printed(values)}.")
    return {name: _positive(name, value) for name, value in zip(layers, values, strict=True)}


def _positive(name: str, value: Any) -> float:
    return check_real(f"the scale of layer {name!r}", value, 0.0, open_minimum=True)


def _check_parameters(model: nn.Module, layers: list[str]) -> None:
    """Raise unless each layer to scale owns its parameters and computes with nothing else."""
    owners: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        other = owners.setdefault(id(parameter), name)
        if other != name and {part.rpartition(".")[0] for part in (name, other)} & set(layers):
            raise ValueError(f"{other} and {name} are one tensor, which cannot be scaled for both; untie them first.")
    for name in layers:
        layer = model.get_submodule(name)
        if type(layer) not in WEIGHT_LAYERS or has_hooks(layer) or layer._parameters.get("weight") is None:
            raise ValueError(
                f"layer {name!r} ({type(layer).__name__}) has hooks or a weight that is computed (weight_norm, "
                "spectral_norm, pruning, lazy layers), so its output need not scale with its weight; remove them, or "
                "run a lazy layer once."
            )


def _follow(model: nn.Module, graph: fx.Graph, scales: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """The factors of each layer's weight and bias."""
    modules = dict(model.named_modules())
    factors: dict[fx.Node, float] = {}
    found: dict[str, tuple[float, float]] = {}
    for node in graph.nodes:
        name = str(node.target)
        if node.op == "output":
            _check_output([factors[parent] for parent in node.all_input_nodes])
        elif node.op == "call_module" and name in scales:
            factors[node] = scales[name] * factors[node.all_input_nodes[0]]
            _, before = found.setdefault(name, (scales[name], factors[node]))
            if before != factors[node] and modules[name].bias is not None:
                raise ValueError(
                    f"layer {name!r} is applied more than once, to values scaled by {before / scales[name]:g} and by "
                    f"{factors[node] / scales[name]:g}, and one bias cannot fit both; use one layer per call."
                )
        else:
            factors[node] = output_factor(node, modules[name] if node.op == "call_module" else None, factors)
    return found


def _check_output(factors: list[float]) -> None:
    for factor in factors:
        if not is_one(factor):
            raise ValueError(
                f"scales must multiply to 1 on the way to the output, or the function would change; they multiply to "
                f"{factor:g}. Divide one of them by that."
            )


def _multiply(name: str, parameter: nn.Parameter | None, factor: float) -> None:
    if parameter is None:
        return
    with torch.no_grad():
        scaled = parameter * factor
        if bool((torch.isfinite(parameter) & ~torch.isfinite(scaled)).any() | ((scaled == 0) & (parameter != 0)).any()):
            raise ValueError(f"{name} times {factor:g} leaves the range of {parameter.dtype}; use milder scales.")
        parameter.copy_(scaled)
