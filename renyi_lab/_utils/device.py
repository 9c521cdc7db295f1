"""The default device."""

from __future__ import annotations

import torch


def default_device() -> torch.device:
    """The first available of CUDA, Apple's MPS and the CPU.

    MPS has no float64: use ``device="cpu"`` for double precision.
    """
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
