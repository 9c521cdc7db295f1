"""Many small fully connected networks of one shape, trained side by side with penalties on their Hessians.

The networks are stacked along a first axis, so that one batched product serves all of them: on one thread a step of
ten takes a third of the time of ten steps. Each network has its own data order, probes and coefficients; it does not
depend on its neighbours, except for rounding. The penalty is that of `renyi_lab.optim.collision_entropy_penalty`,
which `tests/optim/test_entropy_penalty.py` compares with this one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from renyi_lab import models

LR, MOMENTUM, WEIGHT_DECAY, BATCH_SIZE = 0.05, 0.9, 5e-4, 128
PLAIN_EPOCHS, NUM_PROBES, MAX_NORM = 3, 2, 5.0
WALK_LR, WALK_BATCH_SIZE, WALK_MAX_NORM, HOLD = 0.003, 512, 1.0, 20.0  # of `walk_stack`
ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh}


@dataclass(frozen=True)
class Shape:
    """Widths and activation of `renyi_lab.models.mlp`."""

    widths: tuple[int, ...]
    activation: str

    def model(self, seed: int) -> nn.Sequential:
        return models.mlp(*self.widths, activation=self.activation, seed=seed)


@dataclass(frozen=True)
class Member:
    """One network of the stack, trained on ``loss + mu · log tr H² − nu · log |tr H|``.

    Attributes:
        mu: Coefficient of ``log tr H²``.
        nu: Coefficient of ``−log |tr H|``; with ``nu = 2 mu`` the penalty is ``mu`` times ``−H₂``.
        seed: Seed of the initial weights, the order of the data, and the probes.
        start: After three plain epochs the penalty is added while the training loss before the epoch is at most this;
            ``None``: whatever the loss.
        random_sign: Whether the penalty gets a random sign at each step: its noise without its direction.
    """

    mu: float
    nu: float
    seed: int
    start: float | None = None
    random_sign: bool = False


@dataclass(frozen=True)
class Trained:
    """A member whose training has ended."""

    member: Member
    model: nn.Sequential
    train_loss: float
    epochs: int
    steps: int
    reached: bool


def train_stack(
    shape: Shape, members: Sequence[Member], x: Tensor, y: Tensor, *, goal: float, max_epochs: int
) -> Iterator[Trained]:
    """Train; yield each member at the first epoch whose training loss is at most ``goal``, or after the last epoch."""
    members = list(members)
    orders = [torch.Generator().manual_seed(member.seed) for member in members]
    draws = [torch.Generator().manual_seed(10_000 + member.seed) for member in members]
    stack = stacked([shape.model(member.seed) for member in members])
    momenta = [torch.zeros_like(part) for part in stack]
    steps = math.ceil(len(x) / BATCH_SIZE)
    values = [math.inf] * len(members)
    for epoch in range(1, max_epochs + 1):
        on = [
            epoch > PLAIN_EPOCHS and (member.start is None or value <= member.start)
            for value, member in zip(values, members, strict=True)
        ]
        mu, nu = (torch.tensor([getattr(m, name) for m in members]) * torch.tensor(on) for name in ("mu", "nu"))
        flipped = torch.tensor([member.random_sign for member in members])
        order = torch.stack([torch.randperm(len(x), generator=generator) for generator in orders])
        for chosen in order.split(BATCH_SIZE, dim=1):
            loss = losses(shape, stack, x[chosen], y[chosen])
            if bool((mu != 0).any() or (nu != 0).any()):
                square, form = moments(loss, stack, [_signs(stack, generator) for generator in draws])
                random = torch.cat([2.0 * torch.randint(2, (1,), generator=generator) - 1 for generator in draws])
                loss = loss + torch.where(flipped, random, 1.0) * (mu * square.log() - nu * form.abs().log())
            _step(stack, momenta, torch.autograd.grad(loss.sum(), stack))
        with torch.no_grad():
            values = losses(shape, stack, x.expand(len(members), -1, -1), y.expand(len(members), -1)).tolist()
        stopped = [not value > goal or epoch == max_epochs for value in values]
        for index in (i for i, stop in enumerate(stopped) if stop):
            model = unstacked(shape, stack, index)
            yield Trained(members[index], model, values[index], epoch, epoch * steps, values[index] <= goal)
        kept = [index for index, stop in enumerate(stopped) if not stop]
        members, orders, draws, values = ([items[i] for i in kept] for items in (members, orders, draws, values))
        if not members:
            return
        if any(stopped):
            stack = [part.detach()[kept].requires_grad_() for part in stack]
            momenta = [part[kept] for part in momenta]


def walk_stack(
    shape: Shape, members: Sequence[Member], networks: Sequence[nn.Sequential], x: Tensor, y: Tensor, *, steps: int
) -> list[nn.Sequential]:
    """Networks after ``steps`` small steps at a held loss: on ``20 (loss − level)² + mu log tr H² − nu log |tr H|``.

    The level of each network is its loss over all samples at the start.
    """
    data = torch.Generator().manual_seed(20_000)
    draws = [torch.Generator().manual_seed(10_000 + member.seed) for member in members]
    mu, nu = (torch.tensor([getattr(member, name) for member in members]) for name in ("mu", "nu"))
    flipped = torch.tensor([member.random_sign for member in members])
    stack = stacked(networks)
    momenta = [torch.zeros_like(part) for part in stack]
    with torch.no_grad():
        level = torch.stack([F.cross_entropy(network(x), y) for network in networks])
    for _ in range(steps):
        chosen = torch.randperm(len(x), generator=data)[:WALK_BATCH_SIZE]  # the same samples for all
        loss = losses(shape, stack, x[chosen].expand(len(members), -1, -1), y[chosen].expand(len(members), -1))
        square, form = moments(loss, stack, [_signs(stack, generator) for generator in draws])
        random = torch.cat([2.0 * torch.randint(2, (1,), generator=generator) - 1 for generator in draws])
        penalty = torch.where(flipped, random, 1.0) * (mu * square.log() - nu * form.abs().log())
        objective = HOLD * (loss - level) ** 2 + penalty
        grads = torch.autograd.grad(objective.sum(), stack)
        _step(stack, momenta, grads, lr=WALK_LR, weight_decay=0.0, max_norm=WALK_MAX_NORM)
    return [unstacked(shape, stack, index) for index in range(len(members))]


def stacked(networks: Sequence[nn.Sequential]) -> list[Tensor]:
    """Weights ``(members, in, out)`` and biases ``(members, 1, out)``, layer by layer."""
    layers = [[module for module in network if isinstance(module, nn.Linear)] for network in networks]
    parts = []
    for same in zip(*layers, strict=True):
        parts += [torch.stack([layer.weight.T for layer in same]), torch.stack([layer.bias[None] for layer in same])]
    return [part.detach().clone().requires_grad_() for part in parts]


def unstacked(shape: Shape, stack: Sequence[Tensor], index: int) -> nn.Sequential:
    """One network of the stack."""
    model = shape.model(0)
    linear = [module for module in model if isinstance(module, nn.Linear)]
    with torch.no_grad():
        for layer, weight, bias in zip(linear, stack[::2], stack[1::2], strict=True):
            layer.weight.copy_(weight[index].T)
            layer.bias.copy_(bias[index, 0])
    return model


def losses(shape: Shape, stack: Sequence[Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of each network on its own inputs ``(members, samples, features)``."""
    hidden, last = x, len(stack) // 2 - 1
    for number, (weight, bias) in enumerate(zip(stack[::2], stack[1::2], strict=True)):
        hidden = torch.baddbmm(bias, hidden, weight)
        hidden = hidden if number == last else ACTIVATIONS[shape.activation](hidden)
    return F.cross_entropy(hidden.transpose(1, 2), y, reduction="none").mean(1)


