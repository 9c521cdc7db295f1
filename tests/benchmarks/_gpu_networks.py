"""The networks of the GPU benchmark, from a small MLP to one of GPT-2's shape; no package beside torch is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import renyi_lab as rl

Data = tuple[Tensor, Tensor]


class _Residual(nn.Module):
    """Two 3 × 3 convolutions and a shortcut."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inside, outside, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU(),
            nn.Conv2d(outside, outside, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outside),
        )
        same = stride == 1 and inside == outside
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


def resnet18(width: int = 64) -> nn.Module:
    """ResNet-18 for images of 32 × 32 pixels."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    inside = width
    for stage in range(4):
        outside = width * 2**stage
        layers += [_Residual(inside, outside, 1 + (stage > 0)), _Residual(outside, outside, 1)]
        inside = outside
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, 10))


class _Block(nn.Module):
    """A transformer block with layer norm in front."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        parts = self.qkv(self.before(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.between(x))


class ViT(nn.Module):
    """A vision transformer on patches of 4 × 4 pixels; the default is ViT-tiny."""

    def __init__(self, width: int = 192, depth: int = 12, heads: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.position = nn.Parameter(0.02 * torch.randn(1, 64, width))
        self.blocks = nn.Sequential(*(_Block(width, heads, causal=False) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.norm(self.blocks(tokens)).mean(1))


class GPT(nn.Module):
    """A language model of GPT-2's shape, its output layer tied to the embedding."""

    def __init__(self, vocabulary: int, context: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(_Block(width, heads, causal=True) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        for embedding in (self.tokens, self.positions):
            nn.init.normal_(embedding.weight, std=0.02)
        self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))
        return self.head(self.norm(self.blocks(x)))


image_loss = nn.CrossEntropyLoss()


def token_loss(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), y.flatten())


class TokenLoss(nn.CrossEntropyLoss):
    """The same as a module of a kind that a peer knows."""

    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        return token_loss(logits, y)


def _images(samples: int) -> Data:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(samples, 3, 32, 32, generator=generator), torch.randint(10, (samples,), generator=generator)


def _curves(samples: int) -> Data:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(samples, 40, generator=generator), torch.randint(10, (samples,), generator=generator)


def _text(samples: int, length: int, vocabulary: int) -> Data:
    ids = torch.randint(vocabulary, (samples, length + 1), generator=torch.Generator().manual_seed(0))
    return ids[:, :-1], ids[:, 1:]


@dataclass(frozen=True)
class Network:
    """A network at its initial weights, its data and its loss.

    Attributes:
        make: Makes the model.
        data: Makes inputs and targets, on the CPU.
        loss: ``loss(outputs, targets)``.
        batch: What the data are, for the tables.
    """

    make: Callable[[], nn.Module]
    data: Callable[[], Data]
    loss: Callable[[Tensor, Tensor], Tensor]
    batch: str

    def on(self, device: torch.device, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Data]:
        """Model in evaluation mode, and data, on a device; the weights are the same on every device."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = self.make()
        x, y = self.data()
        x = x.to(device, dtype) if x.is_floating_point() else x.to(device)
        return model.eval().to(device, dtype), (x, y.to(device))


FULL = {
    "MLP 40-100-100-10": Network(
        lambda: rl.models.mlp(40, 100, 100, 10), lambda: _curves(4000), image_loss, "4000 curves"
    ),
    "CNN1d": Network(rl.models.cnn1d, lambda: _curves(4000), image_loss, "4000 curves"),
    "ResNet-20": Network(rl.models.resnet20, lambda: _images(512), image_loss, "512 images"),
    "ResNet-18": Network(resnet18, lambda: _images(256), image_loss, "256 images"),
    "ViT-tiny": Network(ViT, lambda: _images(256), image_loss, "256 images"),
    "GPT, 10 M": Network(lambda: GPT(256, 256, 256, 12, 8), lambda: _text(16, 256, 256), token_loss, "16 × 256 tokens"),
    "GPT, 124 M": Network(
        lambda: GPT(50257, 1024, 768, 12, 12), lambda: _text(4, 512, 50257), token_loss, "4 × 512 tokens"
    ),
}
QUICK = {
    "MLP 40-100-100-10": Network(lambda: rl.models.mlp(40, 10, 10), lambda: _curves(40), image_loss, "40 curves"),
    "CNN1d": Network(lambda: rl.models.cnn1d(channels=4), lambda: _curves(20), image_loss, "20 curves"),
    "ResNet-20": Network(rl.models.resnet20, lambda: _images(2), image_loss, "2 images"),
    "ResNet-18": Network(lambda: resnet18(4), lambda: _images(2), image_loss, "2 images"),
    "ViT-tiny": Network(lambda: ViT(12, 1, 3), lambda: _images(2), image_loss, "2 images"),
    "GPT, 10 M": Network(lambda: GPT(16, 8, 8, 1, 2), lambda: _text(2, 8, 16), token_loss, "2 × 8 tokens"),
    "GPT, 124 M": Network(lambda: GPT(32, 8, 8, 2, 2), lambda: _text(2, 8, 32), token_loss, "2 × 8 tokens"),
}
