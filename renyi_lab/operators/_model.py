"""What every curvature operator of a model shares: frozen batches, chosen parameters, and a checked loss."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from renyi_lab._utils.batches import Batch, batch_mass, freeze_batches, map_tensors
from renyi_lab._utils.model_state import evaluation_point, stochastic_layers, unwrap_model
from renyi_lab._utils.parameters import ParameterSelection, flatten, select_parameters, unflatten
from renyi_lab._utils.random import seed_torch
from renyi_lab._utils.validation import check_choice, check_finite, check_int, check_labels, check_real
from renyi_lab.operators._base import LinearOperator

Kind = TypeVar("Kind", bound="ModelOperator")

_DIVERGED = "training diverged (lower the learning rate), or the inputs hold NaN or infinity."


class ModelOperator(LinearOperator):
    r"""A curvature matrix of a model's loss over a data set, as an operator.

    The data are frozen into batches at construction, so that every product sees the same matrix, that of the model's
    current weights. Nothing of the model changes: flags, buffers, ``.grad`` and random states are put back, after
    errors and interrupts too.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: Callable[..., Tensor],
        data: Any,
        params: ParameterSelection = None,
        *,
        mode: str = "eval",
        loss_style: str | None = None,
        reduction: str | None = None,
        graph_budget: int | None = None,
        micro_batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        """Freeze the data and check everything a product will need.

        Args:
            model: Any module; ``torch.compile`` and data-parallel wrappers are looked through.
            loss_fn: ``loss_fn(model(x), y)`` for batches ``(x, y)``, ``loss_fn(model, batch)`` for all others
                (dictionaries, longer tuples); see ``loss_style``.
            data: ``(x, y)``, a data set, a DataLoader, or an iterable of batches.
            params: ``None`` for all trainable parameters; or names, globs (``"*.weight"``), modules, parameters: the
                matrix of that block alone. Frozen parameters are skipped.
            mode: ``"eval"`` (default: dropout off, batch-norm uses its running statistics) or ``"train"``.
            loss_style: ``"output_target"`` or ``"model_batch"``; ``None`` chooses by the batches as said above.
            reduction: ``"mean"`` when ``loss_fn`` averages over a batch (batches are then weighted by their size, a
                ragged last one rightly) or ``"sum"`` when it adds up. ``None`` asks ``loss_fn.reduction`` and else
                takes ``"mean"``.
            graph_budget: Bytes that kept graphs may take; ``None``: a quarter of the free memory. Batches past it are
                recomputed at each product (one more gradient), so results do not depend on it.
            micro_batch_size: Cut larger batches to this many samples, for models whose single batch exceeds memory; on
                a CPU also for speed, since smaller graphs fit its caches better (measured: up to a quarter, for 4000
                samples of `cnn1d` cut to 1000).
            seed: Fixes dropout masks in ``mode="train"``.

        Raises:
            ValueError: Empty data, no (trainable) parameters, unknown names, labels out of range, a loss that is not
                finite, half precision.
            TypeError: ``model``, ``data`` or ``loss_fn`` of a kind that cannot be used.
        """
        self.model = unwrap_model(model)
        if not callable(loss_fn):
            raise TypeError(f"loss_fn must be callable, got {type(loss_fn).__name__}.")
        self.loss_fn = loss_fn
        self.parameters = select_parameters(self.model, params)
        tensors = list(self.parameters.values())
        super().__init__(sum(tensor.numel() for tensor in tensors), tensors[0].dtype, tensors[0].device)
        self.mode = check_choice("mode", mode, ("eval", "train"))
        self.reduction = check_choice("reduction", reduction or getattr(loss_fn, "reduction", "mean"), ("mean", "sum"))
        self.seed = check_int("seed", seed, 0)
        if graph_budget is not None:
            check_real("graph_budget", graph_budget, 0)
        self.graph_budget = graph_budget
        if micro_batch_size is not None:
            check_int("micro_batch_size", micro_batch_size)
        self.batches = tuple(freeze_batches(data, self.device, micro_batch_size))
        self.num_samples = sum(batch.size for batch in self.batches)
        self._masses = [batch_mass(loss_fn, batch) for batch in self.batches]
        pairs = all(batch.is_pair for batch in self.batches)
        default_style = "output_target" if pairs else "model_batch"
        self.loss_style = check_choice("loss_style", loss_style or default_style, ("output_target", "model_batch"))
        if self.loss_style == "output_target" and not pairs:
            raise ValueError('loss_style="output_target" needs batches (x, y); use "model_batch" for other batches.')
        if self.mode == "train" and (layers := stochastic_layers(self.model)):
            warnings.warn(
                f'mode="train" with dropout or batch norm ({", ".join(layers[:4])}): masks are fixed by '
                f"seed={self.seed}, and batch statistics depend on how the data are cut into batches.",
                stacklevel=2,
            )
        self.loss = self._checked_loss()

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Names of the parameters the operator is about, in the order of the flat vector."""
        return tuple(self.parameters)

    @property
    def num_frozen(self) -> int:
        """How many entries of the model's parameters are frozen and therefore not part of any Hessian."""
        return sum(parameter.numel() for parameter in self.model.parameters() if not parameter.requires_grad)

    @property
    def total_mass(self) -> float:
        """What the mean over all data divides by: samples, or the total class weight of the labels that count."""
        return sum(self._masses) if self.reduction == "mean" else self.num_samples

    def restricted(self: Kind, params: ParameterSelection = None, batches: Sequence[Batch] | None = None) -> Kind:
        """The same operator for some of its parameters, some of its frozen batches, or both.

        Args:
            params: As in the constructor; ``None`` keeps the operator's parameters.
            batches: Some of ``self.batches``, or parts of them; ``None`` keeps all. A mean loss is then the mean over
                these.
        """
        return type(self)(
            self.model,
            self.loss_fn,
            self.batches if batches is None else batches,
            list(self.parameters) if params is None else params,
            mode=self.mode,
            loss_style=self.loss_style,
            reduction=self.reduction,
            graph_budget=self.graph_budget,
            seed=self.seed,
        )

    def blocks(self: Kind) -> dict[str, Kind]:
        """The block of each parameter tensor by name, over the same frozen batches."""
        return {name: self.restricted(params=name) for name in self.parameters}

    def total_loss(self) -> float:
        """The loss at the model's weights as they are now, which may be infinite or NaN far from a trained model's."""
        return self._summed(self.batch_loss)

    def gradient(self) -> Tensor:
        """The flat gradient of the loss at the current weights, shape ``(n,)``."""
        return self.loss_and_gradient()[1]

    def loss_and_gradient(self) -> tuple[float, Tensor]:
        """`total_loss` and `gradient` in one pass over the data."""
        parameters = list(self.parameters.values())
        total, gradient = 0.0, torch.zeros(self.dim, dtype=self.dtype, device=self.device)
        with self.evaluation_point(), torch.enable_grad():
            for index in range(len(self.batches)):
                loss = self.batch_loss(index)
                total += float(loss.detach())
                if loss.requires_grad:
                    gradient += self.flatten(torch.autograd.grad(loss, parameters, materialize_grads=True))
        return total, gradient

    def evaluation_point(self) -> contextlib.AbstractContextManager[None]:
        """A block inside which the model is in the operator's mode, and after which nothing of it has changed.

        `batch_loss` and `output_loss` belong into such a block.
        """
        return evaluation_point(self.model, self.mode == "train")

    def batch_loss(self, index: int) -> Tensor:
        """The loss of one batch times its weight; the weights make the batches' losses add up to the total."""
        seed_torch(self.seed + index)
        content = self.batches[index].content
        if self.loss_style == "model_batch":
            return self._weighted(self.loss_fn(self.model, content), index)
        return self.output_loss(self.model(content[0]), index)

    def output_loss(self, outputs: Tensor, index: int) -> Tensor:
        """What `batch_loss` is at these outputs of the model, for batches ``(x, y)``."""
        return self._weighted(self._output_loss(outputs, self.batches[index].content[1]), index)

    def flatten(self, tensors: Iterable[Tensor]) -> Tensor:
        """One vector ``(n,)`` from tensors shaped like the parameters, in their order; without a graph."""
        return flatten(tensors)

    def unflatten(self, vector: Tensor) -> list[Tensor]:
        """The inverse of `flatten`; a batch of vectors ``(k, n)`` gives tensors with a leading axis."""
        return unflatten(vector, self.parameters.values())

    def _output_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if isinstance(self.loss_fn, nn.CrossEntropyLoss) or self.loss_fn is nn.functional.cross_entropy:
            check_labels(outputs, targets, getattr(self.loss_fn, "ignore_index", -100))
        return self.loss_fn(outputs, targets)

    def _weighted(self, loss: Tensor, index: int) -> Tensor:
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"loss_fn must return one number per batch (reduction 'mean' or 'sum'), got {shape}.")
        return loss.reshape(()) * (
            self._masses[index] / (sum(self._masses) or 1.0) if self.reduction == "mean" else 1.0
        )

    def _summed(self, loss_of: Callable[[int], Tensor]) -> float:
        with torch.no_grad(), self.evaluation_point():
            return math.fsum(torch.stack([loss_of(index) for index in range(len(self.batches))]).tolist())

    def _checked_loss(self) -> float:
        total = self._summed(self._first_loss)
        check_finite("the loss", torch.tensor(total), _DIVERGED)
        return total

    def _first_loss(self, index: int) -> Tensor:
        try:
            return self.batch_loss(index)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, IndexError, AttributeError) as error:
            found: list[str] = []
            map_tensors(self.batches[index].content, lambda t: found.append(f"{tuple(t.shape)} {t.dtype}"))
            raise ValueError(
                f"the loss of a batch of {', '.join(found)} cannot be computed: {error}. "
                f"The model's parameters are {self.dtype} on {self.device}."
            ) from error

    def __repr__(self) -> str:
        return f"{type(self).__name__}(dim={self.dim}, num_samples={self.num_samples}, loss={self.loss:.4g})"