def moments(loss: Tensor, stack: Sequence[Tensor], signs: Sequence[Sequence[list[Tensor]]]) -> tuple[Tensor, Tensor]:
    """Mean ``‖H v‖²`` and mean ``vᵀ H v`` of each network.

    Args:
        loss: Loss of each network.
        stack: Its weights.
        signs: For each network, its probes; each a list of tensors shaped like the weights of one network.
    """
    slopes = torch.autograd.grad(loss.sum(), stack, create_graph=True)
    square, form = torch.zeros_like(loss), torch.zeros_like(loss)
    for probes in zip(*signs, strict=True):
        probe = [torch.stack(parts) for parts in zip(*probes, strict=True)]
        slope = sum((torch.sum(a * b) for a, b in zip(slopes, probe, strict=True)), start=loss.new_zeros(()))
        product = torch.autograd.grad(slope, stack, create_graph=True)
        square = square + sum((part.square().flatten(1).sum(1) for part in product), start=torch.zeros_like(loss))
        form = form + sum(
            ((a * b).flatten(1).sum(1) for a, b in zip(product, probe, strict=True)), start=torch.zeros_like(loss)
        )
    return square / len(signs[0]), form / len(signs[0])


def _signs(stack: Sequence[Tensor], generator: torch.Generator) -> list[list[Tensor]]:
    shapes = [part.shape[1:] for part in stack]
    dim = sum(shape.numel() for shape in shapes)
    drawn = 2.0 * torch.randint(2, (NUM_PROBES, dim), generator=generator) - 1
    return [
        [flat.reshape(shape) for flat, shape in zip(probe.split([s.numel() for s in shapes]), shapes, strict=True)]
        for probe in drawn
    ]


@torch.no_grad()
def _step(
    stack: Sequence[Tensor],
    momenta: Sequence[Tensor],
    grads: Sequence[Tensor],
    lr: float = LR,
    weight_decay: float = WEIGHT_DECAY,
    max_norm: float = MAX_NORM,
) -> None:
    """SGD with momentum and weight decay; the gradient of each network is clipped first, in all conditions alike."""
    norm = torch.stack([grad.square().flatten(1).sum(1) for grad in grads]).sum(0).sqrt()
    factor = (max_norm / norm).clamp(max=1.0)[:, None, None]
    for part, momentum, grad in zip(stack, momenta, grads, strict=True):
        momentum.mul_(MOMENTUM).add_(grad * factor).add_(part, alpha=weight_decay)
        part.sub_(momentum, alpha=lr)
