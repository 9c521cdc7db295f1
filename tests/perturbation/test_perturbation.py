"""Reparametrization, data discrepancy as a weight perturbation, and the loss along directions and in balls."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from renyi_lab import HessianOperator, exact_spectrum, models
from renyi_lab.perturbation import (
    DiscrepancyCurve,
    average_case_loss,
    discrepancy_curve,
    filter_normalized,
    haar_orthogonal,
    loss_along,
    loss_plane,
    random_direction,
    reparametrize,
    scalable_layers,
    weight_perturbation,
    worst_case_loss,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def net() -> nn.Sequential:
    model = models.mlp(5, 7, 6, 3, seed=1).double()
    for parameter in model.parameters():
        parameter.data *= 2.0  # larger weights, so that every change is visible
    return model


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    return normal(40, 5), torch.arange(40) % 3


@pytest.fixture
def quadratic() -> HessianOperator:
    """``L(θ) = ½ θᵀ diag(8, 2, 1, 0) θ`` at ``θ = 0``, by one linear layer without bias."""
    model = nn.Linear(4, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    x = torch.diag(torch.tensor([8.0, 2.0, 1.0, 0.0], dtype=torch.float64) ** 0.5)
    return HessianOperator(model, lambda out, y: 0.5 * (out - y).square().sum(), (x, torch.zeros(4, 1).double()))


class Residual(nn.Module):
    """A network with functions, a residual sum and pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = F.max_pool2d(F.relu(self.first(x)), 2)
        h = 2 * torch.relu(h / 3 + self.second(h))
        h = torch.cat([h[:, :2], F.pad(h, (0, 0))[:, 2:]], 1)
        h = F.adaptive_avg_pool2d(h, 4).view(x.size(0), -1)
        return F.log_softmax(self.head(F.dropout(h, 0.5, self.training)), 1)


def state(model: nn.Module) -> list[Any]:
    tensors = [t.detach().clone() for t in (*model.parameters(), *model.buffers())]
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    return [tensors, gradients, [m.training for m in model.modules()], torch.get_rng_state()]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, Tensor) else one == other


