"""Notebook 10 runs unchanged for other models: only its template cell is replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import renyi_lab as rl

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "10_your_own_model.ipynb"
# Fewer products and groups, for speed; everything else runs as it is.
FASTER = {
    "num_matvecs=60": "num_matvecs=5",
    "num_matvecs=100": "num_matvecs=5",
    "num_matvecs=200": "num_matvecs=10",
    "estimate_spectrum(block, seed=0)": "estimate_spectrum(block, num_matvecs=5)",
    "rl.checkup(model, loss_fn, data)": "rl.checkup(model, loss_fn, data, num_matvecs=10)",
    "NUM_GROUPS, ALPHA = 10": "NUM_GROUPS, ALPHA = 5",
}
# Sections on models with names of their own, and the exercises.
OTHERS = (
    "broken-",
    "transformer-",
    "resnet-",
    "compare",
    "device-",
    "exercise-",
    "checkup-check",
    "product-others",
    "product-check",
)


class TokenClassifier(nn.Module):
    """A transformer that classifies sequences, with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 8)
        self.block = nn.TransformerEncoderLayer(8, nhead=2, dim_feedforward=8, dropout=0.1, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.block(self.embed(tokens)).mean(1))


def regression() -> dict[str, Any]:
    x = torch.randn(60, 5)
    return {"model": rl.models.mlp(5, 8, 1), "loss_fn": F.mse_loss, "data": (x, x[:, :1].sin())}


def convolutions() -> dict[str, Any]:
    data = TensorDataset(torch.randn(30, 40), torch.arange(30) % 3)
    model = rl.models.cnn1d(num_classes=3, channels=2, batch_norm=True)
    model(data.tensors[0])
    return {"model": model, "loss_fn": nn.CrossEntropyLoss(), "data": DataLoader(data, batch_size=12, shuffle=True)}


def transformer() -> dict[str, Any]:
    data = TensorDataset(torch.randint(9, (30, 6)), torch.arange(30) % 3)
    return {"model": TokenClassifier(), "loss_fn": F.cross_entropy, "data": data}


def dictionaries() -> dict[str, Any]:
    tokens, labels = torch.randint(9, (30, 6)), torch.arange(30) % 3
    data = [{"tokens": tokens[k::2], "labels": labels[k::2]} for k in range(2)]
    return {
        "model": TokenClassifier(),
        "loss_fn": lambda model, batch: F.cross_entropy(model(batch["tokens"]), batch["labels"]),
        "data": data,
    }


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("template", [regression, convolutions, transformer, dictionaries], ids=lambda t: t.__name__)
def test_the_notebook_runs_unchanged_for_another_model(template: Any, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    replaced = set()
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        if cell.cell_type == "code" and not cell.id.startswith(OTHERS):
            source = cell.source
            for slow, fast in FASTER.items():
                replaced |= {slow} & {slow if slow in source else ""}
                source = source.replace(slow, fast)
            if cell.id == "template":
                names |= template()
            else:
                exec(compile(source, cell.id, "exec"), names)
    assert replaced == set(FASTER)
    printed = capsys.readouterr().out
    assert f"dim={names['H'].dim}" in printed
    assert "your model: asymmetry below 1e-4" in printed
    assert f"dim={names['H'].dim}" in repr(names["loaded"])
