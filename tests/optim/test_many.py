"""The benchmarks that train many networks at once compute what separate trainings compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from renyi_lab import models
from renyi_lab.optim import ASAM, RSAM, SAGM, SAM, SharpnessAware

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
RHOS = (0.1, 0.5, 1.0)


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import _many

    return _many


@pytest.mark.parametrize(
    ("kind", "settings", "max_norm"),
    [(SAM, {}, None), (ASAM, {}, None), (SAGM, {"alpha": 0.1}, None), (RSAM, {"alpha": 1.2}, None), (RSAM, {}, 0.2)],
)
def test_models_trained_together_equal_those_trained_alone(
    many: Any, kind: type[SharpnessAware], settings: dict[str, Any], max_norm: float | None
) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(3, 32, 8, generator=generator), torch.randint(4, (3, 32), generator=generator)
    together = many.ManyMLPs((8, 6, 4), (0, 1, 2))
    options = {"lr": 0.01, "weight_decay": 0.1, **settings}
    optimizer = many.each_model(kind, RHOS, max_norm)(together.parameters, torch.optim.Adam, **options)
    together.train(optimizer, [(x, y)] * 4)
    limit = {"max_norm": max_norm} if kind is RSAM else {}
    for index, (trained, rho) in enumerate(zip(together.trained(), RHOS, strict=True)):
        alone = models.mlp(8, 6, 4, seed=index)
        own = kind(alone.parameters(), torch.optim.Adam, rho=rho, **options, **limit)
        for _ in range(4):

            def closure(alone: nn.Module = alone, own: SharpnessAware = own, index: int = index) -> torch.Tensor:
                own.zero_grad()
                loss = nn.functional.cross_entropy(alone(x[index]), y[index])
                loss.backward()
                return loss

            own.step(closure)
        for ours, theirs in zip(trained.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_a_model_that_diverges_is_left_out(many: Any) -> None:
    together = many.ManyMLPs((8, 6, 4), (0, 1))
    with torch.no_grad():
        together.parameters[0][1, 0, 0] = torch.nan
    first, second = together.trained()
    assert isinstance(first, nn.Module)
    assert second is None


def test_runs_are_cut_by_what_they_share(many: Any) -> None:
    cut = many.chunks_by(lambda run: run % 2, 2)
    assert cut([0, 1, 2, 3, 4]) == [[0, 2], [4], [1, 3]]
