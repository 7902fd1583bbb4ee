"""A store in a local directory: write aside, then link or rename into place.

The checksum of `a/b` is kept in `.checksums/a/b`, written before the object
appears, so that an object is never without one. Both steps happen under one
lock of the whole store, which the system frees when its holder is killed: no
second writer can put its own checksum beside the first one's object. A
checksum whose object never came is overwritten by the next put.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from cross_lora_core.errors import ObjectExists
from cross_lora_core.storage.base import (
    UNKNOWN,
    Store,
    StoredObject,
    check_key,
    files_in,
    is_key,
    missing,
    same_folder_or_raise,
    same_or_raise,
    sha256_of,
    verify,
)
from cross_lora_core.storage.disk import make_folder, refusing, remove_stale, sync_file, sync_folder
from cross_lora_core.storage.turns import one_at_a_time

__all__ = ["LocalStore"]

_STAGING, _CHECKSUMS, _LOCK = ".staging", ".checksums", ".lock"
_STALE_DAYS = 7
"""Longer than a task computes in a workspace what it then puts."""


class LocalStore(Store):
    """Objects as plain files below a root; safe for several processes at once.

    An object and a folder cannot share a name: `a` and `a/b` exclude each other.

    Args:
        root: made if it is not there. Staged files older than a week, left by killed writers, are removed.

    Raises:
        StoreRefused: the root cannot be made or written.
    """

    always_durable = False

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.url = self.root.as_uri()
        with refusing(self.root):
            (self.root / _STAGING).mkdir(parents=True, exist_ok=True)
            (self.root / _CHECKSUMS).mkdir(exist_ok=True)
            remove_stale((self.root / _STAGING).iterdir(), _STALE_DAYS)

    def put(self, key: str, data: bytes | Path, *, durable: bool = True) -> StoredObject:
        """See `Store.put`."""
        target = self.root / check_key(key)
        with refusing(target), self._staged() as staged:
            self._stage(staged, data, durable)
            wanted = StoredObject(key, *sha256_of(staged))
            with self._turn():
                return self._place(staged, wanted, durable)

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """See `Store.workspace`."""
        with self._staged() as folder:
            with refusing(self.root):
                folder.mkdir()
            yield folder

    def _place(self, staged: Path, wanted: StoredObject, durable: bool) -> StoredObject:
        """Make a staged file visible; a hard link fails where a rename would overwrite."""
        target = self.root / wanted.key
        found = self.stat(wanted.key)
        if found is not None:
            return self._same(found, wanted)
        self._check_free(target)
        make_folder(target.parent)
        self._write_checksum(wanted, durable)
        os.link(staged, target)
        if durable:
            sync_folder(target.parent)
        return wanted

    def _same(self, found: StoredObject, wanted: StoredObject) -> StoredObject:
        """The object that is there; a checksum that was lost is written again if the bytes prove right."""
        if found.sha256 == UNKNOWN:
            found = StoredObject(found.key, *sha256_of(self.root / found.key))
        same = same_or_raise(found, wanted.sha256, self.url)
        if self.stat(same.key) != same:
            self._write_checksum(same)
        return same

    def _check_free(self, target: Path) -> None:
        """Refuse a name that a folder has, or that lies below an object."""
        above = [one for one in target.parents if one.is_relative_to(self.root)]
        blocking = target if target.is_dir() else next((one for one in above if one.is_file()), None)
        if blocking is not None:
            raise ObjectExists(
                "a name that is free",
                f"{'a folder' if blocking.is_dir() else 'an object'} at {blocking.relative_to(self.root)}",
                f"{self.url}/{target.relative_to(self.root)}",
                "Choose another key; an object and a folder cannot share a name.",
            )

    def stat(self, key: str) -> StoredObject | None:
        """See `Store.stat`."""
        target = self.root / check_key(key)
        with refusing(target):
            if not target.is_file():
                return None
            try:
                recorded = json.loads((self.root / _CHECKSUMS / key).read_text())
                return StoredObject(key, recorded["sha256"], recorded["size"])
            except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
                return StoredObject(key, UNKNOWN, target.stat().st_size) if target.is_file() else None

    def fetch(self, key: str) -> Path:
        """See `Store.fetch`; the object's own file."""
        known = self._known(key)
        try:
            with refusing(self.root / key):
                return verify(self.root / key, known, self.url)
        except FileNotFoundError:
            raise missing(f"{self.url}/{key}") from None

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """See `Store.read_range`."""
        self._known(key)
        with refusing(self.root / key), (self.root / key).open("rb") as file:
            file.seek(start)
            return file.read(max(0, stop - start))

    def list(self, prefix: str = "") -> Iterator[str]:
        """See `Store.list`; only the folders that can hold such keys are looked at."""
        above, keys = prefix.rpartition("/")[0], []
        if prefix.startswith("/") or (
            above and not is_key(above)
        ):  # no key begins so, and it may lead outside
            return
        for folder, below, names in os.walk(self.root / above):
            if Path(folder) == self.root:
                below[:] = [name for name in below if not name.startswith(".")]
            keys += [(Path(folder) / name).relative_to(self.root).as_posix() for name in names]
        yield from sorted(key for key in keys if key.startswith(prefix) and not key.startswith("."))

    def delete(self, key: str) -> None:
        """See `Store.delete`; folders it leaves empty go too."""
        check_key(key)
        with refusing(self.root / key), self._turn():
            for top in (self.root, self.root / _CHECKSUMS):
                if (top / key).is_file():
                    (top / key).unlink()
                    _remove_empty((top / key).parent, top)

    def put_folder(self, prefix: str, folder: Path) -> tuple[StoredObject, ...]:
        """See `Store.put_folder`; the folder appears by one rename."""
        target = self.root / check_key(prefix)
        sources = files_in(folder, prefix)
        with refusing(target), self._staged() as staged:
            for key, path in sources.items():
                copy = staged / key.removeprefix(f"{prefix}/")
                copy.parent.mkdir(parents=True, exist_ok=True)
                self._stage(copy, path)
            for one in (staged, *(path for path in staged.rglob("*") if path.is_dir())):
                sync_folder(one)
            files = files_in(staged, prefix)
            wanted = tuple(StoredObject(key, *sha256_of(path)) for key, path in files.items())
            with self._turn():
                self._place_folder(staged, target, prefix, wanted)
        return wanted

    def _place_folder(
        self, staged: Path, target: Path, prefix: str, wanted: tuple[StoredObject, ...]
    ) -> None:
        there = [self.stat(key) for key in self.list(f"{prefix}/")]
        if there:
            same_folder_or_raise([one for one in there if one], wanted, f"{self.url}/{prefix}")
            return
        if not target.is_dir():  # an empty folder may be replaced
            self._check_free(target / "any")
        for one in wanted:
            self._write_checksum(one)
        make_folder(target.parent)
        staged.rename(target)
        sync_folder(target.parent)

    def put_pointer(self, key: str, data: bytes) -> None:
        """See `Store.put_pointer`; by one rename."""
        target = self.root / check_key(key)
        with refusing(target), self._staged() as staged:
            self._stage(staged, data)
            make_folder(target.parent)
            staged.replace(target)
            sync_folder(target.parent)

    def read_pointer(self, key: str) -> bytes | None:
        """See `Store.read_pointer`."""
        target = self.root / check_key(key)
        try:
            with refusing(target):
                return target.read_bytes()
        except FileNotFoundError:
            return None

    def folder_url(self, prefix: str) -> str:
        """The folder's path."""
        return str(self.root / check_key(prefix))

    def _known(self, key: str) -> StoredObject:
        found = self.stat(key)
        if found is None:
            raise missing(f"{self.url}/{key}")
        return found

    def _write_checksum(self, one: StoredObject, durable: bool = True) -> None:
        path = self.root / _CHECKSUMS / one.key
        if path.is_dir():  # of objects that never came
            shutil.rmtree(path)
        for above in path.parents:
            if above.is_file():
                above.unlink()
        make_folder(path.parent)
        with self._staged() as aside:
            self._stage(aside, json.dumps({"sha256": one.sha256, "size": one.size}).encode(), durable)
            aside.replace(path)
        if durable:
            sync_folder(path.parent)

    def _stage(self, path: Path, data: bytes | Path, durable: bool = True) -> None:
        """Bytes, a copy of a file, or a file of a workspace itself, at a staged path."""
        if isinstance(data, bytes):
            path.write_bytes(data)
        elif data.is_relative_to(self.root / _STAGING):
            os.link(data, path)
        else:
            shutil.copyfile(data, path)
        if durable:
            sync_file(path)

    def _turn(self) -> AbstractContextManager[None]:
        """One writer at a time, in all processes; freed by the system if this one is killed."""
        return one_at_a_time(self.root / _LOCK)

    @contextmanager
    def _staged(self) -> Iterator[Path]:
        path = self.root / _STAGING / uuid.uuid4().hex
        try:
            yield path
        finally:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _remove_empty(folder: Path, top: Path) -> None:
    while folder != top and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
