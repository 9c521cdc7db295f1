"""A model whose forward pass changes all it can, and a check that a use of it changes nothing."""

import contextlib
import random

import numpy as np
import torch
from torch import nn


class Restless(nn.Module):
    """Changes buffers and random states; ``fail_at`` makes the second forward pass, or the second loss, raise."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.3), nn.Tanh(), nn.Linear(5, 3))
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("in_place", torch.zeros(2))
        self.place, self.error, self.calls_left = None, None, 0

    def forward(self, x):
        random.random(), np.random.rand()
        self.calls = self.calls + 1
        self.in_place += torch.rand(2)
        self.count("forward")
        return self.inner(x)

    def loss(self, outputs, targets):
        self.count("loss")
        return nn.functional.cross_entropy(outputs, targets)

    def fail_at(self, place, error=None):
        self.place, self.error, self.calls_left = place, error, 1

    def count(self, place):
        self.calls_left -= 1 if place == self.place else 0
        if self.calls_left < 0:
            raise self.error


def restless_model():
    """A `Restless` network in float64 with flags that differ between layers, a gradient, and a frozen parameter."""
    torch.manual_seed(0)
    model = Restless().double()
    model.inner[1].eval()
    model.inner[4].bias.requires_grad_(False)
    first = next(model.parameters())
    first.grad = torch.ones_like(first)
    return model


def state_of(model):
    return {
        "grad": [(id(p.grad), None if p.grad is None else p.grad.tolist()) for p in model.parameters()],
        "weights": [(p.requires_grad, p.tolist()) for p in model.parameters()],
        "buffers": [(name, id(b), b.tolist()) for name, b in model.named_buffers()],
        "modes": [module.training for module in model.modules()],
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": (np.random.get_state()[1].tobytes(), *np.random.get_state()[2:]),
        "python": random.getstate(),
        "settings": (torch.is_grad_enabled(), torch.get_default_dtype(), torch.backends.cuda.flash_sdp_enabled()),
    }


@contextlib.contextmanager
def unchanged(model):
    """Assert that the block, also when it raises, leaves the model and the global states as they were."""
    before = state_of(model)
    try:
        yield
    finally:
        assert state_of(model) == before
