"""A store in a local directory: write aside, then link or rename into place.

The checksum of `a/b` is kept in `.checksums/a/b`, written before the object
appears, so that an object is never without one. A checksum whose object never
came is overwritten by the next put.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cross_lora_core.errors import ObjectNotFound, StoreRefused
from cross_lora_core.storage.base import Store, StoredObject, check_key, same_or_raise, sha256_of, verify

__all__ = ["LocalStore"]

_STAGING, _CHECKSUMS = ".staging", ".checksums"
_STALE_SECONDS = 24 * 3600
_REFUSALS = {
    errno.EACCES: "Give this user write permission, or set CROSS_LORA_STORE to another folder.",
    errno.EPERM: "Give this user write permission, or set CROSS_LORA_STORE to another folder.",
    errno.EROFS: "The file system is read-only; set CROSS_LORA_STORE to another folder.",
    errno.ENOSPC: "The disk is full; free some space and run the same command again.",
    errno.EDQUOT: "The disk quota is used up; free some space and run the same command again.",
    errno.ENOTDIR: "A file stands where a folder should be; set CROSS_LORA_STORE to another folder.",
}


class LocalStore(Store):
    """Objects as plain files below a root; safe for several processes at once.

    Args:
        root: made if it is not there. Staged files older than a day, left by killed writers, are removed.

    Raises:
        StoreRefused: the root cannot be made or written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.url = self.root.as_uri()
        with self._refusing(self.root):
            (self.root / _STAGING).mkdir(parents=True, exist_ok=True)
            (self.root / _CHECKSUMS).mkdir(exist_ok=True)
            self._sweep()

    def put(self, key: str, data: bytes | Path) -> StoredObject:
        """See `Store.put`."""
        target = self.root / check_key(key)
        sha256, size = sha256_of(data)
        with self._refusing(target), self._staged() as staged:
            _write(staged, data)
            return self._place(staged, StoredObject(key, sha256, size))

    def _place(self, staged: Path, wanted: StoredObject) -> StoredObject:
        """Make a staged file visible; a hard link fails where a rename would overwrite."""
        target = self.root / wanted.key
        found = self.stat(wanted.key)
        if found is not None:
            return same_or_raise(found, wanted.sha256, self.url)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._write_checksum(wanted)
        try:
            os.link(staged, target)
        except FileExistsError:
            return self._lost_race(wanted)
        _sync_folder(target.parent)
        return wanted

    def _lost_race(self, wanted: StoredObject) -> StoredObject:
        """Another writer was first: what counts is its bytes, and the checksum must be theirs."""
        sha256, size = sha256_of(self.root / wanted.key)
        found = StoredObject(wanted.key, sha256, size)
        self._write_checksum(found)
        return same_or_raise(found, wanted.sha256, self.url)

    def stat(self, key: str) -> StoredObject | None:
        """See `Store.stat`."""
        target = self.root / check_key(key)
        if not target.is_file():
            return None
        try:
            recorded = json.loads((self.root / _CHECKSUMS / key).read_text())
        except (FileNotFoundError, ValueError):
            return StoredObject(key, "unknown", target.stat().st_size)
        return StoredObject(key, recorded["sha256"], recorded["size"])

    def fetch(self, key: str) -> Path:
        """See `Store.fetch`; the object's own file."""
        return verify(self.root / key, self._known(key), self.url)

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """See `Store.read_range`."""
        self._known(key)
        with (self.root / key).open("rb") as file:
            file.seek(start)
            return file.read(max(0, stop - start))

    def list(self, prefix: str = "") -> Iterator[str]:
        """See `Store.list`."""
        keys = (
            path.relative_to(self.root).as_posix()
            for path in self.root.rglob("*")
            if path.is_file() and not path.relative_to(self.root).parts[0].startswith(".")
        )
        yield from sorted(key for key in keys if key.startswith(prefix))

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        with self._refusing(self.root / key):
            (self.root / check_key(key)).unlink(missing_ok=True)
            (self.root / _CHECKSUMS / key).unlink(missing_ok=True)

    def put_folder(self, prefix: str, folder: Path) -> tuple[StoredObject, ...]:
        """See `Store.put_folder`; the folder appears by one rename."""
        target = self.root / check_key(prefix)
        wanted = [
            StoredObject(check_key(f"{prefix}/{path.name}"), *sha256_of(path)) for path in _files(folder)
        ]
        with self._refusing(target), self._staged() as staged:
            shutil.copytree(folder, staged)
            for path in _files(staged):
                _sync_file(path)
            if not target.exists():
                for one in wanted:
                    self._write_checksum(one)
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    staged.rename(target)
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                _sync_folder(target.parent)
        return tuple(self._same_file(one) for one in wanted)

    def _same_file(self, wanted: StoredObject) -> StoredObject:
        found = self.stat(wanted.key) or StoredObject(wanted.key, "missing", 0)
        return same_or_raise(found, wanted.sha256, self.url)

    def folder_url(self, prefix: str) -> str:
        """The folder's path."""
        return str(self.root / check_key(prefix))

    def _known(self, key: str) -> StoredObject:
        found = self.stat(key)
        if found is None:
            raise ObjectNotFound(
                "a stored object",
                "none",
                f"{self.url}/{key}",
                "Run the migration again; it is computed anew.",
            )
        return found

    def _write_checksum(self, one: StoredObject) -> None:
        path = self.root / _CHECKSUMS / one.key
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.root / _STAGING / uuid.uuid4().hex
        aside.write_text(json.dumps({"sha256": one.sha256, "size": one.size}))
        _sync_file(aside)
        aside.replace(path)

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

    def _sweep(self) -> None:
        for path in (self.root / _STAGING).iterdir():
            try:
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            except OSError:  # another process sweeps too, or the folder is read-only: nothing is lost
                continue

    @contextmanager
    def _refusing(self, where: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _REFUSALS:
                raise
            raise StoreRefused(
                "a folder that can be written", str(error.strerror), str(where), _REFUSALS[error.errno]
            ) from error


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def _write(path: Path, data: bytes | Path) -> None:
    if isinstance(data, bytes):
        path.write_bytes(data)
    else:
        shutil.copyfile(data, path)
    _sync_file(path)


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
