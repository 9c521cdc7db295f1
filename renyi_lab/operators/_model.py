"""What every curvature operator of a model shares: frozen batches, selected parameters, and a checked loss."""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from renyi_lab._utils.batches import Batch, freeze_batches, split_batches, tensors_in
from renyi_lab._utils.broadcasting import check_pair
from renyi_lab._utils.masses import BatchMass, LossReduction
from renyi_lab._utils.model_state import stochastic_layers, unwrap_model
from renyi_lab._utils.parameter_blocks import BlockSelection, block_parameters
from renyi_lab._utils.parameters import ParameterBlock, ParameterSelection, flatten, split
from renyi_lab._utils.ranks import Ranks, agreed, checksum
from renyi_lab._utils.threads import AdaptiveThreads
from renyi_lab._utils.validation import (
    check_choice,
    check_instance,
    check_int,
    check_loss_fn,
    check_real,
    is_iterable,
    printed,
    shown,
)
from renyi_lab.operators._cost import Cost, measure_cost
from renyi_lab.operators._evaluated import EvaluatedOperator
from renyi_lab.operators._loss_errors import coarse_parts
from renyi_lab.operators._micro_batches import check_batches, refuse_mixed_samples
from renyi_lab.operators._rank_checks import agreed_style, check_ranks, device_of
from renyi_lab.operators._weighted_batches import WeightedBatches, choose_loss_style

Kind = TypeVar("Kind", bound="ModelOperator")


