r"""Rescaling a network's layers without changing the function that it computes.

Scaling layer ``l`` of a positively homogeneous network by ``c_l > 0`` makes every value behind it
``C_l = Π_{k ≤ l} c_k`` times as large, if the biases are scaled along:

    W_l → c_l W_l,    b_l → C_l b_l,    f → C_L f,    so that f stays when C_L = Π c_l = 1.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import fx, nn

from renyi_lab._utils.model_state import unwrap_model
from renyi_lab._utils.validation import check_real
from renyi_lab.perturbation._homogeneity import WEIGHT_LAYERS, has_hooks, is_one, passed_on


def scalable_layers(model: nn.Module) -> tuple[str, ...]:
    """The names of the layers that `reparametrize` takes scales for: linear and convolutional, as they are applied.

    Raises:
        TypeError: ``model`` is no module.
        ValueError: Its forward pass cannot be followed, or it calls no such layer.

    Example:
        >>> scalable_layers(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1)))
        ('0', '2')
    """
    model = _copied(model)
    return tuple(_layers(model, _graph(model)))


def reparametrize(model: nn.Module, scales: Iterable[float] | Mapping[str, float]) -> nn.Module:
    r"""Return a copy of a positively homogeneous network, its layers rescaled, that computes the same function.

        W_l → c_l W_l,    b_l → (Π_{k ≤ l} c_k) b_l,    Π_l c_l = 1

    The Hessian's block of ``W_l`` is then multiplied by ``c_l^{−2}``: its Rényi entropy stays, its trace, norm and
    largest eigenvalue do not. The whole Hessian becomes ``D⁻¹ H D⁻¹`` with ``D = blockdiag(c_l I)``: there the entropy
    changes too.

    Args:
        model: Network of linear and convolutional layers, ReLU, leaky ReLU or PReLU, pooling, dropout, reshaping, and
            sums of branches that are scaled alike. Values that are not scaled may go through any other layer: a softmax
            at the end does no harm. The model itself is not changed.
        scales: ``c_l > 0``, one for each of `scalable_layers` in order; or by name, with 1 for those not named.

    Raises:
        TypeError: ``model`` is no module, or a scale is no number.
        ValueError: The scales do not multiply to 1, their number or a name is wrong, or they are beyond the dtype's
            range; or the network cannot be rescaled: the message says where, why and what would mend it.

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
        twin = copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"model ({type(model).__name__}) cannot be copied: {error}. Likely causes: torch.nn.utils.weight_norm or "
            "spectral_norm (call remove_weight_norm or remove_spectral_norm), or a result kept as an attribute."
        ) from error
    for parameter in twin.parameters():
        parameter.grad = None  # that of the weights before
    return twin


def _graph(model: nn.Module) -> fx.Graph:
    try:
        return fx.Tracer().trace(model)
    except Exception as error:  # whatever a forward pass does when it gets a symbol in place of a tensor
        raise ValueError(
            f"the forward pass of {type(model).__name__} cannot be followed ({type(error).__name__}: {error}). It must "
            "not branch on values or shapes of its input; torch.nn.Sequential can always be followed."
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
            raise ValueError(f"scales names {unknown[0]!r}, but the layers to scale are {', '.join(layers)}.")
        return {name: _positive(name, scales.get(name, 1.0)) for name in layers}
    if isinstance(scales, str) or not isinstance(scales, Iterable):
        raise TypeError(f"scales must be numbers, one a layer, or a mapping from names, got {type(scales).__name__}.")
    values = scales.tolist() if hasattr(scales, "tolist") else list(scales)
    if not isinstance(values, list) or len(values) != len(layers):
        raise ValueError(f"scales must hold {len(layers)} numbers, for {', '.join(layers)}; got {values!r}.")
    return {name: _positive(name, value) for name, value in zip(layers, values, strict=True)}


def _positive(name: str, value: Any) -> float:
    return check_real(f"the scale of layer {name!r}", value, 0.0, open_minimum=True)


def _check_parameters(model: nn.Module, layers: list[str]) -> None:
    """Each layer to scale must own its parameters and compute with nothing else."""
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
                "spectral_norm, pruning, lazy layers), so its output need not grow with its weight; remove them, or "
                "run a lazy layer once."
            )


def _follow(model: nn.Module, graph: fx.Graph, scales: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """By what to multiply each layer's weight and bias."""
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
                    f"{factors[node] / scales[name]:g}, and one bias cannot follow both; give each place its own layer."
                )
        else:
            factors[node] = passed_on(node, modules[name] if node.op == "call_module" else None, factors)
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
