"""One training of a study, from its setting to its record; this is what a worker runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from renyi_lab._utils.data_sets import Pair
from renyi_lab._utils.exclusive import exclusive
from renyi_lab._utils.random import preserved_rng
from renyi_lab._utils.threads import one_thread
from renyi_lab._utils.validation import printed
from renyi_lab.study._grid import Setting
from renyi_lab.study._measurement import Measurement
from renyi_lab.study._records import Record
from renyi_lab.study._sharpness_aware import optimizer_argument
from renyi_lab.training import DivergenceError, Evaluation, evaluate, train

# (width, seed) → a new model.
ModelFactory = Callable[[int, int], nn.Module]
Measure = Callable[..., Mapping[str, float] | Measurement]


def train_and_measure(
    setting: Setting, data: tuple[Pair, Pair], models: Mapping[str, ModelFactory], measure: Measure
) -> Record:
    """Train the model of ``setting``, evaluate it on both parts of ``data``, and measure it on the training part.

    Always uses one thread, so that the result does not depend on how many trainings run in parallel. Python threads run
    one training at a time, with the same results as separate processes.
    """
    with exclusive(), preserved_rng(), one_thread():
        start = time.thread_time()
        model = models[setting.architecture](setting.width, setting.seed)
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"models[{setting.architecture!r}] must return a torch.nn.Module, got {type(model).__name__}."
            )
        initial = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        if not _trained(model, setting, data[0]):
            return Record(setting, diverged=True, cpu_seconds=time.thread_time() - start)
        on_train, on_test = evaluate(model, data[0]), evaluate(model, data[1])
        if not (math.isfinite(on_train.loss) and math.isfinite(on_test.loss)):
            return Record(setting, diverged=True, cpu_seconds=time.thread_time() - start)
        return Record(
            setting,
            diverged=False,
            train_loss=on_train.loss,
            train_accuracy=_accuracy(on_train),
            test_loss=on_test.loss,
            test_accuracy=_accuracy(on_test),
            measurement=_measured(measure, model, data[0], initial, setting),
            cpu_seconds=time.thread_time() - start,
        )


def _trained(model: nn.Module, setting: Setting, train_set: Pair) -> bool:
    """Train in place; ``False`` if it diverged."""
    try:
        train(
            model,
            train_set,
            epochs=setting.epochs,
            lr=setting.lr,
            batch_size=setting.batch_size,
            weight_decay=setting.weight_decay,
            optimizer=optimizer_argument(setting.optimizer, asdict(setting)),
            seed=setting.seed,
            progress=False,
        )
    except DivergenceError:
        return False
    return True


def _accuracy(evaluation: Evaluation) -> float:
    assert evaluation.accuracy is not None  # run_study accepts class labels only
    return evaluation.accuracy


def _measured(
    measure: Measure, model: nn.Module, train_set: Pair, initial: Mapping[str, Tensor], setting: Setting
) -> Measurement:
    try:
        result: Any = measure(model, cross_entropy, train_set, initial_parameters=initial)
    except Exception as error:
        raise RuntimeError(f"measure failed on the model of {setting}: {type(error).__name__}: {error}") from error
    if not isinstance(result, Measurement):
        if not isinstance(result, Mapping) or not result:
            raise TypeError(f"measure must return a mapping from names to numbers, got {printed(result)}.")
        result = Measurement(result)
    return Measurement(
        _numbers(result.values),
        {
            str(name): {float(order): number for order, number in _numbers(curve).items()}
            for name, curve in result.curves.items()
        },
        _numbers(result.chosen_alphas),
    )


def _numbers(values: Mapping[Any, Any]) -> dict[Any, float]:
    found = {}
    for name, value in values.items():
        try:
            found[name] = float(value)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"measure must return numbers, got {printed(value)} for {printed(name)}.") from None
    return found
