"""`LandscapeExplorer` against dense Hessians and what is known of constructed networks."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from explorer_view import caption
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from renyi_lab import HessianOperator, datasets, models
from renyi_lab.counterexamples import four_neuron_network, memorizing_network
from renyi_lab.models import TwoLayer
from renyi_lab.spectrum import exact_spectrum
from renyi_lab.widgets import LandscapeExplorer
from renyi_lab.widgets._two_layer import TwoLayerHessian


def sign_data(num_samples: int, features: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random signs, and the product of the first two."""
    sets = datasets.xor(num_samples=num_samples, num_features=features, targets="signs", seed=seed)
    x, y = sets[0].tensors
    return x.double(), y.double()


def two_layer(features: int, width: int, seed: int = 0, bias: bool = True) -> TwoLayer:
    return models.two_layer(features, width, bias=bias, seed=seed).double()


def memorizing() -> TwoLayer:
    return memorizing_network(TensorDataset(X, Y), width=WIDTH)


def four_neurons(width: int) -> TwoLayer:
    return four_neuron_network(6, width=width)


def empty() -> TwoLayer:
    model = two_layer(6, WIDTH)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model


class Tanh(TwoLayer):
    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.layer2(torch.tanh(self.layer1(x)))
        return outputs[:, 0]


X, Y = sign_data(12, 6, seed=0)
TEST = sign_data(64, 6, seed=1)
WIDTH = 14
NAMES = ("memorizing", "four neurons", "random")


def solutions() -> tuple[TwoLayer, TwoLayer, TwoLayer]:
    distinct = len(torch.unique(X, dim=0))
    assert distinct == len(X), "no sample occurs twice"
    return memorizing(), four_neurons(WIDTH), two_layer(6, WIDTH, seed=3)


@pytest.fixture(scope="module")
def module_explorer() -> LandscapeExplorer:
    a, b, third = solutions()
    return LandscapeExplorer(a, b, F.mse_loss, (X, Y), test_data=TEST, third=third, labels=NAMES)


@pytest.fixture
def explorer(module_explorer: LandscapeExplorer) -> LandscapeExplorer:
    module_explorer.reset()
    return module_explorer


def at(explorer: LandscapeExplorer) -> TwoLayer:
    """The network at the explorer's current point, built from the solutions."""
    a, b, third = solutions()
    model = copy.deepcopy(a)
    flat = [torch.cat([p.detach().reshape(-1) for p in m.parameters()]) for m in (a, b, third)]
    along = flat[1] - flat[0]
    across = flat[2] - flat[0]
    across = across - (across @ along) / (along @ along) * along
    point, start = flat[0] + explorer.t.value * along + explorer.s.value * across, 0
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(point[start : start + parameter.numel()].reshape(parameter.shape))
            start += parameter.numel()
    return model


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("width", "num_samples"), [(3, 30), (9, 8)])
def test_the_small_matrix_has_the_eigenvalues_of_the_dense_hessian(bias: bool, width: int, num_samples: int) -> None:
    model = two_layer(5, width, seed=1, bias=bias)
    H = HessianOperator(model, F.mse_loss, sign_data(num_samples, 5))
    small = TwoLayerHessian.of(H)
    assert small is not None
    found = small.eigenvalues(H.flatten(H.parameters.values())).numpy()
    dense = exact_spectrum(H).nodes
    count = max(len(found), len(dense))
    padded = [np.sort(np.pad(values, (0, count - len(values)))) for values in (found, dense)]
    np.testing.assert_allclose(*padded, atol=1e-12)


@pytest.mark.parametrize(
    ("model", "loss_fn", "target"),
    [
        (models.mlp(6, 5, 1), F.mse_loss, Y[:, None]),  # a bias in the second layer
        (two_layer(6, 5), F.l1_loss, Y),
        (two_layer(6, 5), nn.MSELoss(reduction="sum"), Y),
        (nn.Sequential(nn.Linear(6, 1, bias=False)), F.mse_loss, Y[:, None]),
    ],
)
def test_other_networks_and_losses_are_not_taken_for_two_layers(model: nn.Module, loss_fn: Any, target: Any) -> None:
    assert TwoLayerHessian.of(HessianOperator(model.double(), loss_fn, (X, target))) is None


