"""`checkup` names the trouble of each of many models, and finds none in healthy ones of many kinds."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

import renyi_lab as rl

NUM_MATVECS = 60
Case = tuple[nn.Module, Any, Any, dict[str, Any]]
Maker = Callable[[], Case]


@functools.cache
def curves() -> TensorDataset:
    return rl.datasets.mnist1d()[0]


def first(count: int) -> tuple[Tensor, Tensor]:
    x, y = curves().tensors
    return x[:count], y[:count]


def wave(count: int = 300, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """A noisy regression."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(count, 2, generator=generator) * 4 - 2
    y = torch.sin(2 * x[:, :1]) * x[:, 1:] + 0.1 * torch.randn(count, 1, generator=generator)
    return x.to(dtype), y.to(dtype)


def table(count: int = 400) -> tuple[Tensor, Tensor]:
    """A binary classification of ten columns, two of them without information."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(count, 10, generator=generator)
    score = x[:, 0] * x[:, 1] + x[:, 2:8].sum(1) / 2 + 0.5 * torch.randn(count, generator=generator)
    return x, (score > 0).float()[:, None]


def tokens(count: int = 256, length: int = 8) -> tuple[Tensor, Tensor]:
    """Sequences of tokens, to be classified by their largest one."""
    x = torch.randint(0, 12, (count, length), generator=torch.Generator().manual_seed(3))
    return x, (x == 3).sum(1).clamp(max=1) + (x == 7).any(1).long()


def trained_by_a_plain_loop(make: Callable[[], nn.Module], data: tuple[Tensor, Tensor], epochs: int) -> nn.Module:
    """A network with the initial weights of torch, trained by Adam."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make().train()
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        for _ in range(epochs):
            for indices in torch.randperm(len(data[0])).split(64):
                optimizer.zero_grad()
                outputs = model(data[0][indices])
                loss_fn = F.mse_loss if data[1].is_floating_point() else F.cross_entropy
                loss_fn(outputs, data[1][indices]).backward()
                optimizer.step()
    return model.eval()


def layers(*sizes: int) -> nn.Sequential:
    parts = [part for pair in itertools.pairwise(sizes) for part in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*parts[:-1])


class Residual(nn.Module):
    """Convolutions with batch norm around a skip connection."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(inner)) + self.skip(x))


def residual_layers() -> nn.Sequential:
    blocks = [Residual(1, 4, 1), Residual(4, 8, 2), Residual(8, 8, 1), Residual(8, 16, 2)]
    return nn.Sequential(nn.Unflatten(1, (1, 8, 8)), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


def digits(count: int = 400) -> tuple[Tensor, Tensor]:
    x, y = rl.datasets.digits()[0].tensors
    return x[:count].float(), y[:count]


def trained(model: nn.Module, data: Any, **options: Any) -> nn.Module:
    rl.train(model, data, **{"epochs": 40, "lr": 0.05, "batch_size": 50, "progress": False, **options})
    return model.eval()


class Encoder(nn.Module):
    """A small transformer with dropout."""

    def __init__(self, num_tokens: int = 12, width: int = 16) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.embedding = nn.Embedding(num_tokens, width)
            self.position = nn.Parameter(torch.randn(8, width) / 4)
            layer = nn.TransformerEncoderLayer(width, 2, 32, dropout=0.1, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
            self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embedding(x) + self.position).mean(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.lstm = nn.LSTM(1, 12, batch_first=True)
            self.head = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x[:, :, None])[0].mean(1))


class Tied(nn.Module):
    """A next-token model whose output layer is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.embedding = nn.Embedding(12, 12)
            self.hidden = nn.Linear(12, 12)
            self.head = nn.Linear(12, 12)
            self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.hidden(self.embedding(x))))


def next_token_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """A loss whose targets are in its inputs."""
    return F.cross_entropy(model(batch["input_ids"][:, :-1]).flatten(0, 1), batch["input_ids"][:, 1:].flatten())


