"""Products are those of the model as it is now: weights, layers and settings are looked up at each product."""

import contextlib
import copy
import pickle

import pytest
import torch
from double_backward import CLASSES, D, data, double_backward
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize, prune

from renyi_lab.operators import GGNOperator, HessianOperator, LossSurface, ascend

BUDGETS = pytest.mark.parametrize("graph_budget", [0, None])
BOTH = pytest.mark.parametrize("kind", [HessianOperator, GGNOperator])


class Net(nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.act, self.norm = nn.Linear(D, 5), nn.Tanh(), nn.BatchNorm1d(5, affine=False)
        self.last, self.scale, self.factors = nn.Linear(5, CLASSES), 1.0, [1.0]
        self.shift = torch.zeros(5)
        self.double().eval()

    def forward(self, x):
        return self.last(self.norm(self.act(self.first(x))) * self.scale + self.shift) * self.factors[0]


def exactly(actual, expected, tolerance=1e-10):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def dense(model, parameters=None):
    x, y = data()
    return double_backward(lambda: F.cross_entropy(model(x), y), parameters or model.parameters())


def other_state():
    return Net(seed=9).state_dict()


def set_attribute(path, value):
    def change(model):
        *owners, name = path.split(".")
        for owner in owners:
            model = getattr(model, owner)
        setattr(model, name, value() if callable(value) and not isinstance(value, nn.Module) else value)

    return change


def fresh(*shape):
    return lambda: nn.Parameter(torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7)))


CHANGES = {
    "load_state_dict, assigned": lambda model: model.load_state_dict(other_state(), assign=True),
    "load_state_dict": lambda model: model.load_state_dict(other_state()),
    "a new parameter": set_attribute("last.weight", fresh(CLASSES, 5)),
    "new data": lambda model: setattr(model.last.weight, "data", fresh(CLASSES, 5)().data),
    "a new layer": set_attribute("last", lambda: nn.Linear(5, CLASSES).double()),
    "a new activation": set_attribute("act", lambda: nn.Softplus()),
    "a setting": set_attribute("scale", 2.0),
    "a setting of a layer": set_attribute("norm.eps", 1.0),
    "a list": lambda model: model.factors.__setitem__(0, 3.0),
    "a plain tensor": lambda model: model.shift.data.add_(1.0),
    "a buffer": lambda model: model.norm.running_var.data.mul_(4.0),
    "a new buffer": set_attribute("norm.running_mean", lambda: torch.ones(5, dtype=torch.float64)),
    "a forward hook": lambda model: model.act.register_forward_hook(lambda module, inputs, output: 2 * output),
    "a forward": set_attribute("act.forward", lambda: torch.sin),
    "a swap of two layers": lambda model: model.last.load_state_dict(Net(3).last.state_dict(), assign=True),
}


@BUDGETS
@pytest.mark.parametrize("params", [None, "first"])
@pytest.mark.parametrize("change", CHANGES)
def test_products_follow_the_model(change, params, graph_budget):
    model = Net()
    H = HessianOperator(model, F.cross_entropy, data(), params, micro_batch_size=5, graph_budget=graph_budget)
    before = H.to_dense()
    CHANGES[change](model)
    after = H.to_dense()
    expected = dense(model, list(model.first.parameters()) if params else None)
    exactly(after, expected)
    assert float((after - before).abs().max()) > 1e-3
    exactly(H.gradient(), HessianOperator(model, F.cross_entropy, data(), params).gradient())
    exactly(H.parameters["first.weight"].detach(), model.first.weight.detach())
    if graph_budget is None:
        graphs = H._graphs
        _ = H @ torch.ones(H.dim)
        assert H._graphs is graphs


@BUDGETS
def test_unchanged_models_keep_their_graphs(graph_budget):
    model = Net()
    H = HessianOperator(model, F.cross_entropy, data(), graph_budget=graph_budget)
    H @ torch.ones(H.dim)
    graphs = H._graphs
    model.train().eval()
    model(data()[0])
    H.gradient(), H.total_loss(), H.blocks()
    H @ torch.ones(H.dim)
    assert H._graphs is graphs


def frozen(model):
    model.first.requires_grad_(False)


def parametrized(model):
    parametrize.register_parametrization(model.first, "weight", nn.Tanh())


REFUSED = {
    "cast": (lambda model: model.float(), "'first.weight' was .5, 4. torch.float64 on cpu and is .5, 4. torch.float32"),
    "half": (lambda model: model.half(), "torch.float64 on cpu and is .5, 4. torch.float16"),
    "moved": (lambda model: model.to("meta"), "torch.float64 on cpu and is .5, 4. torch.float64 on meta"),
    "frozen": (frozen, "it has no trainable parameter 'first.weight'"),
    "pruned": (
        lambda model: prune.l1_unstructured(model.first, "weight", 0.5),
        "no trainable parameter 'first.weight'",
    ),
    "parametrized": (parametrized, "no trainable parameter 'first.weight'"),
    "removed": (lambda model: setattr(model, "first", nn.Identity()), "no trainable parameter 'first.weight'"),
    "wider": (
        lambda model: setattr(model, "first", nn.Linear(D, 6).double()),
        r"'first.weight' was \(5, 4\) .* and is \(6, 4\)",
    ),
    "new": (lambda model: setattr(model, "extra", nn.Linear(2, 2)), "new trainable parameter 'extra.weight'"),
    "shorter": (
        lambda model: setattr(model.last, "bias", nn.Parameter(model.last.bias[:1].detach())),
        r"'last.bias' was \(3,\)",
    ),
}


