"""`run_study`: a grid of trainings, in parallel, each recorded as soon as it finishes."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import warnings
from collections.abc import Mapping
from typing import Any

import torch

from renyi_lab._utils.batches import is_tensor_data_set
from renyi_lab._utils.data_sets import Pair
from renyi_lab._utils.progress import progress_bar
from renyi_lab._utils.random import rng_restored_after
from renyi_lab._utils.threads import one_thread
from renyi_lab._utils.validation import check_int, check_real, printed
from renyi_lab.datasets import mnist1d
from renyi_lab.models import cnn1d, mlp
from renyi_lab.study._grid import Grid, expand_grid
from renyi_lab.study._measures import standard_measure
from renyi_lab.study._record_file import RecordFile
from renyi_lab.study._records import Record
from renyi_lab.study._study import MIN_ACCURACY, Study
from renyi_lab.study._training import Measure, ModelFactory, train_and_measure
from renyi_lab.study._workers import Workers

_MOST_CORES = 10**6  # joblib reads -2 as all cores but one, and so on


def run_study(
    grid: Grid,
    *,
    path: str | os.PathLike[str] | None = None,
    data: tuple[Any, Any] | None = None,
    models: Mapping[str, ModelFactory] | None = None,
    measure: Measure | None = None,
    min_accuracy: float = MIN_ACCURACY,
    n_jobs: int | None = None,
    progress: bool | None = None,
) -> Study:
    """Train every setting of a grid, measure the trained models, and record both generalization gaps.

    Every training runs on one CPU thread, so that records do not depend on ``n_jobs``. The test set is evaluated once,
    after the training, and no decision depends on it.

    Args:
        grid: Mapping from axis to values, of which all combinations are trained; or a list of such mappings, for their
            union. The axes are the fields of `Setting`; axes left out keep their default. ``rho``, ``alpha`` and
            ``form`` belong to sharpness-aware optimizers, which therefore need a mapping of their own.
        path: File for the records, one line per training, written as soon as it finishes. Trainings that the file
            already holds are not repeated, so that an interrupted study can be resumed. The data and the names of the
            measure and the models must match, but their code is not compared: use another file when it changes.
            Default: nothing is written.
        data: ``(train_set, test_set)``, each a ``TensorDataset`` or a pair of tensors ``(x, y)``. Default: MNIST-1D.
        models: Mapping from architecture to a function of ``(width, seed)`` that returns a new classifier. Default:
            ``"mlp"`` (two hidden layers), ``"cnn1d"`` and ``"cnn1d_bn"`` (with batch norm), sized for the data.
        measure: Function ``measure(model, loss_fn, data, initial_parameters=...)`` that returns a mapping from names to
            numbers; ``data`` is the training set ``(x, y)``, ``initial_parameters`` maps names to tensors. Default:
            `standard_measure`, Rényi sharpness and all other measures of `sharpness_report`.
        min_accuracy: Training accuracy, in [0, 1], from which a model counts as at a minimum. Default 0.97 (heuristic:
            in pilot studies, smaller thresholds flipped the sign of correlations).
        n_jobs: Number of workers, as in ``joblib.Parallel``. Default: as set by ``joblib.parallel_config``, which also
            chooses the backend, otherwise 1. With a client of Dask, ``joblib.parallel_config(backend="dask")`` trains
            on all workers of its cluster; they need this package and the modules that define the measure and the
            models. Threads run one training at a time, since the settings of torch are global.
        progress: Whether to show a progress bar. Default: in a terminal or notebook.

    Returns:
        A `Study` in the order of the grid; under-trained and diverged models are kept and marked.

    Raises:
        TypeError: The grid, data, measure or path has the wrong type.
        ValueError: An axis is unknown, the optimizer does not have it, or a value is out of range; the file is not a
            study file, has another version, or holds a study with other data, models or measure; or ``path`` is used
            with a lambda, or cannot be written (a finished study may be read-only); or joblib's backend is
            ``"multiprocessing"``.
        RuntimeError: The measure raised, or a worker process ended; the trainings that finished before are in the file.
        OSError: A record could not be written, on a full disk for example; the records before it are in the file.

    Warns:
        UserWarning: No model reached a minimum, or a line of the file cannot be read.

    Example:
        >>> def norm(model, loss_fn, data, initial_parameters):
        ...     return {"norm": sum(float(p.detach().square().sum()) for p in model.parameters()) ** 0.5}
        >>> x = torch.linspace(-1, 1, 64)[:, None]
        >>> data = (x, (x[:, 0] > 0).long()), (x + 0.02, (x[:, 0] > 0).long())
        >>> run_study({"lr": [0.1, 0.3], "seed": range(3), "width": 8}, data=data, measure=norm, min_accuracy=0.9)
        Study(6 trainings: 6 at a minimum (training accuracy ≥ 0.9), 0 dropped, 0 diverged)
    """
    check_real("min_accuracy", min_accuracy, 0, 1)
    if n_jobs is not None and check_int("n_jobs", n_jobs, -_MOST_CORES) == 0:
        raise ValueError("n_jobs must not be 0; use 1 to train one model at a time, -1 for every core.")
    measure = standard_measure if measure is None else measure
    if not callable(measure):
        raise TypeError(f"measure must be callable, got {type(measure).__name__}.")
    workers = Workers(n_jobs)
    pairs = _pairs(mnist1d() if data is None else data)
    factories = _default_models(pairs) if models is None else _checked_models(models)
    settings = expand_grid(grid, factories)
    if path is not None:
        _refuse_lambdas(measure, *(models or {}).values())
    names = None if models is None else {architecture: _name(make) for architecture, make in models.items()}
    file = RecordFile(path, _fingerprint(pairs), _name(measure), names)
    records = {record.setting.key: record for record in file.records}
    todo = [setting for setting in settings if setting.key not in records]
    if todo:
        file.check_writable()
    with progress_bar(len(settings), "trainings", progress) as bar, rng_restored_after(), one_thread():
        bar.update(len(settings) - len(todo))
        with contextlib.closing(workers.results(train_and_measure, todo, (pairs, factories, measure))) as results:
            for record in map(Record.as_stored, results):
                file.append(record)
                records[record.setting.key] = record
                bar.update()
    study = Study(tuple(records[setting.key] for setting in settings), min_accuracy)
    if not study.kept:
        warnings.warn(f"no model is at a minimum, so no correlation can be computed: {study}", stacklevel=2)
    return study


def _pairs(data: Any) -> tuple[Pair, Pair]:
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise TypeError(f"data must be (train_set, test_set), got {type(data).__name__}.")
    return _pair("train_set", data[0]), _pair("test_set", data[1])


def _pair(name: str, part: Any) -> Pair:
    tensors = part.tensors if is_tensor_data_set(part) else part
    if not isinstance(tensors, tuple | list) or len(tensors) != 2 or not all(map(torch.is_tensor, tensors)):
        raise TypeError(f"{name} must be a TensorDataset or a pair of tensors (x, y), got {type(part).__name__}.")
    x, y = tensors
    if y.is_floating_point() or y.ndim != 1 or len(x) != len(y) or len(x) == 0:
        raise ValueError(
            f"{name} must hold (N, …) inputs and N class labels, got {tuple(x.shape)} and {tuple(y.shape)} {y.dtype}."
        )
    return x, y


def _checked_models(models: Any) -> dict[str, ModelFactory]:
    if not isinstance(models, Mapping) or not models or not all(map(callable, models.values())):
        raise TypeError(f"models must map names to functions of (width, seed), at least one, got {printed(models)}.")
    return dict(models)


def _default_models(data: tuple[Pair, Pair]) -> dict[str, ModelFactory]:
    (x, train_labels), (_, test_labels) = data
    features, classes = x[0].numel(), int(max(train_labels.max(), test_labels.max())) + 1
    return {
        "mlp": functools.partial(_mlp, features, classes),
        "cnn1d": functools.partial(_cnn1d, features, classes),
        "cnn1d_bn": functools.partial(_cnn1d_bn, features, classes),
    }


def _mlp(features: int, classes: int, width: int, seed: int) -> torch.nn.Module:
    return mlp(features, width, width, classes, seed=seed)


def _cnn1d(features: int, classes: int, width: int, seed: int) -> torch.nn.Module:
    return cnn1d(channels=width, in_features=features, num_classes=classes, seed=seed)


def _cnn1d_bn(features: int, classes: int, width: int, seed: int) -> torch.nn.Module:
    return cnn1d(channels=width, in_features=features, num_classes=classes, batch_norm=True, seed=seed)


def _fingerprint(pairs: tuple[Pair, Pair]) -> str:
    digest = hashlib.sha256()
    for tensor in (*pairs[0], *pairs[1]):
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _refuse_lambdas(*functions: Any) -> None:
    if lambdas := [name for name in map(_name, functions) if "<lambda>" in name]:
        raise ValueError(
            f"path cannot be used with {lambdas[0]}: a file identifies measures and models by name, and a lambda has "
            "none. Define it with def."
        )


def _name(measure: Any) -> str:
    """The name by which a file identifies a function; that of a partial includes its arguments."""
    if isinstance(measure, functools.partial):
        return f"{_name(measure.func)}{measure.args}{dict(sorted(measure.keywords.items()))}"
    return f"{getattr(measure, '__module__', '')}.{getattr(measure, '__qualname__', type(measure).__qualname__)}"