class TestReparametrize:
    @pytest.mark.parametrize(
        ("make", "scales", "shape"),
        [
            (lambda: models.mlp(5, 7, 6, 3), [2.0, 3.0, 1 / 6], (9, 5)),
            (lambda: models.mlp(5, 7, 6, 3, bias=False), [1e3, 1e-6, 1e3], (9, 5)),
            (lambda: models.cnn1d(channels=4), [10, 0.1, 3, 1 / 3], (4, 40)),
            (lambda: models.cnn1d(channels=4), {"conv1": 5.0, "linear": 0.2}, (4, 40)),
            (lambda: Residual().eval(), [4.0, 1.0, 0.25], (2, 1, 16, 16)),
            (lambda: nn.Sequential(nn.Linear(5, 4), nn.PReLU(), nn.Linear(4, 3), nn.Softmax(1)), [7.0, 1 / 7], (6, 5)),
        ],
    )
    def test_the_function_is_unchanged_with_biases(self, make: Any, scales: Any, shape: tuple[int, ...]) -> None:
        model = make().double()
        for parameter in model.parameters():
            parameter.data += 0.1 * normal(*parameter.shape)  # biases that matter
        scaled, x = reparametrize(model, scales), normal(*shape)
        torch.testing.assert_close(scaled(x), model(x), rtol=1e-12, atol=1e-12)
        values = list(scales.values()) if isinstance(scales, dict) else scales
        assert not torch.equal(next(scaled.parameters()), next(model.parameters())), "nothing was scaled"
        torch.testing.assert_close(next(scaled.parameters()), values[0] * next(model.parameters()))

    def test_powers_of_two_change_no_bit_of_the_outputs(self, net: nn.Sequential) -> None:
        x = normal(9, 5)
        assert torch.equal(reparametrize(net, [4.0, 0.5, 0.5])(x), net(x))

    def test_biases_are_multiplied_by_the_product_up_to_their_layer(self, net: nn.Sequential) -> None:
        scaled = reparametrize(net, [2.0, 4.0, 0.125])
        for layer, weight, bias in (("layer1", 2.0, 2.0), ("layer2", 4.0, 8.0), ("layer3", 0.125, 1.0)):
            before, after = net.get_submodule(layer), scaled.get_submodule(layer)
            assert torch.equal(after.weight, weight * before.weight)
            assert torch.equal(after.bias, bias * before.bias)

    def test_block_hessians_change_by_the_predicted_factor_and_keep_their_entropy(
        self, net: nn.Sequential, data: tuple[Tensor, Tensor]
    ) -> None:
        scales = {"layer1": 3.0, "layer2": 0.5, "layer3": 2 / 3}
        scaled = reparametrize(net, scales)
        for layer, scale in scales.items():
            before, after = (HessianOperator(m, F.cross_entropy, data, f"{layer}.weight") for m in (net, scaled))
            torch.testing.assert_close(after.to_dense(), before.to_dense() / scale**2, rtol=1e-9, atol=1e-12)
            entropies = [exact_spectrum(H).renyi_entropy(1.5).value for H in (before, after)]
            assert entropies[0] == pytest.approx(entropies[1], rel=1e-9)
        whole = [
            exact_spectrum(HessianOperator(m, F.cross_entropy, data)).renyi_entropy(1.5).value for m in (net, scaled)
        ]
        assert abs(whole[0] - whole[1]) > 0.1, "the whole network's entropy is not invariant"

    def test_model_and_random_state_are_unchanged_and_the_copy_has_no_gradient(
        self, net: nn.Sequential, data: tuple[Tensor, Tensor]
    ) -> None:
        F.cross_entropy(net(data[0]), data[1]).backward()
        net.layer2.requires_grad_(False)
        net.train()
        net.relu1.eval()
        before = state(net)
        scaled = reparametrize(net, [2.0, 1.0, 0.5])
        with pytest.raises(ValueError, match="multiply to 4"):
            reparametrize(net, [2.0, 1.0, 2.0])
        assert same(state(net), before)
        assert all(p.grad is None for p in scaled.parameters())
        assert [p.requires_grad for p in scaled.parameters()] == [p.requires_grad for p in net.parameters()]
        assert [m.training for m in scaled.modules()] == [m.training for m in net.modules()]

    def test_layers_are_listed_in_the_order_of_their_calls(self) -> None:
        assert scalable_layers(models.cnn1d()) == ("conv1", "conv2", "conv3", "linear")
        assert scalable_layers(Residual()) == ("first", "second", "head")

    def test_layers_that_are_not_homogeneous_are_allowed_where_nothing_is_scaled(self) -> None:
        model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)).double()
        x = normal(6, 5)
        torch.testing.assert_close(reparametrize(model, [1.0, 3.0, 1 / 3])(x), model(x), rtol=1e-12, atol=1e-12)

    def test_folded_batch_norm_can_be_rescaled(self) -> None:
        model = nn.Sequential(nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)).double()
        model(3 + normal(20, 1, 10))  # statistics to fold
        model.eval()
        folded = nn.Sequential(nn.utils.fuse_conv_bn_eval(model[0], model[1]), *model[2:])
        x = normal(6, 1, 10)
        torch.testing.assert_close(reparametrize(folded, [5.0, 0.2])(x), model(x), rtol=1e-12, atol=1e-12)


