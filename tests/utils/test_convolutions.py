"""Convolutions with a second derivative of their own are torch's, in all derivatives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from renyi_lab._utils.convolutions import Convolution, convolution

CASES = [
    (1, {"stride": 2, "padding": 1}),
    (2, {"padding": (1, 2), "dilation": (2, 1)}),
    (2, {"groups": 2, "stride": (1, 2)}),
    (3, {"padding": 1}),
]


def layer_and_inputs(dims, options):
    torch.manual_seed(0)
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    return kind(2, 4, 3, **options).double(), torch.randn(2, 2, *[5] * dims, dtype=torch.float64, requires_grad=True)


def ours(layer, inputs):
    settings = layer.stride, layer.padding, layer.dilation, layer.groups
    return convolution(inputs, layer.weight, layer.bias, *settings)


@pytest.mark.parametrize(("dims", "options"), CASES)
def test_values_and_derivatives_are_those_of_torch(dims, options):
    layer, inputs = layer_and_inputs(dims, options)
    variables = [inputs, *layer.parameters()]
    vectors = [torch.randn_like(v) for v in variables]
    results = []
    for outputs in (layer(inputs), ours(layer, inputs)):
        first = torch.autograd.grad(outputs.tanh().pow(2).sum(), variables, create_graph=True)
        second = torch.autograd.grad(first, variables, vectors, create_graph=True)
        third = torch.autograd.grad(second, variables, vectors)
        results.append([outputs, *first, *second, *third])
    for theirs, own in zip(*results, strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-10, atol=1e-12)


def test_several_vectors_at_once():
    layer, inputs = layer_and_inputs(*CASES[1])
    variables = list(layer.parameters())
    for detached in (True, False):  # without and with a derivative in the inputs
        given = inputs.detach() if detached else inputs * layer.bias.sum()
        first = torch.autograd.grad(ours(layer, given).tanh().pow(2).sum(), variables, create_graph=True)
        vectors = [torch.randn(3, *v.shape, dtype=v.dtype) for v in variables]
        together = torch.autograd.grad(first, variables, vectors, is_grads_batched=True, retain_graph=True)
        for i in range(3):
            single = torch.autograd.grad(first, variables, [v[i] for v in vectors], retain_graph=True)
            for one, several in zip(single, together, strict=True):
                torch.testing.assert_close(several[i], one, rtol=1e-10, atol=1e-12)


def test_the_gradient_alone_needs_no_graph():
    layer, inputs = layer_and_inputs(*CASES[2])
    (slope,) = torch.autograd.grad(ours(layer, inputs).sum(), inputs)
    assert not slope.requires_grad
    assert type(ours(layer, inputs).grad_fn).__name__ == "AddBackward0"
    assert Convolution.apply(inputs, layer.weight, (layer.stride, layer.padding, layer.dilation, layer.groups)).shape
