"""Batches in training and evaluation: weights, batches without labels, single samples; steps without a closure."""

import functools

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Optimizer
from torch.utils.data import Dataset

from renyi_lab.optim import RSAM, SAM
from renyi_lab.training import evaluate, train

GENERATOR = torch.Generator().manual_seed(5)
N, C = 13, 3
X, Y = torch.randn(N, 3, dtype=torch.float64, generator=GENERATOR), torch.arange(N) % C
IGNORED = torch.where(torch.arange(N) < 9, -100, Y)
WEIGHT = torch.tensor([5.0, 1.0, 0.2]).double()


def net(*layers):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), *layers, nn.Tanh(), nn.Linear(4, C)).double()


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def hidden_weights(outputs, targets):
    return F.cross_entropy(outputs, targets, weight=WEIGHT)


def number_of_weight(batch):
    return WEIGHT[batch[1]].sum()


@pytest.mark.parametrize(
    ("loss_fn", "targets", "options"),
    [
        (nn.CrossEntropyLoss(weight=WEIGHT), Y, {}),
        (functools.partial(F.cross_entropy, weight=WEIGHT, label_smoothing=0.1), Y, {}),
        (hidden_weights, Y, {"batch_mass": number_of_weight}),
        (F.cross_entropy, IGNORED, {}),
        (nn.CrossEntropyLoss(ignore_index=1), Y, {}),
        (nn.CrossEntropyLoss(reduction="sum"), Y, {}),
        (lambda o, y: F.cross_entropy(o, y, reduction="sum"), Y, {"reduction": "sum"}),
        (nn.MultiMarginLoss(weight=WEIGHT), Y, {}),
        (lambda o, y: F.cross_entropy(o, y), Y, {}),
    ],
)
@pytest.mark.parametrize("batch_size", [1, 2, 4, 1024])
def test_an_evaluation_is_the_loss_of_all_data_at_every_batch_size(loss_fn, targets, options, batch_size):
    model = net()
    found = evaluate(model, (X, targets), loss_fn=loss_fn, batch_size=batch_size, **options)
    assert found.loss == pytest.approx(float(loss_fn(model(X), targets).detach()), rel=1e-12)
    counted = targets != (1 if getattr(loss_fn, "ignore_index", 0) == 1 else -100)
    assert found.accuracy == pytest.approx(float((model(X).argmax(1) == targets)[counted].double().mean()))
    assert found.num_samples == N


@pytest.mark.parametrize(
    ("loss_fn", "targets", "options"),
    [
        (nn.CrossEntropyLoss(weight=WEIGHT), Y, {}),
        (F.cross_entropy, IGNORED, {}),
        (hidden_weights, Y, {"batch_mass": number_of_weight}),
        (nn.CrossEntropyLoss(reduction="sum"), Y, {}),
    ],
)
def test_a_training_weighs_its_batches_as_an_evaluation_does(loss_fn, targets, options):
    model, history = net(), {}
    at_start = evaluate(model, (X, targets), loss_fn=loss_fn, **options)
    settings = {"lr": 1e-300, "weight_decay": 0, "epochs": 1, "batch_size": 4, "test_set": (X, targets)}
    history = train(model, (X, targets), loss_fn=loss_fn, **settings, **options)
    assert history.train_loss == pytest.approx([at_start.loss], rel=1e-12)
    assert history.test_loss == pytest.approx([at_start.loss], rel=1e-12)
    assert history.train_accuracy == pytest.approx([at_start.accuracy])


