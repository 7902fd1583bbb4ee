"""Copies of remote folders on this machine, for libraries that read nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cross_lora_core.errors import ObjectCorrupted, StoreUnavailable
from cross_lora_core.storage.disk import refusing, remove_stale, sync_file
from cross_lora_core.storage.eviction import drop_oldest, is_recent
from cross_lora_core.storage.turns import one_at_a_time, unless_taken

if TYPE_CHECKING:
    from cross_lora_core.storage.folders import Folder

__all__ = ["FolderCache"]

_IN_USE_SECONDS = 3600


class FolderCache:
    """Copies by the identities of their files; one that is there is whole. Several processes may share it.

    Args:
        root: made when the first copy comes.
        limit: bytes. Copies asked for within the last hour stay even beyond it.
    """

    def __init__(self, root: Path, limit: int) -> None:
        self.root, self.limit = root, limit

    def copy(self, folder: Folder, names: Sequence[str], check: Callable[[Path], None]) -> Path:
        """See `Folder.local`; processes that want the same copy wait for the one that makes it."""
        identities = json.dumps([folder.identity(name) for name in names])
        target = self.root / hashlib.sha256(identities.encode()).hexdigest()
        with refusing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            with self._turn(target.name):
                if not _is_whole(target, folder, names):
                    self._fill(target, folder, names, check)
                os.utime(target)
        return target

    def _fill(
        self, target: Path, folder: Folder, names: Sequence[str], check: Callable[[Path], None]
    ) -> None:
        shutil.rmtree(target, ignore_errors=True)
        remove_stale(self.root.glob(".*"))
        self._make_room(sum(folder.size(name) for name in names))
        try:
            self._try(target, folder, names, check)
        except ObjectCorrupted:  # spoiled on the way, perhaps
            self._try(target, folder, names, check)

    def _try(self, target: Path, folder: Folder, names: Sequence[str], check: Callable[[Path], None]) -> None:
        aside = self.root / f".{uuid.uuid4().hex}"
        try:
            aside.mkdir()
            for name in names:
                _download(folder, name, aside / name)
            check(aside)
            aside.rename(target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    @contextmanager
    def _turn(self, name: str) -> Iterator[None]:
        lock = self._lock(name)
        with one_at_a_time(lock):
            os.utime(lock)
            yield

    def _lock(self, name: str) -> Path:
        return self.root / f".lock-{name}"

    def _make_room(self, size: int) -> None:
        entries = []
        for path in self.root.glob("[0-9a-f]" * 64):
            try:
                held = sum(one.stat().st_size for one in path.iterdir())
                entries.append((path.stat().st_mtime, held, path))
            except FileNotFoundError:  # dropped by another process meanwhile
                continue
        excess = sum(one[1] for one in entries) + size - self.limit
        drop_oldest(entries, excess, _IN_USE_SECONDS, self._dropped)

    def _dropped(self, path: Path) -> bool:
        """Whether the copy is gone now; one that was asked for meanwhile stays."""
        with unless_taken(self._lock(path.name)) as ours:
            if not ours or (path.exists() and is_recent(path.stat().st_mtime, _IN_USE_SECONDS)):
                return False
            _drop(path)
            return True


def _is_whole(target: Path, folder: Folder, names: Sequence[str]) -> bool:
    try:
        return all((target / name).stat().st_size == folder.size(name) for name in names)
    except FileNotFoundError:
        return False


def _download(folder: Folder, name: str, path: Path) -> None:
    folder.download(name, path)
    written = path.stat().st_size
    if written != folder.size(name):
        remedy = "The same command can be run again."
        raise StoreUnavailable(f"{folder.size(name)} bytes", str(written), folder.where(name), remedy)
    sync_file(path)


def _drop(path: Path) -> None:
    """Out of sight at once, then away: nobody finds half of it."""
    aside = path.with_name(f".{uuid.uuid4().hex}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    shutil.rmtree(aside, ignore_errors=True)
