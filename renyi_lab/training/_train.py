"""Training and evaluation of small networks: one function each, reproducible, and nothing left behind."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from renyi_lab._utils.minibatches import LossFunction, Means, Pair, batches, check_data, forward, moved
from renyi_lab._utils.model_state import training_flags
from renyi_lab._utils.progress import progress_bar
from renyi_lab._utils.random import preserved_rng, seeded_rng
from renyi_lab._utils.validation import check_int, check_real
from renyi_lab.optim import SharpnessAware, statistics_once
from renyi_lab.training._history import Evaluation, History
from renyi_lab.training._optimizers import OptimizerFactory, check_optimizer, make_optimizer


def train(
    model: nn.Module,
    train_set: Dataset[Any] | Pair,
    *,
    epochs: int = 60,
    lr: float = 0.1,
    batch_size: int = 128,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    optimizer: str | OptimizerFactory | type[SharpnessAware] = "sgd",
    warmup_epochs: int = 0,
    loss_fn: LossFunction | None = None,
    test_set: Dataset[Any] | Pair | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool | None = None,
) -> History:
    """Train ``model`` in place with mini-batches at a constant learning rate.

        θ ← θ − lr · v,   v ← momentum · v + ∇L_B(θ) + weight_decay · θ          (``"sgd"``)

    On one machine's CPU the same model, data and arguments give the same weights bit for bit, with a test set
    or without. Training flags, ``.grad``, gradient mode and every global random state are put back, always. After an
    error so are the weights and buffers; after an interrupt (stop button) they stay as far as they had got.

    Args:
        model: any module with trainable parameters; frozen ones stay as they are.
        train_set: a data set of ``(input, target)`` or a pair of tensors ``(x, y)``. Floating-point data is cast to
            the model's dtype, whole on the model's device if it is tensors.
        epochs: passes over the data. Default 60, our choice: `models.mlp` fits MNIST-1D.
        lr: learning rate, > 0. Default 0.1, with the next three the usual CIFAR setting (He et al. 2016, with the
            weight decay of Zagoruyko & Komodakis 2016). Adam wants about 0.001.
        batch_size: samples a step; the last batch of an epoch may be smaller.
        momentum: in [0, 1), for ``"sgd"`` only.
        weight_decay: ≥ 0; decoupled in ``"adamw"``.
        optimizer: ``"sgd"``, ``"adam"``, ``"adamw"``, or a function from the list of trainable parameters to a
            ``torch.optim.Optimizer``, which then holds its own ``lr``, ``momentum`` and ``weight_decay``. It is
            stepped with a closure, so those that evaluate the loss repeatedly (``LBFGS``) work too. Or a class such
            as `RSAM` or `SAM`, with settings as in ``functools.partial(RSAM, rho=0.3)``: over SGD (or its ``base=``)
            with the three numbers above. Their second pass leaves batch norm's running statistics alone.
        warmup_epochs: plain epochs before the first perturbed step, for these. Default 0; the authors of `RSAM` use 5.
        loss_fn: maps ``(outputs, targets)`` to the mean loss of the batch. Default cross-entropy.
        test_set: evaluated after every epoch, never used for a decision.
        seed: of the batch order and of dropout.
        device: where to train; the model stays there. Default: where it is.
        progress: show a bar; default: if a person is likely to watch.

    Raises:
        TypeError: if a model, data set or optimizer is of the wrong kind.
        ValueError: if data is empty, not finite or does not fit the model; if a label has no output; if a number
            is out of range; if training diverges.

    Example:
        >>> from renyi_lab import datasets, models
        >>> train_set, test_set = datasets.digits()
        >>> history = train(models.mlp(64, 32, 10), train_set, epochs=5, test_set=test_set)
        >>> history.num_gradients, history.test_accuracy[-1] > 0.9
        (55, True)
    """
    epochs, seed = check_int("epochs", epochs), check_int("seed", seed, minimum=0)
    batch_size = check_int("batch_size", batch_size)
    lr = check_real("lr", lr, 0, open_minimum=True)
    momentum = check_real("momentum", momentum, 0, 1, open_maximum=True)
    weight_decay = check_real("weight_decay", weight_decay, 0)
    parameters = [p for p in _check_model(model).parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("model has no trainable parameters; set requires_grad=True on those to train.")
    warmup_epochs = check_int("warmup_epochs", warmup_epochs, minimum=0)
    check_optimizer(optimizer)
    train_set = check_data("train_set", train_set)
    num_samples = len(train_set)  # type: ignore[arg-type]  # check_data() made sure that it has a length
    test_set = None if test_set is None else check_data("test_set", test_set)

    start, num_gradients = time.perf_counter(), 0
    values: dict[str, list[float]] = {f"{a}_{b}": [] for a in ("train", "test") for b in ("loss", "accuracy")}
    values["perturbation_norm"] = []
    bar = progress_bar(epochs, "training", progress)
    with bar, moved(model, device), _guarded(model), seeded_rng(seed), training_flags(model, True), torch.enable_grad():
        bar.unit = "epoch"
        warmup_steps = warmup_epochs * math.ceil(num_samples / batch_size)
        stepper = make_optimizer(optimizer, parameters, lr, momentum, weight_decay, warmup_steps)
        order = torch.Generator().manual_seed(seed)
        for epoch in range(epochs):
            means, norms = Means(), []
            for inputs, targets in batches(train_set, batch_size, model, order):
                passes = _step(model, stepper, loss_fn, inputs, targets, check=epoch == 0)
                num_gradients += len(passes)
                if isinstance(stepper, SharpnessAware):
                    norms.append(stepper.perturbation_norm)  # tensors: not waited for before the epoch ends
                outputs, loss = passes[0]
                if not math.isfinite(loss):
                    raise _divergence(epoch, f"the loss is {loss}", stepper)
                means.add(outputs, loss, targets)
            if not all(bool(torch.isfinite(p).all()) for p in parameters):
                raise _divergence(epoch, "a weight is not finite", stepper)
            _record(values, "train", means)
            if norms:
                values["perturbation_norm"].append(float(torch.stack(norms).mean()))
            if test_set is not None:
                _record(values, "test", evaluate(model, test_set, loss_fn=loss_fn))
            bar.set_postfix(loss=f"{means.loss:.3f}", refresh=False)
            bar.update()
    curves = {name: tuple(curve) for name, curve in values.items()}
    return History(**curves, num_gradients=num_gradients, seconds=time.perf_counter() - start)


def evaluate(
    model: nn.Module,
    data_set: Dataset[Any] | Pair,
    *,
    loss_fn: LossFunction | None = None,
    batch_size: int = 1024,
    device: torch.device | str | None = None,
) -> Evaluation:
    """Mean loss and accuracy of ``model`` on ``data_set``, in evaluation mode and without gradients.

    Args:
        model: any module; its training flags and the global random states are put back.
        data_set: a data set of ``(input, target)`` or a pair of tensors ``(x, y)``.
        loss_fn: maps ``(outputs, targets)`` to the mean loss of the batch. Default cross-entropy.
        batch_size: samples at once; the result does not depend on it. Default 1024, our choice: fast, yet small.
        device: where to evaluate; the model stays there. Default: where it is.

    Raises:
        TypeError: if the model or the data set is of the wrong kind.
        ValueError: if data is empty, not finite or does not fit the model, or a label has no output.

    Example:
        >>> model = nn.Linear(1, 1, bias=False).requires_grad_(False)
        >>> _ = model.weight.fill_(2.0)
        >>> evaluate(model, (torch.ones(3, 1), torch.zeros(3, 1)), loss_fn=nn.MSELoss())
        Evaluation(loss=4.0, accuracy=None, num_samples=3)
    """
    batch_size = check_int("batch_size", batch_size)
    data_set = check_data("data_set", data_set)
    means = Means()
    with moved(_check_model(model), device), preserved_rng(), training_flags(model, False), torch.no_grad():
        for inputs, targets in batches(data_set, batch_size, model):
            outputs, loss = forward(model, loss_fn, inputs, targets, check=True)
            means.add(outputs, float(loss), targets)
    return Evaluation(means.loss, means.accuracy, means.num_samples)


def _check_model(model: Any) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}.")
    return model


@contextlib.contextmanager
def _guarded(model: nn.Module) -> Iterator[None]:
    """Put ``.grad`` back in any case, weights and buffers after an error (not after an interrupt)."""
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    state = [(tensor, tensor.detach().clone()) for tensor in (*model.parameters(), *model.buffers())]
    try:
        for parameter, _ in gradients:
            parameter.grad = None
        yield
    except Exception:
        with torch.no_grad():
            for tensor, before in state:
                tensor.copy_(before)
        raise
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient


def _step(
    model: nn.Module,
    stepper: torch.optim.Optimizer,
    loss_fn: LossFunction | None,
    inputs: Tensor,
    targets: Tensor,
    *,
    check: bool,
) -> list[tuple[Any, float]]:
    """One optimizer step; outputs and loss of every pass that the optimizer asked for, the one at θ first."""
    passes: list[tuple[Any, float]] = []

    def closure() -> Any:
        with torch.enable_grad():
            stepper.zero_grad()
            with statistics_once(stepper, model) if isinstance(stepper, SharpnessAware) else contextlib.nullcontext():
                outputs, loss = forward(model, loss_fn, inputs, targets, check=check)
            loss.backward()
        passes.append((outputs, float(loss.detach())))
        return loss

    stepper.step(closure)
    if not passes:
        raise TypeError(f"{type(stepper).__name__}.step(closure) did not call its closure, so there is no gradient.")
    return passes


def _record(values: dict[str, list[float]], part: str, means: Means | Evaluation) -> None:
    values[f"{part}_loss"].append(means.loss)
    if means.accuracy is not None:
        values[f"{part}_accuracy"].append(means.accuracy)


def _divergence(epoch: int, symptom: str, stepper: torch.optim.Optimizer) -> ValueError:
    lr = float(stepper.param_groups[0]["lr"])
    rho = f"rho={stepper.param_groups[0]['rho']:g} is, " if isinstance(stepper, SharpnessAware) else ""
    return ValueError(
        f"training diverged in epoch {epoch + 1}: {symptom}. Likely causes: lr={lr:g} is too large "
        f"(try lr={lr / 3:.2g}), {rho}or loss_fn has no finite value at these outputs. "
        "The weights from before training are back in place."
    )
