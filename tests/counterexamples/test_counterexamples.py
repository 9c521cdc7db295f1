"""Constructed networks have the stated traces and spectra; 1-SAM is the mean of SAM with batch size 1."""

import functools
import itertools
import math

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import renyi_lab as rl
from renyi_lab import counterexamples
from renyi_lab.training import DivergenceError

CASES = pytest.mark.parametrize(("bias", "norm"), [(False, None), (True, None), (False, "layer"), (True, "layer")])
ALPHAS = (0.5, 1.0, 1.5, 2.0)


def parity(num_samples=20, num_features=8):
    """Distinct samples."""
    x = cube(num_features)[torch.randperm(2**num_features, generator=torch.Generator().manual_seed(0))[:num_samples]]
    return TensorDataset(x.float(), (x[:, 0] * x[:, 1]).float())


def in_double(data):
    return tuple(tensor.double() for tensor in data.tensors)


def cube(d):
    return torch.tensor(list(itertools.product((-1.0, 1.0), repeat=d)), dtype=torch.float64)


# ---------------------------------------------------------------- constructed


@pytest.mark.parametrize("norm", [None, "layer"])
def test_the_memorizing_network_knows_its_samples_and_nothing_else(norm):
    train_set = parity()
    x, y = in_double(train_set)
    model = counterexamples.memorizing_network(train_set, norm=norm, width=25)
    everything = cube(8)
    outputs = model(everything).detach()
    known = (everything[:, None] == x).all(-1)
    torch.testing.assert_close(outputs, (known * y).sum(1), atol=1e-12, rtol=0)
    spectrum = rl.gram_spectrum(model, F.mse_loss, (x, y))
    assert float(spectrum.trace) == pytest.approx(counterexamples.minimal_trace(8, norm=norm), rel=1e-12)
    for alpha in ALPHAS:
        assert float(spectrum.renyi_entropy(alpha)) == pytest.approx(math.log(20), abs=1e-9)
    assert counterexamples.sign_accuracy(model, train_set) == 1.0


@CASES
def test_the_four_neuron_network_is_right_everywhere_and_as_flat(bias, norm):
    x = cube(6)
    model = counterexamples.four_neuron_network(6, bias=bias, norm=norm, width=7)
    torch.testing.assert_close(model(x).detach(), x[:, 0] * x[:, 1], atol=1e-12, rtol=0)
    trace = rl.gram_spectrum(model, F.mse_loss, (x, x[:, 0] * x[:, 1])).trace
    assert float(trace) == pytest.approx(counterexamples.minimal_trace(6, bias=bias, norm=norm), rel=1e-12)


@CASES
def test_no_trained_network_is_flatter_than_the_minimal_trace(bias, norm):
    train_set = parity()
    model = rl.models.two_layer(8, 40, bias=bias, norm=norm).double()
    counterexamples.train_one_sam(model, train_set, rho=0.1, lr=0.05, steps=1000)
    model = counterexamples.to_interpolation(model, train_set)
    trace = float(rl.gram_spectrum(model, F.mse_loss, in_double(train_set)).trace)
    assert trace >= counterexamples.minimal_trace(8, bias=bias, norm=norm) - 1e-9


def test_wrong_data_of_the_memorizing_network():
    x, y = parity().tensors
    build = counterexamples.memorizing_network
    with pytest.raises(ValueError, match="equal samples"):
        build((torch.cat([x, x[:1]]), torch.cat([y, y[:1]])))
    with pytest.raises(ValueError, match=r"targets −1 and \+1.*signs"):
        build((x, (y + 1) / 2))
    with pytest.raises(ValueError, match=r"features −1 and \+1"):
        build((2 * x, y))
    with pytest.raises(ValueError, match="width"):
        build((x, y), width=19)
    with pytest.raises(ValueError, match="norm"):
        build((x, y), norm="batch")
    with pytest.raises(ValueError, match="empty"):
        build((x[:0], y[:0]))


