"""Compute what several fleets share once: under a lease of the catalog, with its holder's heartbeat."""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cross_lora_core.catalog import LeaseRecord
from cross_lora_core.errors import RetryableError
from cross_lora_core.storage import StoredObject
from tasks.runtime import open_catalog, open_stored, put_once

__all__ = ["holding", "put_shared"]

_LEASE_SECONDS = 60.0
_HEARTBEAT_SECONDS = 15.0
_LOOK_SECONDS = 0.5


def put_shared(key: str, write: Callable[[Path], None]) -> tuple[StoredObject, bool]:
    """Store what `write` produces, unless it is there or another worker is at it; then wait for that one.

    Returns:
        The stored object, and whether this call computed it.
    """
    holder = _new_holder()
    while True:
        found = open_stored().stat(key)
        if found is not None:
            return found, False
        if _taken(key, holder):
            with _held(key, holder):
                found = open_stored().stat(key)  # the holder before may have ended between look and lease
                return (found, False) if found is not None else (put_once(key, write), True)
        time.sleep(_LOOK_SECONDS)


@contextmanager
def holding(name: str) -> Iterator[bool]:
    """Whether the lease of this name is ours while the block runs; another holder is not waited for."""
    holder = _new_holder()
    if not _taken(name, holder):
        yield False
        return
    with _held(name, holder):
        yield True


def _new_holder() -> str:
    return f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex}"


def _taken(key: str, holder: str) -> bool:
    """Whether the lease is ours now; that of a process of this machine that is gone is ended first."""
    with open_catalog().begin() as work:
        lease = work.take_lease(key, holder, _LEASE_SECONDS)
        if lease.holder != holder and _is_gone(lease):
            work.end_lease(key, lease.holder)
            lease = work.take_lease(key, holder, _LEASE_SECONDS)
    return lease.holder == holder


def _is_gone(lease: LeaseRecord) -> bool:
    host, process, _ = lease.holder.rsplit("/", 2)
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's, and alive
        return False
    return False


@contextmanager
def _held(key: str, holder: str) -> Iterator[None]:
    """Extend the lease while the block runs, and end it afterwards.

    A catalog that does not answer meanwhile is left alone: the lease then expires.
    """
    done = threading.Event()
    heart = threading.Thread(target=_beat, args=(key, holder, done), daemon=True)
    heart.start()
    try:
        yield
    finally:
        done.set()
        heart.join()
        _quietly(lambda: _end(key, holder))


def _beat(key: str, holder: str, done: threading.Event) -> None:
    while not done.wait(_HEARTBEAT_SECONDS):
        _quietly(lambda: _taken(key, holder))


def _end(key: str, holder: str) -> None:
    with open_catalog().begin() as work:
        work.end_lease(key, holder)


def _quietly(action: Callable[[], object]) -> None:
    try:
        action()
    except RetryableError:
        return
