"""Many small MLPs trained at once: each parameter is one tensor with the models along its first axis.

A step of all costs less than half of separate steps on a CPU, where a small network's time is mostly overhead. SGD,
Adam, AdamW and RMSprop act on each entry alone, so one optimizer steps all models that share its settings;
`each_model` makes a sharpness-aware class of the package perturb each model by itself, with its own ρ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from renyi_lab import models
from renyi_lab.optim import SharpnessAware
from renyi_lab.optim._vectors import shorten_


class ManyMLPs:
    """MLPs of the same widths, one for each seed, and their stacked parameters."""

    def __init__(self, widths: Sequence[int], seeds: Sequence[int]) -> None:
        self.models = [models.mlp(*widths, seed=seed) for seed in seeds]
        stacks = zip(*(model.parameters() for model in self.models), strict=True)
        self.parameters = [torch.stack([p.detach() for p in stack]).requires_grad_() for stack in stacks]

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The sum of all models' mean losses; ``x``: (models, samples, features), ``y``: (models, samples)."""
        *hidden, last = zip(self.parameters[::2], self.parameters[1::2], strict=True)
        for weight, bias in hidden:
            x = torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2)).relu()
        logits = torch.baddbmm(last[1].unsqueeze(1), x, last[0].transpose(1, 2))
        return nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum") / y.shape[1]

    def train(self, optimizer: torch.optim.Optimizer, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """One step for each batch."""
        for x, y in batches:

            def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
                optimizer.zero_grad()
                loss = self.loss(x, y)
                loss.backward()
                return loss

            optimizer.step(closure)

    def trained(self) -> list[nn.Sequential | None]:
        """The models with their trained weights; ``None`` in place of one that is not finite."""
        found = []
        for index, model in enumerate(self.models):
            with torch.no_grad():
                for own, stack in zip(model.parameters(), self.parameters, strict=True):
                    own.copy_(stack[index])
            found.append(model if all(bool(p.isfinite().all()) for p in model.parameters()) else None)
        return found


def each_model(kind: type[SharpnessAware], rhos: Sequence[float], max_norm: float | None = None) -> Any:
    """A subclass of ``kind`` that perturbs each model along the first axis by itself, by its own ρ."""

    class Each(kind):
        def perturbation(self, grads: list[Tensor], params: list[Tensor], groups: list[dict]) -> list[Tensor]:
            parts = []
            for index, rho in enumerate(rhos):
                own_groups = [{**group, "rho": rho} for group in groups]
                part = super().perturbation([g[index] for g in grads], [p[index] for p in params], own_groups)
                shorten_(part, max_norm)
                parts.append(part)
            return [torch.stack(same) for same in zip(*parts, strict=True)]

    return Each


def chunks_by(key: Callable[[Any], Any], size: int) -> Callable[[list[Any]], list[list[Any]]]:
    """A function that cuts runs into chunks that share ``key``, of at most ``size``."""

    def cut(runs: list[Any]) -> list[list[Any]]:
        groups: dict[Any, list[Any]] = {}
        for run in runs:
            groups.setdefault(key(run), []).append(run)
        return [group[start : start + size] for group in groups.values() for start in range(0, len(group), size)]

    return cut
