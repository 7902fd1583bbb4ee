"""Locks by key: a thread that wants what another is making waits for it."""

from __future__ import annotations

import os
import threading
from collections.abc import Hashable

__all__ = ["Turns"]

_LOCKS = 64


class Turns:
    """A fixed number of locks; each key has one, which a few other keys may share.

    A forked process gets new ones: those it came with may be held by threads that it does not have.
    """

    def __init__(self) -> None:
        self._renew()
        os.register_at_fork(after_in_child=self._renew)

    def of(self, key: Hashable) -> threading.Lock:
        """The lock of a key."""
        return self._locks[hash(key) % _LOCKS]

    def _renew(self) -> None:
        self._locks = tuple(threading.Lock() for _ in range(_LOCKS))