@BUDGETS
@pytest.mark.parametrize("case", REFUSED)
def test_models_that_are_not_the_operators_any_more_are_refused(case, graph_budget):
    change, match = REFUSED[case]
    model = Net()
    H = HessianOperator(model, F.cross_entropy, data(), graph_budget=graph_budget)
    surface = LossSurface(H)
    H @ torch.ones(H.dim)
    change(model)
    uses = [lambda: H @ torch.ones(H.dim), H.gradient, lambda: surface.loss(surface.start), lambda: H.parameters]
    for use in uses:
        with pytest.raises(ValueError, match=f"parameters have changed since.*{match}.*Make a new operator"):
            use()


def test_weights_that_are_tied_afterwards_are_refused():
    model = nn.Sequential(nn.Linear(D, D), nn.Tanh(), nn.Linear(D, D)).double()
    H = HessianOperator(model, F.cross_entropy, data())
    model[2].weight = model[0].weight
    with pytest.raises(ValueError, match=r"no trainable parameter '2.weight' of its own any more"):
        H @ torch.ones(H.dim)


def test_parameters_may_be_frozen_and_released_around_a_block():
    model = Net()
    H = HessianOperator(model, F.cross_entropy, data(), "first")
    expected = H.to_dense()
    model.last.requires_grad_(False)
    exactly(H.to_dense(), expected)
    model.last.requires_grad_(True)
    exactly(H.to_dense(), expected)


def test_a_surface_follows_replaced_parameters():
    model = Net()
    surface = LossSurface(HessianOperator(model, F.cross_entropy, data()))
    target = surface.start + 0.1
    loss, gradient = surface.loss_and_gradient(target)
    model.load_state_dict(other_state(), assign=True)
    assert surface.loss(target) == pytest.approx(loss, rel=1e-14)
    exactly(surface.loss_and_gradient(target)[1], gradient)
    state = other_state()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    found = ascend(surface, torch.ones_like(surface.start), "l2", 0.1, 3, 0)
    assert found.loss > found.base == pytest.approx(surface.loss(surface.start), rel=1e-14)


# ---------------------------------------------------------------- names of tied weights


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.h = nn.Linear(D, CLASSES, bias=False), nn.Linear(D, CLASSES)
        self.h.weight = self.embed.weight
        self.double()

    def forward(self, x):
        return self.h(torch.tanh(x)) * self.embed(x)


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ("h.weight", ["embed.weight"]),
        ("embed.weight", ["embed.weight"]),
        ("h", ["embed.weight", "h.bias"]),
        ("h.w*", ["embed.weight"]),
        (["h.weight", "embed.weight"], ["embed.weight"]),
        (None, ["embed.weight", "h.bias"]),
    ],
)
def test_tied_weights_are_selected_by_any_of_their_names(params, names):
    model = Tied()
    H = HessianOperator(model, F.cross_entropy, data(), params)
    assert list(H.parameter_names) == names
    exactly(H.to_dense(), dense(model, [model.get_parameter(name) for name in names]))
    assert H.restricted(params="h.weight").parameter_names == ("embed.weight",)


def test_a_frozen_tied_weight_is_refused_under_its_second_name():
    model = Tied()
    model.embed.weight.requires_grad_(False)
    with pytest.raises(ValueError, match=r"parameter 'h.weight' is frozen"):
        HessianOperator(model, F.cross_entropy, data(), "h.weight")


# ---------------------------------------------------------------- copies


@BUDGETS
@BOTH
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda H: pickle.loads(pickle.dumps(H))], ids=["deepcopy", "pickle"])
def test_deep_copies_are_operators_of_a_copied_model(copied, kind, graph_budget):
    operator = kind(Net(), F.cross_entropy, data(), micro_batch_size=5, graph_budget=graph_budget)
    expected = operator.to_dense()  # graphs are kept by now
    twin = copied(operator)
    assert twin.model is not operator.model
    assert type(twin) is kind
    exactly(twin.to_dense(), expected)
    with torch.no_grad():
        operator.model.first.weight.mul_(2)
    exactly(twin.to_dense(), expected)
    assert not torch.allclose(operator.to_dense(), expected)


def test_shallow_copies_share_the_model_but_no_graphs():
    H = HessianOperator(Net(), F.cross_entropy, data())
    expected = H.to_dense()
    twin = copy.copy(H)
    assert (twin.model is H.model, twin.num_batches_kept, H.num_batches_kept) == (True, 0, 1)
    exactly(twin.to_dense(), expected)


# ---------------------------------------------------------------- default dtype and device


@contextlib.contextmanager
def defaults(choice):
    torch.set_default_dtype(torch.float64) if choice == "float64" else torch.set_default_device(choice)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


def results(model, batch):
    H = HessianOperator(model, F.cross_entropy, batch, micro_batch_size=5)
    G = GGNOperator(model, F.cross_entropy, batch, graph_budget=0)
    surface = LossSurface(H)
    vectors = H.unflatten(surface.start)
    climbed = ascend(surface, surface.start.abs() + 1, "l2", 0.1, 2, 0)
    return [
        H @ surface.start,
        G @ surface.start,
        H.gradient(),
        H.to_dense(),
        H.blocks()["last.bias"].to_dense(),
        H.flatten(vectors),
        climbed.perturbation,
        H.loss,
        H.total_loss(),
        climbed.loss,
    ]


@pytest.mark.parametrize("choice", ["float64", "meta"])
def test_defaults_of_torch_do_not_matter(choice):
    model, (x, y) = Net().float(), data()
    batch = (x.float(), y)
    expected = results(model, batch)
    with defaults(choice):
        found = results(model, batch)
    for one, other in zip(found, expected, strict=True):
        if isinstance(other, float):
            assert one == other
        else:
            assert (one.dtype, one.device.type) == (torch.float32, "cpu")
            assert torch.equal(one, other)
