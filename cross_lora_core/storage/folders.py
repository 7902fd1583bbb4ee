"""Folders that others filled, base models and adapters: on this machine or below an s3:// prefix.

folder = open_folder("s3://bucket/bases/llama?region=eu-west-1")   # or a path, or file:///…
folder.read("config.json")                                         # a small file, whole
for piece in folder.pieces("model.safetensors", 8, 4096, size=1024): ...
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from cross_lora_core.storage.opening import local_path
from cross_lora_core.storage.s3_location import S3Location

__all__ = ["Folder", "LocalFolder", "absolute_location", "check_location", "open_folder", "read_file"]


class Folder(ABC):
    """A folder's files, read whole or by range; nothing is ever written.

    Every method that reads raises FileNotFoundError where there is no such file, another OSError where
    it cannot be read or was replaced meanwhile, and on S3 the errors of a store: StoreRefused,
    StoreUnavailable, ObjectCorrupted.
    """

    location: str
    """Opens the same folder again by `open_folder`; never with credentials."""

    name: str
    """Its last part."""

    remote: bool
    """Whether it is on S3; its files then have ETags, which mean the same on every machine."""

    gap: int
    """Bytes that are better read and dropped than skipped by one more request."""

    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The files directly in it, sorted; none where there is no such folder."""

    @abstractmethod
    def folders(self) -> tuple[Folder, ...]:
        """The folders directly in it, by name."""

    @abstractmethod
    def size(self, name: str) -> int:
        """Bytes of a file."""

    @abstractmethod
    def identity(self, name: str) -> list[str | int]:
        """JSON values that differ when the file's bytes may: place, size, and time or ETag."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """A small file, whole."""

    @abstractmethod
    def pieces(self, name: str, start: int, stop: int, *, size: int) -> Iterator[bytes]:
        """Bytes `start` to `stop` (exclusive) in pieces of `size`, less only at the range's or file's end.

        Nothing says that the bytes are the right ones but what the caller compares them with. On S3 all
        come from the version of the object that was there when the folder was opened.
        """

    @abstractmethod
    def download(self, name: str, path: Path) -> None:
        """Write a file's bytes to a path of this machine; compared with nothing, like `pieces`."""

    @abstractmethod
    def local(self, names: Sequence[str], check: Callable[[Path], None]) -> Path:
        """A folder on this machine with these files at least: this one, or a copy in a bounded cache.

        Args:
            names: what is copied.
            check: is given a copy before anybody sees it, and raises ObjectCorrupted if its bytes are not
                the right ones; it is then made once more.

        Raises:
            ObjectCorrupted: the second copy was wrong too.
            StoreRefused: the cache cannot be written, or the disk is full.
        """

    @abstractmethod
    def where(self, name: str = "") -> str:
        """The file, or the folder itself, for a person to find."""

    @abstractmethod
    def file_location(self, name: str) -> str:
        """What `read_file` reads this file by."""

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return name in self.names()


class LocalFolder(Folder):
    """A folder of this machine; it need not exist."""

    remote, gap = False, 0

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self.location, self.name = str(self.path), self.path.resolve().name

    def names(self) -> tuple[str, ...]:
        """See `Folder.names`."""
        if not self.path.is_dir():
            return ()
        return tuple(sorted(one.name for one in self.path.iterdir() if one.is_file()))

    def folders(self) -> tuple[Folder, ...]:
        """See `Folder.folders`."""
        if not self.path.is_dir():
            return ()
        return tuple(LocalFolder(one) for one in sorted(self.path.iterdir()) if one.is_dir())

    def size(self, name: str) -> int:
        """See `Folder.size`."""
        return (self.path / name).stat().st_size

    def identity(self, name: str) -> list[str | int]:
        """See `Folder.identity`."""
        path = self.path / name
        found = path.stat()
        return [str(path.resolve()), found.st_size, found.st_mtime_ns]

    def read(self, name: str) -> bytes:
        """See `Folder.read`."""
        return self._plain(name).read_bytes()

    def pieces(self, name: str, start: int, stop: int, *, size: int) -> Iterator[bytes]:
        """See `Folder.pieces`.

        Plain reads: mapping a file larger than memory is refused by the system, and a mapped file
        that is cut short meanwhile kills the process.
        """
        with self._plain(name).open("rb") as stream:
            stream.seek(start)
            for position in range(start, stop, size):
                yield stream.read(min(size, stop - position))

    def download(self, name: str, path: Path) -> None:
        """See `Folder.download`."""
        shutil.copyfile(self._plain(name), path)

    def local(self, names: Sequence[str], check: Callable[[Path], None]) -> Path:  # noqa: ARG002
        """See `Folder.local`; itself."""
        return self.path

    def where(self, name: str = "") -> str:
        """See `Folder.where`."""
        return str(self.path / name)

    def file_location(self, name: str) -> str:
        """See `Folder.file_location`."""
        return str(self.path / name)

    def has(self, name: str) -> bool:
        """See `Folder.has`."""
        return (self.path / name).is_file()

    def _plain(self, name: str) -> Path:
        path = self.path / name
        if path.exists() and not path.is_file():  # a pipe or a device would never end
            raise OSError(f"not a plain file: {path}")
        return path


def open_folder(location: str | Path) -> Folder:
    """A folder by its path, `file:///…` or `s3://bucket/prefix?options`; on S3 it is listed at once.

    Raises:
        ConfigurationError: another scheme, an option that is unknown or unusable, or credentials in the URL.
        StoreRefused: no such bucket, no permission, wrong region.
        StoreUnavailable: S3 did not answer.
    """
    if isinstance(location, Path):
        return LocalFolder(location)
    if is_remote(location):
        from cross_lora_core.storage.s3_folder import S3Folder

        return S3Folder.open(S3Location.parse(location, "location of a base or adapter"))
    return LocalFolder(local_path(location, "location of a base or adapter"))


def is_remote(location: str) -> bool:
    """Whether a location is on S3."""
    return urlsplit(location).scheme == "s3"


def check_location(text: str) -> None:
    """Nothing, if the text is no URL, or one that can be used.

    Raises:
        ConfigurationError: as for `open_folder`.
    """
    if "://" in text:
        absolute_location(text)


def absolute_location(location: str) -> str:
    """The location as it can be kept: a path from the root, or an s3:// URL.

    Raises:
        ConfigurationError: as for `open_folder`.
    """
    if is_remote(location):
        return S3Location.parse(location, "location of a file, base or adapter").url
    return str(local_path(location, "location of a file, base or adapter").expanduser().absolute())


def read_file(location: str | Path) -> bytes:
    """A small file by its path or s3:// URL.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be read.
        CrossLoraError: as for `open_folder`.
    """
    if isinstance(location, Path) or not is_remote(location):
        path = Path(absolute_location(str(location)))
        return LocalFolder(path.parent).read(path.name)
    from cross_lora_core.storage.s3_folder import S3Folder

    whole = S3Location.parse(location, "location of a file")
    return S3Folder.open(whole.above()).read(whole.name)
