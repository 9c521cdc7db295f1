"""Evaluation of a model's loss, batch by batch, at one point and as a function of the weights alone."""

from __future__ import annotations

import contextlib
import copy
import math
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import disable_saved_tensors_hooks

from renyi_lab._utils.batches import Batch, map_tensors, tensors_in
from renyi_lab._utils.evaluation import EvaluationPoint, evaluation_point
from renyi_lab._utils.exclusive import exclusive
from renyi_lab._utils.interrupts import restoring
from renyi_lab._utils.masses import FIX, LossReduction
from renyi_lab._utils.model_state import same_values
from renyi_lab._utils.parameters import is_distributed
from renyi_lab._utils.random import generator_states, no_random_numbers, seed_torch
from renyi_lab._utils.ranks import agreed
from renyi_lab._utils.threads import AdaptiveThreads
from renyi_lab._utils.used_modules import modules_used
from renyi_lab._utils.validation import check_finite, check_number
from renyi_lab.operators._base import LinearOperator
from renyi_lab.operators._graph_nodes import coarsest_dtype, reason_to_refuse, runs_python
from renyi_lab.operators._loss_errors import (
    NOT_REENTRANT,
    REENTRANT,
    explained_loss,
    no_lost_gradients,
    reduced_precision,
)
from renyi_lab.operators._shards import Shards

Result = TypeVar("Result")

BACKWARD_ONLY = {  # nodes that support backward(), but not torch.autograd.grad
    "CheckpointFunctionBackward": f"{REENTRANT} cannot be differentiated twice; {NOT_REENTRANT}, or use "
    'HessianOperator(..., method="finite_difference")'
}
_NOT_ITS_GRADIENT = {
    "MatMul8bitLtBackward": "a layer of bitsandbytes rounds its inputs to eight bits, so that its gradient is not the "
    "derivative of what it computes; load the model without load_in_8bit"
}
_RANDOM_BACKWARD = (
    "random numbers are drawn during differentiation, so that parts of the model are computed anew with other dropout "
    "masks than before; use torch.utils.checkpoint with preserve_rng_state=True, its default."
)
_NO_LABELS = f" The mean over a batch whose labels are all ignored is NaN too. {FIX}."
_DIVERGED = "training diverged (lower the learning rate), or the inputs hold NaN or infinity."


