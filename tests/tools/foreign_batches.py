"""Stand-ins for the batches of other libraries."""

from __future__ import annotations

import collections
import dataclasses

from torch import Tensor


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
