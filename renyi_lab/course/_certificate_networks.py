"""The networks that notebook 06 certifies: stored in a small file, because training them takes minutes.

Stored weights also make the bounds reproducible: a training depends on the processor, the draws around stored weights
do not. `tests/tools/certificate_networks.py` trains the networks and writes the file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

from renyi_lab._utils.validation import check_instance
from renyi_lab._utils.whole_file import whole_file
from renyi_lab.course._files import course_directory
from renyi_lab.course._network import digest_of
from renyi_lab.datasets import mnist1d
from renyi_lab.models import cnn1d

CERTIFICATE_FILE = "certificate_networks.npz"
# A seed that no default of the package was chosen on: those of `bounds.certify` were, on the data of the usual seed.
DATA_SEED = 2
NUM_PRIOR_SAMPLES = 3000
_TRAINED = ("whole", "prior", "moved")


class CertificateNetworks(NamedTuple):
    """Four convolutional networks, ``cnn1d(seed=0)`` with 5,210 parameters each, and their data.

    Attributes:
        start: The untrained network, from which the training of ``whole`` and ``prior`` started.
        whole: Trained on all 4,000 training samples.
        prior: Trained on the first 3,000 training samples.
        moved: Trained on from ``prior``, on the other 1,000, with a penalty on the distance from ``prior``.
        train_set: The 4,000 training samples, of ``mnist1d(seed=2)``.
        test_set: The 1,000 test samples.
    """

    start: nn.Sequential
    whole: nn.Sequential
    prior: nn.Sequential
    moved: nn.Sequential
    train_set: TensorDataset
    test_set: TensorDataset


def save_certificate_networks(networks: Mapping[str, nn.Module], path: str | os.PathLike[str]) -> Path:
    """Store the three trained networks; an existing file is replaced.

    Args:
        networks: The networks ``"whole"``, ``"prior"`` and ``"moved"``, each a ``cnn1d()``.
        path: The file.

    Returns:
        The path of the file.

    Raises:
        TypeError: ``networks`` is no mapping.
        ValueError: Another set of names, another architecture, or weights that are not finite.
        OSError: The file cannot be written.
    """
    check_instance("networks", networks, Mapping)
    if set(networks) != set(_TRAINED):
        raise ValueError(f"networks must have the names {', '.join(_TRAINED)}, got {', '.join(map(str, networks))}.")
    arrays = {
        f"{name}.{key}": value.detach().cpu().float().numpy()
        for name in _TRAINED
        for key, value in networks[name].state_dict().items()
    }
    if {key: value.shape for key, value in arrays.items()} != _shapes():
        raise ValueError("every network must be a cnn1d() with its defaults; got other names or shapes of weights.")
    if not all(np.isfinite(value).all() for value in arrays.values()):
        raise ValueError("a network has weights that are not finite, so there is nothing to store; train it again.")
    with whole_file(Path(path)) as partial, partial.open("wb") as file:
        np.savez_compressed(file, digest=digest_of(arrays), **arrays)
    return Path(path)


def load_certificate_networks(path: str | os.PathLike[str] | None = None) -> CertificateNetworks:
    """Load the networks that notebook 06 certifies, in single precision, with their data.

    Args:
        path: The file. Default: ``certificate_networks.npz`` in the current folder, its parent, or the installed
            course.

    Raises:
        FileNotFoundError: The file is in none of these places.
        ValueError: The file is damaged or of another version.
        TypeError: ``path`` is no path.

    Example:
        >>> networks = load_certificate_networks()
        >>> sum(p.numel() for p in networks.prior.parameters()), len(networks.train_set)
        (5210, 4000)
    """
    if path is not None and not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must be a string or a pathlib.Path, got {type(path).__name__}.")
    places = [Path(CERTIFICATE_FILE), Path("..", CERTIFICATE_FILE), *_course()] if path is None else [Path(path)]
    found = next((place for place in places if os.path.isfile(place)), None)
    if found is None:
        raise FileNotFoundError(
            f"{places[0]} was not found; copy it from the folder notebooks/ of the repository, or install the package "
            "again and run `renyi-lab notebooks DIR`."
        )
    arrays = _read(found)
    networks = {name: cnn1d(seed=0) for name in ("start", *_TRAINED)}
    for name in _TRAINED:
        state = {key: torch.from_numpy(arrays[f"{name}.{key}"]) for key in networks[name].state_dict()}
        networks[name].load_state_dict(state)
    train_set, test_set = mnist1d(seed=DATA_SEED)
    return CertificateNetworks(**networks, train_set=train_set, test_set=test_set)


def _course() -> list[Path]:
    try:
        return [course_directory() / CERTIFICATE_FILE]
    except FileNotFoundError:
        return []


def _read(path: Path) -> dict[str, np.ndarray]:
    expected = _shapes()
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            digest, arrays = str(file["digest"]), {key: file[key] for key in expected}
    except Exception:  # readers of archives and arrays raise errors of many types at damaged bytes
        digest, arrays = "", {}
    if {key: value.shape for key, value in arrays.items()} != expected or digest != digest_of(arrays):
        raise ValueError(
            f"{path} is damaged or was made by another version; delete it and copy it from the repository or with "
            "`renyi-lab notebooks DIR`."
        )
    return arrays


def _shapes() -> dict[str, tuple[int, ...]]:
    state = cnn1d().state_dict()
    return {f"{name}.{key}": tuple(value.shape) for name in _TRAINED for key, value in state.items()}
