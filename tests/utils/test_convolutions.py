"""Convolutions with a second derivative of their own are torch's, in all derivatives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from renyi_lab._utils import convolutions
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


def test_batched_gradients_keep_their_graph():
    layer, inputs = layer_and_inputs(*CASES[1])
    results = []
    for outputs in (layer(inputs), ours(layer, inputs)):
        torch.manual_seed(1)
        vectors = torch.randn(2, *outputs.shape, dtype=outputs.dtype)
        (rows,) = torch.autograd.grad(outputs, layer.weight, vectors, is_grads_batched=True, create_graph=True)
        results.append(torch.autograd.grad(rows.pow(2).sum(), inputs)[0])
    torch.testing.assert_close(results[1], results[0], rtol=1e-10, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Complex modules")
def test_torch_computes_what_only_it_can():
    layer, inputs = layer_and_inputs(*CASES[1])
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(inputs.detach(), torch.ones_like(inputs))
        tangents = [torch.autograd.forward_ad.unpack_dual(f(dual)).tangent for f in (layer, forward_of(layer))]
    torch.testing.assert_close(*tangents)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert forward_of(layer.float())(inputs.float()).dtype == torch.bfloat16
    layer, inputs = layer.to(torch.complex128), inputs.to(torch.complex128)
    torch.testing.assert_close(forward_of(layer)(inputs), layer(inputs))


def forward_of(layer):
    return lambda inputs: convolutions._forward(layer, inputs)
