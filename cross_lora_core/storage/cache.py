"""Verified copies of remote objects on this machine, by sha256, the least recently used dropped first.

All processes of a machine share them. Each copy has a mark beside it, `.used-{sha256}`, whose time says
when it was last asked for and whose lock is held while the copy is looked at, fetched or dropped: of several
processes that miss an object one fetches it and the others wait, and none is dropped between being found and
being used. A process that is killed holds no lock any more and leaves nothing but a hidden file.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cross_lora_core.errors import StoreRefused, StoreUnavailable
from cross_lora_core.storage.base import StoredObject
from cross_lora_core.storage.disk import refusing, remove_stale
from cross_lora_core.storage.eviction import drop_oldest, is_recent
from cross_lora_core.storage.turns import one_at_a_time, unless_taken
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
        limit: bytes. Copies asked for within the last ten minutes stay even beyond it: a reader may be about
            to open them. Who has one open reads on, whether it is dropped or not.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit

    def copy(self, wanted: StoredObject, fetch: Callable[[Path], None]) -> Path:
        """The copy; if there is none whose bytes are right, as `VERIFIED` finds or remembers, it is fetched.

        Args:
            wanted: what it must hold.
            fetch: writes these bytes to the path it is given, or raises; asked by one process at a time.

        Raises:
            StoreRefused: the folder cannot be written, or the disk is full.
        """
        with self._turn(wanted):
            return self._found(wanted) or self._filled(wanted, fetch)

    def keep(self, known: StoredObject, file: Path) -> None:
        """Let the copy be one of a file of this machine that holds these bytes, if the disk has room.

        Where they share a disk they share the bytes too, until one of them is removed.
        """
        with suppress(StoreRefused, StoreUnavailable, OSError), self._turn(known):  # it can be fetched again
            if known.size <= self.limit and not (self.folder / known.sha256).exists():
                self._filled(known, lambda aside: _link(file, aside))

    @contextmanager
    def _turn(self, wanted: StoredObject) -> Iterator[None]:
        with refusing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            mark = self._mark(wanted.sha256)
            with one_at_a_time(mark):
                os.utime(mark)
                yield

    def _mark(self, sha256: str) -> Path:
        """Touched in place of the copy, which is known by its times."""
        return self.folder / f".used-{sha256}"

    def _found(self, wanted: StoredObject) -> Path | None:
        path = self.folder / wanted.sha256
        try:
            right = VERIFIED.sha256_of(path, wanted.sha256)[0] == wanted.sha256
        except FileNotFoundError:
            return None
        return path if right else None

    def _filled(self, wanted: StoredObject, fetch: Callable[[Path], None]) -> Path:
        path, aside = self.folder / wanted.sha256, self.folder / f".{uuid.uuid4().hex}"
        remove_stale(self.folder.glob(".[0-9a-f]*"))
        self._make_room(wanted.size)
        try:
            fetch(aside)
            return aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)

    def _make_room(self, size: int) -> None:
        entries = []
        for path in self.folder.glob("[0-9a-f]" * 64):
            with suppress(FileNotFoundError):  # dropped by another process meanwhile
                entries.append((self._used(path), path.stat().st_size, path))
        excess = sum(one[1] for one in entries) + size - self.limit
        drop_oldest(entries, excess, _IN_USE_SECONDS, self._dropped)

    def _dropped(self, path: Path) -> bool:
        """Whether the copy is gone now; one that was asked for meanwhile stays."""
        mark = self._mark(path.name)
        with unless_taken(mark) as ours:
            if not ours or (path.exists() and is_recent(self._used(path), _IN_USE_SECONDS)):
                return False
            path.unlink(missing_ok=True)
            mark.unlink(missing_ok=True)
            return True

    def _used(self, path: Path) -> float:
        """When a copy was last asked for, or came, in seconds since the epoch."""
        try:
            return self._mark(path.name).stat().st_mtime
        except FileNotFoundError:
            return path.stat().st_mtime


def _link(file: Path, aside: Path) -> None:
    try:
        os.link(file, aside)
    except OSError:  # on another disk, or one without links
        shutil.copyfile(file, aside)