class TestDiscrepancy:
    RHOS = (0.0, 0.1, 0.5, 1.0, -2.0)

    @pytest.mark.parametrize("layer", ["layer1", "layer2", "layer3"])
    def test_both_forms_agree_to_rounding_in_every_linear_layer(
        self, net: nn.Sequential, data: tuple[Tensor, Tensor], layer: str
    ) -> None:
        A = haar_orthogonal(net.get_submodule(layer).in_features, seed=2)
        curve = discrepancy_curve(HessianOperator(net, F.cross_entropy, data), layer, A, self.RHOS)
        assert curve.largest_difference < 1e-14
        assert np.ptp(curve.data_form) > 0.01, "the loss did not change"
        assert curve.rhos.tolist() == list(self.RHOS)

    def test_both_forms_equal_their_definitions(self, net: nn.Sequential, data: tuple[Tensor, Tensor]) -> None:
        (x, y), rho = data, 0.7
        A = haar_orthogonal(7, seed=2)
        curve = discrepancy_curve(HessianOperator(net, F.cross_entropy, data), "layer2", A, rho)
        h = net.relu1(net.layer1(x))
        by_data = F.cross_entropy(net.layer3(net.relu2(net.layer2(h + rho * h @ A.T))), y)
        moved = copy.deepcopy(net)
        moved.layer2.weight.data += rho * net.layer2.weight.data @ A
        assert curve.data_form[0] == pytest.approx(by_data.item(), abs=1e-14)
        assert curve.weight_form[0] == pytest.approx(F.cross_entropy(moved(x), y).item(), abs=1e-14)

    @pytest.mark.parametrize(
        ("make", "shape"),
        [
            (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1), (8, 4, 9)),
            (lambda: nn.Conv1d(4, 6, 3, padding=2, dilation=2, padding_mode="circular"), (8, 4, 9)),
            (lambda: nn.Conv2d(4, 6, (3, 2), padding=1, padding_mode="reflect", bias=False), (8, 4, 5, 5)),
            (lambda: nn.Linear(9, 6), (8, 4, 9)),
        ],
    )
    def test_channel_mixing_is_exact_in_convolutions_and_linear_layers_over_sequences(
        self, make: Any, shape: tuple[int, ...]
    ) -> None:
        model = nn.Sequential(layer := make(), nn.Tanh()).double()
        x = normal(*shape)
        H = HessianOperator(model, F.mse_loss, (x, torch.zeros_like(model(x))))
        curve = discrepancy_curve(H, "0", haar_orthogonal(layer.weight.shape[1], seed=1), self.RHOS)
        assert curve.largest_difference < 1e-14
        assert np.ptp(curve.data_form) > 0.01

    def test_single_precision_networks_agree_to_single_rounding(self) -> None:
        model = models.cnn1d(channels=5)
        H = HessianOperator(model, F.cross_entropy, (normal(30, 40).float(), torch.arange(30) % 10))
        curve = discrepancy_curve(H, "conv2", haar_orthogonal(5), self.RHOS)
        assert curve.largest_difference < 5e-6
        assert np.ptp(curve.data_form) > 0.01

    def test_the_weight_perturbation_of_an_orthogonal_matrix_has_the_norm_of_the_weight(self) -> None:
        for shape in ((6, 4), (6, 4, 3), (6, 4, 3, 2)):
            W = normal(*shape)
            assert float(weight_perturbation(W, haar_orthogonal(4)).norm()) == pytest.approx(float(W.norm()), rel=1e-14)

    def test_layers_outside_the_operators_block_and_called_twice_work(self, data: tuple[Tensor, Tensor]) -> None:
        class Twice(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner, self.head = nn.Linear(5, 5), nn.Linear(5, 3)

            def forward(self, x: Tensor) -> Tensor:
                return self.head(torch.tanh(self.inner(input=torch.tanh(self.inner(x)))))

        H = HessianOperator(Twice().double(), F.cross_entropy, data, "head")
        curve = discrepancy_curve(H, "inner", haar_orthogonal(5), self.RHOS)
        assert curve.largest_difference < 1e-14
        assert np.ptp(curve.data_form) > 0.01

    def test_batches_and_dictionaries_are_supported(self, net: nn.Sequential) -> None:
        x, y = normal(40, 5), torch.arange(40) % 3
        A = haar_orthogonal(5)
        whole = discrepancy_curve(HessianOperator(net, F.cross_entropy, (x, y)), "layer1", A, 0.3)
        ragged = [(x[:16], y[:16]), (x[16:], y[16:])]
        mappings = [{"x": x, "y": y}]
        for loss_fn, batches in (
            (F.cross_entropy, ragged),
            (lambda model, batch: F.cross_entropy(model(batch["x"]), batch["y"]), mappings),
        ):
            other = discrepancy_curve(HessianOperator(net, loss_fn, batches), "layer1", A, 0.3)
            np.testing.assert_allclose(other.data_form, whole.data_form, rtol=1e-13)

    def test_haar_matrices_are_orthogonal_seeded_and_uniform(self) -> None:
        A = haar_orthogonal(30, seed=3)
        torch.testing.assert_close(A @ A.T, torch.eye(30, dtype=torch.float64), rtol=0, atol=1e-13)
        assert torch.equal(A, haar_orthogonal(30, seed=3))
        assert not torch.allclose(A, haar_orthogonal(30, seed=4))
        draws = torch.stack([haar_orthogonal(2, seed=seed) for seed in range(2000)])
        # Uniform on O(2): E A₁₁ = 0, E A₁₁² = 1/2, half of them reflections. The signs of LAPACK would fail the first.
        assert abs(float(draws[:, 0, 0].mean())) < 4 * math.sqrt(0.5 / 2000)
        assert abs(float((draws[:, 0, 0] ** 2).mean()) - 0.5) < 4 * math.sqrt(0.125 / 2000)
        assert abs(float((torch.linalg.det(draws) > 0).double().mean()) - 0.5) < 4 * math.sqrt(0.25 / 2000)


class TestLandscape:
    def test_along_directions_the_loss_is_that_of_the_moved_weights(
        self, net: nn.Sequential, data: tuple[Tensor, Tensor]
    ) -> None:
        H = HessianOperator(net, F.cross_entropy, data, "layer2")
        d1, d2 = random_direction(H, seed=1), random_direction(H, seed=2)
        plane = loss_plane(H, d1, d2, [-1.0, 0.0, 2.0], [0.0, 0.5])
        assert plane.losses.shape == (3, 2)
        for i, s in enumerate(plane.first_steps):
            for j, t in enumerate(plane.second_steps):
                moved = copy.deepcopy(net)
                step = s * d1 + t * d2
                moved.layer2.weight.data += step[:42].reshape(6, 7)
                moved.layer2.bias.data += step[42:]
                expected = F.cross_entropy(moved(data[0]), data[1]).item()
                assert plane.losses[i, j] == pytest.approx(expected, abs=1e-14)
        line = loss_along(H, d1, [-1.0, 0.0, 2.0])
        np.testing.assert_allclose(line.losses, plane.losses[:, 0], atol=1e-14)
        assert line.losses[1] == pytest.approx(H.loss, abs=1e-14)
        square = loss_plane(H, d1, d2, [0.0, 1.0])
        assert square.second_steps.tolist() == [0.0, 1.0]

    def test_along_an_eigenvector_the_loss_is_the_parabola_of_its_eigenvalue(self, quadratic: HessianOperator) -> None:
        steps = np.linspace(-2, 2, 9)
        top = torch.eye(4, dtype=torch.float64)[0]
        np.testing.assert_allclose(loss_along(quadratic, top, steps).losses, 4 * steps**2, atol=1e-14)

    def test_random_directions_are_seeded_and_of_length_one(self, quadratic: HessianOperator) -> None:
        d = random_direction(quadratic, seed=5)
        assert float(d.norm()) == pytest.approx(1.0, abs=1e-15)
        assert torch.equal(d, random_direction(quadratic, seed=5))
        assert not torch.allclose(d, random_direction(quadratic, seed=6))

    def test_filters_get_the_norm_of_the_weights_and_biases_are_zero(self) -> None:
        model = models.cnn1d(channels=3).double()
        H = HessianOperator(model, F.cross_entropy, (normal(20, 40), torch.arange(20) % 10))
        d = random_direction(H)
        normalized = filter_normalized(H, d)
        parts = zip(H.unflatten(d), H.unflatten(normalized), model.parameters(), strict=True)
        for before, after, weight in parts:
            if weight.ndim == 1:
                assert not after.any()
                continue
            for i in range(len(weight)):
                assert after[i].norm().item() == pytest.approx(weight[i].norm().item(), rel=1e-12)
                cosine = (after[i] * before[i]).sum() / (after[i].norm() * before[i].norm())
                assert float(cosine) == pytest.approx(1.0, abs=1e-12)

    def test_filter_normalized_curves_are_invariant_under_reparametrization_and_others_are_not(
        self, net: nn.Sequential, data: tuple[Tensor, Tensor]
    ) -> None:
        operators = [HessianOperator(m, F.cross_entropy, data) for m in (net, reparametrize(net, [5.0, 0.5, 0.4]))]
        d, steps = random_direction(operators[0]), np.linspace(-1, 1, 7)
        curves = [loss_along(H, filter_normalized(H, d), steps).losses for H in operators]
        np.testing.assert_allclose(*curves, rtol=1e-12)
        plain = [loss_along(H, 3 * d, steps).losses for H in operators]
        assert np.abs(plain[0] - plain[1]).max() > 0.01

    def test_a_filter_or_direction_of_zeros_stays_zero(self, quadratic: HessianOperator) -> None:
        assert not filter_normalized(quadratic, random_direction(quadratic)).any(), "the weights are all zero"
        model = nn.Linear(4, 1, bias=False).double()
        H = HessianOperator(model, F.mse_loss, (normal(3, 4), normal(3, 1)))
        assert not filter_normalized(H, torch.zeros(4, dtype=torch.float64)).any()

    def test_losses_beyond_the_dtype_are_recorded_not_raised(self) -> None:
        H = HessianOperator(nn.Linear(2, 1), F.mse_loss, (torch.ones(3, 2), torch.zeros(3, 1)))
        curve = loss_along(H, torch.ones(3), [0.0, 1e30])
        assert curve.losses[1] == math.inf
        assert "0 to" not in repr(curve) or curve.losses[0] == 0
        assert repr(loss_along(H, torch.ones(3), [1e30])) == "LossCurve(1 steps, no finite loss)"

    def test_plots_show_the_numbers(self, quadratic: HessianOperator) -> None:
        d1, d2 = torch.eye(4, dtype=torch.float64)[:2]
        curve = loss_along(quadratic, d1, [-1.0, 0.0, 1.0])
        (line,) = curve.plot().axes[0].lines
        np.testing.assert_allclose(line.get_xydata(), [[-1.0, 4.0], [0.0, 0.0], [1.0, 4.0]], atol=1e-12)
        plane = loss_plane(quadratic, d1, d2, np.linspace(-1, 1, 5))
        axes = plane.plot().axes[0]
        assert axes.lines[0].get_xydata().tolist() == [[0.0, 0.0]]
        contours = next(c for c in axes.collections if hasattr(c, "levels"))
        assert contours.levels[0] == plane.losses[plane.losses > 0].min()
        # Steeper along d₁: the contour is narrower there.
        path = contours.get_paths()[8].vertices
        assert np.ptp(path[:, 0]) < np.ptp(path[:, 1])


class TestBalls:
    def test_the_worst_case_of_a_quadratic_is_half_rho_squared_lambda_max(self, quadratic: HessianOperator) -> None:
        worst = worst_case_loss(quadratic, 0.3, num_steps=20)
        assert worst.loss == pytest.approx(0.5 * 0.3**2 * 8.0, rel=1e-9)
        assert worst.base_loss == 0.0
        assert float(worst.perturbation.norm()) == pytest.approx(0.3)
        assert abs(float(worst.perturbation[0])) == pytest.approx(0.3, rel=1e-6), "along the top eigenvector"
        assert len(worst.path) == 21
        assert list(worst.path) == sorted(worst.path), "the loss is convex, so the ascent is monotone"
        assert float(worst) == worst.loss
        corner = worst_case_loss(quadratic, 0.3, norm="linf")
        assert corner.loss == pytest.approx(0.5 * 0.3**2 * 11.0, rel=1e-12)

    def test_the_returned_perturbation_has_the_returned_loss(
        self, net: nn.Sequential, data: tuple[Tensor, Tensor]
    ) -> None:
        H = HessianOperator(net, F.cross_entropy, data)
        worst = worst_case_loss(H, 0.5)
        assert loss_along(H, worst.perturbation, [1.0]).losses[0] == pytest.approx(worst.loss, abs=1e-14)
        assert worst.rise > 0
        assert all(worst.loss >= loss for loss in worst.path)
        for seed in range(20):
            z = random_direction(H, seed)
            assert worst.loss > loss_along(H, 0.5 * z, [1.0]).losses[0]

    def test_at_a_maximum_the_centre_is_the_worst(self) -> None:
        model = nn.Linear(2, 1, bias=False).double()
        nn.init.zeros_(model.weight)
        H = HessianOperator(model, lambda out, y: -out.square().sum(), (torch.eye(2).double(), torch.zeros(2, 1)))
        worst = worst_case_loss(H, 0.5)
        assert worst.rise == 0.0
        assert not worst.perturbation.any()

    def test_the_average_over_the_ball_of_a_quadratic_is_its_closed_form(self, quadratic: HessianOperator) -> None:
        average = average_case_loss(quadratic, 0.3, num_draws=400, seed=1)
        expected = 0.5 * 0.3**2 * 11.0 / (4 + 2)
        assert abs(average.loss - expected) < 4 * average.standard_error < 0.3 * expected
        assert average.standard_error == pytest.approx(np.std(average.draws, ddof=1) / math.sqrt(400))
        assert average.rise == average.loss == float(average)
        assert average_case_loss(quadratic, 0.3, num_draws=1).standard_error == math.inf

    def test_the_average_under_gaussian_noise_of_a_quadratic_is_half_rho_squared_times_the_trace(
        self, quadratic: HessianOperator
    ) -> None:
        average = average_case_loss(quadratic, 0.3, noise="gaussian", num_draws=400, seed=1)
        expected = 0.5 * 0.3**2 * 11.0
        assert abs(average.loss - expected) < 4 * average.standard_error < 0.3 * expected
        assert "under Gaussian noise of standard deviation 0.3, 0 at its centre" in repr(average)

    def test_a_scale_turns_the_ball_into_an_ellipsoid(self, quadratic: HessianOperator) -> None:
        scale = torch.tensor([0.0, 1.0, 3.0, 5.0])
        worst = worst_case_loss(quadratic, 0.3, scale=scale, num_steps=40)
        assert worst.loss == pytest.approx(0.5 * 0.3**2 * 9.0, rel=1e-6), "9 = max λ s²"
        corner = worst_case_loss(quadratic, 0.3, scale=scale, norm="linf")
        assert corner.loss == pytest.approx(0.5 * 0.3**2 * 11.0, rel=1e-12), "11 = Σ λ s²"

    def test_draws_fill_the_ball_and_come_in_pairs(self) -> None:
        model = nn.Linear(3, 1, bias=False).double()
        seen: list[Tensor] = []

        def record(model: nn.Module, batch: Any) -> Tensor:
            seen.append(model.weight.detach().clone().reshape(-1))
            return model(batch).square().mean()

        H = HessianOperator(model, record, [torch.eye(3).double()], loss_style="model_batch")
        seen.clear()
        average_case_loss(H, 2.0, num_draws=200)
        offsets = torch.stack(seen[:400]) - model.weight.detach()
        torch.testing.assert_close(offsets[::2], -offsets[1::2])
        radii = offsets[::2].norm(dim=1)
        assert float(radii.max()) <= 2.0 * (1 + 1e-12)
        assert abs(float(((radii / 2.0) ** 3).mean()) - 0.5) < 4 * math.sqrt(1 / 12 / 200), "r³ is uniform in a ball"

    def test_worst_is_far_above_average_in_many_dimensions(
        self, net: nn.Sequential, data: tuple[Tensor, Tensor]
    ) -> None:
        H = HessianOperator(net, F.cross_entropy, data)
        average = average_case_loss(H, 0.3)
        assert worst_case_loss(H, 0.3).loss > average.loss + 10 * average.standard_error


class TestTheModelIsUnchanged:
    CALLS = (
        lambda H: discrepancy_curve(H, "1", haar_orthogonal(6), [0.1, 0.5]),
        lambda H: loss_along(H, random_direction(H), [0.1, 0.5, 0.7]),
        lambda H: loss_plane(H, random_direction(H), random_direction(H, 1), [0.1, 0.5]),
        lambda H: worst_case_loss(H, 0.1, num_steps=2),
        lambda H: average_case_loss(H, 0.1, num_draws=2),
    )

    @pytest.mark.parametrize("call", CALLS)
    @pytest.mark.parametrize("mode", ["eval", "train"])
    @pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
    @pytest.mark.filterwarnings("ignore:mode=.train. with dropout")
    def test_the_model_is_the_same_bit_for_bit_also_after_errors_and_interrupts(
        self, call: Any, mode: str, error: type[BaseException] | None
    ) -> None:
        model = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 5), nn.ReLU(), nn.Dropout(0.3), nn.Linear(5, 3)).double()
        x, y = normal(20, 6), torch.arange(20) % 3
        F.cross_entropy(model(x), y).backward()
        model[4].bias.requires_grad_(False)
        model.train()
        model[3].eval()
        calls = 0

        def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            if error is not None and calls > 3:
                raise error("stop")
            return F.cross_entropy(outputs, targets)

        H = HessianOperator(model, loss_fn, (x, y), mode=mode)
        before, memory = state(model), [p.data_ptr() for p in model.parameters()]
        if error is None:
            call(H)
        else:
            with pytest.raises(error, match="stop"):
                call(H)
        assert same(state(model), before)
        assert [p.data_ptr() for p in model.parameters()] == memory
        assert not any(module._forward_pre_hooks for module in model.modules())
        assert calls >= 4


