"""The factors by which the values inside a network grow when its layers are scaled, along its ``torch.fx`` graph.

A layer or function is positively homogeneous when ``φ(c h) = c φ(h)`` for every ``c > 0``: it propagates the factor.
Anything not known to be is refused, unless its inputs are not scaled at all.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

# Heuristic: the product of a few scales written in single precision is this close to 1.
_TOLERANCE = 1e-6

WEIGHT_LAYERS = (
    nn.Linear,
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)

# Homogeneous in the first argument. Exact types: a subclass may compute something else.
_MODULES = {
    *(nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.Identity, nn.Flatten, nn.Unflatten),
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
}
_FUNCTIONS = {
    *(torch.relu, torch.relu_, F.relu, F.leaky_relu, F.dropout, torch.flatten, torch.reshape, torch.squeeze),
    *(torch.unsqueeze, torch.transpose, torch.permute, torch.mean, torch.sum, operator.getitem, operator.neg),
    *(F.max_pool1d, F.max_pool2d, F.max_pool3d, F.avg_pool1d, F.avg_pool2d, F.avg_pool3d),
    *(F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d),
    *(F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d),
}
_METHODS = {
    *("relu", "relu_", "flatten", "view", "reshape", "squeeze", "unsqueeze", "transpose", "permute"),
    *("mean", "sum", "contiguous", "clone", "expand"),
}
_SUMS = {operator.add, operator.sub, operator.iadd, torch.add, torch.sub, "add", "add_", "sub", "sub_"}
_JOINS = {torch.cat, torch.concat, torch.stack}
_MULTIPLES = {operator.mul, operator.imul, operator.truediv, torch.mul, torch.div, "mul", "mul_", "div", "div_"}
_SHAPES = {"size", "dim", "numel"}
_SHAPE_ATTRIBUTES = {"shape", "ndim", "dtype", "device"}

_FIX_BATCH_NORM = (
    "it subtracts a fixed mean; first fold it into the layer before it (torch.nn.utils.fuse_conv_bn_eval or "
    "fuse_linear_bn_eval, in evaluation mode)"
)
_FIXES: dict[type[nn.Module], str] = {
    nn.BatchNorm1d: _FIX_BATCH_NORM,
    nn.BatchNorm2d: _FIX_BATCH_NORM,
    nn.BatchNorm3d: _FIX_BATCH_NORM,
    nn.LayerNorm: "it undoes any scale of its input, up to its eps; scale only layers after it, with product 1",
    nn.GroupNorm: "it undoes any scale of its input, up to its eps; scale only layers after it, with product 1",
}
_FIX = "use ReLU there, or scales whose product up to there is 1"


def is_one(factor: float) -> bool:
    """Whether a factor is 1 up to the rounding of the scales."""
    return abs(factor - 1) <= _TOLERANCE


def output_factor(node: fx.Node, module: nn.Module | None, factors: Mapping[fx.Node, float]) -> float:
    """The factor of a node's value, from the factors of its inputs; raises where the node does not propagate them."""
    parents = node.all_input_nodes
    if _is_shape(node) or all(is_one(factors[parent]) for parent in parents):
        return 1.0
    if module is None and (node.target in _JOINS or (node.target in _SUMS and not _has_constant(node))):
        return _common(node, [factors[parent] for parent in parents])
    first, *others = node.args or (None,)
    if isinstance(first, fx.Node):
        others_plain = all(is_one(factors[parent]) for parent in parents if parent is not first)
        if (_is_homogeneous(node, module) and others_plain) or (_is_multiple(node) and _is_number(others[0])):
            return factors[first]
    elif _is_number(first) and node.target in (operator.mul, torch.mul):
        return factors[parents[0]]
    raise ValueError(_refusal(node, module, [factors[parent] for parent in parents]))


def _is_shape(node: fx.Node) -> bool:
    if node.op == "call_method":
        return node.target in _SHAPES
    return node.target is getattr and node.args[1] in _SHAPE_ATTRIBUTES


def _is_homogeneous(node: fx.Node, module: nn.Module | None) -> bool:
    if module is not None:
        return type(module) in _MODULES and not has_hooks(module)
    if node.target is F.pad:
        return not any((*node.args[3:], node.kwargs.get("value")))
    return node.target in (_METHODS if node.op == "call_method" else _FUNCTIONS)


def has_hooks(module: nn.Module) -> bool:
    """Whether user code runs when the module is called."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _is_multiple(node: fx.Node) -> bool:
    # Keywords change the function: rounding_mode="floor" makes it a step function.
    return node.op != "call_module" and node.target in _MULTIPLES and len(node.args) == 2 and not node.kwargs


def _is_number(value: Any) -> bool:
    return isinstance(value, float | int)


def _has_constant(node: fx.Node) -> bool:
    named = [value for name, value in node.kwargs.items() if name != "alpha"]  # alpha is a factor
    return any(_is_number(value) and value for value in (*node.args, *named))


def _common(node: fx.Node, factors: list[float]) -> float:
    low, high = min(factors), max(factors)
    if high - low > _TOLERANCE * high:
        raise ValueError(
            f"{node.name!r} joins values that are scaled by {low:g} and by {high:g}, so its result has no one scale; "
            "choose scales with the same product along each branch (1 where the other branch is a plain shortcut)."
        )
    return factors[0]


def _refusal(node: fx.Node, module: nn.Module | None, factors: list[float]) -> str:
    factor = max(factors, key=lambda size: abs(math.log(size)) if 0 < size < math.inf else math.inf)
    if module is None:
        name: Any = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", node.target)
        return (
            f"{node.name!r} ({name}) is not known to be positively homogeneous, and its input is scaled by "
            f"{factor:g}; {_FIX}."
        )
    fix = _FIXES.get(type(module), _FIX)
    return (
        f"layer {node.target!r} ({type(module).__name__}) is not known to be positively homogeneous, and its input is "
        f"scaled by {factor:g}; {fix}."
    )
