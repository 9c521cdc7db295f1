"""Batches of every structure are copied, keep their type, and are cut along their samples."""

import collections
import dataclasses
import types

import pytest
import torch
from foreign_batches import Encoding, Graph, Sample
from torch import Tensor

from renyi_lab._utils.batches import freeze_batches
from renyi_lab._utils.structures import leaves, map_tensors, take_rows, tensors_in

CPU = torch.device("cpu")


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: Tensor
    y: Tensor

    def __post_init__(self):
        if not isinstance(self.x, Tensor):
            raise AssertionError("checked again")


@dataclasses.dataclass
class Slots:
    __slots__ = ("x", "y")
    x: Tensor
    y: Tensor


Named = collections.namedtuple("Named", "x y")


X, Y = torch.arange(6.0).view(3, 2), torch.tensor([0, 1, 0])
BUILDERS = {
    "dictionary": lambda x, y: {"x": x, "y": y},
    "ordered": lambda x, y: collections.OrderedDict(x=x, y=y),
    "default": lambda x, y: collections.defaultdict(list, x=x, y=y),
    "read-only": lambda x, y: types.MappingProxyType({"x": x, "y": y}),
    "encoding": lambda x, y: Encoding(x=x, y=y),
    "tuple": lambda x, y: (x, y, "text", 3, None),
    "list": lambda x, y: [x, y, [y]],
    "named": Named,
    "dataclass": Sample,
    "frozen dataclass": Frozen,
    "dataclass with slots": Slots,
    "namespace": lambda x, y: types.SimpleNamespace(x=x, y=y, n=2),
    "graph": lambda x, y: Graph(x=x, y=y),
    "nested": lambda x, y: {"a": [Sample(x, y)], "b": (Graph(x=x, y=y), {"c": y})},
}


@pytest.mark.parametrize("name", BUILDERS)
def test_a_frozen_batch_is_a_detached_copy_of_the_same_type(name):
    x, y = X.clone().requires_grad_(), Y.clone()
    content = BUILDERS[name](x, y)
    (batch,) = freeze_batches([content], CPU)
    assert type(batch.content) is (dict if name == "read-only" else type(content))
    assert batch.size == 3
    before, after = tensors_in(content), tensors_in(batch.content)
    assert len(before) == len(after) >= 2
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old, new)
        assert (new.requires_grad, new.data_ptr() == old.data_ptr()) == (False, False)
    assert x.requires_grad
    assert [leaf for leaf in leaves(content) if not isinstance(leaf, Tensor)] == [
        leaf for leaf in leaves(batch.content) if not isinstance(leaf, Tensor)
    ]


@pytest.mark.parametrize("name", [name for name in BUILDERS if name not in ("tuple", "list", "named")])
def test_a_batch_may_be_given_by_itself(name):
    content = BUILDERS[name](X, Y)
    (alone,), (listed,) = freeze_batches(content, CPU), freeze_batches([content], CPU)
    assert type(alone.content) is type(listed.content)
    assert all(map(torch.equal, tensors_in(alone.content), tensors_in(listed.content)))


@pytest.mark.parametrize("name", BUILDERS)
def test_batches_are_cut_along_their_samples(name):
    part = map_tensors(BUILDERS[name](X, Y), lambda tensor: take_rows(tensor, slice(1, 3)))
    expected = tensors_in(BUILDERS[name](X[1:], Y[1:]))
    assert all(map(torch.equal, tensors_in(part), expected))


@pytest.mark.filterwarnings("ignore:Sparse", "ignore:.*beta state")
@pytest.mark.parametrize("layout", [torch.strided, torch.sparse_coo, torch.sparse_csr, torch.sparse_csc])
@pytest.mark.parametrize("rows", [slice(1, 3), torch.tensor([2, 0])])
def test_rows_of_sparse_tensors_are_those_of_dense_ones(layout, rows):
    dense = torch.tensor([[0.0, 1.0], [2.0, 0.0], [0.0, 3.0]])
    taken = take_rows(dense if layout == torch.strided else dense.to_sparse(layout=layout), rows)
    assert taken.layout == layout
    assert torch.equal(taken.to_dense(), dense[rows])


PAIRS = {
    "list": lambda x, y: ([x, 2 * x], y),
    "tuple": lambda x, y: ((x, 2 * x), y),
    "dictionary": lambda x, y: ({"a": x}, y),
    "graph": lambda x, y: (Graph(x=x), y),
    "in a list": lambda x, y: [[x, 2 * x], y],
}


@pytest.mark.parametrize("name", PAIRS)
def test_inputs_of_any_structure_with_one_tensor_of_targets_are_a_pair(name):
    for data in (PAIRS[name](X, Y), [PAIRS[name](X, Y)]):
        (batch,) = freeze_batches(data, CPU)
        assert batch.is_pair
        assert batch.size == 3
        assert torch.equal(batch.content[1], Y)


def test_two_batches_are_not_a_pair():
    for data in ([(X, Y), (X, Y)], ((X, Y), (X, Y)), [{"x": X}, {"x": X}]):
        assert [batch.size for batch in freeze_batches(data, CPU)] == [3, 3]


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32])
def test_labels_of_short_integers_are_made_long(dtype):
    for data in ((X, Y.to(dtype)), [Named(X, Y.to(dtype))], [([X, X], Y.to(dtype))]):
        (batch,) = freeze_batches(data, CPU)
        assert batch.content[1].dtype == torch.int64
        assert torch.equal(batch.content[1], Y)
    assert freeze_batches((X, Y > 0), CPU)[0].content[1].dtype == torch.bool