# Messages: functions that make a model or an operator, and one table.


def between(layer: nn.Module) -> nn.Module:
    return reparametrize(nn.Sequential(nn.Linear(5, 4), layer, nn.Linear(4, 3)), [2.0, 0.5])


def with_forward(body: Any) -> nn.Module:
    class Own(nn.Module):
        forward = body

        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)

    return reparametrize(Own(), {"first": 2.0, "last": 0.5})


def with_weights(kind: str) -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    if kind == "computed":
        nn.utils.parametrizations.weight_norm(model[0])
    elif kind == "tied":
        model[2].weight = model[0].weight
    else:
        model[0].register_forward_hook(lambda *_: None)
    return reparametrize(model, [2.0, 0.5])


def scaled(scales: Any) -> nn.Module:
    return reparametrize(models.mlp(5, 7, 6, 3), scales)


def discrepancy(layer: Any, matrix: Any, rhos: Any = 0.1) -> DiscrepancyCurve:
    unused = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4), "c": nn.Linear(4, 4)})
    unused["c"].weight = unused["b"].weight
    unused.forward = lambda x: x
    model = nn.Sequential(
        *(nn.Conv1d(4, 4, 1), nn.Tanh(), nn.Conv1d(4, 4, 1, groups=2), nn.Tanh(), nn.Conv1d(4, 4, 1)),
        *(nn.ConvTranspose1d(4, 4, 1), unused, nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 4, 1))),
    ).double()
    H = HessianOperator(model, F.mse_loss, (normal(3, 4, 5), torch.zeros(3, 4, 5, dtype=torch.float64)), "0")
    return discrepancy_curve(H, layer, matrix, rhos)


