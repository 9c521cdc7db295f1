"""Stand-ins for the batches of other libraries, and networks that read them."""

from __future__ import annotations

import collections
import dataclasses

import torch
from torch import Tensor, nn


@dataclasses.dataclass
class Sample:
    x: Tensor
    y: Tensor
    name: str = "s"


class Encoding(collections.UserDict):
    """As a tokenizer returns it: a dictionary with attributes."""

    def __getattr__(self, name):
        try:
            return self.data[name]
        except KeyError:
            raise AttributeError(name) from None

    def to(self, device):
        self.data = {key: value.to(device) for key, value in self.data.items()}
        return self


class Graph:
    """As of torch_geometric: attributes in a store, iteration over them, ``to`` and a call."""

    def __init__(self, **tensors):
        self.store = Encoding(tensors)
        self.num_nodes = 3

    def __getattr__(self, name):
        return getattr(self.__dict__["store"], name) if "store" in self.__dict__ else super().__getattribute__(name)

    def __iter__(self):
        return iter(self.store.items())

    def __call__(self, *names):
        return [self.store[name] for name in names]

    def to(self, device):
        return Graph(**{name: value.to(device) for name, value in self.store.items()})


def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)).double()


class Reads(nn.Module):
    """The plain network on inputs that are read from a structure."""

    def __init__(self, read):
        super().__init__()
        self.net, self.read = plain(), read

    def forward(self, inputs):
        return self.net(self.read(inputs))