# ---------------------------------------------------------------- 1-SAM


def explicit(model, x, y, rho):
    """The definition: one sample at a time, at its own perturbed weights."""
    start = [parameter.detach().clone() for parameter in model.parameters()]
    parameters, total = list(model.parameters()), [torch.zeros_like(p) for p in model.parameters()]
    for i in range(len(x)):
        gradient = torch.autograd.grad(F.mse_loss(model(x[i : i + 1]), y[i : i + 1]), parameters)
        length = torch.cat([part.flatten() for part in gradient]).norm()
        with torch.no_grad():
            if length > 0:
                for parameter, part in zip(parameters, gradient, strict=True):
                    parameter += rho * part / length
        gradient = torch.autograd.grad(F.mse_loss(model(x[i : i + 1]), y[i : i + 1]), parameters)
        with torch.no_grad():
            for parameter, before in zip(parameters, start, strict=True):
                parameter.copy_(before)
            for sum_so_far, part in zip(total, gradient, strict=True):
                sum_so_far += part / len(x)
    return total


@CASES
@pytest.mark.parametrize("rho", [0.0, 0.1])
def test_it_is_the_mean_of_gradients_at_each_samples_own_perturbation(bias, norm, rho):
    x, y = in_double(parity())
    model = rl.models.two_layer(8, 15, bias=bias, norm=norm).double()
    found = counterexamples.one_sam_gradients(model, (x, y), rho)
    assert list(found) == [name for name, _ in model.named_parameters()]
    for gradient, expected in zip(found.values(), explicit(model, x, y, rho), strict=True):
        torch.testing.assert_close(gradient, expected, atol=1e-13, rtol=1e-11)


@pytest.mark.parametrize("norm", [None, "layer"])
def test_interpolated_and_dead_samples_are_not_perturbed(norm):
    """Errors of exactly 0, and a network without any active unit, whose outputs have no gradient."""
    train_set = parity()
    found = counterexamples.one_sam_gradients(counterexamples.four_neuron_network(8, norm=norm), train_set, 0.1)
    assert all(float(gradient.abs().max()) < 1e-14 for gradient in found.values())
    dead = rl.models.two_layer(8, 5, norm=norm).double()
    with torch.no_grad():
        dead.layer1.bias.fill_(-100.0)
    found = counterexamples.one_sam_gradients(dead, train_set, 0.1)
    assert all(float(gradient.abs().max()) == 0 for gradient in found.values())


@CASES
def test_with_one_sample_a_training_is_that_of_sam(bias, norm):
    x, y = in_double(parity(num_samples=1))
    model, twin = (rl.models.two_layer(8, 10, bias=bias, norm=norm).double() for _ in range(2))
    counterexamples.train_one_sam(model, (x, y), rho=0.05, lr=0.02, steps=15, weight_decay=0.01)
    sam = functools.partial(rl.SAM, rho=0.05)
    rl.train(
        twin, (x, y), epochs=15, lr=0.02, momentum=0.0, weight_decay=0.01, loss_fn=F.mse_loss, batch_size=1,
        optimizer=sam,
    )  # fmt: skip
    for found, expected in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-8, rtol=0)


def test_a_small_step_of_it_is_an_epoch_of_sam_with_batch_size_one():
    """With n samples, n steps of batch size 1 and a rate of lr are one step of rate n·lr, up to O(lr²)."""
    x, y = in_double(parity())
    model, twin = (rl.models.two_layer(8, 15).double() for _ in range(2))
    start = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    counterexamples.train_one_sam(model, (x, y), rho=0.1, lr=20 * 1e-6, steps=1)
    sam = functools.partial(rl.SAM, rho=0.1)
    rl.train(
        twin, (x, y), epochs=1, lr=1e-6, momentum=0.0, weight_decay=0.0, loss_fn=F.mse_loss, batch_size=1,
        optimizer=sam,
    )  # fmt: skip
    moves = [torch.nn.utils.parameters_to_vector(m.parameters()).detach() - start for m in (model, twin)]
    assert float((moves[0] - moves[1]).norm() / moves[0].norm()) < 1e-3


