"""Learning rates that change from epoch to epoch."""

from __future__ import annotations

import functools
import math
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import TensorDataset

from renyi_lab import models
from renyi_lab.optim import RSAM, SAM
from renyi_lab.training import train

OPTIONS: dict[str, Any] = {"batch_size": 20, "lr": 0.2, "progress": False}


def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 2
    return TensorDataset(torch.randn(60, 3, generator=generator, dtype=torch.float64) + 2 * y[:, None], y)


def model() -> nn.Module:
    return models.mlp(3, 8, 2).double()


def cosine(epochs: int, lr: float = 0.2) -> list[float]:
    return [lr * (1 + math.cos(math.pi * epoch / epochs)) / 2 for epoch in range(epochs)]


def halved(optimizer: Any) -> Any:
    return lr_scheduler.ExponentialLR(optimizer, 0.5)


class Recorded(torch.optim.SGD):
    """SGD without momentum that remembers the rate of each step."""

    made: list[Recorded] = []  # noqa: RUF012

    def __init__(self, parameters: Any, lr: float = 0.2) -> None:
        super().__init__(parameters, lr=lr)
        self.rates: list[float] = []
        self.made.append(self)

    def step(self) -> None:  # type: ignore[override]  # as some optimizers have it, without a closure
        self.rates.append(self.param_groups[0]["lr"])
        super().step()


@pytest.mark.parametrize("scheduler", ["cosine", "Cosine"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "sam", "asam", "fishersam", "sagm", "rsam"])
def test_the_cosine_follows_its_formula(scheduler: str, optimizer: str):
    history = train(model(), data(), epochs=5, optimizer=optimizer, scheduler=scheduler, **OPTIONS)
    assert history.lr == pytest.approx(cosine(5), rel=1e-12)
    assert tuple(history.to_frame()["lr"]) == history.lr


def test_each_step_of_an_epoch_has_its_rate():
    history = train(model(), data(), epochs=3, optimizer=recorded, scheduler="cosine", **OPTIONS)
    assert Recorded.made[-1].rates == [rate for rate in history.lr for _ in range(3)]


def recorded(parameters: Any) -> Recorded:
    return Recorded(parameters)


@pytest.mark.parametrize("kind", [SAM, RSAM])
@pytest.mark.parametrize("warmup_epochs", [0, 2])
def test_the_base_of_a_sharpness_aware_optimizer_steps_with_the_rate(kind: type, warmup_epochs: int):
    def make(parameters: Any) -> Any:
        return kind(parameters, base=Recorded, lr=0.2)

    history = train(model(), data(), epochs=4, optimizer=make, scheduler=halved, warmup_epochs=warmup_epochs, **OPTIONS)
    assert history.lr == (0.2, 0.1, 0.05, 0.025)
    assert Recorded.made[-1].rates == [rate for rate in history.lr for _ in range(3)]
    assert history.num_gradients == 3 * (warmup_epochs + 2 * (4 - warmup_epochs))


def test_the_weights_are_those_of_a_training_written_out():
    trained, expected = model(), model()
    train(trained, data(), epochs=4, scheduler=halved, momentum=0.5, weight_decay=0.01, **{**OPTIONS, "batch_size": 60})
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.2, momentum=0.5, weight_decay=0.01)
    x, y = data().tensors
    for epoch in range(4):
        optimizer.param_groups[0]["lr"] = 0.2 * 0.5**epoch
        optimizer.zero_grad()
        nn.functional.cross_entropy(expected(x), y).backward()
        optimizer.step()
    for first, second in zip(trained.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(first, second)


def test_a_plateau_scheduler_gets_the_training_loss():
    seen: list[float] = []

    class Plateau(lr_scheduler.ReduceLROnPlateau):
        def step(self, metrics: Any, epoch: Any = None) -> None:
            seen.append(metrics)
            super().step(metrics, epoch)

    history = train(
        model(),
        data(),
        epochs=4,
        scheduler=lambda optimizer: Plateau(optimizer, threshold=10, threshold_mode="abs", patience=0),
        **OPTIONS,
    )
    assert tuple(seen) == history.train_loss
    assert history.lr == pytest.approx([0.2, 0.2, 0.02, 0.002])


FACTORIES = {
    "partial": functools.partial(lr_scheduler.StepLR, step_size=2),
    "one cycle": lambda optimizer: lr_scheduler.OneCycleLR(optimizer, max_lr=0.2, total_steps=4),
    "sequence": lambda optimizer: lr_scheduler.SequentialLR(
        optimizer, [lr_scheduler.ConstantLR(optimizer), lr_scheduler.ExponentialLR(optimizer, 0.5)], [2]
    ),
    "chain": lambda optimizer: lr_scheduler.ChainedScheduler([halved(optimizer)], optimizer=optimizer),
    "of the base": lambda optimizer: halved(getattr(optimizer, "base", optimizer)),
}


@pytest.mark.parametrize("optimizer", ["sgd", "rsam"])
@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
def test_schedulers_of_torch_work_without_warnings_about_their_order(factory: Any, optimizer: str):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*before.*optimizer.step")
        warnings.filterwarnings("ignore", message=".*epoch parameter")  # of torch's own SequentialLR
        history = train(model(), data(), epochs=4, optimizer=optimizer, scheduler=factory, **OPTIONS)
    assert len(history.lr) == 4
    assert len(set(history.lr)) > 1


def test_without_a_scheduler_a_history_is_what_it_was():
    history = train(model(), data(), epochs=2, **OPTIONS)
    assert history.lr == ()
    assert "lr" not in history.to_frame()
    constant = train(model(), data(), epochs=2, scheduler=lambda o: lr_scheduler.ConstantLR(o, 1.0), **OPTIONS)
    assert constant.lr == (0.2, 0.2)
    assert constant.train_loss == history.train_loss
    assert repr(constant) == repr(history)


class WithoutRate(torch.optim.Optimizer):
    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        closure()


OTHER = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
MESSAGES = [
    ({"scheduler": "cosin"}, ValueError, "scheduler must be one of 'cosine', got 'cosin'"),
    ({"scheduler": 0.1}, TypeError, "scheduler must be None, 'cosine' or a function .* got 0.1"),
    (
        {"scheduler": halved(OTHER)},
        TypeError,
        "function that makes one, got the ExponentialLR itself, which belongs to",
    ),
    (
        {"scheduler": lr_scheduler.ReduceLROnPlateau(OTHER)},
        TypeError,
        "got the ReduceLROnPlateau itself, which belongs to",
    ),
    ({"scheduler": lambda optimizer: None}, TypeError, r"scheduler\(optimizer\) must return .* got NoneType; pass"),
    ({"scheduler": lambda optimizer: halved(OTHER)}, ValueError, "returned the ExponentialLR of another optimizer"),
    ({"scheduler": lr_scheduler.StepLR}, TypeError, "optimizer alone, but missing a required argument: 'step_size'"),
    ({"scheduler": lambda: None}, TypeError, "optimizer alone, but too many positional arguments; pass a function"),
    ({"scheduler": "cosine", "optimizer": lambda p: WithoutRate(p)}, ValueError, "WithoutRate has no 'lr'"),
]


@pytest.mark.parametrize(("options", "error", "message"), MESSAGES)
def test_messages(options: dict[str, Any], error: type[Exception], message: str):
    network = model()
    before = [parameter.detach().clone() for parameter in network.parameters()]
    with pytest.raises(error, match=message):
        train(network, data(), epochs=2, **OPTIONS, **options)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