def test_a_batch_whose_labels_are_all_ignored_takes_no_step():
    skipped, without = net(), net()
    history = train(skipped, (X, IGNORED), loss_fn=F.cross_entropy, epochs=4, batch_size=1, momentum=0, weight_decay=0)
    assert history.num_gradients == 4 * 4
    order = torch.Generator().manual_seed(0)
    optimizer = SGD(without.parameters(), lr=0.1)
    for _ in range(4):
        for index in torch.randperm(N, generator=order):
            if IGNORED[index] >= 0:
                optimizer.zero_grad()
                F.cross_entropy(without(X[index : index + 1]), Y[index : index + 1]).backward()
                optimizer.step()
    assert torch.equal(weights(skipped), weights(without))


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: evaluate(net(), (X, Y), loss_fn=hidden_weights, batch_size=4), ValueError, "Pass batch_mass="),
        (
            lambda: evaluate(net(), (X, Y), loss_fn=lambda o, y: F.cross_entropy(o, y, reduction="sum"), batch_size=4),
            ValueError,
            'It is a sum: pass reduction="sum"',
        ),
        (lambda: evaluate(net(), (X, 0 * Y - 100), loss_fn=F.cross_entropy), ValueError, "every label is ignored"),
        (lambda: train(net(), (X, 0 * Y - 100), loss_fn=F.cross_entropy), ValueError, "every label is ignored"),
        (lambda: evaluate(net(), (X, IGNORED)), ValueError, "targets hold the label -100"),
        (
            lambda: train(net(nn.BatchNorm1d(4)), (X, Y), batch_size=1),
            ValueError,
            r"batch norm needs batches of at least two samples in training",
        ),
    ],
)
def test_what_cannot_be_weighted_is_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()


# --- batch norm -------------------------------------------------------------------------------------------------


class Pairs(Dataset):
    def __len__(self):
        return N

    def __getitem__(self, index):
        return X[index], Y[index]


@pytest.mark.parametrize("data", [(X, Y), Pairs()])
@pytest.mark.parametrize("batch_size", [4, 6, 12])
def test_a_single_sample_left_over_joins_the_batch_before_it(data, batch_size):
    model, sizes = net(nn.BatchNorm1d(4)), []
    model.register_forward_hook(lambda _, inputs, output: sizes.append(len(inputs[0])))
    history = train(model, data, epochs=2, batch_size=batch_size, optimizer=RSAM, warmup_epochs=1)
    epoch = (N // batch_size - 1) * [batch_size] + [batch_size + 1]
    assert sizes == epoch + [size for size in epoch for _ in range(2)]
    assert history.num_gradients == 3 * len(epoch)
    assert history.perturbation_norm[0] == 0 < history.perturbation_norm[1]


def test_without_batch_norm_a_single_sample_is_a_batch_of_its_own():
    sizes = []
    model = net()
    model.register_forward_hook(lambda _, inputs, output: sizes.append(len(inputs[0])))
    train(model, (X, Y), epochs=1, batch_size=4)
    assert sizes == [4, 4, 4, 1]


# --- steps without a closure ------------------------------------------------------------------------------------


class Plain(Optimizer):
    """Gradient descent whose ``step`` takes no closure."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter -= group["lr"] * parameter.grad


class ByKeyword(Plain):
    def step(self, *, closure):
        closure()
        super().step()


class Positional(Plain):
    def step(self, evaluate):
        evaluate()
        super().step()


class AnyArguments(Plain):
    def step(self, *arguments):
        arguments[0]()
        super().step()


class OtherArgument(Plain):
    def step(self, scale=1.0):
        assert scale == 1.0
        super().step()


@pytest.mark.parametrize("kind", [Plain, ByKeyword, Positional, AnyArguments, OtherArgument])
def test_optimizers_take_their_closure_as_they_declare_it(kind):
    own, reference = net(), net()
    history = train(own, (X, Y), epochs=2, batch_size=5, optimizer=lambda parameters: kind(parameters, lr=0.2))
    assert history == train(reference, (X, Y), epochs=2, batch_size=5, optimizer=functools.partial(SGD, lr=0.2))
    torch.testing.assert_close(weights(own), weights(reference), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("wrapper", [SAM, RSAM])
def test_a_sharpness_aware_optimizer_steps_with_a_base_without_closure(wrapper):
    own, reference = net(), net()
    train(own, (X, Y), epochs=2, batch_size=5, optimizer=lambda p: wrapper(p, Plain, lr=0.2))
    train(reference, (X, Y), epochs=2, batch_size=5, optimizer=lambda p: wrapper(p, SGD, lr=0.2))
    torch.testing.assert_close(weights(own), weights(reference), rtol=1e-12, atol=1e-14)


class Deaf(Plain):
    def step(self, closure=None):
        pass


def test_an_optimizer_that_ignores_its_closure_is_refused():
    with pytest.raises(TypeError, match=r"Deaf.step\(closure\) did not call its closure"):
        train(net(), (X, Y), optimizer=lambda parameters: Deaf(parameters))