class ModelOperator(EvaluatedOperator):
    r"""A curvature matrix of a model's loss over a data set, as an operator.

    The data are frozen into batches at construction, so that every product is one with the same matrix: that of the
    model's current weights, which are looked up by name. Training flags, buffers, attributes, ``.grad`` and random
    states are restored after every use, also after errors and interrupts.

    The matrix is that of the loss as a function of the weights: hooks on gradients are not called, automatic mixed
    precision and TF32 are off, random numbers are fixed by ``seed``, and an embedding's ``max_norm`` is a part of the
    function.

    Args:
        model: Any module; wrappers of ``torch.compile`` and of data-parallel training are removed.
        loss_fn: ``loss_fn(model(x), y)`` for batches ``(x, y)``, where ``y`` is one tensor and ``x`` a tensor or a
            list, tuple, dictionary or object of tensors, which the model gets as it is; ``loss_fn(model, batch)`` for
            all other batches (dictionaries, longer tuples, dataclasses, graphs); see ``loss_style``.
        data: ``(x, y)``, a data set, a DataLoader, or an iterable of batches. Tensors are copied, detached and moved to
            the model's device, inside containers and objects too.
        params: ``None`` for all trainable parameters; or names, globs of names of parameters or modules
            (``"*.weight"``, ``"h.*.attn"``), modules, parameters: the matrix of that block alone. Frozen parameters are
            skipped.
        mode: ``"eval"`` (default: dropout off, batch norm uses its running statistics) or ``"train"``.
        loss_style: ``"output_target"`` or ``"model_batch"``; ``None`` chooses by the batches as described for
            ``loss_fn``.
        reduction: ``"mean"`` when ``loss_fn`` averages over a batch (batches are then weighted by their mass, see
            ``batch_mass``) or ``"sum"`` when it adds up. ``None`` uses that of a loss of torch, under partials too, and
            ``loss_fn.reduction`` where there is one, else ``"mean"``.
        batch_mass: The denominator of a batch's mean loss, as a function of the batch as ``data`` holds it; batches
            without mass are skipped. ``None``: for the losses of torch, modules, functions and partials of these, it is
            known (labels that are not ignored, their class weights, elements); other losses are taken to average over
            samples, which is checked where there are several batches. For a language model with padding:
            ``batch_mass=lambda batch: (batch["labels"][:, 1:] != -100).sum()``.
        graph_budget: Memory for kept graphs in bytes; ``None``: a quarter of the free memory. Graphs of the remaining
            batches are recomputed at each product (one more gradient), so results do not depend on it. A first product
            outside of `unchanged` keeps the first batch's graph and up to 4 MB, and the second one the others.
        micro_batch_size: Split larger batches into parts of this many samples, for models whose single batch exceeds
            memory; on a CPU also for speed, since smaller graphs fit its caches better (measured: up to a quarter, for
            4000 samples of `cnn1d` in parts of 1000).
        seed: Random seed for everything random in the model or loss, such as dropout masks in ``mode="train"``. Each
            batch has draws of its own.
        process_group: Ranks of torch.distributed (``torch.distributed.group.WORLD``) among which the data are shared:
            each makes the operator with ``data`` of its own, ragged or empty ones too, and the same of everything else,
            and takes part in every product. The matrix is that of all data; losses, gradients, products and numbers of
            samples are sums over the ranks. Where one rank fails, all raise.

    Attributes:
        parameters: The selected parameters by name, in the order of the flat vector; those that the model has now.
        batches: The frozen batches, without those of mass 0.
        num_samples: Number of samples in all batches, those of mass 0 included.
        total_mass: Denominator of the mean over all data, the sum of the batches' masses; the number of samples for a
            sum.
        loss: The loss at construction; `total_loss` is that at the current weights.

    Raises:
        ValueError: Empty data, no (trainable) parameters, unknown names, labels out of range, a loss that is not
            finite, half precision in the parameters or inside the model, a forward pass that changes the weights;
            outputs and targets of shapes that the loss would broadcast; a loss over several batches that does not
            average over samples, without ``batch_mass``; every label ignored. Later: parameters that have been removed,
            frozen, moved or cast.
        TypeError: ``model``, ``data`` or ``loss_fn`` of an unsupported type.
    """

    _warning_level: ClassVar[int] = 2  # from the constructor to its caller
    _checks_symmetry = False  # second derivatives commute; blocks that are zero up to rounding would not pass

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
        batch_mass: BatchMass | None = None,
        process_group: Any = None,
    ) -> None:
        self.ranks = None if process_group is None else Ranks(process_group, device_of(model))
        self._threads = defaultdict[str, AdaptiveThreads](AdaptiveThreads)  # by what is computed
        with self.agreed():
            self.model = unwrap_model(model, allow_sharded=not self._twice)
            check_loss_fn(loss_fn)
            self.loss_fn = loss_fn
            self._block = ParameterBlock(self.model, params)
            super().__init__(self._block.dim, self._block.dtype, self._block.device)
            self.mode = check_choice("mode", mode, ("eval", "train"))
            self.seed = check_int("seed", seed, 0)
            if graph_budget is not None:
                check_real("graph_budget", graph_budget, 0)
            self.graph_budget = graph_budget
            if micro_batch_size is not None:
                check_int("micro_batch_size", micro_batch_size)
            frozen = freeze_batches(data, self.device, may_be_empty=self.ranks is not None)
            self.loss_style = choose_loss_style(frozen, loss_style)
        if self.ranks is not None:
            self.loss_style = agreed_style(self.ranks, self.loss_style, bool(frozen))
        with self.agreed():
            of_outputs = self.loss_style == "output_target"
            self._loss_reduction = LossReduction(loss_fn, reduction, batch_mass, of_outputs=of_outputs)
            self.reduction = check_choice("reduction", self._loss_reduction.kind, ("mean", "sum"))
            parts = split_batches(frozen, micro_batch_size)
        if self.ranks is not None:
            settings = {
                "operators": type(self).__name__,
                "methods": "double_backward" if self._twice else "finite_difference",
                "parameters": {name: tuple(shape) for name, shape in self._block.shapes.items()},
                "dtypes": str(self.dtype),
                "modes": self.mode,
                "seeds": self.seed,
                "reductions": self.reduction,
                "ignored labels": self._loss_reduction.ignored,
            }
            check_ranks(self.ranks, self._roots, frozen, settings, self._loss_reduction)
        self._set_batches(parts)
        layers = stochastic_layers(self.model) if self.mode == "train" else []
        if layers:
            warnings.warn(
                f'mode="train" with dropout or batch norm ({", ".join(layers[:4])}): masks are fixed by '
                f"seed={self.seed}, and batch statistics depend on how the data are split into batches.",
                stacklevel=self._warning_level,
            )
        self.loss = self._checked_loss()
        if self._coarsest:
            warnings.warn(coarse_parts(self.dtype, self._coarsest), stacklevel=self._warning_level)
        if self._shards is None:  # the number of forward passes depends on the data
            with self.agreed(), self._evaluation(training=False):
                cut_into = micro_batch_size if len(parts) > len(frozen) else None
                copies = self._fresh_model, self._fresh_loss, self._fresh_batch
                several = self._weighted_batches.several
                check_batches(*copies, len(self.batches), self._loss_reduction, cut_into, several=several)
        with self.agreed():  # a rank without data does not warn
            if self._draws and not layers and self.batches and self._depends_on_seed():
                warnings.warn(
                    f'the model or the loss draws random numbers in mode="{self.mode}": they are fixed by '
                    f"seed={self.seed}, and depend on how the data are split into batches.",
                    stacklevel=self._warning_level,
                )

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The selected parameters by name, in the order of the flat vector; those that the model has now.

        Raises:
            ValueError: One has been removed, frozen, tied, moved, cast or reshaped since construction.
        """
        return self._block.of(self.model)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Names of the selected parameters, in the order of the flat vector."""
        return self._block.names

    @property
    def precision(self) -> str:
        """The arithmetic of losses and products, such as ``"float32 on cuda:0"``.

        It is that of the weights: automatic mixed precision and TF32 are off while anything is computed. Where the
        model or the loss itself casts to a coarser type, it says so.
        """
        known = f"{str(self.dtype).removeprefix('torch.')} on {self.device}"
        return f"{known}, partly in {str(self._coarsest).removeprefix('torch.')}" if self._coarsest else known

    @property
    def num_frozen(self) -> int:
        """Number of entries of the model's frozen parameters, which are not part of any Hessian."""
        return sum(parameter.numel() for parameter in self.model.parameters() if not parameter.requires_grad)

    @property
    def num_counted(self) -> int:
        """Number of samples in the batches, without those whose labels are all ignored by ``loss_fn``."""
        with self.agreed():
            own = sum(self._loss_reduction.num_counted(batch) for batch in self.batches)
        return int(self.sum_over_ranks(own))

    def restricted(self: Kind, params: ParameterSelection = None, batches: Sequence[Batch] | None = None) -> Kind:
        """The same operator for some of its parameters, some of its batches, or both.

        Args:
            params: Some of the operator's parameters, selected as in the constructor; ``None`` keeps all.
            batches: Some of ``self.batches``, or parts of them; ``None`` keeps all. A mean loss is then the mean over
                these, evaluated once for its check.

        Raises:
            ValueError: A parameter that is not one of the operator's, no batches, or a loss that is not finite.
        """
        part = copy.copy(self)
        part.num_matvecs = 0
        part._threads = defaultdict(AdaptiveThreads)
        if params is not None:
            part._block = ParameterBlock(self.model, params)
            if outside := [name for name in part.parameter_names if name not in self.parameter_names]:
                known = ", ".join(self.parameter_names)
                raise ValueError(f"{printed(outside[0])} is not among the operator's parameters {known}.")
            part.dim = part._block.dim
        if batches is not None:
            with self.agreed():
                frozen = freeze_batches(batches, self.device, may_be_empty=self.ranks is not None)
            part._set_batches(frozen)
            part.loss = part._checked_loss()
        return part

    def blocks(self: Kind, pattern_or_modules: BlockSelection = None) -> dict[str, Kind]:
        """Diagonal blocks of the matrix by name, over the same frozen batches.

        Args:
            pattern_or_modules: What makes up a block. ``None``: each parameter tensor. A name or glob, such as
                ``"h.*.attn"``: each module or parameter that it matches, by its name; what lies inside a matched module
                is part of that block. A module or parameter: that one. A list of these: one block for each entry. A
                mapping ``{name: params}``: blocks of these names, selected as in the constructor. Blocks hold those of
                the operator's parameters that are inside; a tied weight belongs to each module that uses it, and blocks
                may overlap.

        Raises:
            ValueError: Nothing is matched, or none of the operator's parameters is inside.
            TypeError: Something else than names, modules, parameters, a list or a mapping of these.

        Example:
            >>> import renyi_lab
            >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
            >>> H = renyi_lab.HessianOperator(model, torch.nn.MSELoss(), (torch.ones(4, 2), torch.zeros(4, 1)))
            >>> {name: block.dim for name, block in H.blocks().items()}
            {'0.weight': 6, '0.bias': 3, '2.weight': 3, '2.bias': 1}
            >>> {name: block.dim for name, block in H.blocks("*").items()}
            {'0': 9, '2': 4}
            >>> {name: block.dim for name, block in H.blocks({"weights": "*.weight", "last": model[2]}).items()}
            {'weights': 9, 'last': 4}
        """
        found = block_parameters(self.model, self.parameter_names, pattern_or_modules)
        return {name: self.restricted(params=names) for name, names in found.items()}

    def estimate_cost(
        self,
        num_matvecs: int = 200,
        *,
        basis: str = "device",
        basis_dtype: torch.dtype | None = None,
        reorthogonalize: str = "full",
    ) -> Cost:
        """How long a spectrum from so many products takes, and how much memory, from a few products that are timed.

        They are made with a copy, so that `num_matvecs` and kept graphs of this operator stay as they are. It takes
        three to eight products, those after the second for at most about a second. Times hold for a machine as busy
        as it is now.

        Args:
            num_matvecs: Number of products, as in `estimate_spectrum`; so are the others.
            basis: Where the vectors are kept.
            basis_dtype: Data type in which they are kept.
            reorthogonalize: ``"full"`` or ``"none"``, which keeps none.

        Returns:
            A `Cost`; its representation is such as ``200 products: about 12 s (10 s to 16 s); 310 MB``.

        Raises:
            ValueError: ``num_matvecs < 1``, or another argument is unknown.
        """
        check_int("num_matvecs", num_matvecs)
        check_choice("basis", basis, ("device", "cpu", "sharded"))
        kept = check_choice("reorthogonalize", reorthogonalize, ("full", "none")) == "full"
        if basis_dtype is not None and not (isinstance(basis_dtype, torch.dtype) and basis_dtype.is_floating_point):
            raise TypeError(f"basis_dtype must be a dtype such as torch.bfloat16, got {shown(basis_dtype)}.")
        sharing = self.vector_ranks if basis == "sharded" else None
        shared_by = 1 if sharing is None else sharing.size
        per_entry = kept * torch.finfo(basis_dtype or self.dtype).bits / 8 / shared_by
        part = self.restricted()
        data = [tensor for batch in self.batches for tensor in tensors_in(batch.content)]
        held = {id(tensor): tensor.nbytes for tensor in (*self.model.parameters(), *self.model.buffers(), *data)}
        return measure_cost(part, num_matvecs, sum(held.values()), part._graph_bytes, per_entry)

    def _graph_bytes(self) -> int:
        """Bytes of kept graphs and of the intermediate results of one batch."""
        return 0

    def total_loss(self) -> float:
        """The loss at the current weights; may be infinite or NaN when these are far from trained ones."""
        return self._summed(self.batch_loss)

    def gradient(self) -> Tensor:
        """The flat gradient of the loss at the current weights, shape ``(n,)``."""
        return self.loss_and_gradient()[1]

    def loss_and_gradient(self) -> tuple[float, Tensor]:
        """`total_loss` and `gradient` in one pass over the data."""
        parameters = list(self.parameters.values())
        losses, gradient = [], torch.zeros(self.dim, dtype=self.dtype, device=self.device)
        with (
            agreed(self.ranks, lambda: checksum(*parameters), "weights"),
            self.evaluation_point(),
            torch.enable_grad(),
            self._threads["gradient"].run(),
        ):
            for loss in self._passes(self.batch_loss):
                losses.append(loss.detach())
                if loss.requires_grad:
                    with self.differentiation():
                        parts = self._gradient_of(loss, parameters)
                    gradient += self.flatten(parts)
            own = self._total(losses)
        total = self.sum_over_ranks(own)
        return total, gradient if self.ranks is None else self.ranks.sum_(gradient)

    def _gradient_of(self, loss: Tensor, parameters: Sequence[Tensor]) -> Sequence[Tensor]:
        return torch.autograd.grad(loss, parameters, materialize_grads=True)

    def batch_loss(self, index: int) -> Tensor:
        """The weighted loss of one batch; with the weights the batches' losses add up to the total loss."""
        if self.loss_style == "output_target":
            return self.output_loss(self.outputs(index), index)
        self._begin(index)
        return self._weighted_batches.weighted(self.loss_fn(self.model, self._content(index)), index)

    def outputs(self, index: int) -> Any:
        """The model's outputs for one batch ``(x, y)``, with the dropout masks of that batch in ``mode="train"``."""
        self._begin(index)
        return self.model(self._content(index)[0])

    def output_loss(self, outputs: Tensor, index: int) -> Tensor:
        """The weighted loss of one batch ``(x, y)`` as a function of the model's outputs."""
        targets = self._content(index)[1]
        check_pair(self.loss_fn, outputs, targets, self._loss_reduction)
        return self._weighted_batches.weighted(self.loss_fn(outputs, targets), index)

    def flatten(self, tensors: Iterable[Tensor]) -> Tensor:
        """One detached vector ``(n,)`` from tensors shaped like the parameters; any leading axes are kept."""
        if isinstance(tensors, (str, Tensor)) or not is_iterable(tensors):
            raise TypeError(f"tensors must be tensors shaped like the parameters, got {type(tensors).__name__}.")
        parts = [check_instance("each of tensors", tensor, Tensor) for tensor in tensors]
        shapes = list(self._block.shapes.values())
        if [part.shape[part.ndim - len(shape) :] for part, shape in zip(parts, shapes, strict=False)] != shapes:
            raise ValueError(f"tensors must have the shapes {[*map(tuple, shapes)]} after any leading axes.")
        return flatten(parts, parts[0].ndim - len(self._block.shapes[self.parameter_names[0]]))

    def unflatten(self, vector: Tensor) -> list[Tensor]:
        """The inverse of `flatten`: tensors shaped like the parameters, after any leading axes of ``vector``."""
        check_instance("vector", vector, Tensor)
        if vector.ndim == 0 or vector.shape[-1] != self.dim:
            raise ValueError(f"vector must have {self.dim} entries in its last axis, got {tuple(vector.shape)}.")
        return split(vector, list(self._block.shapes.values()))

    def _set_batches(self, batches: Sequence[Batch]) -> None:
        self._weighted_batches = found = WeightedBatches(batches, self._loss_reduction, self.ranks)
        self.batches, self.num_samples, self.total_mass = found.batches, found.num_samples, found.total_mass
        self._num_before = found.num_before

    def check_samples(self, name: str) -> None:
        """Raise unless the first dimension of the data is that of samples, so that some of them may be taken.

        Args:
            name: The argument that asks for a subset, for the message.

        Raises:
            ValueError: The model's outputs for a part of a batch ``(x, y)`` differ from those for the whole.
        """
        check_instance("name", name, str)
        if self.loss_style == "output_target":
            # A model may differentiate inside.
            with self.agreed(), torch.enable_grad(), self._evaluation(training=False):
                if not self.batches:
                    return
                inputs = self._content(0)[0]
                refuse_mixed_samples(self._fresh_model, inputs, f"{name} takes some of the samples")

    def __repr__(self) -> str:
        mean = self._loss_reduction.describe(self.total_mass, self.num_samples)
        known = f"dim={self.dim}, num_samples={self.num_samples}, loss={self.loss:.4g}"
        return f"{type(self).__name__}({known}, {self.precision}, {mean})"