def biases_only() -> Tensor:
    H = HessianOperator(models.mlp(5, 7, 6, 3).double(), F.cross_entropy, (normal(9, 5), torch.arange(9) % 3), "*.bias")
    return filter_normalized(H, random_direction(H))


NAN, EYE = math.nan, torch.eye(4)
MESSAGES: list[tuple[Any, type[Exception], str]] = [
    # reparametrize
    (
        lambda H: between(nn.Tanh()),
        ValueError,
        r"layer '1' \(Tanh\) is not known to be positively homogeneous.*scaled by 2; use ReLU",
    ),
    (lambda H: between(nn.Softmax(1)), ValueError, "Softmax"),
    (lambda H: between(nn.LayerNorm(4)), ValueError, "LayerNorm.*it undoes any scale"),
    (lambda H: between(nn.BatchNorm1d(4)), ValueError, r"BatchNorm1d.*fold it into the layer before"),
    (
        lambda H: reparametrize(Residual(), [4.0, 2.0, 0.125]),
        ValueError,
        r"'add' joins values that are scaled by 4 and by 8.*shortcut",
    ),
    (lambda H: with_forward(lambda self, x: self.last((h := self.first(x)) * h)), ValueError, r"'mul' \(mul\)"),
    (lambda H: with_forward(lambda self, x: self.last(self.first(x) + 1)), ValueError, "add"),
    (lambda H: with_forward(lambda self, x: self.last(1 / self.first(x))), ValueError, "truediv"),
    (
        lambda H: with_forward(lambda self, x: self.last(torch.add(self.first(x), other=1.0))),
        ValueError,
        r"'add' \(add\)",
    ),
    (
        lambda H: with_forward(lambda self, x: self.last(torch.sub(input=self.first(x), other=1.0))),
        ValueError,
        r"'sub' \(sub\)",
    ),
    (
        lambda H: with_forward(lambda self, x: self.last(self.first(x).div(0.3, rounding_mode="floor"))),
        ValueError,
        r"'div' \(div\)",
    ),
    (
        lambda H: with_forward(lambda self, x: self.last(F.pad(self.first(x), (1, -1), "constant", 2.0))),
        ValueError,
        "pad",
    ),
    (lambda H: with_forward(lambda self, x: self.last(self.first(x).exp())), ValueError, r"'exp' \(exp\)"),
    (
        lambda H: with_forward(lambda self, x: self.last(self.first(x)) if x.sum() > 0 else x),
        ValueError,
        "cannot be traced.*must not branch",
    ),
    (
        lambda H: with_forward(lambda self, x: (self.last(self.first(x)), self.first(x))),
        ValueError,
        "they multiply to 2",
    ),
    (
        lambda H: with_forward(lambda self, x: self.last(self.last(self.first(x)))),
        ValueError,
        "applied more than once.*one layer per call",
    ),
    (lambda H: with_forward(lambda self, x: x), ValueError, "calls no linear or convolutional layer"),
    (lambda H: with_weights("computed"), ValueError, "computed"),
    (lambda H: with_weights("tied"), ValueError, "0.weight and 2.weight are one tensor"),
    (lambda H: with_weights("hooked"), ValueError, "hooks"),
    (lambda H: scaled([2.0, 0.5]), ValueError, "3 numbers, for layer1, layer2, layer3"),
    (lambda H: scaled([1.0, 1.0, 2.0]), ValueError, "multiply to 2. Divide one of them by that"),
    (lambda H: scaled([1.0, 1.0, NAN]), ValueError, "scale of layer 'layer3' must be finite"),
    (lambda H: scaled([-1.0, -1.0, 1.0]), ValueError, r"'layer1' must lie in \(0"),
    (lambda H: scaled([0.0, 1.0, 1.0]), ValueError, r"'layer1' must lie in \(0"),
    (lambda H: scaled(["a", 1.0, 1.0]), TypeError, "real number"),
    (lambda H: scaled("abc"), TypeError, "got str"),
    (lambda H: scaled(None), TypeError, "got NoneType"),
    (lambda H: scaled({"layer9": 1.0}), ValueError, "layers to scale are layer1"),
    (lambda H: scaled([1e300, 1e300, 1e-300]), ValueError, "multiply to inf"),
    (lambda H: scaled([1e200, 1e200, 1e-400]), ValueError, "must lie in"),
    (lambda H: scaled([1e40, 1e-40, 1.0]), ValueError, "leaves the range of torch.float32; use milder scales"),
    (lambda H: scaled([1e-45, 1e45, 1.0]), ValueError, "leaves the range of torch.float32; use milder scales"),
    # discrepancies
    (lambda H: discrepancy("nine", EYE), ValueError, "is not a layer of the model; there are 0, 2, 4"),
    (lambda H: discrepancy(0, EYE), ValueError, "is not a layer"),
    (lambda H: discrepancy("1", EYE), ValueError, r"layer='1' is a Tanh, for which .* need not hold"),
    (lambda H: discrepancy("2", EYE), ValueError, "2 groups: its weight keeps their channels apart.*groups=1"),
    (lambda H: discrepancy("5", EYE), ValueError, "is a ConvTranspose1d"),
    (lambda H: discrepancy("6.a", EYE), ValueError, "not called by the forward pass"),
    (lambda H: discrepancy("6.b", EYE), ValueError, "shared with another layer"),
    (lambda H: discrepancy("7", EYE), ValueError, "ParametrizedConv1d.*parametrizations"),
    (lambda H: discrepancy("0", torch.eye(3)), ValueError, r"shape \(4, 4\), for the inputs of '0', got \(3, 3\)"),
    (lambda H: discrepancy("0", torch.full((4, 4), NAN)), ValueError, "matrix is not finite"),
    (lambda H: discrepancy("0", np.eye(4)), TypeError, "matrix must be a torch tensor"),
    (lambda H: discrepancy("0", EYE, math.inf), ValueError, "rhos must be finite"),
    (lambda H: discrepancy("0", EYE, []), ValueError, "rhos must be finite"),
    (lambda H: discrepancy("0", EYE, [[0.1]]), ValueError, "rhos must be finite"),
    (
        lambda H: weight_perturbation(torch.ones(2, 3), torch.ones(2, 2)),
        ValueError,
        r"matrix must be \(in, in\), got \(2, 2\) for a weight \(2, 3\)",
    ),
    (lambda H: weight_perturbation(torch.ones(3), torch.ones(3, 3)), ValueError, r"for a weight \(3,\)"),
    (
        lambda H: weight_perturbation(torch.ones(2, 3), np.eye(3)),
        TypeError,
        "must be torch tensors, got Tensor, ndarray",
    ),
    # landscapes
    (lambda H: loss_along(H, torch.ones(5), [0.0]), ValueError, r"direction must have shape \(4,\)"),
    (lambda H: loss_along(H, torch.full((4,), NAN), [0.0]), ValueError, "direction is not finite"),
    (lambda H: loss_along(H, [1.0] * 4, [0.0]), TypeError, "direction must be a torch tensor, got list"),
    (lambda H: loss_along(H, torch.ones(4), []), ValueError, "steps must be a vector of finite numbers"),
    (lambda H: loss_along(H, torch.ones(4), 1.0), ValueError, "steps must be a vector"),
    (lambda H: loss_along(H, torch.ones(4), [NAN]), ValueError, "steps must be a vector"),
    (lambda H: loss_plane(H, torch.ones(4), torch.ones(3), [0.0]), ValueError, "second must have shape"),
    (lambda H: loss_along(H.model, torch.ones(4), [0.0]), TypeError, "operator must be a HessianOperator"),
    (lambda H: random_direction(H, seed=-1), ValueError, "seed must be at least 0"),
    (lambda H: biases_only(), ValueError, "weights of two or more dimensions"),
    # balls
    *(
        (lambda H, function=function, rho=rho: function(H, rho), error, "rho must")
        for function in (worst_case_loss, average_case_loss)
        for rho, error in ((0.0, ValueError), (-1, ValueError), (NAN, ValueError), ("1", TypeError))
    ),
    (lambda H: worst_case_loss(H, 0.1, norm="l1"), ValueError, "norm must be one of 'l2', 'linf', got 'l1'"),
    (lambda H: worst_case_loss(H, 0.1, num_steps=0), ValueError, "num_steps must be at least 1"),
    (lambda H: worst_case_loss(H, 0.1, scale=torch.ones(3)), ValueError, r"scale must have shape \(4,\)"),
    (lambda H: worst_case_loss(H, 1e200), ValueError, "finite nowhere that was tried"),
    (lambda H: average_case_loss(H, 0.1, num_draws=0), ValueError, "num_draws must be at least 1"),
    (lambda H: average_case_loss(H, 0.1, noise="uniform"), ValueError, "noise must be one of 'ball', 'gaussian'"),
    (lambda H: average_case_loss(H.model, 0.1), TypeError, "operator must be a HessianOperator"),
    (lambda H: average_case_loss(H, 1e200), ValueError, r"not finite over the ball of radius rho=1e\+200"),
]


@pytest.mark.parametrize(("call", "error", "match"), MESSAGES)
def test_bad_input_is_named(quadratic: HessianOperator, call: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call(quadratic)