def sentences() -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randint(0, 12, (120, 1), generator=generator)
    for _ in range(6):
        x = torch.cat([x, (x[:, -1:] * 5 + 3 + torch.randint(0, 2, (120, 1), generator=generator)) % 12], 1)
    return [{"input_ids": x[:60]}, {"input_ids": x[60:]}]


def dictionary_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch["input_ids"]), batch["labels"])


@functools.cache
def _curve_net() -> nn.Module:
    return trained(rl.models.mlp(40, 32, 32, 10), first(500))


def curve_net() -> nn.Module:
    return copy.deepcopy(_curve_net())


@functools.cache
def _norm_net() -> nn.Module:
    return trained(rl.models.cnn1d(channels=8, batch_norm=True), first(500), epochs=20)


@functools.cache
def _encoder() -> nn.Module:
    return trained(Encoder(), tokens(), lr=0.003, optimizer="adam", weight_decay=0.0, epochs=30)


@functools.cache
def _wave_net() -> nn.Module:
    return trained(rl.models.mlp(2, 24, 24, 1, activation="tanh"), wave(), loss_fn=nn.MSELoss(), epochs=80)


def dropout_net() -> nn.Module:
    layers = nn.Sequential(nn.Linear(40, 48), nn.ReLU(), nn.Dropout(0.3), nn.Linear(48, 10))
    return layers


@functools.cache
def _dropout_net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = dropout_net()
    return trained(model, first(500), epochs=60)


# Healthy models


def classifier() -> Case:
    return curve_net(), F.cross_entropy, first(500), {}


def classifier_in_double() -> Case:
    x, y = first(500)
    return curve_net().double(), nn.CrossEntropyLoss(), (x.double(), y), {}


def course_network() -> Case:
    model, train_set, _ = rl.course.load_network()
    return model, F.cross_entropy, train_set, {}


def own_loss() -> Case:
    return curve_net(), lambda outputs, y: F.cross_entropy(outputs, y, label_smoothing=0.1), first(500), {}


def shuffled_loader() -> Case:
    return curve_net(), F.cross_entropy, DataLoader(TensorDataset(*first(500)), batch_size=64, shuffle=True), {}


def one_after_a_few_epochs() -> Case:
    return trained(rl.models.mlp(40, 32, 10), first(500), epochs=10), F.cross_entropy, first(500), {}


def with_weight_decay() -> Case:
    model = trained(rl.models.mlp(40, 32, 10, activation="gelu"), first(500), weight_decay=5e-3, epochs=80)
    return model, F.cross_entropy, first(500), {}


def regression() -> Case:
    return copy.deepcopy(_wave_net()), nn.MSELoss(), wave(), {}


def regression_in_double() -> Case:
    return copy.deepcopy(_wave_net()).double(), F.mse_loss, wave(dtype=torch.float64), {}


def batch_norm_in_eval_mode() -> Case:
    return copy.deepcopy(_norm_net()), F.cross_entropy, first(500), {}


def convolutions() -> Case:
    return trained(rl.models.cnn1d(channels=8), first(500), epochs=30), F.cross_entropy, first(500), {}


def transformer() -> Case:
    return copy.deepcopy(_encoder()), F.cross_entropy, tokens(), {}


def dictionary_batches() -> Case:
    x, y = tokens()
    batches = [{"input_ids": x[i : i + 64], "labels": y[i : i + 64]} for i in range(0, 256, 64)]
    return copy.deepcopy(_encoder()), dictionary_loss, batches, {}


def logits_of_a_table() -> Case:
    loss = nn.BCEWithLogitsLoss()
    return trained(rl.models.mlp(10, 16, 1), table(), loss_fn=loss), loss, table(), {}


def linear_classifier_of_digits() -> Case:
    train_set, _ = rl.datasets.digits()
    return trained(nn.Linear(64, 10), train_set, epochs=20, lr=0.01), F.cross_entropy, train_set, {}


def recurrent() -> Case:
    model = trained(Recurrent(), first(500), lr=0.01, optimizer="adam", weight_decay=0.0, epochs=30)
    return model, F.cross_entropy, first(500), {}


def dropout_in_eval_mode() -> Case:
    return copy.deepcopy(_dropout_net()), F.cross_entropy, first(500), {}


