"""The spectrum of a Gram matrix is that of the dense Hessian at interpolation, and is refused elsewhere."""

import functools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import renyi_lab as rl
from renyi_lab import counterexamples


def inputs(n=12, d=5, seed=0):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def tanh_network(outputs=3):
    return rl.models.mlp(5, 7, outputs, activation="tanh").double()


def fitted(model, x):
    """Targets that the model interpolates: its own outputs."""
    return x, model(x).detach()


def all_eigenvalues(spectrum):
    return np.repeat(spectrum.nodes, spectrum.weights.astype(int))


def assert_equal_spectra(found, operator, tolerance=1e-8):
    exact = rl.exact_spectrum(operator)
    assert found.is_exact
    assert found.dim == operator.dim == found.weights.sum()
    size = np.abs(exact.nodes).max()
    np.testing.assert_allclose(all_eigenvalues(found), exact.nodes, atol=tolerance * size)
    for alpha in (1.0, 2.0):
        close = 10 * tolerance
        assert float(found.renyi_entropy(alpha)) == pytest.approx(float(exact.renyi_entropy(alpha)), abs=close)


@pytest.mark.parametrize("params", [None, "layer1.*", "layer2.weight"])
def test_a_network_with_several_outputs_has_the_spectrum_of_its_dense_hessian(params):
    model = tanh_network()
    data = fitted(model, inputs())
    found = rl.gram_spectrum(model, F.mse_loss, data, params=params)
    assert_equal_spectra(found, rl.HessianOperator(model, F.mse_loss, data, params))
    assert found.num_matvecs == 12 * 3


@pytest.mark.parametrize("norm", [None, "layer"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_trained_two_layer_network_that_was_moved_to_interpolation_has_that_of_its_dense_hessian(bias, norm):
    train_set, _ = rl.datasets.xor(num_samples=20, num_features=10, targets="signs")
    model = rl.models.two_layer(10, 30, bias=bias, norm=norm).double()
    counterexamples.train_one_sam(model, train_set, rho=0.0, lr=0.1, steps=500)
    model = counterexamples.to_interpolation(model, train_set)
    data = tuple(tensor.double() for tensor in train_set.tensors)
    for params in (None, "layer1.*", "layer2.*"):
        operator = rl.HessianOperator(model, F.mse_loss, data, params)
        assert_equal_spectra(rl.gram_spectrum(model, F.mse_loss, data, params=params), operator)


def test_more_outputs_than_parameters():
    model = nn.Linear(5, 1, bias=False).double()
    data = fitted(model, inputs(40))
    assert_equal_spectra(rl.gram_spectrum(model, F.mse_loss, data), rl.HessianOperator(model, F.mse_loss, data))


def half_squared_sum(outputs, targets):
    return 0.5 * (outputs - targets).square().sum()


def weighted(outputs, targets):
    return (torch.tensor([1.0, 4.0, 0.5], dtype=outputs.dtype) * (outputs - targets).square()).mean()


@pytest.mark.parametrize(
    ("loss_fn", "options"),
    [
        (nn.MSELoss(), {}),
        (nn.MSELoss(reduction="sum"), {}),
        (functools.partial(F.mse_loss, reduction="sum"), {}),
        (weighted, {}),
    ],
)
def test_squared_losses_of_every_scale_in_ragged_batches(loss_fn, options):
    model = tanh_network()
    loader = DataLoader(TensorDataset(*fitted(model, inputs(11))), batch_size=4)
    found = rl.gram_spectrum(model, loss_fn, loader, **options)
    assert_equal_spectra(found, rl.HessianOperator(model, loss_fn, loader))


def test_batch_norm_in_evaluation_and_frozen_parameters():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 2)).double()
    model[0].weight.requires_grad_(False)
    model.eval()
    data = fitted(model, inputs())
    model.train()
    assert_equal_spectra(rl.gram_spectrum(model, F.mse_loss, data), rl.HessianOperator(model, F.mse_loss, data))
    assert model.training


def test_single_precision():
    model = tanh_network().float()
    data = fitted(model, inputs().float())
    found = rl.gram_spectrum(model, F.mse_loss, data)
    assert_equal_spectra(found, rl.HessianOperator(model, F.mse_loss, data), tolerance=1e-5)


def test_large_outputs_in_single_precision():
    """As for prices: rounding of the outputs must not look like a loss that is not quadratic."""
    model = tanh_network().float()
    with torch.no_grad():
        model.layer2.bias += 1e4
    data = fitted(model, inputs().float())
    found = rl.gram_spectrum(model, F.mse_loss, data)
    assert_equal_spectra(found, rl.HessianOperator(model, F.mse_loss, data), tolerance=1e-5)


def test_data_are_read_once():
    """A loader that shuffles and drops samples, and batches that can be read only once."""
    model = tanh_network()
    x, y = fitted(model, inputs())
    loader = DataLoader(TensorDataset(x, y), batch_size=5, shuffle=True, drop_last=True)
    assert rl.gram_spectrum(model, F.mse_loss, loader).num_matvecs == 10 * 3
    assert_equal_spectra(
        rl.gram_spectrum(model, F.mse_loss, iter([(x, y)])), rl.HessianOperator(model, F.mse_loss, (x, y))
    )


