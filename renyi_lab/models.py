"""Small networks with published parameter counts; a seed fixes every initial weight.

Every function draws PyTorch's default initialization, unless it says otherwise, under ``seed``: the same seed gives
the same weights bit for bit, and the global random state is restored. Weights have torch's default dtype and are on
the CPU: move them with ``model.to(...)``.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from renyi_lab._utils.random import seeded_rng
from renyi_lab._utils.validation import check_choice, check_flag, check_int

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}


def mlp(*widths: int, activation: str = "relu", bias: bool = True, seed: int = 0) -> nn.Sequential:
    """A fully connected network: linear layers of the given widths, an activation after each but the last.

    Number of parameters: Σ_l w_l·w_{l+1} (+ w_{l+1} with biases). Blocks are named ``layer1``, ``relu1``, ``layer2`` …

    Args:
        widths: Widths of the input, of each hidden layer and of the output; at least two.
        activation: Activation of the hidden layers: ``"relu"`` (default; piecewise linear), or ``"tanh"`` or ``"gelu"``
            (smooth).
        bias: Whether layers have biases. Without biases, a ReLU network is positively homogeneous in each layer.
        seed: Random seed of the initialization.

    Returns:
        The network; it takes inputs of shape ``(N, widths[0])`` and returns logits of shape ``(N, widths[-1])``.

    Raises:
        ValueError: There are fewer than two widths, one is not positive, or the activation is unknown.

    Example:
        >>> model = mlp(40, 100, 100, 10)
        >>> sum(p.numel() for p in model.parameters()), list(dict(model.named_children()))
        (15210, ['layer1', 'relu1', 'layer2', 'relu2', 'layer3'])
    """
    sizes = [check_int("each width", width) for width in widths]
    if len(sizes) < 2:
        raise ValueError(f"mlp needs the widths of input and output at least, as in mlp(40, 10); got {widths}.")
    check_choice("activation", activation, _ACTIVATIONS)
    bias, seed = check_flag("bias", bias), check_int("seed", seed, minimum=0)
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    with seeded_rng(seed):
        for index, (before, after) in enumerate(itertools.pairwise(sizes), start=1):
            blocks[f"layer{index}"] = nn.Linear(before, after, bias=bias)
            if index < len(sizes) - 1:
                blocks[f"{activation}{index}"] = _ACTIVATIONS[activation]()
    return nn.Sequential(blocks)


class TwoLayer(nn.Module):
    """A ReLU network with one hidden layer and one output, as `two_layer` makes it.

    Attributes:
        layer1: The first layer, with or without biases.
        layer2: The second layer, without a bias.
        norm: ``None`` or ``"layer"``.

    Raises:
        TypeError: An argument of another type.
        ValueError: A size that is not positive, or another ``norm``.
    """

    EPS = 1e-3
    """Smallest length that layer norm divides by."""

    def __init__(self, in_features: int, width: int, bias: bool = True, norm: str | None = None) -> None:
        super().__init__()
        in_features, width = check_int("in_features", in_features), check_int("width", width)
        if norm is not None:
            check_choice("norm", norm, ("layer",))
        self.layer1 = nn.Linear(in_features, width, bias=check_flag("bias", bias))
        self.layer2 = nn.Linear(width, 1, bias=False)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """The outputs, ``(N,)``, for inputs ``(N, in_features)``."""
        hidden = torch.relu(self.layer1(x))
        if self.norm == "layer":
            hidden = hidden / hidden.square().sum(-1, keepdim=True).clamp_min(self.EPS**2).sqrt()
        outputs: Tensor = self.layer2(hidden).squeeze(-1)
        return outputs


def two_layer(in_features: int, width: int, *, bias: bool = True, norm: str | None = None, seed: int = 0) -> TwoLayer:
    r"""The two-layer ReLU network of Wen, Li & Ma, with one output: where sharpness and generalization part.

        f(x) = w₂ · h(x) ,   h = relu(W₁x + b₁) ,   with layer norm  h / max(‖h‖, ε)

    On `datasets.xor` with squared loss, the flattest such network generalizes without biases; with biases a network
    that memorizes is as flat; with layer norm as well, but training finds the other one. Their layer norm is
    simplified: nothing is centred and nothing is learned; ε is 1e-3 here.

    Args:
        in_features: Number of input features, positive.
        width: Number of hidden units, positive.
        bias: Whether the first layer has biases. The second has none.
        norm: ``None``, or ``"layer"`` for layer norm of the hidden units.
        seed: Random seed of the initialization.

    Returns:
        The network, with blocks ``layer1`` and ``layer2``; it takes inputs of shape ``(N, in_features)`` and returns
        ``(N,)``, so that ``F.mse_loss(model(x), y)`` needs no reshaping.

    Raises:
        ValueError: An argument is out of range.

    Source:
        Wen, Li & Ma 2023, *Sharpness minimization algorithms do not only minimize sharpness to achieve better
        generalization*, arXiv:2307.11007.

    Example:
        >>> model = two_layer(30, 100)
        >>> model(torch.ones(5, 30)).shape, sum(p.numel() for p in model.parameters())
        (torch.Size([5]), 3200)
    """
    with seeded_rng(check_int("seed", seed, minimum=0)):
        return TwoLayer(in_features, width, bias, norm)


def cnn1d(
    *, num_classes: int = 10, channels: int = 25, in_features: int = 40, batch_norm: bool = False, seed: int = 0
) -> nn.Sequential:
    """The convolutional baseline of MNIST-1D: three strided convolutions and a linear layer, 5210 parameters.

    Kernels 5, 3, 3, stride 2, padding 1, ReLU after each; blocks ``conv1`` … ``conv3``, ``linear``.

    Args:
        num_classes: Number of classes, positive. Default 10.
        channels: Number of channels of each convolution, positive. Default 25, that of the published baseline.
        in_features: Length of the signal, at least 3. Default 40, that of MNIST-1D.
        batch_norm: Whether batch norm follows each convolution (blocks ``norm1`` … ``norm3``; the convolutions then
            have no biases). Default ``False``, as in the published baseline.
        seed: Random seed of the initialization.

    Returns:
        The network; it takes inputs of shape ``(N, in_features)`` and returns logits of shape ``(N, num_classes)``.

    Raises:
        ValueError: An argument is out of range.

    Source:
        Greydanus & Kobak 2024, arXiv:2011.14439 (``ConvBase`` in the authors' repository).

    Example:
        >>> [sum(p.numel() for p in cnn1d(batch_norm=norm).parameters()) for norm in (False, True)]
        [5210, 5285]
    """
    num_classes, channels = check_int("num_classes", num_classes), check_int("channels", channels)
    length = in_features = check_int("in_features", in_features, minimum=3)
    batch_norm, seed = check_flag("batch_norm", batch_norm), check_int("seed", seed, minimum=0)
    blocks: OrderedDict[str, nn.Module] = OrderedDict(to_signal=nn.Unflatten(1, (1, in_features)))
    with seeded_rng(seed):
        for index, (before, kernel) in enumerate([(1, 5), (channels, 3), (channels, 3)], start=1):
            blocks[f"conv{index}"] = nn.Conv1d(before, channels, kernel, stride=2, padding=1, bias=not batch_norm)
            if batch_norm:
                blocks[f"norm{index}"] = nn.BatchNorm1d(channels)
            blocks[f"relu{index}"] = nn.ReLU()
            length = (length + 2 - kernel) // 2 + 1
        blocks["flatten"] = nn.Flatten()
        blocks["linear"] = nn.Linear(channels * length, num_classes)
    return nn.Sequential(blocks)


def resnet20(*, num_classes: int = 10, in_channels: int = 3, seed: int = 0) -> nn.Module:
    """The residual network of 20 layers for CIFAR: 269,722 parameters with the defaults, batch norm included.

    A 3 × 3 convolution, three stages of three blocks with 16, 32 and 64 channels, global average pooling and a
    linear layer. Shortcuts have no parameters (option A of the paper): every second pixel, and zeros for the
    new channels. Convolutions have He's normal initialization (fan out), the other layers PyTorch's default.

    Args:
        num_classes: Number of classes, positive. Default 10.
        in_channels: Number of channels of the images, positive. Default 3.
        seed: Random seed of the initialization.

    Returns:
        The network; it takes images of shape ``(N, in_channels, height, width)``, 32 × 32 in the paper, and returns
        logits of shape ``(N, num_classes)``.

    Raises:
        ValueError: An argument is out of range.

    Source:
        He, Zhang, Ren & Sun 2016, *Deep residual learning for image recognition*, arXiv:1512.03385, section 4.2.

    Example:
        >>> sum(p.numel() for p in resnet20().parameters())
        269722
    """
    num_classes, in_channels = check_int("num_classes", num_classes), check_int("in_channels", in_channels)
    seed = check_int("seed", seed, minimum=0)
    with seeded_rng(seed):
        blocks: OrderedDict[str, nn.Module] = OrderedDict(
            conv1=nn.Conv2d(in_channels, 16, 3, padding=1, bias=False), norm1=nn.BatchNorm2d(16), relu1=nn.ReLU()
        )
        before = 16
        for stage, width in enumerate((16, 32, 64), start=1):
            blocks[f"stage{stage}"] = nn.Sequential(
                _ResidualBlock(before, width), _ResidualBlock(width, width), _ResidualBlock(width, width)
            )
            before = width
        blocks["pool"], blocks["flatten"] = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        blocks["linear"] = nn.Linear(before, num_classes)
        model = nn.Sequential(blocks)
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model


class _ResidualBlock(nn.Module):
    """relu(x̃ + norm(conv(relu(norm(conv(x)))))), where x̃ is x, subsampled and zero-padded if the block widens."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.stride, self.added_channels = (1 if before == width else 2), width - before
        self.conv1 = nn.Conv2d(before, width, 3, stride=self.stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        if self.added_channels:
            shortcut = F.pad(shortcut, (0, 0, 0, 0, 0, self.added_channels))
        return torch.relu(shortcut + residual)