@pytest.mark.slow
def test_without_biases_it_finds_the_rule_and_gradient_descent_does_not():
    train_set, test_set = rl.datasets.xor(num_samples=100, targets="signs")
    accuracies = []
    for rho in (0.0, 0.1):
        model = rl.models.two_layer(30, 100, bias=False).double()
        counterexamples.train_one_sam(model, train_set, rho=rho, lr=0.04, steps=4000)
        assert counterexamples.sign_accuracy(model, train_set) == 1.0
        accuracies.append(counterexamples.sign_accuracy(model, test_set))
    assert accuracies[0] < 0.75 < 0.9 < accuracies[1]


def test_kept_networks_are_those_of_shorter_trainings_and_nothing_is_random():
    train_set = parity()
    model, shorter = (rl.models.two_layer(8, 10, norm="layer").double() for _ in range(2))
    options = {"rho": 0.1, "lr": 0.1, "first_layer_norm": 3.0}
    torch.manual_seed(3)
    state = torch.get_rng_state()
    kept = counterexamples.train_one_sam(model, train_set, steps=30, keep=(0, 10, 30), **options)
    assert torch.equal(torch.get_rng_state(), state)
    counterexamples.train_one_sam(shorter, train_set, steps=10, **options)
    assert list(kept) == [0, 10, 30]
    for first, second in ((kept[10], shorter), (kept[30], model)):
        for found, expected in zip(first.parameters(), second.parameters(), strict=True):
            assert torch.equal(found, expected)
    length = torch.cat([model.layer1.weight, model.layer1.bias[:, None]], dim=1).detach().norm()
    assert float(length) == pytest.approx(3.0, rel=1e-12)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_divergence_leaves_the_weights_as_they_were():
    train_set, model = parity(), rl.models.two_layer(8, 10).double()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with pytest.raises(DivergenceError, match="lr=50"):
        counterexamples.train_one_sam(model, train_set, rho=0.0, lr=50, steps=500)
    for parameter, start in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, start)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"rho": -0.1}, "rho"),
        ({"lr": 0.0}, "lr"),
        ({"steps": -1}, "steps"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"first_layer_norm": 0.0}, "first_layer_norm"),
        ({"keep": (6,)}, "keep has 6"),
        ({"keep": (-1,)}, "keep"),
    ],
)
def test_settings_out_of_range(options, name):
    with pytest.raises(ValueError, match=name):
        counterexamples.train_one_sam(
            rl.models.two_layer(8, 4), parity(), **({"rho": 0.1, "lr": 0.1, "steps": 5} | options)
        )


def test_other_models_and_data_are_refused():
    with pytest.raises(TypeError, match="two_layer"):
        counterexamples.train_one_sam(rl.models.mlp(8, 4, 1), parity(), rho=0.1, lr=0.1, steps=1)
    with pytest.raises(ValueError, match="9"):
        counterexamples.one_sam_gradients(rl.models.two_layer(9, 4), parity(), 0.1)
    classes = rl.datasets.xor(num_samples=20, num_features=8)[0]
    with pytest.raises(ValueError, match="signs"):
        counterexamples.one_sam_gradients(rl.models.two_layer(8, 4), classes, 0.1)
    with pytest.raises(TypeError, match="data"):
        counterexamples.sign_accuracy(rl.models.two_layer(8, 4), [1, 2])
    with pytest.raises(ValueError, match="data has 8 features, but model has 9"):
        counterexamples.sign_accuracy(rl.models.two_layer(9, 4), parity())


def test_a_first_layer_of_zeros_cannot_be_scaled():
    model = rl.models.two_layer(8, 4, bias=False)
    torch.nn.init.zeros_(model.layer1.weight)
    with pytest.raises(ValueError, match="first_layer_norm"):
        counterexamples.train_one_sam(model, parity(), rho=0.1, lr=0.1, steps=1, first_layer_norm=1.0)