def test_with_its_own_outputs_as_targets_it_is_the_spectrum_of_the_gauss_newton_matrix():
    """Of a squared loss, whose Gauss-Newton matrix does not depend on the targets."""
    model = tanh_network()
    found = rl.gram_spectrum(model, F.mse_loss, fitted(model, inputs()))
    far_away = inputs(), inputs(12, 3, seed=1)
    assert_equal_spectra(found, rl.GGNOperator(model, F.mse_loss, far_away))


def test_it_is_refused_away_from_interpolation_with_the_size_of_what_it_neglects():
    model = tanh_network()
    x, y = fitted(model, inputs())
    with pytest.raises(ValueError, match=r"does not interpolate.*neglects is .* of it.*HessianOperator"):
        rl.gram_spectrum(model, F.mse_loss, (x, y + 1e-3))


def test_what_is_accepted_is_right_to_the_stated_error():
    """Just inside of what is accepted, eigenvalues are wrong by 1e-8 of the largest at most."""
    model = tanh_network()
    x, y = fitted(model, inputs())
    data = x, y + 1e-9
    assert_equal_spectra(rl.gram_spectrum(model, F.mse_loss, data), rl.HessianOperator(model, F.mse_loss, data))


@pytest.mark.parametrize(
    "loss_fn",
    [
        nn.HuberLoss(),
        nn.SmoothL1Loss(beta=5.0),
        nn.L1Loss(),
        lambda outputs, targets: (outputs - targets).pow(4).mean(),
        lambda outputs, targets: (outputs - targets).square().mean(1).square().mean(),
        lambda outputs, targets: -(outputs - targets).square().mean(),
        lambda outputs, targets: (outputs - targets).sum(1).square().mean(),
    ],
    ids=["huber", "smooth l1", "l1", "fourth power", "squared twice", "negative", "of the sum"],
)
def test_other_losses_are_refused(loss_fn):
    model = tanh_network()
    with pytest.raises(ValueError, match=r"loss_fn must be a squared loss, but"):
        rl.gram_spectrum(model, loss_fn, fitted(model, inputs()))


def test_cross_entropy_is_refused():
    with pytest.raises(ValueError, match=r"cross_entropy is not quadratic"):
        rl.gram_spectrum(tanh_network(), F.cross_entropy, (inputs(), torch.arange(12) % 3))


def test_dictionary_batches_empty_data_and_models_without_parameters_are_refused():
    model = tanh_network()
    batches = [{"x": inputs(), "y": model(inputs()).detach()}]
    with pytest.raises(ValueError, match=r"pass batches \(x, y\)"):
        rl.gram_spectrum(model, lambda m, batch: F.mse_loss(m(batch["x"]), batch["y"]), batches)
    with pytest.raises(ValueError, match="data"):
        rl.gram_spectrum(model, F.mse_loss, (inputs(0), torch.empty(0, 3, dtype=torch.float64)))
    with pytest.raises(ValueError, match="parameters"):
        rl.gram_spectrum(nn.ReLU(), F.mse_loss, (inputs(), inputs()))


def test_entropy_of_a_hessian_at_interpolation_is_at_most_the_logarithm_of_the_number_of_samples():
    """The theorem, and its equality at the memorizing network."""
    train_set, _ = rl.datasets.xor(num_samples=30, num_features=12, targets="signs")
    data = tuple(tensor.double() for tensor in train_set.tensors)
    memorizing = counterexamples.memorizing_network(train_set)
    exact = rl.exact_spectrum(rl.HessianOperator(memorizing, F.mse_loss, data))
    model = rl.models.two_layer(12, 60).double()
    counterexamples.train_one_sam(model, train_set, rho=0.05, lr=0.05, steps=500)
    trained = rl.gram_spectrum(counterexamples.to_interpolation(model, train_set), F.mse_loss, data)
    for alpha in (0.5, 1.0, 2.0, math.inf):
        assert float(exact.renyi_entropy(alpha)) == pytest.approx(math.log(30), abs=1e-6)
        assert float(trained.renyi_entropy(alpha)) < math.log(30) - 0.01


def test_random_numbers_gradients_and_flags_are_left_alone():
    model = tanh_network()
    torch.manual_seed(5)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    rl.gram_spectrum(model, F.mse_loss, fitted(model, inputs()))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training


@pytest.mark.parametrize("num_samples", [1, 2, 5])
@pytest.mark.parametrize("steeper", ["above", "below"])
def test_losses_with_different_slopes_above_and_below_are_refused(num_samples, steeper):
    """Each side alone is quadratic."""

    def expectile(outputs, targets):
        above = (outputs > targets) if steeper == "above" else (outputs < targets)
        return torch.where(above, 0.8, 0.2).mul((outputs - targets).square()).mean()

    torch.manual_seed(0)
    model = nn.Linear(5, 1).double()
    with pytest.raises(ValueError, match="not quadratic"):
        rl.gram_spectrum(model, expectile, fitted(model, inputs(num_samples)))


def test_linear_losses_are_refused_as_such():
    model = nn.Sequential(tanh_network(), nn.LogSoftmax(dim=1))
    with pytest.raises(ValueError, match="loss_fn must be a squared loss"):
        rl.gram_spectrum(model, F.nll_loss, (inputs(), torch.arange(12) % 3))
