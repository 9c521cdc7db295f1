"""Two-layer ReLU networks with one output, and samples of signs, for tests."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from renyi_lab import models


class TwoLayer(nn.Module):
    """``layer2(relu(layer1(x)))`` with outputs ``(N,)``."""

    def __init__(self, features: int, width: int, seed: int = 0, bias: bool = True) -> None:
        super().__init__()
        network = models.mlp(features, width, 1, seed=seed, bias=bias).double()
        self.layer1, self.layer2 = network.layer1, nn.Linear(width, 1, bias=False).double()
        with torch.no_grad():
            self.layer2.weight.copy_(network.layer2.weight)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = torch.relu(self.layer1(x))
        outputs: Tensor = self.layer2(hidden)[:, 0]
        return outputs


def sign_data(num_samples: int, features: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random signs, and the product of the first two."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 2, (num_samples, features), generator=generator).double() * 2 - 1
    return x, x[:, 0] * x[:, 1]


def memorizing(x: Tensor, y: Tensor, width: int) -> TwoLayer:
    """One neuron for each sample, active on it alone; the others are zero."""
    model, size = empty(x.shape[1], width), (x.shape[1] + 1) ** 0.25
    with torch.no_grad():
        model.layer1.weight[: len(x)] = size * x
        model.layer1.bias[: len(x)] = -size * (x.shape[1] - 1)
        model.layer2.weight[0, : len(x)] = y / size
    return model


def four_neurons(features: int, width: int) -> TwoLayer:
    """The product of the first two signs; all but four neurons are zero."""
    model, size = empty(features, width), (features + 1) ** 0.25
    with torch.no_grad():
        for k, signs in enumerate([(1.0, 1.0), (-1.0, -1.0), (1.0, -1.0), (-1.0, 1.0)]):
            model.layer1.weight[k, :2] = size * torch.tensor(signs, dtype=torch.float64)
            model.layer1.bias[k] = -size
            model.layer2.weight[0, k] = signs[0] * signs[1] / size
    return model


def empty(features: int, width: int) -> TwoLayer:
    """All weights are zero."""
    model = TwoLayer(features, width)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model
