"""The running network of the course: trained in notebook 00, stored in a small file, loaded by the other notebooks.

A training depends on the processor in its last digits, and after a few epochs in more than these. All notebooks look at
the same stored weights, so their numbers can be followed from one to the next and are the same on every machine.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

from renyi_lab._utils.validation import check_flag, printed
from renyi_lab._utils.whole_file import whole_file
from renyi_lab.course._files import course_directory
from renyi_lab.datasets import mnist1d
from renyi_lab.models import mlp
from renyi_lab.training import History, train

NETWORK_FILE = "course_network.npz"
# Settings are a heuristic: the network fits all samples, and its dense Hessian takes seconds. The small learning rates
# at the end bring the gradient norm of the loss to about 0.01.
_WIDTHS, _NUM_SAMPLES, _SEED = (40, 32, 32, 10), 1000, 0
_PHASES = ((150, 0.1), (20, 0.02), (20, 0.004))
_RECIPE = json.dumps({"widths": _WIDTHS, "num_samples": _NUM_SAMPLES, "seed": _SEED, "phases": _PHASES, "version": 1})


class CourseNetwork(NamedTuple):
    """The running network and its data; unpacks as ``model, train_set, test_set``.

    Attributes:
        model: ``mlp(40, 32, 32, 10)`` with rectified linear units and biases: 2,698 parameters.
        train_set: The 1,000 curves of MNIST-1D that it was trained on.
        test_set: The 1,000 test curves.
    """

    model: nn.Sequential
    train_set: TensorDataset
    test_set: TensorDataset


def train_network(*, progress: bool | None = None) -> tuple[nn.Sequential, list[History]]:
    """Train the running network: 150 epochs at learning rate 0.1, 20 at 0.02 and 20 at 0.004.

    The other settings are the defaults of `renyi_lab.train` (momentum 0.9, weight decay 5e-4). Takes a few seconds.

    Args:
        progress: Whether to show progress bars. Default: in a terminal or notebook.

    Returns:
        The model, and the history of each of the three phases.
    """
    model, (train_set, test_set) = mlp(*_WIDTHS, seed=_SEED), _data()
    histories = [
        train(model, train_set, epochs=epochs, lr=lr, test_set=test_set, seed=_SEED, progress=progress)
        for epochs, lr in _PHASES
    ]
    return model, histories


def save_network(model: nn.Module, path: str | os.PathLike[str] | None = None, *, overwrite: bool = False) -> Path:
    """Store a network as the running network of the course.

    An intact file of this version is kept unless ``overwrite=True``: its numbers are those of the notebooks' text.

    Args:
        model: A network of the running network's architecture, ``mlp(40, 32, 32, 10)``.
        path: The file. Default: ``course_network.npz`` in the current folder.
        overwrite: Whether to replace an intact file.

    Returns:
        The path of the file.

    Raises:
        TypeError: ``model`` is not a module, or ``path`` no path.
        ValueError: ``model`` has another architecture, weights that are not finite, or the folder does not exist.
        OSError: The file cannot be written.
    """
    overwrite = check_flag("overwrite", overwrite)
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}.")
    path = _checked(NETWORK_FILE if path is None else path)
    if not os.path.isdir(path.parent):  # Path.is_dir raises at a long name before Python 3.14
        raise ValueError(f"path={str(path)!r}: the folder {path.parent} does not exist; make it first.")
    if os.path.isdir(path):
        raise ValueError(f"path={str(path)!r} is a folder; name a file in it, such as {NETWORK_FILE}.")
    weights = {name: value.detach().cpu().float().numpy() for name, value in model.state_dict().items()}
    if {name: value.shape for name, value in weights.items()} != _shapes():
        raise ValueError(f"model must be an mlp{_WIDTHS}, as made by train_network(); got other names or shapes.")
    if not all(np.isfinite(value).all() for value in weights.values()):
        raise ValueError("model has weights that are not finite, so there is nothing to store; train it again.")
    if overwrite or _read(path) is None:
        _write(path, weights)
    return path


def load_network(
    path: str | os.PathLike[str] | None = None, *, dtype: torch.dtype = torch.float32, progress: bool | None = None
) -> CourseNetwork:
    """Load the running network with its data.

    If the file is missing, damaged or of another version, the network is trained again, which is said, and whose
    numbers differ slightly from those in the notebooks' text.

    Args:
        path: The file. Default: ``course_network.npz`` in the current folder, its parent, or the installed course.
        dtype: Floating-point type of weights and inputs, for example ``torch.float64``.
        progress: Whether to show a progress bar when training. Default: in a terminal or notebook.

    Raises:
        TypeError: ``dtype`` is not a real floating-point type of torch, or ``path`` is no path.

    Example:
        >>> model, train_set, test_set = load_network(dtype=torch.float64)
        >>> sum(parameter.numel() for parameter in model.parameters()), len(train_set), len(test_set)
        (2698, 1000, 1000)
    """
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"dtype must be a floating-point type such as torch.float64, got {printed(dtype)}.")
    if progress is not None:
        check_flag("progress", progress)
    candidates = [_checked(path)] if path is not None else _places()
    found = next((weights for weights in map(_read, candidates) if weights is not None), None)
    if found is None:
        print(
            f"{_complaint(candidates)}, so the running network is trained again (a few seconds); its numbers differ "
            "slightly from the text's."
        )
        model, _ = train_network(progress=progress)
    else:
        model = mlp(*_WIDTHS)
        model.load_state_dict({name: torch.from_numpy(value) for name, value in found.items()})
    train_set, test_set = (TensorDataset(part.tensors[0].to(dtype), part.tensors[1]) for part in _data())
    return CourseNetwork(model.to(dtype), train_set, test_set)


def _checked(path: str | os.PathLike[str]) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must be a string or a pathlib.Path, got {type(path).__name__}.")
    return Path(path)


def _data() -> tuple[TensorDataset, TensorDataset]:
    train_set, test_set = mnist1d()
    return TensorDataset(*(part[:_NUM_SAMPLES] for part in train_set.tensors)), test_set


def _places() -> list[Path]:
    places = [Path(NETWORK_FILE), Path("..", NETWORK_FILE)]
    try:
        return [*places, course_directory() / NETWORK_FILE]
    except FileNotFoundError:
        return places


def _complaint(candidates: list[Path]) -> str:
    unusable = [path for path in candidates if os.path.exists(path)]
    if unusable:
        return f"{unusable[0]} is damaged or was made by another version"
    return f"{candidates[0].name} was not found"


def _read(path: Path) -> dict[str, np.ndarray] | None:
    """The weights, or ``None`` if the file is missing, damaged or made by another recipe."""
    expected = _shapes()
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            recipe, digest = str(file["recipe"]), str(file["digest"])
            weights = {name: file[name] for name in expected}
    except Exception:  # readers of archives and arrays raise errors of many types at damaged bytes
        return None
    intact = {name: value.shape for name, value in weights.items()} == expected and digest == digest_of(weights)
    return weights if intact and recipe == _RECIPE else None


def _write(path: Path, weights: dict[str, Any]) -> None:
    """Write the file completely or not at all."""
    with whole_file(path) as partial, partial.open("wb") as file:
        np.savez(file, recipe=_RECIPE, digest=digest_of(weights), **weights)


def _shapes() -> dict[str, tuple[int, ...]]:
    """The names and shapes of the running network's weights."""
    return {name: tuple(value.shape) for name, value in mlp(*_WIDTHS).state_dict().items()}


def digest_of(weights: dict[str, np.ndarray]) -> str:
    """A checksum of weights in single precision, in the order of their names."""
    joined = b"".join(np.ascontiguousarray(weights[name], dtype="<f4").tobytes() for name in sorted(weights))
    return hashlib.sha256(joined).hexdigest()
