"""Training against gradient descent written out, its side effects, and every message."""

import functools
import itertools
import random
import re

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

import renyi_lab
from renyi_lab import models
from renyi_lab.optim import RSAM, SAM
from renyi_lab.training import DivergenceError, Evaluation, evaluate, train


def blobs(n=60, seed=0):
    """Two classes that a line separates."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    x = torch.randn(n, 3, generator=generator, dtype=torch.float64) + 4 * (y.unsqueeze(1) - 0.5)
    return TensorDataset(x, y)


def small_model(seed=0):
    return models.mlp(3, 8, 2, seed=seed).double()


def weights(model):
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


class MapStyle(Dataset):
    def __init__(self, tensors):
        self.tensors = tensors

    def __len__(self):
        return len(self.tensors[0])

    def __getitem__(self, index):
        return self.tensors[0][index], int(self.tensors[1][index])


class TwoPass(torch.optim.SGD):
    """Evaluates the loss at the weights, then steps with the gradient at shifted weights, as SAM does."""

    requires_closure = True

    @torch.no_grad()
    def step(self, closure):
        loss = closure()
        parameters = self.param_groups[0]["params"]
        for parameter in parameters:
            parameter.add_(0.1)
        closure()
        for parameter in parameters:
            parameter.sub_(0.1)
        super().step()
        return loss


def test_full_batch_sgd_is_gradient_descent_with_momentum_and_weight_decay_step_by_step():
    data, model, twin = blobs(), small_model(), small_model()
    history = train(model, data, epochs=3, lr=0.05, batch_size=len(data), momentum=0.8, weight_decay=0.01)
    x, y = data.tensors
    velocity, losses = torch.zeros_like(weights(twin)), []
    for _ in range(3):
        loss = F.cross_entropy(twin(x), y)
        losses.append(loss.item())
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(twin.parameters()))])
        velocity = 0.8 * velocity + gradient + 0.01 * weights(twin)
        nn.utils.vector_to_parameters(weights(twin) - 0.05 * velocity, twin.parameters())
    torch.testing.assert_close(weights(model), weights(twin), rtol=1e-10, atol=1e-12)
    assert history.train_loss == pytest.approx(losses)
    assert history.num_gradients == 3


def test_every_sample_is_seen_once_per_epoch_in_an_order_that_changes():
    seen = []

    class Recorder(nn.Linear):
        def forward(self, x):
            seen.append(x[:, 0].tolist())
            return super().forward(x)

    data = TensorDataset(torch.arange(10.0).unsqueeze(1), torch.zeros(10, dtype=torch.int64))
    train(Recorder(1, 2), data, epochs=2, batch_size=4, lr=1e-3)
    assert [len(batch) for batch in seen] == [4, 4, 2, 4, 4, 2]
    first, second = (list(itertools.chain(*batches)) for batches in (seen[:3], seen[3:]))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert first != sorted(first)


def test_training_separates_separable_classes():
    history = train(small_model(), blobs(), epochs=20, batch_size=16, test_set=blobs(seed=1))
    assert history.train_accuracy[-1] == 1.0
    assert history.test_accuracy[-1] > 0.95
    assert history.train_loss[-1] < 0.2 * history.train_loss[0]


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: MapStyle(data.tensors), lambda data: data.tensors])
def test_same_seed_same_weights_bit_for_bit_and_another_seed_other_weights(wrap):
    results = []
    for seed in (1, 1, 2):
        model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2)).double()
        model.load_state_dict(
            {k.replace("layer1", "0").replace("layer2", "3"): v for k, v in small_model().state_dict().items()}
        )
        torch.rand(seed)  # another global state
        history = train(model, wrap(blobs()), epochs=2, batch_size=16, seed=seed)
        results.append((weights(model), history))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
    assert not torch.equal(results[0][0], results[2][0])


def test_evaluating_a_test_set_does_not_change_the_weights():
    plain, evaluated = nn.Sequential(nn.Dropout(0.5), small_model()), nn.Sequential(nn.Dropout(0.5), small_model())
    train(plain, blobs(), epochs=2, batch_size=16)
    train(evaluated, blobs(), epochs=2, batch_size=16, test_set=MapStyle(blobs(seed=1).tensors))
    assert torch.equal(weights(plain), weights(evaluated))


@pytest.mark.parametrize("outcome", ["success", "error", "interrupt"])
def test_flags_gradients_random_states_and_gradient_mode_are_restored(outcome):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)).double()
    model.train()
    model[1].eval()
    model[0].weight.grad = torch.full((4, 3), 7.0, dtype=torch.float64)
    calls = []

    def loss_fn(outputs, targets):
        calls.append(model[1].training)
        if len(calls) == 3 and outcome != "success":
            raise {"error": KeyError, "interrupt": KeyboardInterrupt}[outcome]
        return F.cross_entropy(outputs, targets)

    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        if outcome == "success":
            train(model, blobs(), epochs=1, batch_size=16, loss_fn=loss_fn)
        else:
            with pytest.raises(KeyError if outcome == "error" else KeyboardInterrupt):
                train(model, blobs(), epochs=1, batch_size=16, loss_fn=loss_fn)
        assert not torch.is_grad_enabled()
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
    assert [module.training for module in model] == [True, False, True, True]
    assert calls[0]  # training mode
    assert torch.equal(model[0].weight.grad, torch.full((4, 3), 7.0, dtype=torch.float64))
    assert all(p.grad is None for name, p in model.named_parameters() if name != "0.weight")
    unchanged = all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert unchanged == (outcome == "error")


@pytest.mark.parametrize("lr", [1e300, 1e8])
def test_divergence_names_lr_and_restores_the_weights(lr):
    model = small_model()
    before = weights(model)
    with pytest.raises(
        DivergenceError, match=rf"diverged in epoch \d+: .* lr={re.escape(f'{lr:g}')} is too large .*restored"
    ):
        train(model, blobs(), epochs=60, lr=lr, batch_size=16, weight_decay=0.5)
    assert torch.equal(weights(model), before)


def test_a_divergence_is_a_value_error_with_a_public_name():
    assert issubclass(DivergenceError, ValueError)
    assert renyi_lab.DivergenceError is DivergenceError


def test_frozen_parameters_keep_their_values():
    model = small_model()
    model.layer1.requires_grad_(False)
    before = model.layer1.weight.clone()
    train(model, blobs(), epochs=2)
    assert torch.equal(model.layer1.weight, before)
    assert not torch.equal(model.layer2.weight, small_model().layer2.weight)


@pytest.mark.parametrize(
    ("name", "factory"),
    [
        ("sgd", lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.5, weight_decay=0.02)),
        ("adam", functools.partial(torch.optim.Adam, lr=0.01, weight_decay=0.02)),
        ("adamw", functools.partial(torch.optim.AdamW, lr=0.01, weight_decay=0.02)),
    ],
)
def test_optimizer_names_stand_for_the_optimizers_of_torch(name, factory):
    by_name, by_factory = small_model(), small_model()
    train(by_name, blobs(), epochs=2, batch_size=16, optimizer=name, lr=0.01, momentum=0.5, weight_decay=0.02)
    train(by_factory, blobs(), epochs=2, batch_size=16, optimizer=factory)
    assert torch.equal(weights(by_name), weights(by_factory))


def test_a_two_pass_optimizer_follows_the_second_gradient_and_the_first_loss_is_recorded():
    data, model, twin = blobs(), small_model(), small_model()
    x, y = data.tensors
    history = train(model, data, epochs=1, batch_size=60, optimizer=functools.partial(TwoPass, lr=0.05))
    first = F.cross_entropy(twin(x), y).item()
    start = weights(twin)
    nn.utils.vector_to_parameters(start + 0.1, twin.parameters())
    gradient = torch.autograd.grad(F.cross_entropy(twin(x), y), list(twin.parameters()))
    expected = start - 0.05 * torch.cat([g.flatten() for g in gradient])
    torch.testing.assert_close(weights(model), expected, rtol=1e-10, atol=1e-12)
    assert history.train_loss == pytest.approx([first])
    assert history.num_gradients == 2


class Recipe:
    """Factories that are a bound method and a callable object."""

    def sam(self, parameters):
        return SAM(parameters, rho=0.3)

    __call__ = sam


def in_groups(parameters):
    return SAM([{"params": parameters[:2], "lr": 0.001}, {"params": parameters[2:]}])


def over_adamw(parameters):
    return RSAM(parameters, torch.optim.AdamW(parameters, lr=0.001, weight_decay=0.01))


class NeedsLr(torch.optim.SGD):
    def __init__(self, params, lr):
        super().__init__(params, lr=lr)


ALL = {"lr": 0.02, "momentum": 0.5, "weight_decay": 0.03}


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (RSAM, lambda p: RSAM(p, torch.optim.SGD, **ALL)),
        (functools.partial(SAM, rho=0.3), lambda p: SAM(p, rho=0.3, **ALL)),
        (functools.partial(Recipe().sam), lambda p: SAM(p, rho=0.3, **ALL)),
        (functools.partial(SAM, nesterov=True), lambda p: SAM(p, nesterov=True, **ALL)),
        (functools.partial(SAM, base=NeedsLr), lambda p: SAM(p, base=NeedsLr, lr=0.02)),
        (functools.partial(SAM, lr=0.1), lambda p: SAM(p, lr=0.1, momentum=0.5, weight_decay=0.03)),
        (functools.partial(SAM, lr=0.1, momentum=0), lambda p: SAM(p, lr=0.1, momentum=0, weight_decay=0.03)),
        (lambda p: SAM(p, lr=0.1), lambda p: SAM(p, lr=0.1, momentum=0, weight_decay=0)),
        (Recipe().sam, lambda p: SAM(p, rho=0.3)),
        (Recipe(), lambda p: SAM(p, rho=0.3)),
        (functools.partial(functools.partial(SAM, rho=0.3), lr=0.1), lambda p: SAM(p, rho=0.3, **{**ALL, "lr": 0.1})),
        (
            functools.partial(RSAM, base=torch.optim.AdamW),
            lambda p: RSAM(p, torch.optim.AdamW, lr=0.02, weight_decay=0.03),
        ),
        (functools.partial(in_groups), lambda p: SAM([{"params": p[:2], "lr": 0.001}, {"params": p[2:]}], **ALL)),
        (functools.partial(over_adamw), over_adamw),
    ],
)
def test_a_sharpness_aware_class_or_partial_gets_the_settings_that_it_is_not_given(optimizer, expected):
    trained, reference = small_model(), small_model()
    options = {"epochs": 2, "batch_size": 20}
    history = train(trained, blobs(), optimizer=optimizer, **ALL, **options)
    assert history == train(reference, blobs(), optimizer=expected, lr=0.5, **options)
    assert torch.equal(weights(trained), weights(reference))
    assert history.num_gradients == 2 * 2 * 3


def test_a_history_has_the_mean_perturbation_of_each_epoch_of_sharpness_aware_optimizers():
    norms = []

    class Recorder(SAM):
        def second_step(self):
            norms.append(float(self.perturbation_norm))
            super().second_step()

    make = functools.partial(Recorder, rho=0.3)
    history = train(small_model(), blobs(), epochs=3, batch_size=16, optimizer=make, warmup_epochs=1)
    assert len(norms) == 2 * 4
    assert history.perturbation_norm == pytest.approx([0.0, 0.3, 0.3], rel=1e-6)
    rsam = train(small_model(), blobs(), epochs=2, batch_size=60, optimizer=RSAM)
    assert rsam.perturbation_norm[0] != pytest.approx(rsam.perturbation_norm[1], rel=1e-3)
    assert train(small_model(), blobs(), epochs=2).perturbation_norm == ()


def test_warm_up_epochs_are_plain_with_one_gradient_per_step():
    plain, warm = small_model(), small_model()
    train(plain, blobs(), epochs=2, batch_size=25)
    history = train(warm, blobs(), epochs=2, batch_size=25, optimizer=RSAM, warmup_epochs=2)
    assert torch.equal(weights(plain), weights(warm))
    assert history.num_gradients == 6
    longer = train(small_model(), blobs(), epochs=3, batch_size=25, optimizer=RSAM, warmup_epochs=2)
    assert longer.num_gradients == 6 + 2 * 3
    assert longer.train_loss[:2] == history.train_loss


def test_batch_norm_counts_each_batch_once_in_a_two_pass_training():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()
    train(model, blobs(), epochs=2, batch_size=20, optimizer=SAM)
    assert int(model[1].num_batches_tracked) == 6
    assert model[1].track_running_stats


def test_divergence_of_a_two_pass_training_names_rho_too():
    with pytest.raises(DivergenceError, match=r"lr=1e\+08 is too large .* rho=0.3 is, or"):
        train(small_model(), blobs(), lr=1e8, weight_decay=0.5, optimizer=functools.partial(SAM, rho=0.3))


def test_lbfgs_works_through_its_closure():
    history = train(
        small_model(), blobs(), epochs=2, batch_size=60, optimizer=functools.partial(torch.optim.LBFGS, lr=0.5)
    )
    assert history.train_loss[1] < 0.1 * history.train_loss[0]
    assert history.num_gradients > 2


def test_evaluation_equals_the_closed_form_and_does_not_depend_on_the_batch_size():
    model = nn.Linear(1, 2, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0], [1.0]]))
    x = torch.tensor([[2.0], [-1.0], [0.5]], dtype=torch.float64)
    y = torch.tensor([1, 1, 0])
    logits = x[:, 0]
    expected = (F.softplus(-logits[0]) + F.softplus(-logits[1]) + F.softplus(logits[2])).item() / 3
    for batch_size in (1, 2, 3):
        result = evaluate(model, (x, y), batch_size=batch_size)
        assert result.loss == pytest.approx(expected, rel=1e-12)
        assert (result.accuracy, result.num_samples) == (1 / 3, 3)


def test_evaluation_uses_evaluation_mode_and_changes_nothing():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.9), nn.Linear(3, 2)).double()
    buffers = [buffer.clone() for buffer in model.buffers()]
    before = torch.get_rng_state()
    first = evaluate(model, MapStyle(blobs().tensors))
    assert first == evaluate(model, blobs())
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), buffers, strict=True))
    assert all(module.training for module in model.modules())


def test_regression_has_no_accuracy_and_fits_a_line():
    x = torch.linspace(-1, 1, 50, dtype=torch.float64).unsqueeze(1)
    model = nn.Linear(1, 1).double()
    history = train(
        model, (x, 3 * x + 1), epochs=100, batch_size=50, loss_fn=nn.MSELoss(), weight_decay=0, test_set=(x, 3 * x + 1)
    )
    assert model.weight.item() == pytest.approx(3, abs=1e-2)
    assert model.bias.item() == pytest.approx(1, abs=1e-2)
    assert (history.train_accuracy, history.test_accuracy) == ((), ())
    assert evaluate(model, (x, 3 * x + 1), loss_fn=nn.MSELoss()).accuracy is None
    assert len(history.plot().axes) == 1


def test_data_of_another_precision_is_cast_to_the_dtype_of_the_model():
    x, y = blobs().tensors
    assert evaluate(small_model(), (x.float(), y.to(torch.uint8))).loss == pytest.approx(
        evaluate(small_model(), (x, y)).loss, rel=1e-5
    )


def test_the_last_test_entry_of_a_history_is_the_evaluation_of_the_trained_model():
    model = small_model()
    history = train(model, blobs(), epochs=3, test_set=blobs(seed=1))
    last = evaluate(model, blobs(seed=1))
    assert last == Evaluation(history.test_loss[-1], history.test_accuracy[-1], 60)
    assert history.epochs == len(history.test_loss) == len(history.train_accuracy) == 3


def test_a_history_prints_one_reproducible_line_and_plots_its_numbers():
    history = train(small_model(), blobs(), epochs=4, test_set=blobs(seed=1))
    assert repr(history) == (
        f"History(4 epochs, 4 gradients: train loss {history.train_loss[-1]:.3f}, train accuracy "
        f"{history.train_accuracy[-1]:.3f}, test loss {history.test_loss[-1]:.3f}, test accuracy "
        f"{history.test_accuracy[-1]:.3f})"
    )
    figure = history.plot()
    curves = [line.get_ydata().tolist() for axes in figure.axes for line in axes.lines]
    names = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
    assert curves == [list(getattr(history, name)) for name in names]
    assert figure._repr_png_()[0].startswith(b"\x89PNG")
    ax = Figure().subplots()
    assert history.plot(ax) is ax.figure
    assert [line.get_ydata().tolist() for line in ax.lines] == curves[:2]


X, Y = blobs().tensors


def test_the_table_of_a_history_has_one_row_per_epoch_and_the_curves_that_exist():
    options = {"epochs": 3, "batch_size": 20, "progress": False}
    history = train(small_model(), blobs(), test_set=blobs(seed=1), optimizer=RSAM, **options)
    frame = history.to_frame()
    names = ["train_loss", "train_accuracy", "test_loss", "test_accuracy", "perturbation_norm"]
    assert (frame.index.name, frame.index.tolist(), frame.columns.tolist()) == ("epoch", [1, 2, 3], names)
    for name in names:
        assert tuple(frame[name]) == getattr(history, name)
    x, y = blobs().tensors
    history = train(models.mlp(3, 1).double(), (x, y.double()[:, None]), loss_fn=nn.MSELoss(), lr=0.01, **options)
    assert history.to_frame().columns.tolist() == ["train_loss"]


@pytest.mark.parametrize("name", ["sgd", "AdamW", "SAM", "FisherSAM", "Rsam"])
def test_names_of_optimizers_may_be_in_upper_or_lower_case(name):
    options = {"epochs": 1, "batch_size": 20, "lr": 0.01}
    lower = train(small_model(), blobs(), optimizer=name.lower(), **options)
    assert train(small_model(), blobs(), optimizer=name, **options) == lower


def with_nan(x):
    x = x.clone()
    x[5, 1] = float("nan")
    return x


ONES = torch.ones(5, 1, dtype=torch.float64)
DATA_MESSAGES = [
    ((X[:0], Y[:0]), ValueError, "train_set is empty"),
    ((X, Y[:-1]), ValueError, "train_set has 60 inputs and 59 targets"),
    (TensorDataset(X), ValueError, "train_set must hold inputs and targets, got 1 tensors"),
    ((X, Y + 1), ValueError, "targets hold the label 2, but the model has 2 outputs"),
    ((X, Y - 1), ValueError, "targets hold the label -1, but the model has 2 outputs"),
    (MapStyle((X, Y - 100)), ValueError, "targets hold the label -(100|99), but the model has 2 outputs"),
    ((with_nan(X), Y), ValueError, "train_set's inputs is not finite.*missing values"),
    (MapStyle((with_nan(X), Y)), ValueError, "a batch's inputs is not finite.*missing values"),
    ((X[:, :2], Y), ValueError, r"model does not take inputs of shape \(60, 2\)"),
    ((X, Y.double()), ValueError, "pass loss_fn=torch.nn.MSELoss"),
    (DataLoader(blobs()), TypeError, "train_set must be a data set, got a DataLoader; pass loader.dataset"),
    (X, TypeError, "train_set must be a map-style torch Dataset or a pair of tensors .* got Tensor"),
    ((X.numpy(), Y.numpy()), TypeError, "got tuple; use torch.from_numpy"),
]
MESSAGES = [
    *(({"train_set": data}, error, message) for data, error, message in DATA_MESSAGES),
    ({"epochs": 0}, ValueError, "epochs must be at least 1, got 0"),
    ({"lr": 0}, ValueError, r"lr must lie in \(0, .*got 0"),
    ({"lr": float("nan")}, ValueError, "lr must be finite, got nan"),
    ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
    ({"momentum": 1.0}, ValueError, r"momentum must lie in \[0, 1\), got 1"),
    ({"weight_decay": -1}, ValueError, "weight_decay must lie in .*got -1"),
    ({"device": "nowhere"}, ValueError, "device='nowhere' is not a device that torch knows"),
    ({"device": "meta"}, ValueError, "device='meta' holds no values"),
    ({"device": torch.device("meta", 0)}, ValueError, "device='meta' holds no values"),
    ({"loss_fn": nn.CrossEntropyLoss(reduction="none")}, ValueError, r"loss_fn must return one .* shape \(60,\)"),
    ({"loss_fn": nn.BCEWithLogitsLoss()}, ValueError, r"loss_fn does not take targets of shape \(60,\)"),
    ({"optimizer": "sdg"}, ValueError, "optimizer must be one of 'sgd', 'adam', .*, 'rsam', got 'sdg'"),
    ({"optimizer": 0.1}, TypeError, "optimizer must be one of .* or a function .*; got 0.1"),
    ({"optimizer": torch.optim.SGD}, TypeError, r"as in functools.partial\(torch.optim.SGD, lr=0.1\)"),
    ({"optimizer": TwoPass}, TypeError, r"as in functools.partial\(torch.optim.SGD, lr=0.1\)"),
    ({"optimizer": lambda parameters: None}, TypeError, "must return a torch.optim.Optimizer, got NoneType"),
    ({"warmup_epochs": 2}, ValueError, "warmup_epochs is for sharpness-aware optimizers .* SGD: leave it out"),
    (
        {"warmup_epochs": 2, "optimizer": functools.partial(torch.optim.SGD, lr=0.1)},
        ValueError,
        "warmup_epochs is for sharpness-aware optimizers .* SGD: leave it out",
    ),
    ({"model": nn.ReLU()}, ValueError, "model has no trainable parameters; set requires_grad=True"),
    ({"model": small_model().requires_grad_(False)}, ValueError, "model has no trainable parameters; set requires_gra"),
    ({"model": lambda x: x}, TypeError, r"model must be a torch\.nn\.Module, got function"),
    (
        {"model": nn.Linear(1, 1).double(), "train_set": (ONES, ONES[:, 0]), "loss_fn": nn.MSELoss()},
        ValueError,
        r"outputs have shape \(5, 1\) but targets \(5,\); reshape",
    ),
]


@pytest.mark.parametrize(("options", "error", "message"), MESSAGES)
def test_train_refuses_bad_arguments_by_name_and_changes_nothing(options, error, message):
    arguments = {"model": small_model(), "train_set": blobs(), "epochs": 1, **options}
    parameters = list(arguments["model"].parameters()) if isinstance(arguments["model"], nn.Module) else []
    before = [parameter.detach().clone() for parameter in parameters]
    with pytest.raises(error, match=message):
        train(**arguments)
    assert all(map(torch.equal, parameters, before))


@pytest.mark.parametrize(("data", "error", "message"), DATA_MESSAGES)
def test_evaluate_refuses_the_same_data(data, error, message):
    model = small_model()
    with pytest.raises(error, match=message.replace("train_set", "data_set")):
        evaluate(model, data)
    assert all(module.training for module in model.modules())


def test_evaluate_on_the_meta_device_is_refused_before_the_weights_are_lost():
    model = small_model()
    with pytest.raises(ValueError, match="device='meta' holds no values"):
        evaluate(model, blobs(), device="meta")
    assert {p.device.type for p in model.parameters()} == {"cpu"}


# --- threads ----------------------------------------------------------------------------------------------------


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("width", "expected"), [(8, 1), (1_500_000, 3)])  # 6 parameters per unit: below and above 2²⁵
def test_small_models_run_on_one_thread_and_the_number_is_restored(three_threads, width, expected):
    seen = []

    def loss_fn(outputs, targets):
        seen.append(torch.get_num_threads())
        return F.cross_entropy(outputs, targets)

    data = TensorDataset(X[:8].float(), Y[:8])
    model = models.mlp(3, width, 2)
    train(model, data, epochs=1, batch_size=4, lr=1e-6, loss_fn=loss_fn, test_set=data)
    evaluate(model, data, loss_fn=loss_fn)
    assert seen == 4 * [expected]
    assert torch.get_num_threads() == 3


def test_a_training_does_not_depend_on_the_number_of_threads(three_threads):
    data = TensorDataset(X.repeat(40, 1).float(), Y.repeat(40))  # large enough for torch to split operations
    on_three, on_one = models.mlp(3, 300, 2), models.mlp(3, 300, 2)
    train(on_three, data, epochs=2, batch_size=1000)
    torch.set_num_threads(1)
    train(on_one, data, epochs=2, batch_size=1000)
    assert torch.equal(weights(on_three), weights(on_one))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_on_cuda_keeps_the_model_there_and_agrees_with_the_cpu():
    on_gpu, on_cpu = small_model(), small_model()
    train(on_gpu, blobs(), epochs=2, device="cuda")
    train(on_cpu, blobs(), epochs=2)
    assert next(on_gpu.parameters()).is_cuda
    torch.testing.assert_close(weights(on_gpu).cpu(), weights(on_cpu), rtol=1e-8, atol=1e-10)
