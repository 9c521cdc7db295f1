"""No connection to another machine in any Python process that finds this file on its ``PYTHONPATH`` when it starts.

The notebooks are executed and the site is built with it, so that whatever they fetched would end them. Sockets of this
machine stay possible: kernels talk to their clients through them.
"""

from __future__ import annotations

import sys
from typing import Any

LOCAL = frozenset({"", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::"})
LOOKS_UP = frozenset({"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"})
SENDS = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})


def _host(event: str, arguments: tuple[Any, ...]) -> Any:
    """The machine that an audited call asks for; empty for sockets of files."""
    if event in LOOKS_UP:
        return arguments[0]
    address = arguments[1]
    return address[0] if isinstance(address, tuple) else ""


def forbid(event: str, arguments: tuple[Any, ...]) -> None:
    """The audit hook."""
    if event not in LOOKS_UP | SENDS:
        return
    host = _host(event, arguments)
    name = host.decode() if isinstance(host, bytes) else host
    if name is not None and name not in LOCAL:
        raise PermissionError(f"{event}: nothing here may ask {name!r} for anything")


sys.addaudithook(forbid)
