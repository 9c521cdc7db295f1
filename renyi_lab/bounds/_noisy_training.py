"""Training under weight noise: the prior of a certificate, and posteriors that stay near it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils.data import Dataset

from renyi_lab._utils.data_sets import Pair
from renyi_lab._utils.model_state import preserved_buffers
from renyi_lab.training import train

# Shares of the epochs: plain, noisy, noisy at a tenth of the learning rate. Heuristic: an untrained network does not
# learn under the noise, and the last stage lets the weights converge.
_STAGES = ((0.2, False, 1.0), (0.6, True, 1.0), (0.2, True, 0.1))
_WEIGHT_DECAY = 1e-4  # heuristic: the noise regularizes too, so a fifth of `train`'s


class NoisyNetwork(nn.Module):
    """A network whose every forward pass draws its trainable weights anew, θ + σz, from torch's global generator."""

    def __init__(self, network: nn.Module, sigma: float, *, frozen_state: bool = False) -> None:
        super().__init__()
        self.network, self.sigma, self.frozen_state = network, sigma, frozen_state

    def train(self, mode: bool = True) -> NoisyNetwork:
        """Set the mode; with ``frozen_state`` the network stays in evaluation mode, so that its buffers stay too."""
        super().train(mode)
        if self.frozen_state:
            self.network.eval()
        return self

    def forward(self, x: Tensor) -> Any:
        """The network's outputs with one draw of noise for the whole batch."""
        noisy = {
            name: weight + self.sigma * torch.randn_like(weight)
            for name, weight in self.network.named_parameters()
            if weight.requires_grad
        }
        return functional_call(self.network, noisy, (x,))


def train_prior(
    network: nn.Module, data_set: Dataset[Any] | Pair, noise: float, epochs: int, seed: int, **settings: Any
) -> None:
    """Train ``network`` in place so that its error survives Gaussian noise of this standard deviation."""
    lr = settings.pop("lr")
    for stage, (share, noisy, factor) in enumerate(_STAGES):
        train(
            NoisyNetwork(network, noise) if noisy else network,
            data_set,
            epochs=max(1, round(share * epochs)),
            lr=factor * lr,
            weight_decay=_WEIGHT_DECAY,
            seed=seed + stage,
            **settings,
        )


def train_posterior(
    prior: nn.Module,
    data_set: Dataset[Any] | Pair,
    num_samples: int,
    sigma: float,
    penalty: float,
    epochs: int,
    seed: int,
    **settings: Any,
) -> nn.Module:
    """A copy of ``prior``, trained on cross-entropy under noise + penalty · ‖θ−θ₀‖² / (2σ²N); its buffers stay."""
    network = copy.deepcopy(prior)
    weights = [p for p in network.parameters() if p.requires_grad]
    anchors = [weight.detach().clone() for weight in weights]
    stiffness = penalty / (sigma**2 * num_samples)

    def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
        distance = torch.stack([(w - a).square().sum() for w, a in zip(weights, anchors, strict=True)]).sum()
        return F.cross_entropy(outputs, targets) + stiffness / 2 * distance

    # A step must not overshoot the penalty's own minimum.
    lr = min(settings.pop("lr"), 1 / stiffness)
    with preserved_buffers(network):
        train(
            NoisyNetwork(network, sigma, frozen_state=True),
            data_set,
            epochs=epochs,
            lr=lr,
            weight_decay=0.0,
            loss_fn=loss_fn,
            seed=seed,
            **settings,
        )
    return network