EVERY_FUNCTION = pytest.mark.parametrize(
    "function",
    [
        lambda model, data: counterexamples.one_sam_gradients(model, data, 0.1),
        lambda model, data: counterexamples.train_one_sam(model, data, rho=0.1, lr=0.1, steps=1),
        counterexamples.to_interpolation,
    ],
    ids=["gradients", "training", "interpolation"],
)


@EVERY_FUNCTION
def test_frozen_parameters_are_refused_rather_than_moved(function):
    model = rl.models.two_layer(8, 10).double()
    model.layer1.requires_grad_(False)
    with pytest.raises(ValueError, match=r"frozen parameters \(layer1.weight, layer1.bias\)"):
        function(model, parity())


@EVERY_FUNCTION
def test_a_network_whose_layers_were_changed_is_refused(function):
    with_bias, hooked = (rl.models.two_layer(8, 10).double() for _ in range(2))
    with_bias.layer2 = torch.nn.Linear(10, 1).double()
    hooked.layer1.register_forward_hook(lambda layer, inputs, output: 2 * output)
    for model in (with_bias, hooked):
        with pytest.raises(TypeError, match="a layer was replaced"):
            function(model, parity())


@EVERY_FUNCTION
def test_weights_that_are_not_finite_are_named(function):
    model = rl.models.two_layer(8, 10).double()
    with torch.no_grad():
        model.layer1.weight[0, 0] = math.nan
    with pytest.raises(ValueError, match="model's output is not finite"):
        function(model, parity())
    with pytest.raises(ValueError, match="model's output is not finite"):
        counterexamples.sign_accuracy(model, parity())


def test_a_last_step_that_diverges_is_noticed():
    model = rl.models.two_layer(8, 10).double()
    with pytest.raises(DivergenceError, match="by step 1"):
        counterexamples.train_one_sam(model, parity(), rho=0.0, lr=1e308, steps=1)
    assert bool(model(parity().tensors[0].double()).isfinite().all())


def test_keep_must_be_several_numbers():
    with pytest.raises(TypeError, match=r"keep=\(3,\)"):
        counterexamples.train_one_sam(rl.models.two_layer(8, 4), parity(), rho=0.1, lr=0.1, steps=3, keep=3)


# ---------------------------------------------------------------- interpolation


@CASES
def test_the_way_to_interpolation_is_short_and_ends_there(bias, norm):
    train_set = parity()
    model = rl.models.two_layer(8, 40, bias=bias, norm=norm).double()
    counterexamples.train_one_sam(model, train_set, rho=0.0, lr=0.1, steps=1500)
    before = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    loss = rl.evaluate(model, in_double(train_set), loss_fn=F.mse_loss).loss
    beside = counterexamples.to_interpolation(model, train_set)
    after = torch.nn.utils.parameters_to_vector(beside.parameters()).detach()
    assert torch.equal(torch.nn.utils.parameters_to_vector(model.parameters()), before)
    assert rl.evaluate(beside, in_double(train_set), loss_fn=F.mse_loss).loss < 1e-24
    assert float((after - before).norm()) < 20 * math.sqrt(loss)


def test_no_interpolation_with_too_few_units():
    with pytest.raises(ValueError, match="no interpolation was reached"):
        counterexamples.to_interpolation(rl.models.two_layer(8, 1).double(), parity(num_samples=40))


def test_sign_accuracy_counts_an_output_of_zero_as_a_guess():
    train_set, test_set = rl.datasets.xor(num_samples=20, num_test=100, targets="signs")
    assert counterexamples.sign_accuracy(counterexamples.memorizing_network(train_set), test_set) == 0.5
    wrong = TensorDataset(test_set.tensors[0], -test_set.tensors[1])
    assert counterexamples.sign_accuracy(counterexamples.four_neuron_network(30), wrong) == 0.0
