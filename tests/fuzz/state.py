"""What a call must leave unchanged: global settings of the process, and the objects that it is given."""

from __future__ import annotations

import contextlib
import decimal
import gc
import hashlib
import logging
import os
import random
import signal
import sys
from collections.abc import Iterator
from typing import Any

import matplotlib
import numpy as np
import torch
from torch import Tensor, nn


@contextlib.contextmanager
def seeded() -> Iterator[None]:
    """Global random numbers from a fixed seed inside, and those of the caller afterwards."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def global_state() -> dict[str, Any]:
    """Settings of the process, by name."""
    name, keys, *position = np.random.get_state()
    pyplot = sys.modules.get("matplotlib.pyplot")
    return {
        "Python's random numbers": random.getstate(),
        "NumPy's random numbers": (name, keys.tobytes(), position),
        "torch's random numbers": torch.get_rng_state().numpy().tobytes(),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's number of threads": torch.get_num_threads(),
        "torch's gradient mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "torch's deterministic mode": torch.are_deterministic_algorithms_enabled(),
        "torch's matmul precision": torch.get_float32_matmul_precision(),
        "torch's anomaly mode": torch.is_anomaly_enabled(),
        "NumPy's handling of errors": np.geterr(),
        "NumPy's print options": str(np.get_printoptions()),
        "matplotlib's backend": matplotlib.rcParams._get_backend_or_none(),  # asking for it would choose one
        "matplotlib's settings": hash(str({k: v for k, v in matplotlib.rcParams.copy().items() if k != "backend"})),
        "pyplot's figures": pyplot.get_fignums() if pyplot else [],
        "the environment": dict(os.environ),
        "the working directory": os.getcwd(),
        "the recursion limit": sys.getrecursionlimit(),
        "the handler of interrupts": signal.getsignal(signal.SIGINT),
        "the excepthook": sys.excepthook,
        "the handler of terminations": signal.getsignal(signal.SIGTERM),
        "the standard streams": (sys.stdout, sys.stderr),
        "the paths of imports": list(sys.path),
        "torch's default device": torch.get_default_device(),
        "garbage collection": gc.isenabled(),
        "the level of logging": (logging.root.level, len(logging.root.handlers)),
        "decimal numbers": str(decimal.getcontext()).partition("flags")[0],
    }


def fingerprint(value: Any, depth: int = 3) -> Any:
    """A short value that changes with the numbers, flags, gradients and hooks of ``value``."""
    if isinstance(value, nn.parameter.UninitializedTensorMixin):
        return type(value).__name__
    if isinstance(value, Tensor):
        plain = value.layout is torch.strided and value.device.type != "meta" and not value.is_quantized
        raw = value.detach().clone().flatten().view(torch.uint8).numpy().tobytes() if plain and value.numel() else b""
        grad = value.grad if value.is_leaf else None
        hooks = len(value._backward_hooks or ())
        return (value.shape, value.dtype, value.requires_grad, value.is_leaf, hooks, _digest(raw), fingerprint(grad))
    if isinstance(value, np.ndarray):
        return (value.shape, value.dtype, _digest(np.array(value, subok=False).tobytes()), value.flags.writeable)
    if isinstance(value, nn.Module):
        tensors = {**dict(value.named_parameters()), **dict(value.named_buffers())}
        modules = {
            name: (
                m.training,
                len(m._forward_hooks),
                len(m._forward_pre_hooks),
                len(m._backward_hooks),
                sorted(vars(m)),
            )
            for name, m in value.named_modules()
        }
        return modules, {name: fingerprint(tensor) for name, tensor in tensors.items()}
    if isinstance(value, (list, tuple)) and depth:
        return tuple(fingerprint(item, depth - 1) for item in value)
    if isinstance(value, dict) and depth:
        return tuple((str(key), fingerprint(item, depth - 1)) for key, item in value.items())
    return None


def _digest(raw: bytes) -> bytes:
    return hashlib.blake2b(raw, digest_size=8).digest()
