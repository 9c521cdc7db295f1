"""A layer that cannot be differentiated twice."""

import torch
from torch import nn


class _OnceOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return grad * 2


class OnceDifferentiable(nn.Module):
    """The identity, with a gradient twice too large that counts as constant in a second derivative."""

    def forward(self, x):
        return _OnceOnly.apply(x)