def test_names_of_layers_are_not_trusted() -> None:
    assert TwoLayerHessian.of(HessianOperator(Tanh(6, 5).double(), F.mse_loss, (X, Y))) is None


@pytest.mark.parametrize("position", [(0, 0), (5, 0), (-5, 0), (12, 2), (13, -1), (9, 4)])
def test_every_number_is_that_of_the_network_at_the_point(
    explorer: LandscapeExplorer, position: tuple[int, int]
) -> None:
    explorer.t.index = position[0] % len(explorer.t.options)
    explorer.s.value = float(explorer.plane.rows[explorer.plane.origin + min(position[1], 4)])
    explorer.alpha.value = 2.0
    model = at(explorer)
    spectrum = exact_spectrum(HessianOperator(model, F.mse_loss, (X, Y)))
    with torch.no_grad():
        outputs, loss = model(TEST[0]), float(F.mse_loss(model(X), Y))
    error = float(((1 - outputs.sign() * TEST[1]) / 2).mean())
    assert explorer.loss == pytest.approx(loss, abs=1e-9)
    assert explorer.error == pytest.approx(error)
    assert explorer.trace.value == pytest.approx(spectrum.trace.value, rel=1e-7)
    assert explorer.entropy.value == pytest.approx(spectrum.renyi_entropy(2.0).value, abs=1e-7)
    shown = [marker.get_ydata()[0] for marker in explorer.markers]
    floor = explorer.markers[0].axes.get_ylim()[0]
    assert shown == pytest.approx([max(explorer.loss, floor), error, explorer.trace.value, explorer.entropy.value])
    assert f"H α {explorer.entropy.value:.3f} nats" in caption(explorer).replace("Hα", "H α")
    assert explorer.status.value == ""


def test_the_two_solutions_have_one_trace_and_the_memorizing_one_the_largest_entropy(
    explorer: LandscapeExplorer,
) -> None:
    explorer.t.value = 0.0
    assert explorer.entropy.value == pytest.approx(math.log(len(X)), abs=1e-9)
    assert "at memorizing" in caption(explorer)
    trace, error = explorer.trace.value, explorer.error
    explorer.t.value = 1.0
    assert explorer.trace.value == pytest.approx(trace)
    assert explorer.entropy.value < math.log(len(X)) - 0.5
    assert (explorer.error, explorer.loss) == (0.0, pytest.approx(0.0, abs=1e-20))
    assert error > 0.3


def test_the_plane_contains_the_third_solution(explorer: LandscapeExplorer) -> None:
    plane, third = explorer.plane, solutions()[2]
    flat = torch.cat([parameter.detach().reshape(-1) for parameter in third.parameters()])
    assert plane.third is not None
    torch.testing.assert_close(plane.point(plane.third, 1.0), flat)
    assert {0.0, 1.0} <= set(plane.ts.tolist())
    assert {0.0, 1.0} <= set(plane.rows.tolist())
    assert plane.ts[0] < plane.third < plane.ts[-1]


