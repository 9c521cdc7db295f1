"""Parameters and units on which the loss does not depend."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from renyi_lab.checks._finding import Finding, ok, warning
from renyi_lab.operators import HessianOperator

# Heuristics: in networks that train well, from usual initial weights, up to half of a layer's units were found dead,
# all with biases of the size of the others'.
_DEAD_SHARE, _FEWEST_DEAD = 0.5, 2
_OFF_SHARE, _OFF_BIAS = 0.25, 3.0  # for units whose biases are so many times as large as all others'
_WITHOUT_EFFECT = 0.5  # of the parameters outside embeddings, whose rows are those of the tokens in the data


def without_effect(H: HessianOperator, gradient: Tensor) -> Iterator[Finding]:
    """Findings on parameters whose gradient is zero on every sample, which only exact zeros add up to."""
    parts = dict(zip(H.parameter_names, H.unflatten(gradient), strict=True))
    unused = [name for name, part in parts.items() if not bool(part.any())]
    if len(unused) == len(parts):
        return
    yield _unused(H, parts, unused)
    yield _dead(H, parts)


def _unused(H: HessianOperator, parts: dict[str, Tensor], unused: list[str]) -> Finding:
    zero = sum(int((part == 0).sum()) for part in parts.values())
    share = f"{zero:,} of {H.dim:,} parameters have zero gradient on every sample"
    if unused:
        names = ", ".join(unused[:6]) + (f" and {len(unused) - 6} more" if len(unused) > 6 else "")
        return warning(
            "unused parameters",
            f"the loss does not depend on {names}: not used in the forward pass, detached, or behind units that are "
            f"zero; {share}. They are rows of zeros in the Hessian. Freeze or remove them, or find out why.",
        )
    embeddings = {name for name, _ in _parameters_of(H.model, (nn.Embedding, nn.EmbeddingBag))}
    others = [part for name, part in parts.items() if name not in embeddings]
    if sum(int((p == 0).sum()) for p in others) >= _WITHOUT_EFFECT * max(1, sum(p.numel() for p in others)):
        return warning(
            "unused parameters",
            f"{share}: the inputs of a layer are zero (dead units before it, features that are always zero). Entropies "
            "are those of the remaining parameters, and counts of directions are smaller than they seem.",
        )
    return ok("unused parameters", share)


def _parameters_of(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> Iterator[tuple[str, nn.Parameter]]:
    for prefix, module in model.named_modules():
        if isinstance(module, kinds):
            yield from module.named_parameters(prefix)


def _dead(H: HessianOperator, parts: dict[str, Tensor]) -> Finding:
    troubled, counts = [], []
    for prefix, module in H.model.named_modules():
        name = f"{prefix}.weight" if prefix else "weight"
        if not isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)) or name not in parts or not parts[name].any():
            continue
        if isinstance(module, nn.modules.conv._ConvTransposeNd):
            continue
        is_dead = ~parts[name].reshape(len(parts[name]), -1).bool().any(1)
        dead, units = int(is_dead.sum()), len(is_dead)
        counts.append((dead, units, f"{dead} of {units} units of {prefix or 'the layer'}"))
        many = dead >= _DEAD_SHARE * units or (dead >= _OFF_SHARE * units and _switched_off(module.bias, is_dead))
        if dead >= _FEWEST_DEAD and many:
            troubled.append(counts[-1][2])
    if troubled:
        return warning(
            "dead units",
            f"{'; '.join(troubled)} are dead: no sample has a gradient in their weights (ReLUs that are always zero, "
            "or units without an effect). Their rows of the Hessian are zero, which lowers entropies of small order. "
            "Train again with a lower learning rate or another initialization, or prune them.",
        )
    most = max(counts, key=lambda count: count[0] / count[1], default=(0, 0, ""))
    total = f"{sum(dead for dead, _, _ in counts)} of {sum(units for _, units, _ in counts)}"
    return ok("dead units", f"{total}; most of them in one layer: {most[2]}" if most[0] else total)


def _switched_off(bias: Tensor | None, is_dead: Tensor) -> bool:
    """Whether biases of the dead units are far larger than all others."""
    if bias is None:
        return False
    sizes = bias.detach().abs()
    return bool(sizes[is_dead].median() > _OFF_BIAS * sizes[~is_dead].max())
