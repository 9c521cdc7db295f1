"""SIGINT at a chosen event of Python's tracing: before a line, at the start or at the end of a function."""

from __future__ import annotations

import contextlib
import dis
import inspect
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any

import matplotlib
import numpy as np
import torch
from torch import Tensor, nn

from renyi_lab._utils import exclusive, threads

# Where state is changed and restored; a line of the rest of torch's code comes between two of these.
TRACED = ("renyi_lab", "contextlib", "torch.optim", "torch.autograd.grad_mode", "torch.utils._contextlib", "torch.amp")


_exits: dict[int, tuple[CodeType, set[int]]] = {}  # by the code's id, since its hash is slow


@contextlib.contextmanager
def tracing(see: Callable[[FrameType, str], None]) -> Iterator[None]:
    """Call ``see(frame, event)`` for all events of this thread in the traced modules."""

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if not str(frame.f_globals.get("__name__")).startswith(TRACED):
            return None
        if _takes_signals(frame, event):
            see(frame, event)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def _takes_signals(frame: FrameType, event: str) -> bool:
    """Whether Python may handle a signal here; tracing sees a few moments more."""
    if event == "line":  # the call of __exit__ begins with three constants, before which no signal is handled
        if id(frame.f_code) not in _exits:
            _exits[id(frame.f_code)] = frame.f_code, _exits_of(frame.f_code)
        return frame.f_lasti not in _exits[id(frame.f_code)][1]
    # A generator that is dropped before its end returns, but nothing of it is run.
    return event in ("call", "return") and not frame.f_code.co_flags & inspect.CO_GENERATOR


def _exits_of(code: CodeType) -> set[int]:
    """Where the calls of ``__exit__(None, None, None)`` begin."""
    found = list(dis.get_instructions(code))
    return {op.offset for k, op in enumerate(found) if [other.argval for other in found[k : k + 3]] == [None] * 3}


def events_of(call: Callable[[], Any]) -> dict[tuple[int, int, str], list[int]]:
    """The numbers of the events of a call, by where they are."""
    found: dict[tuple[int, int, str], list[int]] = {}
    count = 0

    def see(frame: FrameType, event: str) -> None:
        nonlocal count
        found.setdefault((id(frame.f_code), frame.f_lineno, event), []).append(count)
        count += 1

    with tracing(see):
        call()
    return found


def interrupted_at(number: int, call: Callable[[], Any]) -> str:
    """Run a call, send SIGINT to this process at an event, and return where that was; KeyboardInterrupt must follow."""
    count, place = 0, ""

    def see(frame: FrameType, event: str) -> None:
        nonlocal count, place
        count += 1
        if count == number + 1:
            place = f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_name}, {event})"
            sys.settrace(None)
            signal.raise_signal(signal.SIGINT)

    with contextlib.suppress(KeyboardInterrupt):
        with tracing(see):
            call()
        assert not place, f"the interrupt at {place} was lost"
    return place


def chosen_events(call: Callable[[], Any], size: int | None, seed: int) -> list[int]:
    """One event, drawn at random, of each place where the call comes by, or of ``size`` places."""
    draws = random.Random(seed)
    events = [draws.choice(numbers) for numbers in events_of(call).values()]
    return events if size is None else sorted(draws.sample(events, min(size, len(events))))


def global_state() -> dict[str, Any]:
    """All that belongs to the process and that the package changes for a while."""
    return {
        "handler": signal.getsignal(signal.SIGINT),
        "python": random.getstate(),
        "numpy": [str(part) for part in np.random.get_state()],
        "numpy errors": np.geterr(),
        "torch": torch.get_rng_state().tolist(),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype()),
        "threads": (torch.get_num_threads(), threads._guards.total()),
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "attention": (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled()),
        "cudnn": (torch.backends.cudnn.enabled, torch.backends.cudnn.allow_tf32),
        "precision": torch.get_float32_matmul_precision(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "registrations": [vars(Tensor).get(name) for name in ("register_hook", "retain_grad")],
        "warnings": (list(warnings.filters), warnings.showwarning),
        "backend": matplotlib.get_backend(),
        "owner": exclusive._owner,
        "lock": _is_free(exclusive._lock),
    }


def _is_free(lock: Any) -> bool:
    """Whether another thread can have the lock."""
    answers: list[bool] = []

    def ask() -> None:
        answers.append(lock.acquire(timeout=5.0))
        if answers[0]:
            lock.release()

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return answers[0]


def model_state(model: nn.Module, weights: bool = True) -> dict[str, Any]:
    """All that belongs to a model; its weights and buffers only if they are to stay."""
    state: dict[str, Any] = {
        "attributes": [
            (sorted(vars(m)), m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()
        ],
        "hooks": [[len(getattr(p, name) or ()) for name in ("_backward_hooks",)] for p in model.parameters()],
        "flags": [(id(p), p.requires_grad, id(p.grad)) for p in model.parameters()],
        "memory": [p.data_ptr() for p in model.parameters()],
        "gradients": [None if p.grad is None else p.grad.tolist() for p in model.parameters()],
        "buffer objects": [(name, id(buffer)) for name, buffer in model.named_buffers()],
    }
    if weights:
        state["weights"] = [tensor.tolist() for tensor in model.state_dict().values()]
    return state
