"""Each measure against a model whose value can be computed by hand: linear regression, L(w) = (1/N)‖Xw − y‖²."""

from __future__ import annotations

import copy
import math
import time
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from renyi_lab import sharpness
from renyi_lab._utils.batches import Batch
from renyi_lab.operators import HessianOperator, MatrixOperator, dense_hessian, matrix_with_spectrum
from renyi_lab.spectrum import Spectrum, estimate_spectrum, exact_spectrum

SCALES = torch.tensor([1.0, 2.0, 3.0, 0.5], dtype=torch.float64)
WEIGHTS = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
CURVATURES = 2 * SCALES**2 / 4  # the Hessian of regression on the rows of diag(SCALES) is diagonal


def linear(weights: Tensor = WEIGHTS) -> nn.Linear:
    layer = nn.Linear(len(weights), 1, bias=False).double()
    layer.weight.data[0] = weights
    return layer


def regression(offset: float = 0.0, weights: Tensor = WEIGHTS) -> HessianOperator:
    """At the minimum for ``offset = 0``: the targets are what the weights predict."""
    x = torch.diag(SCALES)
    return HessianOperator(linear(weights), nn.MSELoss(), (x, (x @ weights)[:, None] + offset))


def wide_regression(offset: float = 0.0) -> tuple[HessianOperator, Tensor, Tensor]:
    """200 weights, so that a few draws average well; with the diagonal of its Hessian and its weights."""
    generator = torch.Generator().manual_seed(0)
    scales, weights = (0.5 + torch.rand(200, dtype=torch.float64, generator=generator) for _ in range(2))
    x = torch.diag(scales)
    H = HessianOperator(linear(weights), nn.MSELoss(), (x, (x @ weights)[:, None] + offset))
    return H, 2 * scales**2 / 200, weights


def classifier(bias: bool = True) -> tuple[nn.Sequential, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(3, 5, bias=bias), nn.ReLU(), nn.Linear(5, 4, bias=bias), nn.ReLU(), nn.Linear(4, 3, bias=bias)
    )
    x = torch.randn(20, 3, dtype=torch.float64)
    return model.double(), x, torch.arange(20) % 3


def per_sample_gradients(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    rows = []
    for i in range(len(x)):
        loss = F.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        rows.append(torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(model.parameters()))]))
    return torch.stack(rows)


# ---------------------------------------------------------------- functions of a spectrum


def test_spectral_measures_of_regression_are_sums_over_its_known_eigenvalues():
    spectrum = exact_spectrum(regression())
    values = CURVATURES.numpy()
    assert sharpness.trace(spectrum).value == pytest.approx(values.sum(), rel=1e-12)
    assert sharpness.lambda_max(spectrum).value == pytest.approx(values.max(), rel=1e-12)
    assert sharpness.frobenius_norm(spectrum).value == pytest.approx(np.sqrt((values**2).sum()), rel=1e-12)
    assert sharpness.log_determinant(spectrum, 0.1).value == pytest.approx(np.log1p(values / 0.1).sum(), rel=1e-12)
    p = values / values.sum()
    assert sharpness.renyi_sharpness(spectrum, 2.0).value == pytest.approx(np.log((p**2).sum()), rel=1e-12)
    assert sharpness.renyi_sharpness(spectrum, 0.5).value == pytest.approx(-2 * np.log(np.sqrt(p).sum()), rel=1e-12)


def test_log_determinant_takes_magnitudes_and_zero_contributes_nothing():
    spectrum = Spectrum.from_eigenvalues([2.0, -1.0, 0.0])
    expected = math.log(1 + 2 / 5e-4) + math.log(1 + 1 / 5e-4)
    assert sharpness.log_determinant(spectrum).value == pytest.approx(expected, rel=1e-12)


