"""Which loss of torch a ``loss_fn`` is, with its settings, and what it averages over."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import _reduction
from torch.nn import functional as F

_FUNCTIONS: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.CrossEntropyLoss: F.cross_entropy,
    nn.NLLLoss: F.nll_loss,
    nn.MSELoss: F.mse_loss,
    nn.L1Loss: F.l1_loss,
    nn.SmoothL1Loss: F.smooth_l1_loss,
    nn.HuberLoss: F.huber_loss,
    nn.BCELoss: F.binary_cross_entropy,
    nn.BCEWithLogitsLoss: F.binary_cross_entropy_with_logits,
    nn.PoissonNLLLoss: F.poisson_nll_loss,
    nn.KLDivLoss: F.kl_div,
    nn.HingeEmbeddingLoss: F.hinge_embedding_loss,
    nn.SoftMarginLoss: F.soft_margin_loss,
    nn.MultiMarginLoss: F.multi_margin_loss,
    nn.MultiLabelMarginLoss: F.multilabel_margin_loss,
    nn.MultiLabelSoftMarginLoss: F.multilabel_soft_margin_loss,
}
_SETTINGS = ("reduction", "weight", "ignore_index")
# Of class labels or class probabilities; of every element of outputs shaped like the targets; of every row of these.
_OF_LABELS = (F.cross_entropy, F.nll_loss)
_OF_ROWS = (F.multilabel_margin_loss, F.multilabel_soft_margin_loss)
_OF_TARGETS = (F.multi_margin_loss,)
_OF_ELEMENTS = tuple(set(_FUNCTIONS.values()) - {*_OF_LABELS, *_OF_ROWS, *_OF_TARGETS})
# Their mean with element weights has the sum of these as its denominator.
_ELEMENT_WEIGHTED = (F.mse_loss, F.l1_loss, F.huber_loss)


@dataclass(frozen=True)
class TorchLoss:
    """A loss of torch, found under a module or partials of a function.

    Attributes:
        function: The loss in ``torch.nn.functional``.
        settings: What it is called with beside outputs and targets.
        exact: Whether it is that loss; a subclass with a ``forward`` of its own, or with hooks, may be another.
    """

    function: Callable[..., Tensor]
    settings: Mapping[str, Any]
    exact: bool = True

    @property
    def reduction(self) -> str:
        """``"mean"``, ``"sum"``, ``"none"`` or ``"batchmean"``."""
        return str(self.settings.get("reduction", "mean"))

    @property
    def of_labels(self) -> bool:
        """Whether targets are class labels (or class probabilities) and outputs class scores."""
        return self.function in _OF_LABELS

    @property
    def ignore_index(self) -> int | None:
        """The label that does not count; ``None`` where all do."""
        ignored: int | None = self.settings.get("ignore_index", -100 if self.of_labels else None)
        return ignored

    @property
    def class_weight(self) -> Tensor | None:
        """Weights of the classes by which the mean is normalised."""
        weight: Tensor | None = self.settings.get("weight") if self.of_labels else None
        return weight

    @property
    def same_shape(self) -> bool:
        """Whether outputs must have the shape of the targets; torch would broadcast some of them silently."""
        return self.function in _OF_ELEMENTS or self.function is F.multilabel_soft_margin_loss

    def denominator(self, targets: Tensor) -> float:
        """What the mean over a batch with these targets is a sum divided by."""
        if self.of_labels and not targets.is_floating_point():
            return self._label_mass(targets)
        if self.of_labels:  # probabilities: every position counts once, whatever the class weights
            return targets.numel() / (targets.shape[1] if targets.ndim > 1 else targets.shape[0])
        if self.reduction == "batchmean":
            return float(targets.shape[0])
        if self.function in _OF_ROWS:
            return targets.numel() / targets.shape[-1]
        return float(targets.numel())

    def _label_mass(self, labels: Tensor) -> float:
        if self.class_weight is None:
            return float(labels.numel() if self.ignore_index is None else (labels != self.ignore_index).sum())
        if self.ignore_index is not None:
            labels = labels[labels != self.ignore_index]
        weight = self.class_weight.detach().cpu().double()
        return float(weight[labels.cpu().clamp(0, len(weight) - 1)].sum())


# The loss of `train` and `evaluate` where none is given: no label is exempt.
PLAIN_CROSS_ENTROPY = TorchLoss(F.cross_entropy, {"ignore_index": None})


def torch_loss(loss_fn: Any) -> TorchLoss | None:
    """The loss of torch that ``loss_fn`` is, as a module, a function or a partial of either; ``None`` for others."""
    settings: dict[str, Any] = {}
    while (inner := _unwrapped(loss_fn)) is not None:
        if isinstance(loss_fn, functools.partial):
            if loss_fn.args:
                return None
            settings = {**loss_fn.keywords, **settings}
        loss_fn = inner
    if isinstance(loss_fn, nn.Module):
        base = next((kind for kind in type(loss_fn).__mro__ if kind in _FUNCTIONS), None)
        if base is None:
            return None
        own = {name: getattr(loss_fn, name) for name in _SETTINGS if hasattr(loss_fn, name)}
        return TorchLoss(_FUNCTIONS[base], own, not settings and _runs_as(loss_fn, base))
    if not any(loss_fn is function for function in _FUNCTIONS.values()) or {"input", "target"} & set(settings):
        return None
    if settings.get("weight") is not None and loss_fn in _ELEMENT_WEIGHTED:
        return None
    old = {name: settings.pop(name, None) for name in ("size_average", "reduce")}
    if any(value is not None for value in old.values()):
        settings["reduction"] = _reduction.legacy_get_string(**old, emit_warning=False)
    return TorchLoss(loss_fn, settings)


def _unwrapped(loss_fn: Any) -> Any:
    """What a partial, a compiled loss or a bound ``forward`` calls; ``None`` for others."""
    if isinstance(loss_fn, functools.partial):
        return loss_fn.func
    if isinstance(loss_fn, types.MethodType) and isinstance(loss_fn.__self__, nn.Module):
        called = (type(loss_fn.__self__).forward, type(loss_fn.__self__).__call__)
        return loss_fn.__self__ if loss_fn.__func__ in called else None
    return getattr(loss_fn, "_orig_mod", None) or getattr(loss_fn, "_torchdynamo_orig_callable", None)


def _runs_as(loss: nn.Module, base: type[nn.Module]) -> bool:
    kind, hooks = type(loss), (loss._forward_hooks, loss._forward_pre_hooks)
    return (
        kind.forward is base.forward
        and kind.__call__ is nn.Module.__call__
        and "forward" not in vars(loss)
        and not any(hooks)
    )
