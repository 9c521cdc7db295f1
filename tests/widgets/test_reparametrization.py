"""`ReparametrizationExplorer` against networks that are rescaled by `reparametrize`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from explorer_view import pixels
from torch import Tensor, nn
from torch.nn import functional as F

from renyi_lab import models
from renyi_lab.operators import HessianOperator
from renyi_lab.perturbation import reparametrize
from renyi_lab.spectrum import Spectrum, exact_spectrum
from renyi_lab.widgets import ReparametrizationExplorer

TANH = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)).double()


def data() -> tuple[Tensor, Tensor]:
    x = torch.randn(40, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return x, torch.arange(40) % 3


def operator(bias: bool = False) -> HessianOperator:
    return HessianOperator(models.mlp(4, 6, 5, 3, bias=bias, seed=1).double(), F.cross_entropy, data())


@pytest.fixture
def explorer() -> ReparametrizationExplorer:
    return ReparametrizationExplorer(operator(), alpha=0.5)


@pytest.mark.parametrize("bias", [False, True])
def test_the_spectrum_equals_that_of_the_rescaled_network(bias: bool):
    H = operator(bias)
    explorer = ReparametrizationExplorer(H, scales={"layer2": 2.0})
    explorer.sliders["layer1"].value = 4.0
    assert explorer.scales == pytest.approx({"layer1": 4.0, "layer2": 2.0, "layer3": 0.125})
    rescaled = HessianOperator(reparametrize(H.model, explorer.scales), F.cross_entropy, data())
    np.testing.assert_allclose(explorer.spectrum.nodes, exact_spectrum(rescaled).nodes, rtol=1e-9, atol=1e-12)
    shown = explorer.curve.get_ydata()
    magnitudes = np.sort(explorer.spectrum.magnitudes)[::-1]
    drawn = ~np.isnan(shown)
    np.testing.assert_allclose(shown[drawn], magnitudes[drawn])
    assert (magnitudes[~drawn] < 1e-7 * magnitudes[0]).all()


def test_blocks_keep_their_entropy_and_the_whole_network_does_not(explorer):
    rings = list(explorer.rings.get_xdata())
    explorer.sliders["layer1"].value = 4.0
    factors = list(explorer.factors.get_xdata())
    assert factors[1:] == pytest.approx([1 / 16, 1.0, 16.0])
    rescaled = reparametrize(operator().model, explorer.scales)
    H = HessianOperator(rescaled, F.cross_entropy, data())
    for index, block in enumerate([H, *H.blocks().values()]):
        entropy = exact_spectrum(block).renyi_entropy(0.5).value
        assert explorer.entropies.get_xdata()[index] == pytest.approx(entropy, rel=1e-6)
    assert list(explorer.rings.get_xdata()) == rings
    assert explorer.entropies.get_xdata()[0] != pytest.approx(rings[0], abs=0.05)
    before = exact_spectrum(operator()).magnitudes.max()
    assert factors[0] == pytest.approx(exact_spectrum(H).magnitudes.max() / before, rel=1e-9)
    assert f"× <b>{factors[0]:.3g}</b>" in explorer.caption.value
    assert f"<b>{explorer.entropies.get_xdata()[0]:.3f}</b> nats" in explorer.caption.value


def test_the_last_scale_makes_the_product_one(explorer):
    explorer.sliders["layer1"].value = 8.0
    explorer.sliders["layer2"].value = 0.25
    assert math.prod(explorer.scales.values()) == pytest.approx(1.0, rel=1e-12)
    assert explorer.sliders["layer3"].value == pytest.approx(0.5)
    assert explorer.sliders["layer3"].disabled


def test_everything_is_finite_and_visible_at_both_ends_of_the_sliders(explorer):
    for first in (1 / 8, 8.0):
        for second in (1 / 8, 8.0):
            explorer.sliders["layer1"].value, explorer.sliders["layer2"].value = first, second
            assert explorer.status.value == ""
            low, high = explorer.factors.axes.get_xlim()
            assert all(low < factor < high for factor in explorer.factors.get_xdata())
            assert math.prod(explorer.scales.values()) == pytest.approx(1.0)


def test_alpha_changes_only_the_entropies(explorer):
    factors, curve = list(explorer.factors.get_xdata()), explorer.curve.get_ydata().copy()
    explorer.alpha.value = 2.0
    spectrum = exact_spectrum(operator())
    assert explorer.entropies.get_xdata()[0] == pytest.approx(spectrum.renyi_entropy(2.0).value, rel=1e-9)
    assert list(explorer.factors.get_xdata()) == factors
    np.testing.assert_array_equal(explorer.curve.get_ydata(), curve)


def test_eigenvalues_are_computed_on_one_thread_and_only_when_a_scale_moves(explorer, monkeypatch):
    threads, eigvalsh = [], torch.linalg.eigvalsh

    def observed(matrix: Tensor) -> Tensor:
        threads.append(torch.get_num_threads())
        return eigvalsh(matrix)

    monkeypatch.setattr(torch.linalg, "eigvalsh", observed)
    before = torch.get_num_threads()
    explorer.alpha.value = 2.0
    assert threads == []
    explorer.sliders["layer1"].value = 4.0
    assert threads == [1]
    assert torch.get_num_threads() == before


def test_a_matrix_with_layer_sizes_is_rescaled():
    matrix = np.array([[4.0, 1.0, 0.5], [1.0, 2.0, 0.0], [0.5, 0.0, 1.0]])
    explorer = ReparametrizationExplorer(matrix, layers={"a": 2, "b": 1}, scales={"a": 2.0}, alpha=2.0)
    d = np.array([2.0, 2.0, 0.5])
    np.testing.assert_allclose(explorer.spectrum.nodes, np.linalg.eigvalsh(matrix / d[:, None] / d), rtol=1e-12)


def test_convolutions_are_accepted():
    model = nn.Sequential(nn.Conv1d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6, 3)).double()
    x = data()[0][:, None]
    H = HessianOperator(model, F.cross_entropy, (x, data()[1]))
    explorer = ReparametrizationExplorer(H, scales={"0": 3.0})
    rescaled = HessianOperator(reparametrize(model, [3.0, 1 / 3]), F.cross_entropy, (x, data()[1]))
    np.testing.assert_allclose(explorer.spectrum.nodes, exact_spectrum(rescaled).nodes, rtol=1e-9, atol=1e-12)


def test_frozen_parameters_are_left_out():
    model = models.mlp(4, 6, 5, 3, bias=True, seed=1).double()
    model.layer1.bias.requires_grad_(False)
    H = HessianOperator(model, F.cross_entropy, data())
    explorer = ReparametrizationExplorer(H, scales={"layer1": 2.0})
    rescaled = HessianOperator(reparametrize(model, [2.0, 1.0, 0.5]), F.cross_entropy, data())
    np.testing.assert_allclose(explorer.spectrum.nodes, exact_spectrum(rescaled).nodes, rtol=1e-9, atol=1e-12)


def test_the_model_is_not_changed():
    H = operator()
    weights = [p.detach().clone() for p in H.model.parameters()]
    ReparametrizationExplorer(H).sliders["layer1"].value = 2.0
    for parameter, before in zip(H.model.parameters(), weights, strict=True):
        assert torch.equal(parameter, before)
        assert parameter.grad is None


def test_a_slider_changes_all_three_pictures_and_reset_restores_them(explorer):
    before, caption = explorer.picture.value, explorer.caption.value
    explorer.sliders["layer1"].value = 4.0
    changed = np.abs(pixels(explorer.picture.value) - pixels(before)).max(axis=2) > 0
    width = changed.shape[1]
    for left, right in ((0.0, 0.45), (0.5, 0.75), (0.77, 1.0)):
        assert changed[:, int(left * width) : int(right * width)].any()
    explorer.children[0].children[-1].click()
    assert (explorer.picture.value, explorer.caption.value) == (before, caption)
    assert explorer.scales == pytest.approx({"layer1": 1.0, "layer2": 1.0, "layer3": 1.0})


def test_every_control_is_shown_with_a_label(explorer):
    row = explorer.children[0].children
    assert [control.description for control in row] == ["layer1", "layer2", "layer3", "α", "Reset"]


@pytest.fixture(scope="module")
def larger() -> tuple[HessianOperator, ReparametrizationExplorer]:
    x = torch.randn(300, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model = models.mlp(20, 18, 14, 5, seed=1).double()
    H = HessianOperator(model, F.cross_entropy, (x, torch.arange(300) % 5))
    assert H.dim == 719
    return H, ReparametrizationExplorer(H, alpha=1.5)


@pytest.mark.parametrize("scales", [(1.0, 1.0), (2.0, 1.0), (0.5, 4.0), (8.0, 1.0), (1.0, 0.125), (8.0, 8.0)])
def test_above_400_rows_estimates_contain_the_dense_values(larger: Any, scales: tuple[float, float]) -> None:
    H, explorer = larger
    explorer.sliders["layer1"].value, explorer.sliders["layer2"].value = scales
    rescaled = HessianOperator(reparametrize(H.model, explorer.scales), F.cross_entropy, H.batches[0].content)
    dense, before = exact_spectrum(rescaled), exact_spectrum(H)
    factors = explorer.factors.get_xdata()
    assert factors[1:] == pytest.approx([scale**-2 for scale in explorer.scales.values()])
    assert factors[0] == pytest.approx(dense.magnitudes.max() / before.magnitudes.max(), rel=0.01)
    for alpha in (0.5, 1.0, 1.5, 2.0, 4.0):
        explorer.alpha.value = alpha
        entropy, row_of_bars = dense.renyi_entropy(alpha).value, np.array(explorer.bars.get_xdata()).reshape(-1, 3)
        low, high, _ = row_of_bars[0]
        assert low - (high - low) / 4 <= entropy <= high + (high - low) / 4, "three standard errors"
        assert high - low < 4 * 0.35
        assert f"<b>{(low + high) / 2:.2f} ± {(high - low) / 4:.2f}</b> nats" in explorer.caption.value
        for index, block in enumerate(H.restricted(params=f"{name}.weight") for name in explorer.scales):
            low, high, _ = row_of_bars[index + 1]
            true = exact_spectrum(block).renyi_entropy(alpha).value
            assert low - (high - low) / 4 - 1e-9 <= true <= high + (high - low) / 4 + 1e-9
    assert explorer.status.value == ""


def test_above_400_rows_the_caption_says_what_is_estimated(larger: Any) -> None:
    _, explorer = larger
    assert "Exact: the factors of the blocks" in explorer.caption.value
    assert "Estimated: all H" in explorer.caption.value
    assert "standard errors where they are estimated" in explorer.alt
    assert "Estimated" not in ReparametrizationExplorer(operator()).caption.value
    assert explorer.spectrum.weights.sum() == pytest.approx(719)
    ranks, magnitudes = explorer.curve.get_data()
    assert ranks[0] == pytest.approx(1.0)
    assert (np.diff(ranks) > 0).all()
    assert (np.diff(magnitudes[~np.isnan(magnitudes)]) <= 0).all()


def test_a_larger_matrix_with_layer_sizes_is_rescaled() -> None:
    factor = np.random.default_rng(0).standard_normal((450, 60)) * np.geomspace(1, 0.01, 60)
    matrix, d = factor @ factor.T, np.repeat([2.0, 0.5], [300, 150])
    explorer = ReparametrizationExplorer(matrix, layers={"a": 300, "b": 150}, scales={"a": 2.0}, alpha=2.0)
    dense = Spectrum.from_eigenvalues(np.linalg.eigvalsh(matrix / d[:, None] / d))
    assert explorer.spectrum.nodes[-1] == pytest.approx(dense.nodes[-1], rel=1e-6)
    low, high, _ = explorer.bars.get_xdata()[:3]
    assert low <= dense.renyi_entropy(2.0).value <= high


def test_the_estimate_leaves_the_model_and_the_random_state_alone() -> None:
    H = HessianOperator(models.mlp(20, 18, 5, seed=1), F.cross_entropy, (torch.ones(8, 20), torch.arange(8) % 5))
    assert H.dim == 473
    weights, state = [p.detach().clone() for p in H.model.parameters()], torch.get_rng_state()
    ReparametrizationExplorer(H).sliders["layer1"].value = 2.0
    assert torch.equal(torch.get_rng_state(), state)
    for parameter, before in zip(H.model.parameters(), weights, strict=True):
        assert torch.equal(parameter, before)
        assert parameter.grad is None


@pytest.mark.parametrize(
    ("hessian", "options", "error", "message"),
    [
        (np.eye(420), {"layers": {f"l{i}": 20 for i in range(21)}}, ValueError, "21 layers; above 400 rows at most 20"),
        (np.eye(401), {"layers": {"a": 400, "b": 1}, "alpha": 0.4}, ValueError, r"alpha must lie in \[0.5, 4\]"),
        (np.zeros((401, 401)), {"layers": {"a": 400, "b": 1}}, ValueError, "all zero"),
        (np.eye(3), {}, ValueError, "needs layers"),
        (np.eye(3), {"layers": {"a": 2}}, ValueError, "add up to the matrix's 3 rows"),
        (np.eye(3), {"layers": {"a": 3}}, ValueError, "at least two layers"),
        (np.eye(3), {"layers": {"a": 3, "b": 0}}, ValueError, "at least 1"),
        (np.zeros((2, 2)), {"layers": {"a": 1, "b": 1}}, ValueError, "all zero"),
        (operator(), {"layers": {"a": 3}}, ValueError, "layers is for a matrix"),
        (operator(), {"alpha": 5.0}, ValueError, "alpha must lie in"),
        (operator(), {"scales": {"layer1": 9.0}}, ValueError, r"scales\['layer1'\]"),
        (operator(), {"scales": {"layer3": 2.0}}, ValueError, "scales has the key 'layer3'"),
        (HessianOperator(TANH, F.cross_entropy, data()), {}, ValueError, "Tanh"),
        ("model", {}, TypeError, "operator must have .shape"),
    ],
)
def test_messages(hessian: Any, options: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        ReparametrizationExplorer(hessian, **options)
