"""The networks: published parameter counts, seeds, and what each block computes."""

import pytest
import torch
from torch import nn

from renyi_lab import models


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


ALL = [
    (lambda seed: models.mlp(40, 100, 100, 10, seed=seed), (2, 40)),
    (lambda seed: models.cnn1d(seed=seed), (2, 40)),
    (lambda seed: models.cnn1d(batch_norm=True, seed=seed), (2, 40)),
    (lambda seed: models.resnet20(seed=seed), (2, 3, 32, 32)),
]


@pytest.mark.parametrize(
    ("model", "published"),
    [
        (models.mlp(40, 100, 100, 10), 15_210),  # MLPBase of Greydanus & Kobak
        (models.cnn1d(), 5_210),  # ConvBase of the same
        (models.resnet20(), 269_722),  # He et al.: 0.27M
    ],
    ids=["mlp", "cnn1d", "resnet20"],
)
def test_parameter_counts_are_the_published_ones(model, published):
    assert count(model) == published


@pytest.mark.parametrize(("make", "shape"), ALL, ids=["mlp", "cnn1d", "cnn1d with batch norm", "resnet20"])
def test_a_seed_fixes_every_weight_and_the_global_random_state_is_restored(make, shape):
    before = torch.get_rng_state()
    first, again, other = make(3), make(3), make(4)
    assert torch.equal(torch.get_rng_state(), before)
    weights = [torch.nn.utils.parameters_to_vector(model.parameters()) for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert first(torch.zeros(shape)).shape == (2, 10)


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def test_mlp_is_the_composition_of_its_named_blocks(activation):
    model = models.mlp(3, 5, 4, 2, activation=activation).double()
    assert list(dict(model.named_children())) == ["layer1", f"{activation}1", "layer2", f"{activation}2", "layer3"]
    function = {"relu": torch.relu, "tanh": torch.tanh, "gelu": nn.functional.gelu}[activation]
    x = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)
    hidden = function(x @ model.layer1.weight.T + model.layer1.bias)
    hidden = function(hidden @ model.layer2.weight.T + model.layer2.bias)
    torch.testing.assert_close(model(x), hidden @ model.layer3.weight.T + model.layer3.bias)


def test_relu_mlp_without_bias_is_positively_homogeneous_in_each_layer():
    model = models.mlp(3, 5, 4, 2, bias=False).double()
    assert count(model) == 3 * 5 + 5 * 4 + 4 * 2
    x = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)
    before = model(x).detach()
    with torch.no_grad():
        model.layer1.weight.mul_(3)
        model.layer2.weight.div_(3)
    torch.testing.assert_close(model(x), before)


def test_mlp_of_two_widths_is_linear():
    model = models.mlp(3, 2)
    assert [type(block) for block in model] == [nn.Linear]


def test_cnn1d_has_the_receptive_field_of_its_kernels():
    # The receptive field is 5 + 2·2 + 4·2 = 17 wide; with padding 1 + 2 + 4 that of the first output is −7 … 9.
    model = models.cnn1d(channels=4, num_classes=3).double()
    convolutions = nn.Sequential(model.to_signal, model.conv1, model.conv2, model.conv3)
    x = torch.zeros(1, 40, dtype=torch.float64, requires_grad=True)
    features = convolutions(x)
    assert features.shape == (1, 4, 5)
    (gradient,) = torch.autograd.grad(features[0, 0, 0], x)
    assert gradient.nonzero()[:, 1].tolist() == list(range(10))


def test_cnn1d_takes_signals_of_the_given_length():
    assert models.cnn1d(in_features=64, num_classes=3)(torch.zeros(2, 64)).shape == (2, 3)
    assert models.cnn1d(in_features=3)(torch.zeros(2, 3)).shape == (2, 10)


def test_cnn1d_with_batch_norm_is_the_plain_one_when_its_norms_are_the_identity():
    plain, normed = models.cnn1d(channels=4).double(), models.cnn1d(channels=4, batch_norm=True).double().eval()
    assert [name for name, _ in normed.named_children()][1:4] == ["conv1", "norm1", "relu1"]
    assert normed.conv1.bias is None
    weights = {name: value for name, value in plain.state_dict().items() if not name.startswith("conv") or "w" in name}
    for index in (1, 2, 3):
        weights |= {f"norm{index}.bias": plain.state_dict()[f"conv{index}.bias"]}
    missing = normed.load_state_dict(weights, strict=False).missing_keys
    assert all("norm" in name for name in missing)  # running mean 0 and variance 1, weight 1
    x = torch.linspace(-1, 1, 80, dtype=torch.float64).reshape(2, 40)
    for index in (1, 2, 3):
        getattr(normed, f"norm{index}").eps = 0.0
    torch.testing.assert_close(normed(x), plain(x))


def test_resnet20_has_20_weighted_layers_and_shortcuts_without_parameters():
    model = models.resnet20()
    weighted = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    assert len(weighted) == 20
    assert sum(isinstance(module, nn.BatchNorm2d) for module in model.modules()) == 19


def test_resnet20_block_with_zero_residual_returns_the_subsampled_zero_padded_input():
    block = models.resnet20().stage2[0].eval()
    nn.init.zeros_(block.conv2.weight)
    x = torch.rand(2, 16, 8, 8)
    with torch.no_grad():
        out = block(x)
    assert out.shape == (2, 32, 4, 4)
    assert torch.equal(out[:, :16], x[:, :, ::2, ::2])
    assert out[:, 16:].abs().max() == 0


def test_resnet20_convolutions_have_he_initialization():
    weight = models.resnet20().stage3[1].conv1.weight
    # Eight standard errors of the standard deviation of 36,864 weights.
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.03)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: models.mlp(40), r"mlp needs the widths of input and output.*\(40,\)"),
        (lambda: models.mlp(40, 0, 10), "each width must be at least 1, got 0"),
        (lambda: models.mlp(4, 2, activation="swish"), "activation must be one of 'relu', 'tanh', 'gelu', got 'swish'"),
        (lambda: models.cnn1d(in_features=2), "in_features must be at least 3, got 2"),
        (lambda: models.resnet20(num_classes=0), "num_classes must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_named_with_their_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
