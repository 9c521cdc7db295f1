"""The matrix is the Hessian of the loss: hooks on gradients are neither called nor lost."""

import pytest
import torch
from double_backward import CLASSES, D, data, double_backward
from restless import unchanged
from torch import nn
from torch.nn import functional as F

from renyi_lab.operators import GGNOperator, HessianOperator, LossSurface, hvp

BUDGETS = pytest.mark.parametrize("graph_budget", [0, None])
BOTH = pytest.mark.parametrize("kind", [HessianOperator, GGNOperator])


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(D, 5), nn.Tanh(), nn.Linear(5, CLASSES)).double()


def exactly(actual, expected, tolerance=1e-10):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


CALLS = []


def clamp(gradient):
    CALLS.append("tensor")
    return gradient.clamp(-0.01, 0.01)


def halve(module, inputs, outputs):
    CALLS.append("module")
    return tuple(None if part is None else 0.5 * part for part in inputs)


def halve_before(module, outputs):
    CALLS.append("module, before")
    return tuple(0.5 * part for part in outputs)


def clamped_output(module, inputs, output):
    if output.requires_grad:
        output.register_hook(clamp)


def retained_output(module, inputs, output):
    if output.requires_grad:
        output.retain_grad()


class Hooked(nn.Module):
    """Registers a hook on its weight in each forward pass."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        self.layer.weight.register_hook(clamp)
        return self.layer(x)


def on_every_parameter(model):
    for parameter in model.parameters():
        parameter.register_hook(clamp)


def accumulated(model):
    model[0].weight.register_post_accumulate_grad_hook(lambda parameter: CALLS.append("accumulated"))


def on_several(model):
    torch.autograd.graph.register_multi_grad_hook(list(model.parameters()), lambda grads: CALLS.append("several"))


def in_forward(model):
    model[0] = Hooked(model[0])


HOOKS = {
    "parameter": on_every_parameter,
    "accumulated": accumulated,
    "several": on_several,
    "module": lambda model: model[2].register_full_backward_hook(halve),
    "module, before": lambda model: model[1].register_full_backward_pre_hook(halve_before),
    "activation": lambda model: model[1].register_forward_hook(clamped_output),
    "retained": lambda model: model[1].register_forward_hook(retained_output),
    "in forward": in_forward,
}


def gradients_by_backward(model):
    """What an ordinary backward pass gives, with all hooks."""
    model.zero_grad()
    x, y = data()
    F.cross_entropy(model(x), y).backward()
    found = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    return found


@BUDGETS
@BOTH
@pytest.mark.parametrize("hook", HOOKS)
def test_hooks_are_neither_called_nor_lost(hook, kind, graph_budget):
    model, plain = net(), kind(net(), F.cross_entropy, data())
    HOOKS[hook](model)
    before, ordinary = dict(model[0].__dict__), gradients_by_backward(model)
    CALLS.clear()
    with unchanged(model):
        operator = kind(model, F.cross_entropy, data(), micro_batch_size=5, graph_budget=graph_budget)
        exactly(operator.to_dense(), plain.to_dense())
        exactly(operator.to_dense().T, plain.to_dense())
        exactly(operator.gradient(), plain.gradient())
        surface = LossSurface(operator)
        exactly(surface.loss_and_gradient(surface.start)[1], plain.gradient())
    assert CALLS == []
    assert dict(model[0].__dict__).keys() == before.keys()
    assert all(map(torch.equal, gradients_by_backward(model), ordinary))
    if hook != "retained":
        assert len(CALLS) > 0


def test_the_hessian_is_that_of_the_plain_function():
    model, (x, y) = net(), data()
    expected = double_backward(lambda: F.cross_entropy(model(x), y), model.parameters())
    on_every_parameter(model)
    exactly(HessianOperator(model, F.cross_entropy, (x, y)).to_dense(), expected)
    vector = torch.ones(len(expected), dtype=torch.float64)
    exactly(hvp(F.cross_entropy(model(x), y), model.parameters(), vector), expected @ vector)
    clipped = double_backward(lambda: F.cross_entropy(model(x), y), model.parameters())
    assert float((clipped - expected).norm() / expected.norm()) > 0.5  # what the hooks make of it


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_global_module_hooks_are_suspended():
    handle = nn.modules.module.register_module_full_backward_hook(halve)
    try:
        model = net()
        CALLS.clear()
        found = HessianOperator(model, F.cross_entropy, data()).to_dense()
        assert CALLS == []
        gradients_by_backward(model)
        assert len(CALLS) > 0
    finally:
        handle.remove()
    exactly(found, HessianOperator(net(), F.cross_entropy, data()).to_dense())


def test_hooks_survive_an_error_and_can_be_removed_afterwards():
    model, fails = net(), [False]
    handles = [model[0].weight.register_hook(clamp), model[2].register_full_backward_hook(halve)]

    def loss(outputs, targets):
        if fails[0]:
            raise ZeroDivisionError
        return F.cross_entropy(outputs, targets)

    H = HessianOperator(model, loss, data(), graph_budget=0)
    fails[0] = True
    with pytest.raises(ZeroDivisionError):
        H @ torch.ones(H.dim)
    CALLS.clear()
    gradients_by_backward(model)
    assert sorted(CALLS) == ["module", "tensor"]
    CALLS.clear()
    for handle in handles:
        handle.remove()
    gradients_by_backward(model)
    assert CALLS == []
    assert "retain_grad" not in vars(torch.Tensor)


def test_forward_hooks_are_a_part_of_the_function():
    model, (x, y) = net(), data()
    model[1].register_forward_hook(lambda module, inputs, output: output**2)
    model[0].register_forward_pre_hook(lambda module, inputs: (3 * inputs[0],))
    H = HessianOperator(model, F.cross_entropy, (x, y))
    exactly(H.to_dense(), double_backward(lambda: F.cross_entropy(model(x), y), model.parameters()))


def test_a_loss_that_calls_backward_leaves_no_gradient_behind():
    model, (x, y) = net(), data()
    model[0].weight.grad = torch.ones_like(model[0].weight)

    def loss(network, batch):
        network(batch[0]).sum().backward()
        return F.cross_entropy(network(batch[0]), batch[1])

    with unchanged(model):
        H = HessianOperator(model, loss, (x, y), loss_style="model_batch")
        exactly(H.to_dense(), HessianOperator(net(), F.cross_entropy, (x, y)).to_dense())
