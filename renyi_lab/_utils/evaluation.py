"""The point at which a model's loss is evaluated: one mode, one set of kernels, fixed seeds, and no side effects."""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from renyi_lab._utils.convolutions import fast_second_derivatives
from renyi_lab._utils.exclusive import exclusive
from renyi_lab._utils.gradient_hooks import no_new_hooks, suspended_hooks
from renyi_lab._utils.interrupts import restoring
from renyi_lab._utils.model_state import (
    affine_batch_norm,
    differentiable_twice,
    plain_kernels,
    training_flags,
    without_gradients,
)
from renyi_lab._utils.module_snapshot import ModuleSnapshot
from renyi_lab._utils.random import preserved_rng, seed_all


class EvaluationPoint:
    """What `evaluation_point` gives; every batch is to begin with `begin`.

    Args:
        start: The modules' state that each batch starts from.
    """

    def __init__(self, start: ModuleSnapshot) -> None:
        self._start = start

    def begin(self, seed: int) -> None:
        """Bring modules and global generators into the state that the batch with this ``seed`` starts from.

        The batch then has the same loss whichever batches were evaluated before it.
        """
        self._start.use_copies()
        seed_all(seed)


@restoring
def evaluation_point(
    model: nn.Module, training: bool, seed: int, others: Sequence[nn.Module] = (), *, twice: bool = True
) -> Iterator[EvaluationPoint]:
    """A context in which a loss is a function of the weights alone that autograd differentiates twice.

    Inside, the model is in the given mode, hooks on gradients are off, autocast is off, and only kernels are used that
    have a second derivative, unless ``twice=False``. On exit, also after an error, everything that a forward pass may
    change is as it was: buffers, attributes, counters, ``.grad``, flags and random states. Other Python threads wait
    until then.

    Args:
        model: The model; its training flags are set.
        training: Whether in training mode.
        seed: Random seed at the start.
        others: Further modules that the loss uses, such as itself; their flags stay.
        twice: Whether second derivatives are taken; if not, attention uses torch's fused kernels.

    Raises:
        RuntimeError: Inside ``torch.inference_mode()``.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError("derivatives are off inside torch.inference_mode(); leave it (torch.no_grad() is fine).")
    roots = nn.ModuleList([model, *others])
    modules, parameters = list(roots.modules())[1:], list(roots.parameters())
    with (
        preserved_rng(),
        _restored(modules, parameters),
        suspended_hooks(parameters, modules),
        no_new_hooks(),
        plain_kernels(model),
        full_precision(),
        training_flags(model, training),
        contextlib.ExitStack() as stack,
    ):
        _embed_without_side_effects(modules)
        if twice:
            for context in (differentiable_twice(), affine_batch_norm(model), fast_second_derivatives(model)):
                stack.enter_context(context)
        point = EvaluationPoint(ModuleSnapshot(modules))
        point.begin(seed)
        yield point


@restoring
def _restored(modules: Sequence[nn.Module], parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Restore the modules' state and ``.grad``, which is ``None`` inside, since a loss may call ``backward()``."""
    before = ModuleSnapshot(modules)
    with without_gradients(parameters):
        try:
            yield
        finally:
            before.restore()


@restoring
def full_precision() -> Iterator[None]:
    """Turn automatic mixed precision off, and arithmetic of float32 in fewer digits; restore all on exit.

    On a GPU convolutions and recurrent layers are computed in TF32 by default, with three decimal digits.
    """
    with exclusive(), contextlib.ExitStack() as stack:
        for device in ("cpu", "cuda", "mps", "xpu"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        before = [(settings, settings.fp32_precision) for settings in _float32_settings()]
        stack.callback(_restore, before)  # last: the older interface changes these as well
        with contextlib.suppress(RuntimeError):  # set through the newer interface, see below
            precision, tf32 = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
            if precision != "highest":
                torch.set_float32_matmul_precision("highest")
                stack.callback(torch.set_float32_matmul_precision, precision)
            if tf32:
                torch.backends.cudnn.allow_tf32 = False
                stack.callback(setattr, torch.backends.cudnn, "allow_tf32", tf32)
        for settings, _ in before:
            if settings.fp32_precision not in ("none", "ieee"):
                settings.fp32_precision = "ieee"
        yield


def _restore(before: Sequence[tuple[Any, str]]) -> None:
    for settings, precision in before:
        if settings.fp32_precision != precision:
            settings.fp32_precision = "none"  # inherits that of the backend
            if settings.fp32_precision != precision:
                settings.fp32_precision = precision


def _float32_settings() -> list[Any]:
    """Where torch keeps the precision of float32 for each backend and operation (torch 2.9 and later)."""
    backends: Any = torch.backends
    places = [(backends.cuda, "matmul"), (backends.cudnn, "conv"), (backends.cudnn, "rnn")]
    places += [(backends.mkldnn, name) for name in ("matmul", "conv", "rnn")]
    found = [getattr(backend, name, None) for backend, name in places]
    return [settings for settings in found if hasattr(settings, "fp32_precision")]


def _embed_without_side_effects(modules: Sequence[nn.Module]) -> None:
    """Let embeddings compute the function that they are; the modules' snapshot undoes the changes.

    With ``max_norm`` they overwrite the weights, unseen by autograd; with ``scale_grad_by_freq`` the gradient is not
    that of the loss.
    """
    plain = (nn.Embedding.forward, nn.EmbeddingBag.forward)
    for module in modules:
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            vars(module)["scale_grad_by_freq"] = False
            if module.max_norm is not None and type(module).forward in plain and "forward" not in vars(module):
                vars(module)["forward"] = functools.partial(_embedding, module)


def _embedding(layer: Any, *inputs: Any, **keywords: Any) -> Any:
    """The layer's own ``forward`` with rows of at most ``max_norm``, computed in differentiable form."""
    norm = functools.partial(torch.linalg.vector_norm, ord=layer.norm_type, dim=1, keepdim=True)
    with torch.no_grad():
        is_long = norm(layer.weight) > layer.max_norm
    rows = torch.where(is_long, layer.weight, 1.0)  # a norm has no second derivative at zero
    weight = torch.where(is_long, rows * (layer.max_norm / (norm(rows) + 1e-7)), layer.weight)  # 1e-7: as torch has it
    settings = {**vars(layer), "weight": weight, "max_norm": None}
    return type(layer).forward(types.SimpleNamespace(**settings), *inputs, **keywords)
