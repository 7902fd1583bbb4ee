"""Bytes by key: what every store promises.

- `put` is put-if-absent: the same bytes again are fine, other bytes raise ObjectExists.
- An object is visible whole or not at all; an interrupted write leaves nothing.
- Its sha256 is kept beside it and verified whenever it is read whole: by each process once, as long as the
  file on its disk stays as it is (`verified` says how that is known).
- A pointer is the one thing that changes: small, replaced whole, so that a reader sees the old or the new.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cross_lora_core.errors import ConfigurationError, ObjectCorrupted, ObjectExists, ObjectNotFound
from cross_lora_core.storage.verified import VERIFIED

__all__ = [
    "MARKER",
    "UNKNOWN",
    "Store",
    "StoredObject",
    "check_key",
    "files_in",
    "is_key",
    "missing",
    "same_folder_or_raise",
    "same_or_raise",
    "sha256_of",
    "verify",
]

MARKER = "adapter_config.json"
"""Written last where a folder cannot appear at once: loaders look for it first."""

UNKNOWN = "unknown"
"""In place of the sha256 of an object that has none recorded; no bytes verify against it."""

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,254}")
_LONGEST = 900
_CHUNK = 1 << 20


@dataclass(frozen=True)
class StoredObject:
    """Reference to a stored object; what tasks pass around instead of tensors.

    Attributes:
        key: name in the store.
        sha256: hex digest of the bytes.
        size: in bytes.
    """

    key: str
    sha256: str
    size: int


def is_key(text: str) -> bool:
    """Whether the text is safe as a path on every store."""
    return len(text) <= _LONGEST and all(_SEGMENT.fullmatch(segment) for segment in text.split("/"))


def check_key(key: str) -> str:
    """The key itself, if it is safe as a path on every store.

    Raises:
        ConfigurationError: absolute, empty or hidden segments, `..`, odd characters, or too long.
    """
    if not is_key(key):
        raise ConfigurationError(
            "path segments of letters, digits and . _ + - that start with a letter, digit or _, "
            f"each up to 255 characters, together up to {_LONGEST}",
            repr(key if len(key) < 80 else f"{key[:60]}… ({len(key)} characters)"),
            "store key",
            "Use a plain, short relative name.",
        )
    return key


def sha256_of(data: bytes | Path) -> tuple[str, int]:
    """Hex sha256 and size of bytes or of a file; a file is read in pieces."""
    if isinstance(data, bytes):
        return hashlib.sha256(data).hexdigest(), len(data)
    digest, size = hashlib.sha256(), 0
    with data.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


class Store(ABC):
    """A place for immutable objects."""

    url: str
    """Opens the same store again by `open_store`; never with credentials."""

    always_durable: bool
    """Whether what is put is safe from a loss of power here, whatever `put` is told."""

    @abstractmethod
    def put(self, key: str, data: bytes | Path, *, durable: bool = True) -> StoredObject:
        """Store bytes, or a file's content, under a key that nothing else has.

        Args:
            key: name of the object.
            data: the bytes, or a file that has them.
            durable: whether they are on the disk when this returns. If not, a loss of power within the next
                moments may lose or spoil them; what is spoiled is seen when it is read.

        Raises:
            ObjectExists: the key holds other bytes.
            StoreRefused: no permission, no space, no bucket.
            StoreUnavailable: the store did not answer.
        """

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """A folder for files that are to be put, removed afterwards with what is in it.

        Where the store is on a disk of this machine, so is the folder, and `put` takes a file of it without
        copying: it must not be written to any more.
        """
        with tempfile.TemporaryDirectory(prefix="cross-lora-") as folder:
            yield Path(folder)

    @abstractmethod
    def stat(self, key: str) -> StoredObject | None:
        """The object's reference, or None."""

    @abstractmethod
    def fetch(self, key: str) -> Path:
        """A local file with the object's verified bytes; must not be written to.

        Raises:
            ObjectNotFound: there is no such object.
            ObjectCorrupted: its bytes are not the ones that were put.
        """

    @abstractmethod
    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop` (exclusive), unverified.

        Raises:
            ObjectNotFound: there is no such object.
        """

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[str]:
        """Keys that begin with a prefix, sorted."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; nothing happens if there is none."""

    @abstractmethod
    def put_folder(self, prefix: str, folder: Path) -> tuple[StoredObject, ...]:
        """Store every file of a folder, and of those in it, under `prefix/`; readers see all or none.

        Raises:
            ObjectExists: the prefix holds other content; nothing is added to it.
            ConfigurationError: the folder has no files, or one with an unsafe name.
        """

    @abstractmethod
    def folder_url(self, prefix: str) -> str:
        """What a reader of the folder is told: a local path, or an s3:// URL."""

    @abstractmethod
    def put_pointer(self, key: str, data: bytes) -> None:
        """Store or replace a pointer; a reader meanwhile sees the old bytes or the new ones, whole.

        Raises:
            StoreRefused: no permission, no space, no bucket.
            StoreUnavailable: the store did not answer.
        """

    @abstractmethod
    def read_pointer(self, key: str) -> bytes | None:
        """The pointer's bytes, or None where there is none."""

    def get(self, key: str) -> bytes:
        """The object's verified bytes; raises like `fetch`."""
        try:
            return self.fetch(key).read_bytes()
        except FileNotFoundError:  # deleted by another process meanwhile
            raise missing(f"{self.url}/{key}") from None

    def exists(self, key: str) -> bool:
        """Whether the key holds an object."""
        return self.stat(key) is not None


def missing(where: str) -> ObjectNotFound:
    """The error for an object that is not there."""
    remedy = "Run the migration again; it is computed anew."
    return ObjectNotFound("a stored object", "none", where, remedy)


def same_or_raise(found: StoredObject, sha256: str, where: str) -> StoredObject:
    """The object that is there, if it has these bytes.

    Raises:
        ObjectExists: it has others.
    """
    if found.sha256 != sha256:
        raise ObjectExists(
            f"no object, or the same bytes ({sha256[:12]}…)",
            f"other bytes ({found.sha256[:12]}…)",
            f"{where}/{found.key}",
            "Objects are never overwritten; delete it first if it must go.",
        )
    return found


def files_in(folder: Path, prefix: str) -> dict[str, Path]:
    """The files of a folder and of those in it, by their keys under `prefix/`, the marker last.

    Raises:
        ConfigurationError: there are none, one has an unsafe name, or one is a link.
    """
    linked = next((path for path in folder.rglob("*") if path.is_symlink()), None)
    if linked is not None:
        remedy = "Replace the link by what it points to."
        raise ConfigurationError(
            "files and folders of its own", f"a link, {linked.name}", str(folder), remedy
        )
    found = [path for path in folder.rglob("*") if path.is_file()]
    files = {check_key(f"{prefix}/{path.relative_to(folder).as_posix()}"): path for path in found}
    if not files:
        raise ConfigurationError("a folder with files", "none", str(folder), "Write the files first.")
    return {key: files[key] for key in sorted(files, key=lambda key: (key == f"{prefix}/{MARKER}", key))}


def same_folder_or_raise(found: Iterable[StoredObject], wanted: Iterable[StoredObject], where: str) -> None:
    """Nothing, if the folder that is there has these files and no others.

    Raises:
        ObjectExists: it differs; says in which file.
    """
    there, mine = ({one.key: one.sha256 for one in objects} for objects in (found, wanted))
    differing = sorted(key for key in there.keys() | mine.keys() if there.get(key) != mine.get(key))
    if differing:
        raise ObjectExists(
            "no folder, or the same files",
            f"a folder that differs in {', '.join(key.rpartition('/')[2] for key in differing[:3])}",
            where,
            "Objects are never overwritten; delete the folder first if it must go.",
        )


def verify(path: Path, expected: StoredObject, where: str) -> Path:
    """The path itself, if its bytes are the ones that were put, as `VERIFIED` finds or remembers.

    Raises:
        ObjectCorrupted: they are not.
    """
    sha256, size = VERIFIED.sha256_of(path, expected.sha256)
    if sha256 != expected.sha256:
        raise ObjectCorrupted(
            f"sha256 {expected.sha256[:12]}… of {expected.size} bytes",
            f"{sha256[:12]}… of {size} bytes",
            f"{where}/{expected.key}",
            "Delete the object and run the migration again; it is computed anew.",
        )
    return path