def test_other_networks_are_estimated_on_the_path_and_the_picture_says_so() -> None:
    x, y = torch.randn(40, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3
    a, b = (models.mlp(8, 10, 3, seed=seed).double() for seed in (1, 2))
    explorer = LandscapeExplorer(a, b, F.cross_entropy, (x, y), test_data=(x, y), alpha=1.0, t=1.0)
    assert not explorer.plane.is_exact
    spectrum = exact_spectrum(HessianOperator(b, F.cross_entropy, (x, y)))
    for found, true in ((explorer.trace, spectrum.trace), (explorer.entropy, spectrum.renyi_entropy(1.0))):
        assert abs(found.value - true.value) <= 3 * found.standard_error + 1e-9
        assert f"± {found.standard_error:.2g}"[:5] in caption(explorer)
    with torch.no_grad():
        assert explorer.error == pytest.approx(float((b(x).argmax(dim=1) != y).double().mean()))
    titles = [axes.get_title() for axes in explorer.figure.axes]
    assert sum("estimated" in title for title in titles) == 2
    assert "estimated (± one standard error" in caption(explorer)
    explorer.s.value = float(explorer.plane.rows[-1])
    assert math.isnan(explorer.trace.value)
    assert "on the path only" in caption(explorer)


def test_without_test_data_there_is_no_test_error() -> None:
    a, b, _ = solutions()
    explorer = LandscapeExplorer(a, b, F.mse_loss, (X, Y))
    assert math.isnan(explorer.error)
    assert "test error" not in caption(explorer)


def test_models_and_random_state_are_left_alone() -> None:
    a, b, third = solutions()
    before = [{k: v.clone() for k, v in m.state_dict().items()} for m in (a, b, third)]
    state = torch.get_rng_state()
    LandscapeExplorer(a.train(), b, F.mse_loss, (X, Y), third=third).t.value = 1.0
    assert torch.equal(torch.get_rng_state(), state)
    assert a.training
    for model, old in zip((a, b, third), before, strict=True):
        assert all(torch.equal(value, old[key]) for key, value in model.state_dict().items())
        assert all(parameter.grad is None for parameter in model.parameters())


def frozen() -> TwoLayer:
    model = four_neurons(WIDTH)
    for parameter in model.layer2.parameters():
        parameter.requires_grad_(False)
    return model


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"b": torch.zeros(3)}, TypeError, "b must be a torch.nn.Module, got Tensor"),
        ({"b": four_neurons(WIDTH + 1)}, ValueError, "different architectures"),
        ({"b": models.mlp(6, WIDTH, 1)}, ValueError, "different architectures"),
        ({"b": Tanh(6, WIDTH).double()}, ValueError, "different architectures"),
        ({"b": memorizing()}, ValueError, "a and b have the same weights"),
        ({"a": frozen(), "b": memorizing()}, ValueError, "layer2.weight is frozen in one of a and b only"),
        ({"third": empty(), "a": four_neurons(WIDTH), "b": empty()}, ValueError, "no plane"),
        ({"data": None}, (TypeError, ValueError), "data"),
        ({"data": (X[:0], Y[:0])}, ValueError, "data"),
        ({"alpha": 0.1}, ValueError, r"alpha must lie in \[0.5, 4\]"),
        ({"t": math.nan}, ValueError, "t must"),
        ({"labels": ("a",)}, ValueError, "labels must name the 2 solutions"),
        ({"labels": "ab"}, ValueError, "labels must name"),
        ({"test_data": (X, (Y + 1) / 2)}, ValueError, "targets ±1"),
    ],
)
def test_messages(options: dict[str, Any], error: Any, message: str) -> None:
    a, b, _ = solutions()
    with pytest.raises(error, match=message):
        LandscapeExplorer(**{"a": a, "b": b, "loss_fn": F.mse_loss, "data": (X, Y), **options})


def test_weights_that_are_not_finite_are_refused() -> None:
    a, b, _ = solutions()
    with torch.no_grad():
        b.layer2.weight.fill_(math.nan)
    with pytest.raises(ValueError, match="finite"):
        LandscapeExplorer(a, b, F.mse_loss, (X, Y))


def test_parameters_that_are_frozen_in_one_solution_only_are_named() -> None:
    a, b = two_layer(6, 4), two_layer(6, 4, seed=1)
    b.layer1.weight.requires_grad_(False)
    with pytest.raises(ValueError, match=r"layer1\.weight is frozen in one of a and b only"):
        LandscapeExplorer(a, b, F.mse_loss, (X, Y))


def test_labels_must_be_several() -> None:
    with pytest.raises(ValueError, match="labels must name the 2 solutions, got None"):
        LandscapeExplorer(two_layer(6, 4), two_layer(6, 4, seed=1), F.mse_loss, (X, Y), labels=None)  # type: ignore[arg-type]
