"""Training of small networks: reproducible, and without side effects beyond the weights."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from renyi_lab._utils.batches import Batch
from renyi_lab._utils.data_sets import Data, check_pairs
from renyi_lab._utils.exclusive import exclusive
from renyi_lab._utils.forward import LossFunction, forward, reduction_of
from renyi_lab._utils.interrupts import restoring
from renyi_lab._utils.masses import BatchMass
from renyi_lab._utils.means import Means
from renyi_lab._utils.minibatches import choose_batch_size, has_batch_norm, moved, num_batches, pairs
from renyi_lab._utils.model_state import training_flags, without_gradients
from renyi_lab._utils.progress import progress_bar
from renyi_lab._utils.random import seeded_rng
from renyi_lab._utils.threads import one_thread_if_small
from renyi_lab._utils.validation import check_int, check_real
from renyi_lab.optim import SharpnessAware
from renyi_lab.training._divergence import divergence_error
from renyi_lab.training._evaluate import check_model, evaluate
from renyi_lab.training._history import Evaluation, History
from renyi_lab.training._optimizers import OptimizerFactory, check_optimizer, make_optimizer
from renyi_lab.training._schedulers import Schedule, SchedulerFactory, check_scheduler
from renyi_lab.training._step import take_step


def train(
    model: nn.Module,
    train_set: Data,
    *,
    epochs: int = 60,
    lr: float = 0.1,
    batch_size: int | None = None,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    optimizer: str | OptimizerFactory | type[SharpnessAware] = "sgd",
    warmup_epochs: int = 0,
    scheduler: str | SchedulerFactory | None = None,
    loss_fn: LossFunction | None = None,
    test_set: Data | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool | None = None,
    reduction: str | None = None,
    batch_mass: BatchMass | None = None,
) -> History:
    """Train ``model`` in place with mini-batches, at a constant learning rate unless there is a ``scheduler``.

        θ ← θ − lr · v,   v ← momentum · v + ∇L_B(θ) + weight_decay · θ          (``"sgd"``)

    On one machine's CPU the same model, data and arguments give the same weights bit for bit, with a test set
    or without; on a GPU under ``torch.use_deterministic_algorithms(True)``, otherwise up to rounding there. Training
    flags, ``.grad``, gradient mode and every global random state are always restored. After an error so are the weights
    and buffers; after an interrupt (stop button) the weights are those after the last finished step (of an optimizer
    that evaluates the loss repeatedly, such as ``LBFGS``, those of its latest evaluation). Random generators, flags and
    ``.grad`` belong to the process: called from several Python threads, trainings and evaluations of losses run one at
    a time.

    On a CPU, small models train on one thread whatever ``torch.get_num_threads()``: up to about 3·10⁷ for parameters ×
    batch size × positions (pixels or time steps), where two threads gain less than a fifth on an idle machine and lose
    a factor of 3 to 100 beside busy processes.

    Args:
        model: Any module with trainable parameters; frozen ones keep their values.
        train_set: A data set of ``(input, target)``, or a pair ``(x, y)``, where ``y`` is one tensor and ``x`` a tensor
            or a list, tuple, dictionary or object of tensors, which the model gets as it is: ``model(x)``. Or a
            DataLoader of such pairs, whose batches may be graphs; of a TensorDataset pass the data set itself.
            Floating-point data is cast to the model's dtype. Tensors are moved to the model's device as a whole.
        epochs: Number of passes over the data. Default 60 (heuristic: `models.mlp` then fits MNIST-1D).
        lr: Learning rate, > 0. Default 0.1, with the next three the usual CIFAR setting (He et al. 2016, with the
            weight decay of Zagoruyko & Komodakis 2016). For Adam, about 0.001 is usual.
        batch_size: Samples per step; the last batch of an epoch may be smaller. A single sample that is left over joins
            the batch before it if the model has batch norm, which needs two. Default 128, or all where ``x`` cannot be
            cut into samples, such as a graph; a DataLoader has its own. Samples are shuffled unless one batch has all.
        momentum: Momentum of SGD in [0, 1). Default 0.9.
        weight_decay: L2 penalty ≥ 0; decoupled in ``"adamw"``. Default 5e-4.
        optimizer: ``"sgd"`` (default), ``"adam"``, ``"adamw"``; ``"sam"``, ``"asam"``, ``"fishersam"``, ``"sagm"`` or
            ``"rsam"``, the class of that name over SGD with its defaults, in upper or lower case; or a factory: any
            callable from the list of trainable parameters to a ``torch.optim.Optimizer``, as
            ``functools.partial(torch.optim.SGD, lr=0.1)``. The factory's optimizer has its own settings, except that a
            sharpness-aware class or a partial of one, ``RSAM`` or ``functools.partial(RSAM, rho=0.3)``, gets the three
            above for its base optimizer where it is not given them. The radius of ``"rsam"``, 0.65 in loss units, is
            too large for many small networks: where the loss stays that of guessing and ``History.perturbation_norm``
            is near the norm of the weights, use a smaller one, such as ``functools.partial(RSAM, rho=0.01)``. The
            second pass leaves batch norm's running statistics unchanged. Each step is taken with a closure, so
            optimizers that evaluate the loss repeatedly (``LBFGS``) work too, as do those whose ``step`` takes none.
        warmup_epochs: Number of plain epochs before the first perturbed step of a sharpness-aware optimizer. Default
            0; the authors' example of `RSAM` trains its first six epochs plain (``plain_epoch`` 5 with the test
            ``epoch > plain_epoch``).
        scheduler: How the learning rate changes from epoch to epoch; default ``None``: it does not. ``"cosine"``: epoch
            e = 0, 1, … has the rate lr · (1 + cos(π·e/epochs)) / 2 (Loshchilov & Hutter 2017, without restarts). Or a
            factory from the optimizer to a scheduler of ``torch.optim.lr_scheduler``, as
            ``lambda optimizer: StepLR(optimizer, step_size=20)``, which is stepped after every epoch, the first and
            warm-up ones included; ``ReduceLROnPlateau`` gets the epoch's training loss.
        loss_fn: Function from ``(outputs, targets)`` to the loss of the batch. Default cross-entropy, with no label
            ignored. A batch whose labels are all ignored is skipped.
        test_set: Data set that is evaluated after every epoch, and not used for any decision.
        seed: Random seed for the batch order and for dropout, ≥ 0.
        device: Device to train on; the model stays there. Default: the model's.
        progress: Whether to show a progress bar. Default: in a terminal or notebook.
        reduction: ``"mean"`` or ``"sum"``, as for `evaluate`. Default: that of ``loss_fn``.
        batch_mass: The denominator of a batch's mean loss as a function of the batch ``(inputs, targets)``, as for
            `evaluate`: the weights of the batches in the losses of the `History`. A batch without mass is skipped.

    Returns:
        `History` with losses and accuracies of every epoch.

    Raises:
        TypeError: If a model, data set, optimizer or scheduler is of the wrong kind.
        ValueError: If data is empty, not finite or does not fit the model; if a label has no output; if a number
            is out of range.
        DivergenceError: If a loss or weight is not finite. (It is a ``ValueError``.)

    Example:
        >>> from renyi_lab import datasets, models
        >>> train_set, test_set = datasets.digits()
        >>> history = train(models.mlp(64, 32, 10), train_set, epochs=5, test_set=test_set)
        >>> history.num_gradients, history.test_accuracy[-1] > 0.9
        (55, True)
        >>> history = train(models.mlp(64, 32, 10), train_set, epochs=4, scheduler="cosine")
        >>> [round(rate, 4) for rate in history.lr]
        [0.1, 0.0854, 0.05, 0.0146]
    """
    epochs, seed = check_int("epochs", epochs), check_int("seed", seed, minimum=0)
    lr = check_real("lr", lr, 0, open_minimum=True)
    momentum = check_real("momentum", momentum, 0, 1, open_maximum=True)
    weight_decay = check_real("weight_decay", weight_decay, 0)
    parameters = [p for p in check_model(model).parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("model has no trainable parameters; set requires_grad=True on those to train.")
    warmup_epochs = check_int("warmup_epochs", warmup_epochs, minimum=0)
    check_optimizer(optimizer)
    check_scheduler(scheduler)
    data = check_pairs("train_set", train_set)
    size = choose_batch_size("train_set", data, batch_size, 128)
    how = reduction_of(loss_fn, reduction, batch_mass)
    join_last = has_batch_norm(model)
    test_set = None if test_set is None else check_pairs("test_set", test_set)

    start, num_gradients = time.perf_counter(), 0
    values: dict[str, list[float]] = {f"{a}_{b}": [] for a in ("train", "test") for b in ("loss", "accuracy")}
    values["perturbation_norm"], values["lr"] = [], []
    bar = progress_bar(epochs, "training", progress)
    with (
        bar,
        exclusive(),
        moved(model, device),
        _restored(model),
        seeded_rng(seed),
        training_flags(model, True),
        torch.enable_grad(),
        contextlib.ExitStack() as threads,
    ):
        bar.unit = "epoch"
        warmup_steps = warmup_epochs * _steps_per_epoch(data, size, join_last) if warmup_epochs else 0
        stepper = make_optimizer(optimizer, parameters, lr, momentum, weight_decay, warmup_steps)
        schedule = Schedule(scheduler, stepper, epochs)
        order = torch.Generator().manual_seed(seed)
        for epoch in range(epochs):
            means, norms = Means(how), []
            values["lr"] += schedule.rates
            for inputs, targets in pairs(data, size, model, order, join_last=join_last):
                mass = how.mass(Batch((inputs, targets), len(targets)))
                if mass == 0:
                    continue
                if num_gradients == 0:
                    threads.enter_context(one_thread_if_small(model, inputs))
                evaluated = functools.partial(forward, model, loss_fn, inputs, targets, how, check=epoch == 0)
                passes = take_step(model, stepper, evaluated)
                num_gradients += len(passes)
                if isinstance(stepper, SharpnessAware):
                    norms.append(stepper.perturbation_norm)  # tensors, not read before the epoch ends
                outputs, loss = passes[0]
                if not math.isfinite(loss):
                    raise divergence_error(epoch, f"the loss is {loss}", stepper)
                means.add(outputs, loss, targets, mass)
            if not all(bool(torch.isfinite(p).all()) for p in parameters):
                raise divergence_error(epoch, "a weight is not finite", stepper)
            _record(values, "train", means)
            schedule.step(means.loss)
            if norms:
                values["perturbation_norm"].append(float(torch.stack(norms).mean()))
            if test_set is not None:
                tested = evaluate(model, test_set, loss_fn=loss_fn, reduction=reduction, batch_mass=batch_mass)
                _record(values, "test", tested)
            bar.set_postfix(loss=f"{means.loss:.3f}", refresh=False)
            bar.update()
    curves = {name: tuple(curve) for name, curve in values.items()}
    return History(**curves, num_gradients=num_gradients, seconds=time.perf_counter() - start)


def _steps_per_epoch(data: Any, batch_size: int, join_last: bool) -> int:
    steps = num_batches(data, batch_size, join_last)
    if steps is None:
        raise TypeError("warmup_epochs needs a DataLoader with a length, len(loader); leave it out.")
    return steps


@restoring
def _restored(model: nn.Module) -> Iterator[None]:
    """Restore ``.grad`` in any case, weights and buffers after an error (not after an interrupt)."""
    state = [(tensor, tensor.detach().clone()) for tensor in (*model.parameters(), *model.buffers())]
    with without_gradients(model.parameters()):
        try:
            yield
        except Exception:
            with torch.no_grad():
                for tensor, before in state:
                    tensor.copy_(before)
            raise


def _record(values: dict[str, list[float]], part: str, means: Means | Evaluation) -> None:
    values[f"{part}_loss"].append(means.loss)
    if means.accuracy is not None:
        values[f"{part}_accuracy"].append(means.accuracy)
