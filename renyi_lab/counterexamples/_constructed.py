"""Networks that are written down, not trained: one that memorizes, one that has found the rule, both of minimal trace.

With pre-activation ``s`` and second weight ``±1/s`` in the only unit that is active on a sample, the gradient of the
output has the squared length ``s² + ‖x̃‖²/s²``, least for ``s² = ‖x̃‖``.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from renyi_lab._utils.validation import check_choice, check_flag, check_int
from renyi_lab.counterexamples._pieces import inputs_and_signs
from renyi_lab.models import TwoLayer, two_layer


def memorizing_network(train_set: Any, *, norm: str | None = None, width: int | None = None) -> TwoLayer:
    r"""One hidden unit for each sample, active on that sample alone: it interpolates and knows nothing else.

    Its gradients of different samples are orthogonal and equally long, so that the Hessian has ``n`` equal eigenvalues
    and the entropy ``log n`` of every order, the largest that is possible; its trace is `minimal_trace`. On every other
    point of ``{−1, +1}^d`` the output is 0.

    Args:
        train_set: Distinct samples of `datasets.xor` with ``targets="signs"``.
        norm: ``None`` or ``"layer"``, as for `two_layer`.
        width: Number of hidden units, at least the number of samples; the others are 0. Default: that number.

    Returns:
        The network in double precision, with biases.

    Raises:
        ValueError: Two equal samples, targets other than ±1, inputs other than ±1, or too small a width.

    Source: Wen, Li & Ma 2023, arXiv:2307.11007, sections 4 and 5.

    Example:
        >>> from renyi_lab import datasets, gram_spectrum
        >>> train_set, _ = datasets.xor(num_samples=50, targets="signs")
        >>> model = memorizing_network(train_set)
        >>> x, y = (part.double() for part in train_set.tensors)
        >>> spectrum = gram_spectrum(model, torch.nn.MSELoss(), (x, y))
        >>> round(float(spectrum.renyi_entropy(2.0)) - math.log(50), 12)
        0.0
    """
    x, y = inputs_and_signs("train_set", train_set, torch.empty(0, dtype=torch.float64))
    n, d = x.shape
    if bool((x.abs() != 1).any()):
        raise ValueError("train_set must have features −1 and +1, as datasets.xor.")
    if len(torch.unique(x, dim=0)) < n:
        raise ValueError("train_set has equal samples, and each unit is active on one; use more features.")
    model = _zeros(d, check_int("width", n if width is None else width, minimum=n), True, norm)
    size = _size(d, True)
    # x·x_i is d on the sample itself and at most d − 2 elsewhere on the cube.
    _set(model, size * x, -size * (d - 1.0) * torch.ones(n, dtype=x.dtype), y / size if norm is None else y)
    return model


def four_neuron_network(num_features: int, *, bias: bool = True, norm: str | None = None, width: int = 4) -> TwoLayer:
    r"""Four hidden units, one for each sign pattern of the first two features: it computes their product everywhere.

    Args:
        num_features: Number of features d, at least 2.
        bias: Whether the first layer has biases.
        norm: ``None`` or ``"layer"``, as for `two_layer`.
        width: Number of hidden units, at least 4; the others are 0.

    Returns:
        The network in double precision, with ``f(x) = x₁x₂`` on ``{−1, +1}^d`` and the trace of `minimal_trace`.

    Raises:
        ValueError: An argument is out of range.

    Source: Wen, Li & Ma 2023, arXiv:2307.11007, sections 4 and 5.

    Example:
        >>> x = torch.tensor([[1.0, -1.0, 1.0], [-1.0, -1.0, 1.0]], dtype=torch.float64)
        >>> four_neuron_network(3)(x).tolist()
        [-1.0, 1.0]
    """
    d = check_int("num_features", num_features, minimum=2)
    model = _zeros(d, check_int("width", width, minimum=4), bias, norm)
    signs = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    size = _size(d, bias)
    first = torch.zeros(4, d, dtype=torch.float64)
    first[:, :2] = signs * (size if bias else size / 2)  # ±x₁ ± x₂ is 2 on one pattern, and at most 0 on the others
    labels = signs.prod(dim=1)
    _set(model, first, torch.full((4,), -size, dtype=torch.float64), labels / size if norm is None else labels)
    return model


def minimal_trace(num_features: int, *, bias: bool = True, norm: str | None = None) -> float:
    r"""The smallest trace of the Hessian among all networks that interpolate: ``4 √d``, ``4 √(d + 1)`` with biases.

    With layer norm 2: there the first layer's part can vanish, and the second layer's is 1 for every sample.

    Args:
        num_features: Number of features d.
        bias: Whether the first layer has biases.
        norm: ``None`` or ``"layer"``.

    Source: Wen, Li & Ma 2023, arXiv:2307.11007, lemmas of sections 3 to 5; it follows from ``|f| ≤ ‖U‖‖A‖`` for
        positively homogeneous units and the inequality between arithmetic and geometric mean.
    """
    d, bias = check_int("num_features", num_features), check_flag("bias", bias)
    if norm is not None:
        check_choice("norm", norm, ("layer",))
        return 2.0
    return 4 * math.sqrt(d + bool(bias))


def _size(d: int, bias: bool) -> float:
    """Pre-activation ``s`` of the active unit, ``s² = ‖x̃‖``."""
    return math.sqrt(math.sqrt(d + bool(bias)))


def _zeros(d: int, width: int, bias: bool, norm: str | None) -> TwoLayer:
    model = two_layer(d, width, bias=bias, norm=norm).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


def _set(model: TwoLayer, first: Tensor, biases: Tensor, second: Tensor) -> None:
    """Set the weights of the first units."""
    count = len(second)
    with torch.no_grad():
        model.layer1.weight[:count] = first
        model.layer2.weight[0, :count] = second
        if model.layer1.bias is not None:
            model.layer1.bias[:count] = biases
