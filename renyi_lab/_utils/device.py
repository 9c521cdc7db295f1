"""Choice of the device that work runs on."""

from __future__ import annotations

import torch


def default_device() -> torch.device:
    """CUDA where there is one, then Apple's MPS, then the CPU.

    MPS has no float64: pass ``device="cpu"`` where double precision is wanted.
    """
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