def language_model_with_tied_weights() -> Case:
    x = torch.cat([batch["input_ids"] for batch in sentences()])
    pairs = x[:, :-1].flatten(), x[:, 1:].flatten()
    return trained(Tied(), pairs, lr=0.02), next_token_loss, sentences(), {}


def plain_loop() -> Case:
    return trained_by_a_plain_loop(lambda: layers(64, 64, 32, 10), digits(), 60), F.cross_entropy, digits(), {}


def curve_with_many_dead_units() -> Case:
    """A third of the units of a layer are dead from the start, as with the usual initial weights of torch."""
    x = torch.linspace(-3, 3, 200)[:, None]
    model = trained_by_a_plain_loop(lambda: layers(1, 32, 32, 1), (x, torch.sin(x)), 200)
    return model, F.mse_loss, (x, torch.sin(x)), {}


def residual_network() -> Case:
    return trained_by_a_plain_loop(residual_layers, digits(), 6), F.cross_entropy, digits(200), {}


HEALTHY = [
    plain_loop,
    curve_with_many_dead_units,
    residual_network,
    classifier,
    classifier_in_double,
    course_network,
    own_loss,
    shuffled_loader,
    one_after_a_few_epochs,
    with_weight_decay,
    regression,
    regression_in_double,
    batch_norm_in_eval_mode,
    convolutions,
    transformer,
    dictionary_batches,
    logits_of_a_table,
    linear_classifier_of_digits,
    recurrent,
    dropout_in_eval_mode,
    language_model_with_tied_weights,
]


# Troubled models, with the name of the finding and a word of its message


def dropout_left_on() -> Case:
    model = copy.deepcopy(_dropout_net())
    return model.train(), F.cross_entropy, first(500), {}


def dropout_in_train_mode() -> Case:
    return copy.deepcopy(_dropout_net()), F.cross_entropy, first(500), {"mode": "train"}


class OwnDropout(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.model(x), 0.2, self.training)


def own_dropout_left_on() -> Case:
    return OwnDropout(curve_net()).train(), F.cross_entropy, first(500), {}


class AlwaysDropped(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.model(x), 0.2)  # on in evaluation mode too


def functional_dropout() -> Case:
    return AlwaysDropped(curve_net()), F.cross_entropy, first(500), {}


def loss_that_trains() -> Case:
    def loss_fn(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        model.train()
        return F.cross_entropy(model(batch["x"]), batch["y"])

    x, y = first(500)
    return copy.deepcopy(_dropout_net()), loss_fn, [{"x": x, "y": y}], {}


def two_samples() -> Case:
    return curve_net(), F.cross_entropy, first(2), {}


def one_sample() -> Case:
    return curve_net(), F.cross_entropy, first(1), {}


def twenty_samples() -> Case:
    return curve_net(), F.cross_entropy, first(20), {}


def scaled(model: nn.Module, factor: float) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= factor
    return model


def diverged_weights() -> Case:
    return scaled(curve_net(), 100.0), F.cross_entropy, first(500), {}


def slightly_diverged_weights() -> Case:
    model = curve_net()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7))
    return model, F.cross_entropy, first(500), {}


def weights_that_are_not_finite() -> Case:
    model = curve_net()
    with torch.no_grad():
        next(model.parameters())[0, 0] = torch.nan
    return model, F.cross_entropy, first(500), {}


def dead_relus() -> Case:
    model: Any = curve_net()
    with torch.no_grad():
        model.layer2.bias[:12] = -1e3
    return model, F.cross_entropy, first(500), {}


