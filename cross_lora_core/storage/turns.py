"""One process or thread at a time, by a lock on a file that the system frees when its holder is killed."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

__all__ = ["one_at_a_time", "unless_taken"]


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Wait for the lock of a file, which is made, and hold it while the block runs."""
    while True:
        with path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                if _is_there(file, path):  # else who held it before removed it, and others lock a new one
                    yield
                    return
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)  # closing would not do, had another thread forked meanwhile


@contextmanager
def unless_taken(path: Path) -> Iterator[bool]:
    """Whether nobody else holds the lock of a file; where there is one, it is held while the block runs."""
    try:
        file = path.open("r+")
    except FileNotFoundError:
        yield True
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            yield _is_there(file, path)
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def _is_there(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
