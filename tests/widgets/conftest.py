"""A small network for the explorers of perturbations."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from renyi_lab import HessianOperator, models


@pytest.fixture(scope="session")
def operator() -> HessianOperator:
    model = models.mlp(6, 8, 4, seed=1).double()
    for parameter in model.parameters():
        parameter.data *= 2.0
    x = torch.randn(30, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return HessianOperator(model, cross_entropy, (x, torch.arange(30) % 4))