class Saddle(nn.Module):
    """A product of two weights that are almost zero."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Parameter(torch.tensor(1e-3)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.first * self.second * x


def saddle() -> Case:
    x = torch.linspace(-1, 1, 100)[:, None]
    return Saddle(), nn.MSELoss(), (x, 2 * x), {}


def overfitted() -> Case:
    """A network on other data than those of its training, where it is worse than a constant."""
    model: Any = curve_net()
    x, y = curves().tensors
    scaled(model.layer3, 0.8)
    return model, F.cross_entropy, (x[1000:2000], y[1000:2000]), {}


def all_relus_dead() -> Case:
    model: Any = curve_net()
    with torch.no_grad():
        model.layer2.bias[:] = -1e3
    return model, F.cross_entropy, first(500), {}


def fine_tuned_head() -> Case:
    model: Any = curve_net()
    model.requires_grad_(False)
    model.layer3.requires_grad_(True)
    return model, F.cross_entropy, first(500), {}


def head_after_dead_units() -> Case:
    model, loss_fn, data, options = fine_tuned_head()
    inner: Any = model
    with torch.no_grad():
        inner.layer2.bias[:20] = -1e3
    return model, loss_fn, data, options


def float16() -> Case:
    x, y = first(500)
    return curve_net().half(), F.cross_entropy, (x.half(), y), {}


def bfloat16() -> Case:
    x, y = first(500)
    return curve_net().bfloat16(), F.cross_entropy, (x.bfloat16(), y), {}


class Casting(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.model(x).float()


def autocast_inside() -> Case:
    return Casting(curve_net()), F.cross_entropy, first(500), {}


def batch_norm_left_in_train_mode() -> Case:
    return copy.deepcopy(_norm_net()).train(), F.cross_entropy, first(500), {}


def batch_norm_in_train_mode() -> Case:
    return copy.deepcopy(_norm_net()), F.cross_entropy, first(500), {"mode": "train"}


def batch_norm_without_statistics() -> Case:
    model: Any = copy.deepcopy(_norm_net())
    model.norm2 = nn.BatchNorm1d(8, track_running_stats=False)
    return trained(model, first(500), epochs=5), F.cross_entropy, first(500), {}


def untrained() -> Case:
    return rl.models.mlp(40, 32, 32, 10).eval(), F.cross_entropy, first(500), {}


def untrained_regression() -> Case:
    return rl.models.mlp(2, 24, 24, 1).eval(), nn.MSELoss(), wave(), {}


def untrained_with_dictionaries() -> Case:
    x, y = tokens()
    return Encoder().eval(), dictionary_loss, [{"input_ids": x, "labels": y}], {}


def untrained_language_model() -> Case:
    return Tied().eval(), next_token_loss, sentences(), {}


def other_labels() -> Case:
    x, y = first(500)
    return curve_net(), F.cross_entropy, (x, y.roll(37)), {}


def inputs_of_another_scale() -> Case:
    x, y = first(500)
    return curve_net(), F.cross_entropy, (255 * x.roll(5, 1), y), {}


def saturated() -> Case:
    model: Any = curve_net()
    scaled(model.layer3, 20.0)
    x, y = first(500)
    right = model(x).argmax(1) == y
    return model, F.cross_entropy, (x[right], y[right]), {}


def labels_out_of_range() -> Case:
    x, y = first(500)
    return curve_net(), F.cross_entropy, (x, y + 1), {}


def nan_in_the_data() -> Case:
    x, y = first(500)
    x = x.clone()
    x[3, 4] = torch.nan
    return curve_net(), F.cross_entropy, (x, y), {}


def loss_that_is_not_finite() -> Case:
    return curve_net(), lambda outputs, y: F.cross_entropy(outputs, y) / 0.0, first(500), {}


def one_class() -> Case:
    x, y = curves().tensors
    return curve_net(), F.cross_entropy, (x[y == 3][:200], y[y == 3][:200]), {}


def duplicates() -> Case:
    x, y = first(100)
    return curve_net(), F.cross_entropy, (x.repeat(5, 1), y.repeat(5)), {}


class Unused(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.spare = model, nn.Linear(7, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def unused_parameters() -> Case:
    return Unused(curve_net()), F.cross_entropy, first(500), {}


class Augmented(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self) -> None:
        self.x, self.y = first(300)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.x[index] + 0.3 * torch.randn(40), self.y[index]


def augmented_data() -> Case:
    return curve_net(), F.cross_entropy, DataLoader(Augmented(), batch_size=100), {}


def piecewise_linear() -> Case:
    return nn.Linear(2, 1), nn.L1Loss(), wave(), {}


class Detached(nn.Module):
    """Outputs that are weighted by a detached copy of themselves."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        outputs = self.model(x)
        return outputs * outputs.detach().softmax(1)


