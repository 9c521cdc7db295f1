"""Networks of one architecture at other weights: whether they are, and their errors on test data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from renyi_lab._utils.interrupts import restoring
from renyi_lab.operators import HessianOperator

ROLES = ("a", "b", "third")


@restoring
def at(operator: HessianOperator, weights: Tensor) -> Iterator[None]:
    """The operator's own copy of the model has these weights inside the block."""

    def write(parts: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for parameter, part in zip(operator.parameters.values(), parts, strict=True):
                parameter.copy_(part)

    before = [parameter.detach().clone() for parameter in operator.parameters.values()]
    try:
        write(operator.unflatten(weights))
        yield
    finally:
        write(before)


def check_architectures(models: Sequence[nn.Module]) -> None:
    """Raise unless all are modules of one architecture that differ in trainable parameters only."""
    for name, model in zip(ROLES, models, strict=False):
        if not isinstance(model, nn.Module):
            raise TypeError(f"{name} must be a torch.nn.Module, got {type(model).__name__}.")
    first = models[0]
    for name, other in zip(ROLES[1:], models[1:], strict=False):
        if [(n, type(m), m.extra_repr()) for n, m in first.named_modules()] != [
            (n, type(m), m.extra_repr()) for n, m in other.named_modules()
        ]:
            raise ValueError(f"a and {name} are networks of different architectures, so no path connects them.")
        trainable, its_own = ({n for n, p in m.named_parameters() if p.requires_grad} for m in (first, other))
        if differing := sorted(trainable ^ its_own):
            raise ValueError(f"{differing[0]} is frozen in one of a and {name} only; freeze it in both, or in none.")
        own, its = first.state_dict(), other.state_dict()
        for key in own | its:
            if key not in own or key not in its or own[key].shape != its[key].shape or own[key].dtype != its[key].dtype:
                raise ValueError(
                    f"{key} differs in shape or dtype between a and {name}; constructed networks are widened with "
                    "neurons whose weights are zero."
                )
            if key not in trainable and not torch.equal(own[key].cpu(), its[key].cpu()):
                raise ValueError(
                    f"{key} is not trainable and differs between a and {name}: the path would not end there."
                )


def check_targets(test: HessianOperator) -> None:
    """Raise unless predictions can be right or wrong."""
    for index, batch in enumerate(test.batches):
        with test.evaluation_point(), torch.no_grad():
            outputs, targets = test.outputs(index), batch.content[1]
        if outputs.numel() == len(targets):
            fits = bool((targets.abs() == 1).all())
        else:
            fits = outputs.ndim == 2 and targets.ndim == 1 and not targets.is_floating_point()
        if not fits:
            raise ValueError(
                "test_data needs targets ±1 for a single output, or class labels (N,) for outputs (N, C); leave it out "
                "for other tasks."
            )


def error_at(test: HessianOperator, weights: Tensor) -> float:
    """Share of wrong predictions: the sign of a single output, of which 0 counts half, or the largest of several."""
    wrong, total = 0.0, 0
    with at(test, weights), test.evaluation_point(), torch.no_grad():
        for index, batch in enumerate(test.batches):
            outputs, targets = test.outputs(index), batch.content[1]
            if outputs.numel() == len(targets):
                share = (1 - outputs.reshape(-1).sign() * targets.reshape(-1)) / 2
            else:
                share = (outputs.argmax(dim=1) != targets).double()
            wrong, total = wrong + float(share.sum()), total + len(targets)
    return wrong / total
