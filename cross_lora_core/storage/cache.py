"""Verified copies of remote objects on this machine, by sha256, the least recently used dropped first."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cross_lora_core.storage.base import StoredObject
from cross_lora_core.storage.disk import refusing, remove_stale
from cross_lora_core.storage.verified import VERIFIED

__all__ = ["ReadCache", "default_cache"]

_IN_USE_SECONDS = 600


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/cross-lora/objects`, or below `~/.cache`."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "cross-lora" / "objects"


class ReadCache:
    """A folder of files named by their sha256; several processes may share it.

    Args:
        folder: made when the first object comes.
        limit: bytes. Copies used within the last ten minutes stay even beyond it: a reader may be about
            to open them.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit

    def find(self, wanted: StoredObject) -> Path | None:
        """The copy, if there is one and its bytes are right, as `VERIFIED` finds or remembers."""
        path = self.folder / wanted.sha256
        try:
            path.stat()
            self._note_use(wanted.sha256)
            found, _ = VERIFIED.sha256_of(path, wanted.sha256)
        except FileNotFoundError:  # never came, or was dropped by another process meanwhile
            return None
        return path if found == wanted.sha256 else None

    def _note_use(self, sha256: str) -> None:
        """In a file beside the copy: touching the copy would change what it is known by."""
        with refusing(self.folder):
            self._mark(sha256).touch()

    def _mark(self, sha256: str) -> Path:
        return self.folder / f".used-{sha256}"

    @contextmanager
    def filling(self, wanted: StoredObject) -> Iterator[Path]:
        """A path to write a copy to; it is kept when the block ends without an error.

        Raises:
            StoreRefused: the folder cannot be written, or the disk is full.
        """
        aside = self.folder / f".{uuid.uuid4().hex}"
        with refusing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_stale(self.folder.glob(".*"))
            self._make_room(wanted.size)
            try:
                yield aside
                aside.replace(self.folder / wanted.sha256)
            finally:
                aside.unlink(missing_ok=True)

    def _make_room(self, size: int) -> None:
        entries = []
        for path in self.folder.glob("[0-9a-f]" * 64):
            with suppress(FileNotFoundError):  # dropped by another process meanwhile
                entries.append((self._used(path), path.stat().st_size, path))
        held = sum(one[1] for one in entries)
        for used, freed, path in sorted(entries):
            if held + size <= self.limit or time.time() - used < _IN_USE_SECONDS:
                return
            held -= freed
            path.unlink(missing_ok=True)
            self._mark(path.name).unlink(missing_ok=True)

    def _used(self, path: Path) -> float:
        """When a copy was last asked for, or came, in seconds since the epoch."""
        try:
            return self._mark(path.name).stat().st_mtime
        except FileNotFoundError:
            return path.stat().st_mtime