def detached() -> Case:
    return Detached(curve_net()), F.cross_entropy, first(500), {}


def samples_that_depend_on_each_other() -> Case:
    def loss_fn(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        outputs = model(batch["x"])
        return F.cross_entropy((outputs - outputs.mean(0)) / outputs.std(0), batch["y"]) * len(outputs) ** 0.5

    x, y = first(500)
    return curve_net(), loss_fn, [{"x": x, "y": y}], {}


def constant_outputs() -> Case:
    model: Any = curve_net()
    with torch.no_grad():
        model.layer1.weight.zero_()
    return model, F.cross_entropy, first(500), {}


TROUBLED: list[tuple[Maker, str, str]] = [
    (dropout_left_on, "mode", "dropout"),
    (dropout_in_train_mode, "mode", "dropout"),
    (own_dropout_left_on, "training mode", "model.eval()"),
    (functional_dropout, "repeatability", "Dropout or noise is left on"),
    (loss_that_trains, "repeatability", "model.train()"),
    (two_samples, "number of samples", "2 samples"),
    (one_sample, "number of samples", "1 sample"),
    (twenty_samples, "number of samples", "20 samples"),
    (diverged_weights, "weights", "diverged"),
    (slightly_diverged_weights, "loss", "diverged"),
    (weights_that_are_not_finite, "weights", "diverged"),
    (dead_relus, "dead units", "12 of 32 units of layer2"),
    (saddle, "negative curvature", "saddle"),
    (overfitted, "loss", "training"),
    (all_relus_dead, "outputs", "dead"),
    (fine_tuned_head, "frozen parameters", "layer3.weight, layer3.bias"),
    (head_after_dead_units, "unused parameters", "200 of 330"),
    (float16, "precision", "float16"),
    (bfloat16, "precision", "bfloat16"),
    (autocast_inside, "loss", "autocast"),
    (batch_norm_left_in_train_mode, "mode", "batch norm left in training mode"),
    (batch_norm_in_train_mode, "mode", "batch norm"),
    (batch_norm_without_statistics, "mode", "without running statistics"),
    (untrained, "loss", "untrained"),
    (untrained_regression, "loss", "untrained"),
    (untrained_with_dictionaries, "loss", "untrained"),
    (untrained_language_model, "loss", "untrained"),
    (other_labels, "loss", "labels"),
    (inputs_of_another_scale, "loss", "prepared in another way"),
    (saturated, "saturation", "saturated"),
    (labels_out_of_range, "loss", "label"),
    (nan_in_the_data, "data", "NaN"),
    (loss_that_is_not_finite, "loss", "not finite"),
    (one_class, "data", "all targets are the same"),
    (duplicates, "data", "100 of 500"),
    (unused_parameters, "unused parameters", "spare.weight"),
    (augmented_data, "data set", "second pass"),
    (piecewise_linear, "spectrum", "piecewise linear"),
    (detached, "finite differences", "detach()"),
    (samples_that_depend_on_each_other, "twice the samples", "depend on each other"),
    (constant_outputs, "outputs", "same for all samples"),
]


def name_of(value: object) -> str | None:
    return getattr(value, "__name__", "")


@pytest.mark.parametrize("make", HEALTHY, ids=name_of)
def test_nothing_is_found_in_a_healthy_model(make: Maker) -> None:
    model, loss_fn, data, options = make()
    found = rl.checkup(model, loss_fn, data, num_matvecs=NUM_MATVECS, **options)
    assert found.trustworthy, found.troubles
    assert found.spectrum is not None


@pytest.mark.parametrize(("make", "name", "word"), TROUBLED, ids=name_of)
def test_the_trouble_is_named(make: Maker, name: str, word: str) -> None:
    model, loss_fn, data, options = make()
    found = rl.checkup(model, loss_fn, data, num_matvecs=NUM_MATVECS, **options)
    assert not found.trustworthy
    messages = [finding.message for finding in found.troubles if finding.name == name]
    assert any(word in message for message in messages), found.troubles