def test_measures_of_an_estimated_spectrum_are_within_their_errors_of_the_exact_ones():
    matrix = matrix_with_spectrum(np.concatenate([[5.0, 4.0, 3.0], np.geomspace(1e-3, 1.0, 297)]), seed=0)
    exact, estimated = exact_spectrum(matrix), estimate_spectrum(MatrixOperator(matrix), num_matvecs=60)
    for measure in (sharpness.trace, sharpness.frobenius_norm, sharpness.log_determinant):
        estimate = measure(estimated)
        assert 0 < abs(estimate.value - measure(exact).value) < 4 * estimate.standard_error
        assert estimate.standard_error < 0.2 * estimate.value
    assert sharpness.lambda_max(estimated).value == pytest.approx(5.0, rel=1e-9)
    assert sharpness.lambda_max(estimated).standard_error < 1e-9


@pytest.mark.parametrize("num_matvecs", [10, 24, 100])
@pytest.mark.parametrize(
    "eigenvalues",
    [np.linspace(0, 1, 400), -1 / np.arange(1.0, 401), np.cos(np.linspace(0, np.pi, 400)), np.r_[-9.0, np.ones(399)]],
    ids=["uniform", "negative definite", "arcsine", "far below zero"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lambda_max_is_within_its_standard_error(eigenvalues, num_matvecs, dtype):
    A = MatrixOperator(matrix_with_spectrum(eigenvalues, seed=0).to(dtype))
    for seed in range(1, 6):  # with seed 0 the start vector is one from which the eigenvectors were made
        estimate = sharpness.lambda_max(estimate_spectrum(A, num_matvecs=num_matvecs, seed=seed))
        size = np.abs(eigenvalues).max()
        assert torch.finfo(dtype).eps * size < estimate.standard_error < 0.2 * size
        assert abs(eigenvalues.max() - estimate.value) < 3 * estimate.standard_error


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lambda_max_that_has_converged_is_known_up_to_rounding(dtype):
    A = MatrixOperator(matrix_with_spectrum(1 / np.arange(1.0, 401), seed=0).to(dtype))
    estimate = sharpness.lambda_max(estimate_spectrum(A, num_matvecs=100))
    assert estimate.standard_error < 20 * torch.finfo(dtype).eps
    assert abs(estimate.value - 1) < 3 * estimate.standard_error
    assert estimate.sampling_error < 1e-3 * estimate.standard_error


def test_frobenius_norm_has_the_parts_of_its_standard_error():
    A = MatrixOperator(matrix_with_spectrum(np.linspace(0, 1, 300)).float())
    spectrum = estimate_spectrum(A, num_matvecs=60)
    norm, squared = sharpness.frobenius_norm(spectrum), spectrum.trace_of(np.square)
    for part in ("standard_error", "sampling_error", "truncation_error", "rounding_error"):
        assert getattr(norm, part) == pytest.approx(getattr(squared, part) / (2 * norm.value))


# ---------------------------------------------------------------- norms


def test_norms_and_distance_of_regression():
    H = regression(offset=1.0)
    x = torch.diag(SCALES)
    assert sharpness.parameter_norm(H).value == pytest.approx(float(WEIGHTS.norm()), rel=1e-12)
    gradient = 2 / 4 * x.T @ torch.full((4,), -1.0, dtype=torch.float64)
    assert sharpness.gradient_norm(H).value == pytest.approx(float(gradient.norm()), rel=1e-12)
    before = {"weight": torch.zeros(1, 4)}
    assert sharpness.distance_from_initialization(H, before).value == pytest.approx(float(WEIGHTS.norm()), rel=1e-12)
    assert sharpness.distance_from_initialization(H, [WEIGHTS[None] + 1]).value == pytest.approx(2.0, rel=1e-12)


def test_norms_leave_frozen_parameters_out():
    model, x, y = classifier()
    model[0].requires_grad_(False)
    H = HessianOperator(model, F.cross_entropy, (x, y))
    trainable = torch.cat([p.detach().reshape(-1) for p in model.parameters() if p.requires_grad])
    assert sharpness.parameter_norm(H).value == pytest.approx(float(trainable.norm()), rel=1e-12)
    moved = [p.detach() + 1 for p in model.parameters()]
    assert sharpness.distance_from_initialization(H, moved).value == pytest.approx(len(trainable) ** 0.5, rel=1e-12)


def test_large_weights_do_not_overflow_the_norm():
    model = linear(torch.full((4,), 1e30)).float()
    H = HessianOperator(model, lambda output, y: 0 * output.sum(), (torch.zeros(1, 4), torch.zeros(1)))
    assert sharpness.parameter_norm(H).value == pytest.approx(2e30, rel=1e-6)


# ---------------------------------------------------------------- derivatives in the outputs


def test_fisher_rao_norm_of_regression_by_hand():
    # ∂ℓ_i/∂f = 2(f_i − y_i) = −2·offset and J_i θ = f_i = SCALES_i·w_i
    slopes = 2 * 0.5 * SCALES * WEIGHTS
    expected = float(slopes.square().mean().sqrt())
    assert sharpness.fisher_rao_norm(regression(offset=0.5)).value == pytest.approx(expected, rel=1e-12)
    assert sharpness.fisher_rao_norm(regression()).value == 0.0


@pytest.mark.parametrize("bias", [True, False])
def test_fisher_rao_norm_is_the_quadratic_form_of_per_sample_gradients(bias):
    model, x, y = classifier(bias)
    theta = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    expected = float((per_sample_gradients(model, x, y) @ theta).square().mean().sqrt())
    for data in ((x, y), [(x[:7], y[:7]), (x[7:], y[7:])]):
        for loss_fn in (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(reduction="sum")):
            H = HessianOperator(model, loss_fn, data)
            assert sharpness.fisher_rao_norm(H).value == pytest.approx(expected, rel=1e-10)


def test_fisher_rao_norm_without_biases_is_depth_times_a_function_of_the_outputs():
    model, x, y = classifier(bias=False)
    outputs = model(x).detach()
    slopes = outputs.softmax(1) - F.one_hot(y, 3)
    expected = 3 * float((slopes * outputs).sum(1).square().mean().sqrt())
    H = HessianOperator(model, F.cross_entropy, (x, y))
    assert sharpness.fisher_rao_norm(H).value == pytest.approx(expected, rel=1e-10)


def test_relative_flatness_of_regression_is_squared_norm_times_trace():
    expected = float(WEIGHTS.square().sum() * CURVATURES.sum())
    assert sharpness.relative_flatness(regression(offset=0.3)).value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("cut", [20, 7])
def test_relative_flatness_equals_the_definition_on_the_dense_hessian(cut):
    model, x, y = classifier()
    H = HessianOperator(model, F.cross_entropy, [(x[:cut], y[:cut]), (x[cut:], y[cut:])])
    block = dense_hessian(model, F.cross_entropy, (x, y))[-15:-3, -15:-3].reshape(3, 4, 3, 4)
    weight = model[4].weight.detach()
    expected = torch.einsum("sj,tj,sktk->", weight, weight, block)
    assert sharpness.relative_flatness(H).value == pytest.approx(float(expected), rel=1e-10)
    assert not model[4]._forward_hooks


CLASS_WEIGHTS = torch.tensor([5.0, 1.0, 0.25], dtype=torch.float64)
CROSS_ENTROPIES = {
    "plain": F.cross_entropy,
    "sum": nn.CrossEntropyLoss(reduction="sum"),
    "class weights": nn.CrossEntropyLoss(weight=CLASS_WEIGHTS),
    "smoothing": nn.CrossEntropyLoss(label_smoothing=0.3),
    "both": nn.CrossEntropyLoss(weight=CLASS_WEIGHTS, label_smoothing=0.3),
    "ignored": nn.CrossEntropyLoss(weight=CLASS_WEIGHTS, ignore_index=1),
    "partial": partial(F.cross_entropy, label_smoothing=0.1),
}


def definition_of_relative_flatness(H: HessianOperator, layer: str) -> float:
    weight = H.model.get_parameter(f"{layer}.weight").detach()
    block = H.restricted(params=f"{layer}.weight").to_dense().reshape(*weight.shape, *weight.shape)
    return float(torch.einsum("sj,tj,sktk->", weight, weight, block))


@pytest.mark.parametrize("targets", ["labels", "probabilities"])
@pytest.mark.parametrize("name", [name for name in CROSS_ENTROPIES if name != "ignored"])
def test_relative_flatness_of_every_cross_entropy_is_that_of_the_dense_hessian(name, targets):
    (model, x, y), loss = classifier(), CROSS_ENTROPIES[name]
    if targets == "probabilities":
        y = torch.rand(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).softmax(1)
    closed = HessianOperator(model, loss, [(x[:15], y[:15]), (x[15:], y[15:])])
    general = HessianOperator(model, lambda outputs, y: loss(outputs, y), (x, y), reduction=closed.reduction)
    for H in (closed, general):
        expected = definition_of_relative_flatness(H, "4")
        assert sharpness.relative_flatness(H).value == pytest.approx(expected, rel=1e-10)


def test_relative_flatness_with_ignored_labels_is_that_of_the_dense_hessian():
    model, x, y = classifier()
    H = HessianOperator(model, CROSS_ENTROPIES["ignored"], (x, y))
    expected = definition_of_relative_flatness(H, "4")
    assert sharpness.relative_flatness(H).value == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("sizes", [(3, 7), (7, 3), (5, 5)])
def test_relative_flatness_of_other_losses_takes_columns_or_rows_whichever_are_fewer(sizes):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(2, sizes[0]), nn.Tanh(), nn.Linear(*sizes)).double(), torch.randn(9, 2).double()
    H = HessianOperator(model, lambda f, y: (f.square().sum(1).square() + y).mean(), (x, torch.zeros(9).double()))
    expected = definition_of_relative_flatness(H, "2")
    assert sharpness.relative_flatness(H).value == pytest.approx(expected, rel=1e-10)


def test_relative_flatness_of_confident_predictions_keeps_its_digits():
    layer = nn.Linear(1, 2, bias=False)
    layer.weight.data = torch.tensor([[10.0], [-10.0]])
    H = HessianOperator(layer, F.cross_entropy, (torch.ones(1, 1), torch.zeros(1, dtype=torch.int64)))
    q = math.exp(-20) / (1 + math.exp(-20))
    assert sharpness.relative_flatness(H).value == pytest.approx(400 * q * (1 - q), rel=1e-6)


def test_relative_flatness_of_twenty_thousand_classes_is_fast():
    torch.manual_seed(0)
    model, x, y = nn.Linear(16, 20_000), torch.randn(40, 16), torch.arange(40) * 500
    p, weight = model(x).double().softmax(1).detach(), model.weight.detach().double()
    variance = p @ weight.square().sum(1) - (p @ weight).square().sum(1)
    expected = float((x.double().square().sum(1) * variance).mean())
    H = HessianOperator(model, F.cross_entropy, (x, y))
    start = time.process_time()
    assert sharpness.relative_flatness(H).value == pytest.approx(expected, rel=1e-5)
    assert time.process_time() - start < 5  # 400 seconds by one derivative for each class


class Scores(nn.Module):
    """A binary classifier with outputs of shape (batch,)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.last = nn.Linear(3, 4), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.hidden(x))).squeeze(-1)


@pytest.mark.parametrize("loss_fn", [nn.BCEWithLogitsLoss(), nn.SoftMarginLoss(), nn.MSELoss()])
def test_flat_outputs_have_the_measures_of_one_column(loss_fn):
    model, x = Scores().double(), torch.randn(12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = (x[:, 0] > 0).double()
    H = HessianOperator(model, loss_fn, (x, y))
    expected = definition_of_relative_flatness(H, "last")
    assert sharpness.relative_flatness(H).value == pytest.approx(expected, rel=1e-10)
    one_by_one = [H.restricted(batches=[Batch((x[i : i + 1], y[i : i + 1]), 1)]).gradient() for i in range(12)]
    weights = H.flatten(model.parameters())
    fisher_rao = math.sqrt(float((torch.stack(one_by_one) @ weights).square().mean()))
    assert sharpness.fisher_rao_norm(H).value == pytest.approx(fisher_rao, rel=1e-10)
    report = sharpness.sharpness_report(model, loss_fn, (x, y), blocks=False, num_matvecs=21)
    assert report["relative_flatness"].value == pytest.approx(expected, rel=1e-10)
    assert [row for row, _ in report.notes] == ["distance_from_initialization"]


# ---------------------------------------------------------------- perturbed weights


def test_worst_case_of_a_quadratic_is_half_rho_squared_times_the_largest_curvature():
    H = regression()
    assert sharpness.sam_sharpness(H, rho=0.3, num_steps=60).value == pytest.approx(
        0.5 * 0.09 * float(CURVATURES.max()), rel=1e-6
    )
    # all signs are alike for a diagonal Hessian
    assert sharpness.sam_sharpness(H, norm="linf", rho=0.3).value == pytest.approx(
        0.5 * 0.09 * float(CURVATURES.sum()), rel=1e-12
    )


def test_adaptive_worst_case_of_a_quadratic_weighs_curvature_with_the_squared_weights():
    H = regression()
    for eta in (0.0, 0.1):
        weighted = CURVATURES * (WEIGHTS.abs() + eta) ** 2
        found = sharpness.asam_sharpness(H, rho=0.3, eta=eta, num_steps=200).value
        assert found == pytest.approx(0.5 * 0.09 * float(weighted.max()), rel=1e-6)
        found = sharpness.asam_sharpness(H, norm="linf", rho=0.3, eta=eta).value
        assert found == pytest.approx(0.5 * 0.09 * float(weighted.sum()), rel=1e-12)


def test_default_radii_are_the_documented_ones():
    H = regression()
    for measure, radii in (
        (sharpness.sam_sharpness, {"l2": 0.05, "linf": 0.001}),
        (sharpness.asam_sharpness, {"l2": 0.5, "linf": 0.002}),
    ):
        for norm, rho in radii.items():
            assert measure(H, norm=norm).value == measure(H, norm=norm, rho=rho).value


def test_worst_case_away_from_a_minimum_adds_the_slope():
    H = regression(offset=1.0)
    gradient, rho = H.gradient(), 1e-4
    found = sharpness.sam_sharpness(H, rho=rho).value
    assert found == pytest.approx(rho * float(gradient.norm()), rel=1e-3)


def test_worst_case_at_a_maximum_is_the_centre_itself():
    x = torch.diag(SCALES)
    H = HessianOperator(linear(), lambda output, y: -F.mse_loss(output, y), (x, (x @ WEIGHTS)[:, None]))
    assert sharpness.sam_sharpness(H).value == 0.0


def test_average_case_of_a_quadratic_is_half_rho_squared_times_the_trace():
    for offset in (0.0, 5.0):  # the slope cancels between a draw and its opposite
        H, curvatures, _ = wide_regression(offset)
        expected = 0.5 * 0.04 * float(curvatures.sum())
        estimate = sharpness.average_case_sharpness(H, rho=0.2)
        assert abs(estimate.value - expected) < 3 * estimate.standard_error < 0.15 * expected


def test_pac_bayes_flatness_of_a_quadratic_is_the_trace_over_twice_the_increase():
    H, curvatures, _ = wide_regression()
    for increase in (1e-6, 0.1, 1e4):
        estimate = sharpness.pac_bayes_flatness(H, increase=increase)
        expected = float(curvatures.sum()) / (2 * increase)
        assert abs(estimate.value - expected) < 3 * estimate.standard_error < 0.15 * expected


def test_pac_bayes_sigma_raises_the_average_loss_by_the_increase():
    H = regression(offset=2.0)
    flatness = sharpness.pac_bayes_flatness(H, increase=0.1, seed=3)
    rise = sharpness.average_case_sharpness(H, rho=flatness.value**-0.5, seed=3)
    assert rise.value == pytest.approx(0.1, rel=1e-3)


def test_magnitude_aware_pac_bayes_of_a_quadratic_weighs_curvature_with_the_squared_weights():
    H, curvatures, weights = wide_regression()
    weighted, floor = float((curvatures * weights**2).sum()), 1e-6 * float(curvatures.sum())
    for increase in (0.1, floor):  # in the second, half is due to the fixed part of the noise
        estimate = sharpness.pac_bayes_flatness(H, increase=increase, magnitude_aware=True)
        expected = weighted / (2 * increase - floor)
        assert abs(estimate.value - expected) < 3 * estimate.standard_error < 0.3 * expected


def test_sigma_is_found_where_the_loss_is_flat_at_first_and_then_steep():
    # Measured around an MLP with a training loss of 0.001: steps by the square root alternate between 0.032 and 0.076.
    sigmas, means = [0.001, 0.01, 0.032, 0.048, 0.076, 0.1, 1.0], [4e-6, 4e-4, 0.0178, 0.0994, 0.56, 1.32, 132.0]
    asked: list[float] = []

    def loss_fn(model: nn.Module, batch: Tensor) -> Tensor:
        asked.append(abs(model.weight.item()))
        rise = np.exp(np.interp(np.log(asked[-1]), np.log(sigmas), np.log(means))) if asked[-1] else 0.0
        return torch.tensor(rise, dtype=torch.float64)

    H = HessianOperator(linear(torch.zeros(1)), loss_fn, [torch.zeros(1)], loss_style="model_batch")
    asked.clear()
    flatness = sharpness.pac_bayes_flatness(H, num_draws=1)
    assert len(asked) <= 3 * 12, "twelve trials of three losses each"
    weight = next(w for w in reversed(asked) if w)
    assert weight == pytest.approx(0.048, rel=0.02)
    rise = sharpness.average_case_sharpness(H, rho=flatness.value**-0.5, num_draws=1)
    assert rise.value == pytest.approx(0.1, rel=0.02)


# ---------------------------------------------------------------- nothing changed

NEED_A_LOSS = [
    sharpness.gradient_norm,
    sharpness.parameter_norm,
    sharpness.fisher_rao_norm,
    sharpness.relative_flatness,
    sharpness.pac_bayes_flatness,
    sharpness.sam_sharpness,
    sharpness.asam_sharpness,
    sharpness.average_case_sharpness,
]


def normalised() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3))
    x = torch.randn(30, 3)
    model(x)  # running statistics that are not those of the start
    return model.train(), x, torch.arange(30) % 3


def state(model: nn.Module) -> list:
    tensors = [*model.parameters(), *model.buffers()]
    bits = [(t.detach().clone(), t.data_ptr(), t._version) for t in tensors]
    flags = [m.training for m in model.modules()]
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    return [bits, flags, gradients, torch.get_rng_state()]


def assert_same(before: list, after: list) -> None:
    for (a, pointer, version), (b, new_pointer, new_version) in zip(before[0], after[0], strict=True):
        assert torch.equal(a, b)
        assert (pointer, version) == (new_pointer, new_version)
    assert before[1] == after[1]
    for a, b in zip(before[2], after[2], strict=True):
        assert (a is None and b is None) or torch.equal(a, b)
    assert torch.equal(before[3], after[3])


@pytest.mark.parametrize("measure", NEED_A_LOSS)
def test_every_measure_leaves_weights_buffers_flags_gradients_and_random_state_unchanged(measure):
    model, x, y = normalised()
    F.cross_entropy(model(x), y).backward()
    H = HessianOperator(model, F.cross_entropy, (x, y))
    before = state(model)
    assert math.isfinite(measure(H).value)
    assert_same(before, state(model))


@pytest.mark.parametrize("measure", NEED_A_LOSS[4:])
def test_an_interrupt_restores_the_weights(measure):
    model, x, y = normalised()
    calls = 0

    def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt
        return F.cross_entropy(outputs, targets)

    H = HessianOperator(model, loss_fn, (x, y))
    before = state(model)
    with pytest.raises(KeyboardInterrupt):
        measure(H)
    assert_same(before, state(model))


def test_a_graph_kept_by_the_operator_still_gives_the_same_products():
    model, x, y = classifier()
    H = HessianOperator(model, F.cross_entropy, (x, y))
    v = torch.ones(H.dim, dtype=torch.float64)
    before, graphs = H @ v, H._graphs
    sharpness.sam_sharpness(H)
    sharpness.pac_bayes_flatness(H)
    assert torch.equal(H @ v, before)
    assert H._graphs is graphs


def test_tied_weights_are_moved_together():
    torch.manual_seed(0)
    tied = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)).double()
    tied[1].weight = tied[0].weight
    x = torch.eye(2, dtype=torch.float64)
    H = HessianOperator(tied, nn.MSELoss(), (x, (x @ tied[0].weight.T @ tied[0].weight.T).detach()))
    dense = H.to_dense()
    rho = 1e-3
    found = sharpness.sam_sharpness(H, rho=rho, num_steps=100).value
    assert found == pytest.approx(0.5 * rho**2 * float(torch.linalg.eigvalsh(dense)[-1]), rel=1e-2)


def test_a_block_is_perturbed_alone():
    model, x, y = classifier()
    H = HessianOperator(model, F.cross_entropy, (x, y))
    blocks = H.blocks()
    whole = sharpness.sam_sharpness(H, num_steps=30).value
    parts = [sharpness.sam_sharpness(block, num_steps=30).value for block in blocks.values()]
    assert max(parts) < whole
    others = copy.deepcopy(model)
    others[0].requires_grad_(False)
    last = HessianOperator(others, F.cross_entropy, (x, y), "4.weight")
    assert sharpness.sam_sharpness(last, num_steps=30).value == pytest.approx(parts[4], rel=1e-12)


# ---------------------------------------------------------------- messages


def flat(model: nn.Module) -> HessianOperator:
    x = torch.randn(3, 1, 2, generator=torch.Generator().manual_seed(0))
    return HessianOperator(model, nn.MSELoss(), (x, torch.zeros(model(x).shape)))


def frozen_last_layer() -> HessianOperator:
    model, x, y = classifier()
    model[4].weight.requires_grad_(False)
    return HessianOperator(model, F.cross_entropy, (x, y))


def hidden_outputs() -> HessianOperator:
    model, x, y = classifier()
    return HessianOperator(model, lambda m, batch: F.cross_entropy(m(batch["x"]), batch["y"]), [{"x": x, "y": y}])


def bounded() -> HessianOperator:
    return HessianOperator(linear(), lambda out, y: torch.tanh(out.square().mean()), (torch.diag(SCALES), WEIGHTS))


def single_precision() -> HessianOperator:
    x = torch.diag(SCALES).float()
    return HessianOperator(linear().float(), nn.MSELoss(), (x, x @ WEIGHTS.float()[:, None]))


def distance(make):
    """The distance of a regression's weights from what ``make`` returns for its model."""
    H = regression()
    return sharpness.distance_from_initialization(H, make(H.model))


SPECTRAL = (sharpness.trace, sharpness.lambda_max, sharpness.frobenius_norm, sharpness.log_determinant)
MESSAGES = [
    (lambda: distance(lambda model: model.state_dict()), ValueError, r"own 'weight'.*deepcopy"),
    (lambda: distance(lambda model: {"bias": torch.zeros(1)}), ValueError, "lacks 'weight'"),
    (lambda: distance(lambda model: {"weight": torch.zeros(2, 2)}), ValueError, r"shape \(2, 2\)"),
    (lambda: distance(lambda model: []), ValueError, "holds 0 tensors, but the model has 1"),
    (lambda: distance(lambda model: ["a"]), TypeError, "got str"),
    (lambda: distance(lambda model: torch.zeros(1, 4)), TypeError, "got Tensor"),
    (lambda: distance(lambda model: {"weight": torch.full((1, 4), math.nan)}), ValueError, "not finite"),
    (lambda: sharpness.relative_flatness(flat(nn.Conv1d(1, 1, 1))), ValueError, "no torch.nn.Linear"),
    (
        lambda: sharpness.relative_flatness(flat(nn.Sequential(nn.Linear(2, 2), nn.Tanh()))),
        ValueError,
        "output is that of its last",
    ),
    (
        lambda: sharpness.relative_flatness(flat(nn.Linear(2, 2))),
        ValueError,
        r"\(batch, outputs\), got \(3, 1, 2\)",
    ),
    (lambda: sharpness.relative_flatness(frozen_last_layer()), ValueError, "'4'"),
    (lambda: sharpness.relative_flatness(hidden_outputs()), ValueError, 'loss_style="model_batch"'),
    (lambda: sharpness.fisher_rao_norm(hidden_outputs()), ValueError, 'loss_style="model_batch"'),
    (
        lambda: sharpness.pac_bayes_flatness(bounded(), increase=5.0),
        ValueError,
        "no Gaussian noise raises the loss by increase=5",
    ),
    (lambda: sharpness.average_case_sharpness(single_precision(), rho=1e30), ValueError, r"rho=1e\+30"),
    (lambda: sharpness.sam_sharpness(single_precision(), rho=1e30), ValueError, "lower rho"),
    (lambda: sharpness.sam_sharpness(regression(), norm="l1"), ValueError, "norm must be one of 'l2', 'linf'"),
    (lambda: sharpness.sam_sharpness(regression(), norm="l1", rho=0.1), ValueError, "norm must be one of 'l2', 'linf'"),
    (lambda: sharpness.sam_sharpness(regression(), rho=0.0), ValueError, "rho must lie in"),
    (lambda: sharpness.sam_sharpness(regression(), num_steps=0), ValueError, "num_steps must be at least 1"),
    (lambda: sharpness.sam_sharpness(regression(), seed=-1), ValueError, "seed"),
    (lambda: sharpness.asam_sharpness(regression(), eta=-0.1), ValueError, "eta must lie in"),
    (lambda: sharpness.average_case_sharpness(regression(), rho=math.nan), ValueError, "rho must be finite"),
    (lambda: sharpness.average_case_sharpness(regression(), num_draws=0), ValueError, "num_draws"),
    (lambda: sharpness.pac_bayes_flatness(regression(), increase=0.0), ValueError, "increase must lie in"),
    (
        lambda: sharpness.log_determinant(exact_spectrum(regression()), 0.0),
        ValueError,
        "regularization must lie in",
    ),
    (lambda: sharpness.renyi_sharpness(exact_spectrum(regression()), -1.0), ValueError, "alpha must lie in"),
    *((partial(measure, MatrixOperator(torch.eye(2))), TypeError, "HessianOperator") for measure in NEED_A_LOSS),
    *((partial(measure, [1.0, 2.0]), TypeError, "from_eigenvalues") for measure in SPECTRAL),
]


@pytest.mark.parametrize(("call", "error", "match"), MESSAGES)
def test_bad_input_is_named(call, error, match):
    with pytest.raises(error, match=match):
        call()


@pytest.mark.parametrize("factor", [1.0, 7.0])
def test_the_fisher_rao_norm_counts_samples_whatever_the_mean_is_divided_by(factor):
    torch.manual_seed(0)
    model, x, y = nn.Linear(3, 4).double(), torch.randn(8, 3).double(), torch.arange(8) % 4
    plain = sharpness.fisher_rao_norm(HessianOperator(model, nn.CrossEntropyLoss(), (x, y))).value
    same = nn.CrossEntropyLoss(weight=torch.full((4,), factor).double())
    assert sharpness.fisher_rao_norm(HessianOperator(model, same, (x, y))).value == pytest.approx(plain, rel=1e-12)
    more = torch.cat([x, x[:3]]), torch.cat([y, torch.full((3,), -100)])
    for data in (more, [(more[0][:5], more[1][:5]), (more[0][5:], more[1][5:])]):
        assert sharpness.fisher_rao_norm(HessianOperator(model, same, data)).value == pytest.approx(plain, rel=1e-12)
    elements = HessianOperator(model, nn.MSELoss(), (x, torch.zeros(8, 4).double()))
    outputs = model(x).detach()
    expected = ((outputs**2 / 2).sum(1) ** 2).mean().sqrt()  # J θ is the output of a linear model
    assert sharpness.fisher_rao_norm(elements).value == pytest.approx(float(expected), rel=1e-12)
