"""The default device."""

from __future__ import annotations

from typing import Any

import torch

from renyi_lab._utils.validation import check_instance, printed


def default_device() -> torch.device:
    """The first available of CUDA, Apple's MPS and the CPU.

    MPS has no float64: use ``device="cpu"`` for double precision.
    """
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def check_device(device: Any) -> torch.device:
    """Return ``device``, or the one of that name, or raise where torch knows no such device."""
    check_instance("device", device, (torch.device, str), hint="such as torch.device('cpu')")
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device={printed(device)} is not a device that torch knows; pass 'cpu' or 'cuda'.") from error
