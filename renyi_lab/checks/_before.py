"""Checks that need no derivative: weights, data, precision, frozen parameters, mode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from renyi_lab._utils.batches import Batch, tensors_in
from renyi_lab._utils.model_state import stochastic_layers
from renyi_lab.checks._batches import num_distinct, targets_of
from renyi_lab.checks._finding import Finding, ok, problem, warning

# All limits are heuristics. Trained networks have weights of a few units: standard initializations give a root mean
# square of 0.6 to 1.4 over the square root of the number of inputs, and training changes it by small factors.
_HUGE_WEIGHT = 30.0  # root mean square of a layer's weights times the square root of its number of inputs
_HUGE_ENTRY = 1e4  # of any other parameter
_FEWEST_SAMPLES, _FEW_SAMPLES = 10, 30
_DISTINCT = 0.5  # share of the samples


def before(model: nn.Module, batches: Sequence[Batch], mode: str) -> Iterator[Finding]:
    """Findings on a model and its data that need no derivative."""
    yield weights(model)
    yield precision(model)
    yield data(batches)
    yield samples(batches)
    yield frozen(model)
    yield in_mode(model, mode)


def weights(model: nn.Module) -> Finding:
    """Whether all weights and buffers are finite and of a usual size."""
    bad = [name for name, tensor in _state(model) if not bool(torch.isfinite(tensor).all())]
    if bad:
        return problem(
            "weights",
            f"NaN or infinity in {_listed(bad)}: the training diverged. Train again with a lower learning rate, or "
            "load "
            "weights from before.",
        )
    huge = list(_huge(model))
    if huge:
        return warning(
            "weights",
            f"huge weights in {_listed(huge)}: the training diverged, or is about to. Curvature at such a point says "
            "nothing about a trained network; train again with a lower learning rate or with weight decay.",
        )
    largest = max((float(p.detach().abs().max()) for p in model.parameters() if p.numel()), default=0.0)
    return ok("weights", f"all finite, the largest {largest:.3g}")


def _state(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and "num_batches" not in name and not _is_mask(name, tensor):
            yield name, tensor.detach()


def _is_mask(name: str, tensor: Tensor) -> bool:
    """A buffer of zeros and -inf, which is added to attention scores."""
    return not isinstance(tensor, nn.Parameter) and bool(((tensor == 0) | (tensor == -torch.inf)).all())


def _huge(model: nn.Module) -> Iterator[str]:
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(prefix, recurse=False):
            entries = parameter.detach().abs().float()
            if not entries.numel():
                continue
            linear = isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)) and entries.ndim > 1
            size = float(entries.pow(2).mean().sqrt()) * (entries[0].numel() ** 0.5 if linear else 1.0)
            if size > (_HUGE_WEIGHT if linear else _HUGE_ENTRY):
                yield f"{name} (root mean square {float(entries.pow(2).mean().sqrt()):.3g})"


def precision(model: nn.Module) -> Finding:
    """Whether weights are in single or double precision."""
    trainable = [p for p in model.parameters() if p.requires_grad and p.is_floating_point()]
    kinds = sorted({str(p.dtype).removeprefix("torch.") for p in trainable})
    half = [kind for kind in kinds if kind not in ("float32", "float64")]
    if half:
        return problem(
            "precision",
            f"weights in {', '.join(half)}: second derivatives overflow or vanish. Nothing was measured; use a copy in "
            "single precision, copy.deepcopy(model).float(), with inputs in float32.",
        )
    if len(kinds) > 1:
        return problem("precision", f"weights in {' and '.join(kinds)}; use one precision, such as model.float().")
    return ok("precision", f"weights in {kinds[0] if kinds else 'no floating-point format'}")


def data(batches: Sequence[Batch]) -> Finding:
    """Whether the data are finite, differ from each other, and have more than one target."""
    tensors = [t for batch in batches for t in tensors_in(batch.content) if _has_values(t)]
    bad = sum(int((t.isnan() | (t == torch.inf)).sum()) for t in tensors)
    if bad:
        return problem(
            "data",
            f"NaN or infinity in {bad:,} {'entry' if bad == 1 else 'entries'}. Find out why; remove or replace them.",
        )
    total, distinct = sum(batch.size for batch in batches), num_distinct(batches)
    targets = targets_of(batches)
    if targets is not None and total > 1 and bool((targets == targets.flatten()[0]).all()):
        return warning(
            "data",
            f"all targets are the same ({targets.flatten()[0].item():g}): there is nothing to learn, and the "
            "spectrum is "
            "not that of the task. Are the data sorted, or filtered too far?",
        )
    if distinct is not None and total > 1 and distinct < _DISTINCT * total:
        return warning(
            "data",
            f"only {distinct:,} of {total:,} samples are different: the sample is smaller than it seems. Remove "
            "duplicates, or count the different ones only.",
        )
    return ok("data", "finite, with different targets" if targets is not None else "finite")


def _has_values(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.layout == torch.strided


def samples(batches: Sequence[Batch]) -> Finding:
    """Whether there are enough samples to speak of a data set at all."""
    total = sum(batch.size for batch in batches)
    noun = "sample" if total == 1 else "samples"
    if total < _FEWEST_SAMPLES:
        return problem(
            "number of samples",
            f"{total} {noun}: the Hessian is that of these samples alone and says nothing about other data. Pass at "
            "least a few hundred.",
        )
    if total < _FEW_SAMPLES:
        return warning(
            "number of samples",
            f"only {total} samples: the spectrum of other samples may be very different. Pass a few hundred.",
        )
    return ok("number of samples", f"{total:,}")


def frozen(model: nn.Module) -> Finding:
    """Which part of the parameters the spectrum is of."""
    shared = [(n, p) for n, p in model.named_parameters() if p.numel()]
    trained = sum(p.numel() for _, p in shared if p.requires_grad)
    total = sum(p.numel() for _, p in shared)
    if trained < total:
        names = [name for name, p in shared if p.requires_grad]
        return warning(
            "frozen parameters",
            f"the spectrum is that of {trained:,} of {total:,} parameters ({_listed(names)}); the others are frozen. "
            "Claims are about this part, with the rest of the network fixed; compare only with spectra of the same "
            "part. For all, call model.requires_grad_(True) on a copy.",
        )
    return ok("frozen parameters", f"none; {total:,} trainable")


def in_mode(model: nn.Module, mode: str) -> Finding:
    """Whether dropout and batch norm are as they are at prediction."""
    layers = [name for name in (*stochastic_layers(model), *_hidden_dropout(model)) if _drops(model, name)]
    if mode == "train" and layers:
        return warning(
            "mode",
            f'mode="train" with dropout or batch norm in {_listed(layers)}: the Hessian is that of one draw of the '
            "dropout masks, and batch norm makes it depend on how the data are split into batches. For the network "
            'that predicts, use mode="eval".',
        )
    if mode == "eval" and (mixing := _without_statistics(model)):
        return warning(
            "mode",
            f"batch norm without running statistics in {_listed(mixing)}: outputs depend on what else is in the "
            "batch in "
            "evaluation mode too, so that the Hessian depends on how the data are split into batches. Use one batch, "
            "or layer norm, or track_running_stats=True.",
        )
    left = [name for name in layers if _training(model, name)]
    if left:
        kinds = _kinds(model, left)
        return warning(
            "mode",
            f"{kinds} left in training mode in {_listed(left)}. Everything here is measured in evaluation mode, but "
            "model(x) computes another function now; call model.eval() before you compare with its predictions.",
        )
    return ok("mode", "evaluation mode" if mode == "eval" else "training mode, without dropout and batch norm")


def _hidden_dropout(model: nn.Module) -> list[str]:
    """Layers that call dropout as a function."""
    kinds = (nn.MultiheadAttention, nn.RNNBase)
    return [name for name, module in model.named_modules() if isinstance(module, kinds) and module.dropout > 0]


def _drops(model: nn.Module, name: str) -> bool:
    return getattr(dict(model.named_modules()).get(name, model), "p", 1.0) > 0


def _without_statistics(model: nn.Module) -> list[str]:
    kind = nn.modules.batchnorm._BatchNorm
    return [name for name, module in model.named_modules() if isinstance(module, kind) and module.running_mean is None]


def _training(model: nn.Module, name: str) -> bool:
    modules = dict(model.named_modules())
    return bool(modules.get(name, model).training)


def _kinds(model: nn.Module, names: Sequence[str]) -> str:
    modules = dict(model.named_modules())
    norms = [isinstance(modules.get(name, model), nn.modules.batchnorm._BatchNorm) for name in names]
    return " and ".join([*(["dropout"] if not all(norms) else []), *(["batch norm"] if any(norms) else [])])


def _listed(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
