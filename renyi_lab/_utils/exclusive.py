"""One Python thread at a time where state is changed for a while that all threads share.

The global random generators, the choice of kernels and precision, and the flags, hooks and ``.grad`` of a model belong
to the process. Two threads that both change and restore them would each restore what the other had set. So whoever
changes them enters `exclusive` first, and a second thread waits. Code that is called inside must not wait for another
thread that enters, too.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

from renyi_lab._utils.interrupts import restoring

_lock = threading.RLock()
_owner: int | None = None


@restoring
def exclusive() -> Iterator[None]:
    """Let no other Python thread enter an `exclusive` block; the same thread may nest them."""
    global _owner
    with _lock:
        outer, _owner = _owner, threading.get_ident()
        try:
            yield
        finally:
            _owner = outer


def _release_in_child() -> None:
    """Free the lock in a forked process if its owner was another thread, which does not exist there."""
    global _lock, _owner
    if _owner != threading.get_ident():
        _lock, _owner = threading.RLock(), None


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_release_in_child)
