r"""Data discrepancy as a weight perturbation: two forms of the same change of a layer's output.

    W (h + ρ A h) = (W + ρ W A) h

The left side changes the layer's input ``h``, as other data would; the right side changes its weight. For a
convolution ``A`` mixes the channels of ``h`` at every position alike, and thereby the input channels of the weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from renyi_lab._utils.arrays import real_array
from renyi_lab._utils.exclusive import exclusive
from renyi_lab._utils.fields import check_fields, check_vectors
from renyi_lab._utils.interrupts import restoring
from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_finite, check_instance, check_int, printed
from renyi_lab.operators import ModelOperator, check_operator

Layer: TypeAlias = "nn.Linear | nn.Conv1d | nn.Conv2d"
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)


@dataclass(frozen=True, eq=False)
class DiscrepancyCurve:
    """The loss as a function of the size of a discrepancy, in both forms.

    Attributes:
        rhos: Sizes ``ρ``, ``(k,)``.
        data_form: Loss with the layer's input ``h + ρ A h``, ``(k,)``; not finite where it leaves the dtype's range.
        weight_form: Loss with the layer's weight ``W + ρ W A``, ``(k,)``.
        layer: The layer's name.
    """

    rhos: FloatArray = field(repr=False)
    data_form: FloatArray = field(repr=False)
    weight_form: FloatArray = field(repr=False)
    layer: str

    def __post_init__(self) -> None:
        check_fields(self)
        check_vectors(self, "rhos", "data_form", "weight_form")

    @property
    def largest_difference(self) -> float:
        """The largest ``|data form − weight form|``, in loss units; it is due to rounding alone."""
        return float(np.abs(self.data_form - self.weight_form).max())

    def __repr__(self) -> str:
        return (
            f"DiscrepancyCurve({self.layer!r}, {len(self.rhos)} values of ρ, loss {self.data_form.min():.4g} to "
            f"{self.data_form.max():.4g}, forms differ by {self.largest_difference:.1g})"
        )


def haar_orthogonal(n: int, seed: int = 0) -> Tensor:
    """A random orthogonal double-precision matrix ``(n, n)`` from the uniform (Haar) distribution.

    ``Q`` of the QR decomposition of a Gaussian matrix, its columns' signs set such that ``R`` has a positive diagonal;
    without that the distribution would not be uniform.

    Args:
        n: Number of rows, at least 1.
        seed: Random seed for the Gaussian matrix.

    Source: Mezzadri 2007, *How to generate random matrices from the classical compact groups*, arXiv:math-ph/0609050.

    Example:
        >>> A = haar_orthogonal(5, seed=1)
        >>> torch.allclose(A @ A.T, torch.eye(5, dtype=torch.float64))
        True
    """
    size = check_int("n", n)
    generator = torch.Generator().manual_seed(check_int("seed", seed, 0))
    q, r = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=generator, device="cpu"))
    orthogonal: Tensor = q * torch.where(r.diagonal() < 0, -1.0, 1.0)
    return orthogonal


def weight_perturbation(weight: Tensor, matrix: Tensor) -> Tensor:
    """``W A``: ``matrix`` mixes the input features of a linear layer's weight, or a convolution's input channels.

    Args:
        weight: Weight ``W``, ``(out, in)`` or ``(out, in, …)``.
        matrix: Matrix ``A``, ``(in, in)``.

    Raises:
        TypeError: ``weight`` or ``matrix`` is not a tensor.
        ValueError: Their shapes do not match.

    Example:
        >>> weight_perturbation(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        tensor([[2., 1.]])
    """
    if not isinstance(weight, Tensor) or not isinstance(matrix, Tensor):
        raise TypeError(
            f"weight and matrix must be torch tensors, got {type(weight).__name__}, {type(matrix).__name__}."
        )
    if weight.ndim < 2 or matrix.shape != (weight.shape[1],) * 2:
        raise ValueError(f"matrix must be (in, in), got {tuple(matrix.shape)} for a weight {tuple(weight.shape)}.")
    return torch.einsum("oi...,ij->oj...", weight, matrix.to(weight))


def layer_input(operator: ModelOperator, layer: str) -> Tensor:
    """The input ``h`` of one layer for the operator's first batch, ``(batch, …)``.

    Args:
        operator: A `HessianOperator`. Its model is left unchanged.
        layer: Name of an `nn.Linear`, `nn.Conv1d` or `nn.Conv2d` (``groups=1``) that owns its weight.

    Raises:
        ValueError: The layer cannot be used (the message says why), or the forward pass does not call it.

    Example:
        >>> from renyi_lab.operators import HessianOperator
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> H = HessianOperator(model, nn.MSELoss(), (torch.ones(4, 2), torch.zeros(4, 1)))
        >>> torch.equal(layer_input(H, "2"), torch.relu(model[0](torch.ones(4, 2))))
        True
    """
    module = find_layer(check_operator(operator).model, layer)
    seen: list[Tensor] = []

    def record(_: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        seen.append((args[0] if args else keywords["input"]).detach().clone())

    with _hooked(module, record), operator.evaluation_point(), torch.enable_grad():  # a model may differentiate inside
        operator.batch_loss(0)
    if not seen:
        raise ValueError(f"layer={layer!r} is not called by the forward pass, so it has no input.")
    return seen[0]


def discrepancy_curve(operator: ModelOperator, layer: str, matrix: Tensor, rhos: ArrayLike) -> DiscrepancyCurve:
    """The loss under ``h → h + ρ A h`` at one layer's input, and under the equivalent ``W → W + ρ W A``.

    For an orthogonal ``A`` both changes have relative size ``ρ``: ``‖ρ A h‖ = ρ ‖h‖`` for every input, and
    ``‖ρ W A‖ = ρ ‖W‖``.

    Args:
        operator: A `HessianOperator`; its model, loss and frozen batches are used. The model is left unchanged.
        layer: Name of an `nn.Linear`, `nn.Conv1d` or `nn.Conv2d` (``groups=1``) that owns its weight.
        matrix: Matrix ``A``, ``(n, n)`` for the layer's ``n`` input features or channels, such as `haar_orthogonal`.
        rhos: Sizes ``ρ``, one number or a vector.

    Raises:
        TypeError: ``operator`` or ``matrix`` is of the wrong type.
        ValueError: The layer does not exist, is of another kind, has a shared or computed weight, or is not called by
            the forward pass; or the matrix or a size does not fit.

    Example:
        >>> from renyi_lab.operators import HessianOperator
        >>> model = nn.Sequential(nn.Linear(2, 1, bias=False))
        >>> H = HessianOperator(model, nn.MSELoss(), (torch.ones(4, 2), torch.zeros(4, 1)))
        >>> curve = discrepancy_curve(H, "0", torch.eye(2), [0.0, 1.0])
        >>> round(float(curve.data_form[1] / curve.data_form[0]), 5), curve.largest_difference < 1e-6
        (4.0, True)
    """
    module = find_layer(check_operator(operator).model, layer)
    matrix = _checked_matrix(matrix, module, layer)
    sizes = np.atleast_1d(real_array("rhos", rhos))
    if sizes.ndim != 1 or sizes.size == 0 or not np.isfinite(sizes).all():
        raise ValueError(f"rhos must be finite numbers, one or a vector of them, got {printed(rhos)}.")
    data_form, weight_form = [], []
    for rho in sizes.tolist():
        with _input_mixed(module, rho * matrix) as calls:
            data_form.append(operator.total_loss())
        if not calls:
            raise ValueError(f"layer={layer!r} is not called by the forward pass, so it has no input to change.")
        with _weight_moved(module, rho * matrix):
            weight_form.append(operator.total_loss())
    return DiscrepancyCurve(sizes, np.array(data_form), np.array(weight_form), layer)


@restoring
def _input_mixed(module: Layer, matrix: Tensor) -> Iterator[list[None]]:
    """Add ``matrix`` times the input to every input of ``module``; one entry a call."""
    calls: list[None] = []

    def mix(_: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        calls.append(None)
        h = args[0] if args else keywords.pop("input")
        return (h + mixed(module, h, matrix), *args[1:]), keywords

    with _hooked(module, mix):
        yield calls


@restoring
def _hooked(module: nn.Module, hook: Callable[..., Any]) -> Iterator[None]:
    """Call ``hook(module, args, keywords)`` before every forward pass of ``module``."""
    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def mixed(module: Layer, h: Tensor, matrix: Tensor) -> Tensor:
    """``A h`` for inputs of the layer, with or without a batch dimension.

    Args:
        module: The layer.
        h: Its inputs.
        matrix: ``A``, with a row and a column for each of the layer's input features or channels.

    Raises:
        TypeError: An argument of another type.
        ValueError: Shapes that do not belong together, or a lazy layer that has no weights yet.
    """
    check_instance("module", module, _LAYERS)
    if is_lazy(module.weight):
        raise ValueError(f"module ({type(module).__name__}) has no weights yet; run it once on inputs.")
    check_instance("h", h, Tensor)
    matrix = _checked_matrix(matrix, module, type(module).__name__)
    if h.ndim < module.weight.ndim - 1 or h.shape[1 - module.weight.ndim] != len(matrix):
        raise ValueError(f"h must be inputs of {module}, got {tuple(h.shape)}.")
    channel = 1 - module.weight.ndim  # channels come before the spatial axes; a linear layer's features come last
    return torch.movedim(torch.movedim(h, channel, -1) @ matrix.to(h).T, -1, channel)


@restoring
def _weight_moved(module: Layer, matrix: Tensor) -> Iterator[None]:
    """Use other memory for the weight inside the block; its own is never written to, so that it is restored exactly."""
    with exclusive():
        own = module.weight.data
        try:
            module.weight.data = own + weight_perturbation(own, matrix)
            yield
        finally:
            module.weight.data = own


def find_layer(model: nn.Module, name: str) -> Layer:
    """The layer of that name, if a change of its input can be written as one of its weight; otherwise raise."""
    check_instance("model", model, nn.Module)
    modules: dict[str, Any] = dict(model.named_modules())
    if not isinstance(name, str) or name not in modules:
        usable = [key for key, module in modules.items() if type(module) in _LAYERS]
        raise ValueError(f"layer={printed(name)} is not a layer of the model; there are {', '.join(usable)}.")
    module: Layer = modules[name]
    kind = type(module).__name__
    if type(module) not in _LAYERS:
        raise ValueError(
            f"layer={name!r} is a {kind}, for which W (h + ρ A h) = (W + ρ W A) h need not hold; choose a "
            "torch.nn.Linear, Conv1d or Conv2d (parametrizations such as weight_norm removed)."
        )
    if getattr(module, "groups", 1) != 1:
        raise ValueError(
            f"layer={name!r} is a {kind} of {module.groups} groups: its weight keeps their channels apart, but W A "
            "mixes them; choose a layer with groups=1."
        )
    weight = module._parameters.get("weight")
    users = [m for m in model.modules() if any(parameter is weight for parameter in m._parameters.values())]
    if weight is None or len(users) > 1:
        raise ValueError(
            f"the weight of layer={name!r} is {'computed' if weight is None else 'shared with another layer'}, so it "
            "cannot be moved for this layer alone; choose another layer, or untie it first."
        )
    return module


def _checked_matrix(matrix: Any, module: Layer, layer: str) -> Tensor:
    if not isinstance(matrix, Tensor):
        raise TypeError(f"matrix must be a torch tensor, got {type(matrix).__name__}; use torch.from_numpy for arrays.")
    n = module.weight.shape[1]
    if matrix.shape != (n, n):
        raise ValueError(f"matrix must have shape {(n, n)}, for the inputs of {layer!r}, got {tuple(matrix.shape)}.")
    check_finite("matrix", matrix, "a division by zero in its computation.")
    return matrix.detach().to(module.weight)
