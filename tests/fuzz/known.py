"""Faults that are known and not fixed yet: `(target, kind)`; the tests pass over them, `make fuzz` prints them."""

from __future__ import annotations

KNOWN_FAULTS: frozenset[tuple[str, str]] = frozenset()
