"""What touching a disk needs: durable writes, clear refusals, and removing what killed writers left."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cross_lora_core.errors import StoreRefused, StoreUnavailable

__all__ = ["make_folder", "refusing", "remove_stale", "sync_file", "sync_folder"]

_DAY = 24 * 3600
_PERMISSION = "Give this user write permission, or set CROSS_LORA_STORE to another folder."
_NO_LOCKS = "The file system has no locks; set CROSS_LORA_STORE to a folder on one that has."
_REFUSALS = {
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.EROFS: "The file system is read-only; set CROSS_LORA_STORE to another folder.",
    errno.ENOSPC: "The disk is full; free some space and run the same command again.",
    errno.EDQUOT: "The disk quota is used up; free some space and run the same command again.",
    errno.ENOTDIR: "A file stands where a folder should be; set CROSS_LORA_STORE to another folder.",
    errno.EEXIST: "A file stands where a folder should be; set CROSS_LORA_STORE to another folder.",
    errno.ENAMETOOLONG: "The path is too long; set CROSS_LORA_STORE to a shorter one.",
    errno.ENOLCK: _NO_LOCKS,
    errno.EOPNOTSUPP: _NO_LOCKS,
}
_OUTAGES = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT)


@contextmanager
def refusing(where: Path) -> Iterator[None]:
    """The disk's errors as ours.

    Raises:
        StoreRefused: no permission, no space, read-only; the remedy says which.
        StoreUnavailable: the disk or the file server behind it does not answer.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _OUTAGES:
            remedy = "Check the disk or its file server; the same command can be run again."
            raise StoreUnavailable("a disk that answers", str(error.strerror), str(where), remedy) from error
        if error.errno not in _REFUSALS:
            raise
        raise StoreRefused(
            "a folder that can be used", str(error.strerror), str(where), _REFUSALS[error.errno]
        ) from error


def sync_file(path: Path) -> None:
    """Return when the file's bytes are on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Return when the folder's entries are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, durably."""
    missing = [one for one in (path, *path.parents) if not one.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for one in reversed(missing):
        sync_folder(one.parent)


def remove_stale(paths: Iterator[Path], days: int = 1) -> None:
    """Remove those that were last written more than so many days ago."""
    for path in paths:
        try:
            if time.time() - path.stat().st_mtime > days * _DAY:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        except OSError:  # another process removes too, or may not: nothing is lost
            continue
