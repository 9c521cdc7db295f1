"""Seeded random numbers that leave every global random state unchanged."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from renyi_lab._utils.exclusive import exclusive
from renyi_lab._utils.interrupts import restoring


@restoring
def preserved_rng() -> Iterator[None]:
    """Restore Python's, NumPy's and torch's (CPU, CUDA and MPS) global random states on exit, errors included.

    Other Python threads wait until then, see `exclusive`.
    """
    with exclusive(), rng_restored_after():
        yield


@restoring
def rng_restored_after() -> Iterator[None]:
    """As `preserved_rng`, but other threads may run meanwhile: for a block whose work is done by other threads."""
    with exclusive():
        python_state, numpy_state = random.getstate(), np.random.get_state()
        torch_state = torch.get_rng_state()
        cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        mps_state = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        yield
    finally:
        with exclusive():
            random.setstate(python_state)
            np.random.set_state(numpy_state)
            torch.set_rng_state(torch_state)
            if cuda_states:
                torch.cuda.set_rng_state_all(cuda_states)
            if mps_state is not None:
                torch.mps.set_rng_state(mps_state)


def seed_torch(seed: int) -> None:
    """``torch.manual_seed`` without its effect on CUDA devices that have not been initialized yet."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


def seed_all(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    seed_torch(seed)


@contextmanager
def no_random_numbers(cause: str) -> Iterator[None]:
    """Raise ``RuntimeError`` with ``cause`` when the block draws from a global generator without restoring it."""
    before = generator_states()
    yield
    if generator_states() != before:
        raise RuntimeError(cause)


def generator_states() -> list[object]:
    """The states of Python's, NumPy's and torch's global generators, in a form that ``==`` compares."""
    numpy_state: Any = np.random.get_state()
    name, keys, *position = numpy_state
    states = [torch.get_rng_state()]
    if torch.cuda.is_initialized():
        states += torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        states.append(torch.mps.get_rng_state())
    return [random.getstate(), name, keys.tobytes(), position, *(state.cpu().numpy().tobytes() for state in states)]


@restoring
def seeded_rng(seed: int) -> Iterator[None]:
    """Run a block with torch's global generators seeded; restore every random state on exit."""
    with preserved_rng():
        seed_torch(seed)
        yield
