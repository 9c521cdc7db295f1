"""The error of a noisy network against its closed form, and a model that is restored."""

from __future__ import annotations

import copy
import math
import random
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from renyi_lab.posterior import gibbs_error


def linear_problem(bias: bool = True) -> tuple[nn.Linear, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    model = nn.Linear(3, 2, bias=bias, dtype=torch.float64)
    with torch.no_grad():
        for param in model.parameters():
            param.copy_(torch.randn(param.shape, generator=generator, dtype=torch.float64))
    x = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    return model, x, torch.randint(0, 2, (40,), generator=generator)


def closed_form(model: nn.Linear, x: torch.Tensor, y: torch.Tensor, sigma: float) -> float:
    """Mean of Φ(−margin / (σ √(2(‖x‖² + 1)))): the noise in the score difference is Gaussian."""
    scores = model(x).detach()
    margin = scores.gather(1, y[:, None])[:, 0] - scores.gather(1, 1 - y[:, None])[:, 0]
    spread = sigma * (2 * ((x**2).sum(1) + (model.bias is not None))).sqrt()
    return float(torch.special.ndtr(-margin / spread).mean())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sigma", [0.1, 1.0])
def test_the_error_of_a_noisy_linear_classifier_is_its_closed_form(sigma: float, bias: bool):
    model, x, y = linear_problem(bias)
    result = gibbs_error(model, TensorDataset(x, y), sigma, num_draws=2000, seed=5)
    expected = closed_form(model, x, y, sigma)
    plain = float((model(x).argmax(1) != y).double().mean())
    assert abs(expected - plain) > 5 * result.standard_error  # otherwise the noise is not tested
    assert float(result) == pytest.approx(expected, abs=4 * result.standard_error)
    assert result.standard_error < 0.005


def test_the_standard_error_is_that_of_the_mean_over_draws():
    model, x, y = linear_problem()
    result = gibbs_error(model, (x, y), 1.0, num_draws=50)
    assert result.value == pytest.approx(np.mean(result.draws), rel=1e-14)
    assert result.standard_error == pytest.approx(np.std(result.draws, ddof=1) / math.sqrt(50), rel=1e-12)
    assert result.num_draws == 50
    assert gibbs_error(model, (x, y), 1.0, num_draws=1).standard_error == math.inf


def test_without_noise_it_is_the_error_of_the_network():
    model, x, y = linear_problem()
    result = gibbs_error(model, (x, y), 0.0, num_draws=3)
    assert result.draws == (float((model(x).argmax(1) != y).double().mean()),) * 3


def test_draws_depend_on_the_seed_alone():
    model, x, y = linear_problem()
    torch.manual_seed(1)
    first = gibbs_error(model, (x, y), 1.0, num_draws=20, seed=3)
    torch.manual_seed(2)
    assert gibbs_error(model, (x, y), 1.0, num_draws=20, seed=3) == first
    assert gibbs_error(model, (x, y), 1.0, num_draws=20, seed=4) != first


def test_frozen_weights_get_no_noise():
    model, x, y = linear_problem()
    frozen = nn.Sequential(model.requires_grad_(False), nn.Linear(2, 2, bias=False, dtype=torch.float64))
    nn.init.eye_(frozen[1].weight)
    noisy_head = gibbs_error(frozen, (x, y), 1e-12, num_draws=5)
    assert noisy_head.draws == (float((model(x).argmax(1) != y).double().mean()),) * 5


class Fragile(nn.Module):
    """Counts its calls in a buffer, draws random numbers, and fails at the given call."""

    def __init__(self, fail_at: int | None, error: type[BaseException]) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 2), nn.BatchNorm1d(2)
        self.register_buffer("calls", torch.zeros(()))
        self.count, self.fail_at, self.error = 0, fail_at, error

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.count += 1
        assert not self.training
        torch.rand(1)
        if self.count == self.fail_at:
            raise self.error("in the middle")
        return self.norm(self.linear(x))


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_model_and_random_states_are_unchanged(error: type[BaseException] | None):
    model = Fragile(3 if error else None, error or ValueError)
    model.train()
    model.norm.eval()
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    before = copy.deepcopy(model.state_dict())
    model.linear.weight.grad = torch.ones(2, 3)
    states = torch.get_rng_state(), random.getstate()
    data = TensorDataset(
        torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(8, dtype=torch.long)
    )
    if error is None:
        gibbs_error(model, data, 1.0, num_draws=5)
        assert model.count == 5
    else:
        with pytest.raises(error, match="in the middle"):
            gibbs_error(model, data, 1.0, num_draws=5)
        assert model.count == 3
    after = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert all(after[name] is tensors[name] for name in tensors)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert (model.training, model.linear.training, model.norm.training) == (True, True, False)
    assert torch.equal(model.linear.weight.grad, torch.ones(2, 3))
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()


def test_a_score_that_is_not_a_number_counts_as_a_mistake():
    model = nn.Linear(1, 2, bias=False)
    nn.init.constant_(model.weight, math.nan)
    assert gibbs_error(model, (torch.ones(4, 1), torch.tensor([0, 0, 1, 1])), 0.1, num_draws=2).value == 1.0


refused = partial(
    partial,
    gibbs_error,
    model=nn.Linear(3, 2),
    data_set=(torch.ones(4, 3), torch.ones(4, dtype=torch.long)),
    sigma=0.1,
    num_draws=2,
)
MESSAGES = [
    (refused(sigma=-1.0), ValueError, "sigma must lie in"),
    (refused(num_draws=0), ValueError, "num_draws must be at least 1"),
    (refused(seed=-1), ValueError, "seed must be at least 0"),
    (refused(model="mlp"), TypeError, "model must be a torch.nn.Module"),
    (refused(model=nn.Linear(3, 2).requires_grad_(False)), ValueError, "no trainable weight"),
    (refused(model=nn.Linear(3, 1)), ValueError, "classes ≥ 2"),
    (refused(model=nn.Linear(3, 1)), ValueError, r"pass a network with the scores \(0, f\)"),
    (refused(data_set=(torch.ones(0, 3), torch.ones(0, dtype=torch.long))), ValueError, "data_set is empty"),
    (refused(data_set=(torch.ones(4, 3), torch.ones(4, 2))), ValueError, "class indices"),
    (refused(data_set=(torch.ones(4, 2), torch.ones(4).long())), ValueError, r"not take inputs of shape \(4, 2\)"),
]


@pytest.mark.parametrize(("call", "error", "message"), MESSAGES)
def test_messages(call, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        call()