class EvaluatedOperator(LinearOperator):
    """An operator of a model's loss, evaluated at one point; the base of `ModelOperator`, which sets the attributes.

    Attributes:
        model: The model.
        loss_fn: The loss.
        batches: The frozen batches.
        mode: ``"eval"`` or ``"train"``.
        seed: Random seed.
        loss_style: ``"output_target"`` or ``"model_batch"``.
    """

    model: nn.Module
    loss_fn: Callable[..., Tensor]
    batches: tuple[Batch, ...]
    mode: str
    seed: int
    loss_style: str
    _loss_reduction: LossReduction
    _threads: defaultdict[str, AdaptiveThreads]
    _point: EvaluationPoint | None = None
    _recomputes = False  # whether differentiation runs parts of the forward pass again
    _draws = False  # whether random numbers are drawn, with or without an effect on the loss
    _shards: Shards | None = None  # of a model whose weights are sharded over processes
    _num_before = 0  # batches of the ranks before this one, so that each batch has draws of its own
    _num_extra_passes = 0  # without weight, where other processes have more batches
    _twice = True  # whether second derivatives are taken
    _copies_inputs = True  # since a forward pass changes its inputs in place
    _coarsest: torch.dtype | None = None  # a type of less precision than the weights', in parts of the model
    _given: list[Tensor] | None = None  # copies of a batch, to see whether it does

    @property
    def eps(self) -> float:
        """Relative rounding error of a product: that of the least precise type that model and loss compute in."""
        return torch.finfo(self._coarsest or self.dtype).eps

    @abstractmethod
    def batch_loss(self, index: int) -> Tensor:
        """The weighted loss of one batch; with the weights the batches' losses add up to the total loss."""

    @restoring
    def evaluation_point(self) -> Iterator[None]:
        """A context in which the model is in the operator's mode; its state is restored on exit.

        `batch_loss`, `outputs` and `output_loss` are to be called inside, with gradients enabled, since a model or loss
        may itself differentiate.
        """
        with self._evaluation(self.mode == "train"):
            yield

    @restoring
    def _evaluation(self, training: bool) -> Iterator[None]:
        outer = self._point
        if self._shards is not None:
            self._shards.reshard()
        with evaluation_point(self.model, training, self.seed, self._roots[1:], twice=self._twice) as point:
            self._point = point
            try:
                yield
            finally:
                self._point = outer
                if self._shards is not None:
                    self._shards.reshard()

    def differentiation(self) -> contextlib.AbstractContextManager[None]:
        """A context for `torch.autograd.grad`, which refuses parts of a model that are computed anew at random."""
        return no_random_numbers(_RANDOM_BACKWARD) if self._recomputes else contextlib.nullcontext()

    @property
    def _roots(self) -> list[nn.Module]:
        """The model, and the modules that the loss uses beside it."""
        used = modules_used(self.loss_fn)
        inside = set(self.model.modules()) if used else set()
        return [self.model, *(module for module in used if module not in inside)]

    def _begin(self, index: int) -> None:
        """Start a batch from the same state of modules and random numbers each time."""
        if self._shards is not None:
            self._shards.reshard()
        seed = self.seed + self._num_before + index
        if self._point is None:
            seed_torch(seed)
        else:
            self._point.begin(seed)

    def _content(self, index: int) -> Any:
        """A batch for one evaluation: new tensors, which a loss may set ``requires_grad`` on, or change in place."""
        if not self._copies_inputs:
            return map_tensors(self.batches[index].content, Tensor.detach)
        copied = map_tensors(self.batches[index].content, lambda tensor: tensor.detach().clone())
        if self._given is not None:
            self._given += tensors_in(copied)
        return copied

    def _fresh_batch(self, index: int) -> Batch:
        return Batch(self._content(index), self.batches[index].size)

    @property
    def _fresh_model(self) -> Any:
        """The model for checks that evaluate it outside of `batch_loss`: from the same state each time."""
        if self.loss_style == "model_batch":
            return self.model

        def model(inputs: Any) -> Any:
            self._begin(0)
            return self.model(inputs)

        return model

    def _fresh_loss(self, *inputs: Any) -> Tensor:
        """The loss for the same checks."""
        self._begin(0)
        return self.loss_fn(*inputs)

    def agreed(self) -> contextlib.AbstractContextManager[None]:
        """A context for what each rank of the process group computes from its own data: where one fails, all raise."""
        return agreed(self.ranks)

    def sum_over_ranks(self, number: float) -> float:
        """The sum of a number, NaN included, over the ranks of the process group; without one, the number."""
        checked = check_number("number", number)
        return checked if self.ranks is None else self.ranks.sum(checked)

    def _summed(self, loss_of: Callable[[int], Tensor]) -> float:
        with self.agreed():
            own = self._own_sum(loss_of)
        return self.sum_over_ranks(own)

    def _own_sum(self, loss_of: Callable[[int], Tensor]) -> float:
        # With gradients, since a loss may differentiate inside, and since kernels may depend on it.
        with torch.enable_grad(), self.evaluation_point(), self._threads["loss"].run():
            return self._total([loss.detach() for loss in self._passes(loss_of)])

    def _passes(self, loss_of: Callable[[int], Tensor]) -> Iterator[Tensor]:
        """The losses of all batches; where other processes have more, passes without weight."""
        yield from map(loss_of, range(len(self.batches)))
        for _ in range(self._num_extra_passes):
            yield 0 * loss_of(0)

    def _total(self, losses: Sequence[Tensor]) -> float:
        total = math.fsum(torch.stack(list(losses)).tolist()) if losses else 0.0
        return total if self._shards is None else self._shards.sums(total)[0]

    @exclusive()
    def _checked_loss(self) -> float:
        with self.agreed():
            own = self._checked_own_loss()
        total = self.sum_over_ranks(own)
        if self.ranks is not None:  # a rank without data has not seen the model compute
            found = [dtype for dtype in self.ranks.gather(self._coarsest) if dtype is not None]
            self._coarsest = max(found, key=lambda dtype: torch.finfo(dtype).eps, default=None)
        if not math.isfinite(total):
            assumed = self._loss_reduction.assumed and self._loss_reduction.kind == "mean"
            causes = _DIVERGED + (_NO_LABELS if assumed else "")
            check_finite("the loss", torch.tensor(total, device="cpu"), causes)
        return total

    def _checked_own_loss(self) -> float:
        self._copies_inputs, self._alters_inputs, self._given, self._recomputes = True, False, [], False
        with _kept_weights(self.model) as changed:
            total = self._own_sum(self._first_loss)
            self._copies_inputs = self._alters_inputs
        self._given = None
        if changed:
            raise ValueError(
                f"the forward pass changes the weights (parameter {changed[0]!r}), so that the loss is not a "
                "function of them; change the weights outside, before the operator is made."
            )
        return total

    def _first_loss(self, index: int) -> Tensor:
        """As `batch_loss`, with checks that are made once."""
        self._begin(index)
        self._given = []
        states = generator_states() if index == 0 else []
        with (
            no_lost_gradients(),
            explained_loss(self.batches[index], self.loss_style, f"{self.dtype} on {self.device}"),
        ):
            loss = self._noted(self.batch_loss, index)
            self._recomputes |= runs_python([loss])  # a `torch.autograd.Function` may compute anything
        if index == 0:
            self._draws = generator_states() != states
        self._check_graph(loss)
        self._alters_inputs |= any(tensor._version for tensor in self._given)
        return loss

    def _noted(self, compute: Callable[[int], Result], index: int) -> Result:
        """``compute(index)``, noting whether differentiation will run parts of the forward pass again.

        Activation checkpointing saves tensors through hooks; a model may turn it on later, or for some batches only.
        """
        if self._recomputes:
            return compute(index)
        try:
            with disable_saved_tensors_hooks("noted by the operator"):
                return compute(index)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # for this reason, or for another one that will be met again
            self._recomputes = True
            self._begin(index)
            return compute(index)

    def _depends_on_seed(self) -> bool:
        """Whether the first batch has another loss under another seed."""
        other = copy.copy(self)
        other.seed = self.seed + 1
        losses = []
        for operator in (self, other):
            with torch.enable_grad(), operator.evaluation_point():
                losses.append(operator.batch_loss(0).detach())
        return not torch.equal(*losses)

    def _check_graph(self, loss: Tensor) -> None:
        if self._twice and (reason := reason_to_refuse(BACKWARD_ONLY, [loss])):
            raise ValueError(reason + ".")
        if reason := reason_to_refuse(_NOT_ITS_GRADIENT, [loss]):
            raise ValueError(reason + ".")
        dtype = coarsest_dtype([loss])
        if dtype is None or torch.finfo(dtype).eps <= torch.finfo(self._coarsest or self.dtype).eps:
            return
        if torch.finfo(dtype).eps > torch.finfo(torch.float32).eps:
            raise ValueError(reduced_precision(dtype, self.model))
        self._coarsest = dtype


@restoring
def _kept_weights(model: nn.Module) -> Iterator[list[str]]:
    """Restore the weights on exit; the list then names those that the block has changed."""
    weights = [(name, p, p.detach().clone()) for name, p in model.named_parameters() if not is_distributed(p)]
    changed: list[str] = []
    try:
        yield changed
    finally:
        for name, parameter, before in weights:
            if not same_values(parameter.detach(), before):
                parameter.data.copy_(before)
                changed.append(name)
