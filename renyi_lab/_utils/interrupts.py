"""Interrupts (Ctrl+C, the stop button of a notebook) that never come between a change of state and its restoration.

Python raises ``KeyboardInterrupt`` in the main thread after almost any call: inside a ``finally`` clause too, and in
the few calls by which ``with`` enters and leaves a block. Inside `whole_contexts`, and so inside every context manager
made by `restoring`, the signal is handled here first: while any context is entered or left, and inside functions marked
by `atomic`, it waits until that is done. Elsewhere it is raised at once.
"""

from __future__ import annotations

import _thread
import contextlib
import functools
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# Heuristic: restoring a model of 10⁹ weights takes about a second; after that the code is taken to hang.
_LONGEST_WAIT = 10.0
_PAUSE = 0.001  # seconds until a waiting interrupt is tried again

# An exception in __del__ would be printed and lost.
_ATOMIC_NAMES = frozenset({"__enter__", "__exit__", "__del__"})
_STACK = contextlib.ExitStack
_ATOMIC: set[CodeType] = {_STACK.enter_context.__code__, _STACK.push.__code__, _STACK.callback.__code__}
_INTERRUPTIBLE: set[CodeType] = set()


class _Waiting:
    """The handler that was there before, and since when an interrupt waits; of the main thread alone."""

    previous: Callable[[int, FrameType | None], Any] = signal.default_int_handler
    since: float | None = None


def _code(function: Any) -> CodeType:
    code: CodeType = function.__code__
    return code


def atomic(function: Callable[P, T]) -> Callable[P, T]:
    """A function for whose end an interrupt waits, inside `whole_contexts`."""

    @functools.wraps(function)
    def whole(*args: P.args, **keywords: P.kwargs) -> T:
        return function(*args, **keywords)

    _ATOMIC.add(_code(whole))
    return whole


def interruptible(function: Callable[P, T]) -> Callable[P, T]:
    """A function that may be interrupted although an `atomic` one calls it."""

    @functools.wraps(function)
    def open_to_interrupts(*args: P.args, **keywords: P.kwargs) -> T:
        return function(*args, **keywords)

    _INTERRUPTIBLE.add(_code(open_to_interrupts))
    return open_to_interrupts


def uninterrupted(function: Callable[P, T]) -> Callable[P, T]:
    """A function that is `atomic` and inside `whole_contexts`: it runs as a whole, or not at all."""
    return whole_contexts()(atomic(function))


def restoring(function: Callable[P, Iterator[T]]) -> Callable[P, contextlib._GeneratorContextManager[T]]:
    """As ``contextlib.contextmanager``, for functions that restore what they change: without loss by interrupts."""

    @contextlib.contextmanager
    @functools.wraps(function)
    def guarded(*args: P.args, **keywords: P.kwargs) -> Iterator[T]:
        with whole_contexts():
            yield from function(*args, **keywords)

    return guarded


@contextlib.contextmanager
def whole_contexts() -> Iterator[None]:
    """Handle interrupts here inside the block, unless that is so already or interrupts raise nothing in this thread."""
    in_main = threading.get_ident() == threading.main_thread().ident
    previous = signal.getsignal(signal.SIGINT) if in_main else None
    if previous is _on_interrupt or not callable(previous):
        yield
        return
    _Waiting.previous, _Waiting.since = previous, None
    signal.signal(signal.SIGINT, _on_interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is _on_interrupt:  # nobody has set another handler inside
            signal.signal(signal.SIGINT, previous)
        if _Waiting.since is not None:
            _Waiting.since = None
            previous(signal.SIGINT, sys._getframe())


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    since = now if _Waiting.since is None else _Waiting.since
    if not _is_atomic(frame) or now - since > _LONGEST_WAIT:
        _Waiting.since = None
        _Waiting.previous(number, frame)
        return
    _Waiting.since = since
    _thread.start_new_thread(_try_again, ())  # not a Timer, whose locks the interrupted code may hold


def _is_atomic(frame: FrameType | None) -> bool:
    while frame is not None:
        code = frame.f_code
        if code in _INTERRUPTIBLE:
            return False
        if code.co_name in _ATOMIC_NAMES or code in _ATOMIC:
            return True
        frame = frame.f_back
    return False


def _try_again() -> None:
    time.sleep(_PAUSE)
    if _Waiting.since is None:
        return
    if hasattr(signal, "pthread_kill"):  # a signal of its own ends a wait of the main thread, too
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()
