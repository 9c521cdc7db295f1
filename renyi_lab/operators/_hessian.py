r"""Products with the Hessian of a model's mean loss, ``H v = ∇(∇L(θ)ᵀ v)``, without forming ``H``.

By double backward, the gradient's graph is kept between products while it fits ``graph_budget``, so that a product
costs one more backward pass through it: about two gradients, instead of three where the graph is rebuilt. By finite
differences it costs two gradients, and no layer needs a second derivative.

Source:
    Pearlmutter 1994, *Fast exact multiplication by the Hessian*.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from renyi_lab._utils.batches import Batch
from renyi_lab._utils.gradient_hooks import suspended_hooks
from renyi_lab._utils.masses import BatchMass
from renyi_lab._utils.model_state import is_sharded, unwrap_model
from renyi_lab._utils.parameters import ParameterSelection, flatten, unflatten
from renyi_lab._utils.ranks import Ranks, agreed, checksum
from renyi_lab._utils.validation import check_choice, check_instance, check_tensor, is_iterable
from renyi_lab.operators._backward import gradient_by_backward
from renyi_lab.operators._base import LinearOperator
from renyi_lab.operators._evaluated import BACKWARD_ONLY
from renyi_lab.operators._finite_difference import FiniteDifferences
from renyi_lab.operators._graph_nodes import reason_to_refuse
from renyi_lab.operators._kept_graphs import BatchGraph, KeptGraphOperator
from renyi_lab.operators._shards import Shards


def hvp(loss: Tensor, params: Iterable[Tensor], vector: Tensor) -> Tensor:
    """One Hessian-vector product ``∇(∇loss · v)`` by double backward, in its shortest form.

    Args:
        loss: Scalar with a graph to ``params``.
        params: The tensors to differentiate in, ``n`` entries in all, such as ``model.parameters()``.
        vector: Flat vector of shape ``(n,)``.

    Returns:
        ``H v`` of shape ``(n,)``. No ``.grad`` is changed.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: No parameters, a frozen one, a loss that is not a scalar or has no graph, or a vector of another
            shape.

    Example:
        >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> hvp((x**3).sum(), [x], torch.tensor([1.0, 1.0])).tolist()
        [6.0, 12.0]
    """
    check_instance("loss", loss, Tensor, "one number with a graph to params")
    if isinstance(params, (Tensor, np.ndarray, Mapping, str)) or not is_iterable(params):
        raise TypeError(f"params must be tensors, such as model.parameters(), got {type(params).__name__}.")
    params = [check_instance("each of params", parameter, Tensor) for parameter in params]
    for parameter in params:
        if not parameter.requires_grad:
            raise ValueError("each of params must have requires_grad=True; leave frozen ones out.")
    check_tensor("vector", vector, loss.device)
    if not params or loss.numel() != 1 or not loss.requires_grad:
        raise ValueError(
            f"hvp needs parameters and one loss computed from them, got {len(params)} parameters and a loss of shape "
            f"{tuple(loss.shape)} {'with' if loss.requires_grad else 'without'} a graph; do not detach it."
        )
    with suspended_hooks(params):  # a hook's gradient is not that of the loss
        gradients = torch.autograd.grad(loss, params, create_graph=True, materialize_grads=True)
        flat_gradient = flatten(gradients)
        if vector.shape != flat_gradient.shape:
            raise ValueError(f"vector must have shape {tuple(flat_gradient.shape)}, got {tuple(vector.shape)}.")
        if not any(gradient.requires_grad for gradient in gradients):  # the loss is linear in params
            return torch.zeros_like(flat_gradient)
        parts = unflatten(vector.to(flat_gradient), params)
        along = torch.stack([(g * v).sum() for g, v in zip(gradients, parts, strict=True)]).sum()
        return flatten(torch.autograd.grad(along, params, materialize_grads=True))


class HessianOperator(KeptGraphOperator):
    r"""The Hessian of a model's loss over a data set, ``H = ∇² (1/N) Σ_i ℓ(f_θ(x_i), y_i)``, as an operator.

    ``H @ v`` costs about two gradients while the graph is kept, and three where it is recomputed. Constructor arguments
    and errors are those of `ModelOperator`, beside these:

    Args:
        method: ``"double_backward"``, which is as precise as the gradient; or ``"finite_difference"``, ``[∇L(θ + hv) −
            ∇L(θ − hv)] / 2h``, for models with a layer that cannot be differentiated twice (custom and fused kernels,
            checkpointing with ``use_reentrant=True``). The step and the error of the products, `product_error`, are
            measured at the first product after the weights change, by about eighteen gradients. ``graph_budget`` has no
            effect. Gradients that jump, as with ReLU, give large errors in single precision. Models sharded over
            processes by FSDP2 (``fully_shard``) are accepted: each process passes its own batches and gets the whole
            product over all data.

    Raises:
        RuntimeError: At a product: a layer that cannot be differentiated twice; products that no symmetric matrix has.

    Example:
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> H = HessianOperator(model, torch.nn.MSELoss(), (x, torch.zeros(2, 1)))
        >>> H.to_dense().tolist()
        [[1.0, 0.0], [0.0, 4.0]]

        A mean over labels that are not ignored, inside a function of one's own:

        >>> def loss_fn(outputs, y):
        ...     return torch.nn.functional.cross_entropy(outputs, y, ignore_index=9)
        >>> batches = [(x, torch.tensor([0, 9])), (x, torch.tensor([1, 0]))]
        >>> model = torch.nn.Linear(2, 2)
        >>> H = HessianOperator(model, loss_fn, batches, batch_mass=lambda batch: (batch[1] != 9).sum())
        >>> H.total_mass
        3.0
    """

    _silently_wrong: ClassVar[Mapping[str, str]] = {
        **KeptGraphOperator._silently_wrong,
        "WeightNormInterfaceBackward0": "torch leaves the norm's own derivative out of weight_norm's second "
        "derivative; torch.nn.utils.parametrize.remove_parametrizations gives a plain weight",
    }

    _warning_level: ClassVar[int] = 3  # has a constructor of its own
    _differences: FiniteDifferences | None = None

    def __init__(
        self,
        model: nn.Module,
        loss_fn: Callable[..., Tensor],
        data: Any,
        params: ParameterSelection = None,
        *,
        method: str = "double_backward",
        mode: str = "eval",
        loss_style: str | None = None,
        reduction: str | None = None,
        graph_budget: int | None = None,
        micro_batch_size: int | None = None,
        seed: int = 0,
        batch_mass: BatchMass | None = None,
        process_group: Any = None,
    ) -> None:
        self.method = check_choice("method", method, ("double_backward", "finite_difference"))
        self._twice = self.method == "double_backward"
        plain = unwrap_model(model, allow_sharded=not self._twice)
        self._shards = Shards(plain) if any(map(is_sharded, plain.modules())) else None
        if self._shards is not None and micro_batch_size is not None:
            raise ValueError("micro_batch_size must be None for a sharded model (FSDP); pass smaller batches.")
        if self._shards is not None and process_group is not None:
            raise ValueError(
                "process_group must be None for a sharded model (FSDP), whose own processes share the data."
            )
        with contextlib.nullcontext() if self._shards is None else self._shards.construction():
            super().__init__(
                model,
                loss_fn,
                data,
                params,
                mode=mode,
                loss_style=loss_style,
                reduction=reduction,
                graph_budget=graph_budget,
                micro_batch_size=micro_batch_size,
                seed=seed,
                batch_mass=batch_mass,
                process_group=process_group,
            )

    def _set_batches(self, batches: Sequence[Batch]) -> None:
        if self._shards is None:
            super()._set_batches(batches)
            return
        if self._loss_reduction.assumed and self.reduction == "mean":
            raise ValueError(
                "for a sharded model (FSDP) the denominator of each batch's mean loss must be known, and that of this "
                'loss_fn is not: pass batch_mass=, such as batch_mass=lambda batch: len(batch[1]), or reduction="sum".'
            )
        super()._set_batches(batches)
        self._shards.agree(None)
        self.total_mass, samples = self._shards.sums(self.total_mass, self.num_samples)
        self.num_samples = int(samples)
        self._weighted_batches.share(self.total_mass, self.num_samples)
        self._num_extra_passes = self._shards.largest(len(self.batches)) - len(self.batches)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """As `ModelOperator.parameters`; of a sharded model, the parts of this process."""
        if self._shards is not None:
            self._shards.reshard()
        return super().parameters

    @property
    def vector_ranks(self) -> Ranks | None:
        """As `LinearOperator.vector_ranks`; of a sharded model, its own processes."""
        return self.ranks if self._shards is None else self._shards.ranks

    @property
    def product_error(self) -> float:
        """Relative error of a product, the length of its error over ``‖H‖ ‖v‖``: of the order of the dtype's rounding
        by double backward; measured by finite differences.

        It is that of vectors near the eigenvectors of the largest eigenvalues, which have the largest errors, and grows
        when the products are less symmetric than that.
        """
        return super().eps if self._twice else self._measured_differences().error

    @property
    def eps(self) -> float:
        """As `product_error`."""
        return self.product_error

    @property
    def precision(self) -> str:
        """As `ModelOperator.precision`, with the error of finite differences once it is measured."""
        if self._twice:
            return super().precision
        known = "" if self._differences is None else f" (relative error {self._differences.error:.1g})"
        return f"{super().precision} by finite differences{known}"

    def __getstate__(self) -> dict[str, Any]:
        """As `KeptGraphOperator.__getstate__`: a copy measures its own error."""
        state = super().__getstate__()
        state.pop("_differences", None)
        return state

    def _product(self, vectors: Tensor) -> Tensor:
        if self._twice:
            return super()._product(vectors)
        # Here, since gradients at other points of the ranks would differ by less than is noticed.
        with agreed(self.ranks, lambda: checksum(vectors, *self.parameters.values()), "vectors or weights"):
            pass
        return self._measured_differences().product(vectors)

    def _matmat(self, vectors: Tensor) -> Tensor:
        if self._twice:
            return super()._matmat(vectors)
        with self.unchanged():
            return LinearOperator._matmat(self, vectors)

    def _measured_differences(self) -> FiniteDifferences:
        """The finite differences at the current weights."""
        if self._verified and self._differences is not None:
            return self._differences
        parameters = self.parameters
        known = self._differences is not None and self._differences.is_at(self.flatten(parameters.values()))
        if self.ranks is not None:
            known = all(self.ranks.gather(known))
        if self._differences is None or not known:
            self._differences = None
            self._differences = FiniteDifferences(self.restricted(), super().eps)
        self._verified = tuple(parameters.values()) if self._is_unchanged else None
        return self._differences

    def _gradient_of(self, loss: Tensor, parameters: Sequence[Tensor]) -> Sequence[Tensor]:
        if self._twice:
            return super()._gradient_of(loss, parameters)
        gradient: Sequence[Tensor]
        if self._shards is not None:
            gradient = gradient_by_backward(self._shards.undivided(loss), parameters, self._shards.parameters)
        elif self._recomputes and reason_to_refuse(BACKWARD_ONLY, [loss]):
            gradient = gradient_by_backward(loss, parameters, self.model.parameters())
        else:
            gradient = super()._gradient_of(loss, parameters)
        return [part.to_dense() if part.layout != torch.strided else part for part in gradient]

    def _batch_graph(self, index: int) -> BatchGraph:
        parameters = list(self.parameters.values())
        loss = self.batch_loss(index)
        if not loss.requires_grad:
            return BatchGraph()
        if not self._twice:  # for the memory that it takes
            return BatchGraph([loss], parameters)
        with self.differentiation():
            gradient = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
        if any(tensor is not None and tensor.layout != torch.strided for tensor in gradient):
            raise ValueError("a parameter has a sparse gradient, which has no second derivative; use sparse=False.")
        return BatchGraph(gradient, parameters)
