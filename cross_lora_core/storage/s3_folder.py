"""A folder below an S3 prefix, listed once and read by range.

What a read guarantees: its bytes are of the version that was listed (`If-Match`), a
whole file's are compared with the checksum S3 keeps for it or with its ETag, and
a range's with nothing: TCP's and TLS's own checks aside, only the digests a caller has
can tell that they are right.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cross_lora_core.errors import ObjectNotFound, StoreUnavailable
from cross_lora_core.storage.base import is_key
from cross_lora_core.storage.cache import default_cache
from cross_lora_core.storage.folder_cache import FolderCache
from cross_lora_core.storage.folders import Folder
from cross_lora_core.storage.s3_client import connect
from cross_lora_core.storage.s3_errors import AlreadyThere, translating
from cross_lora_core.storage.s3_location import S3Location, S3Options
from cross_lora_core.storage.s3_reading import download, read_parts, read_whole

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["S3Folder"]

_MD5 = re.compile(r'"[0-9a-f]{32}"')


@dataclass(frozen=True)
class _Listed:
    size: int
    etag: str


class S3Folder(Folder):
    """The objects directly below a prefix, as they were when it was opened."""

    remote, gap = True, 1 << 20

    def __init__(
        self, location: S3Location, files: Mapping[str, _Listed], below: tuple[str, ...], client: S3Client
    ) -> None:
        self._at, self._files, self._below, self._client = location, files, below, client
        self.location, self.name = location.url, location.name

    @classmethod
    def open(cls, location: S3Location) -> S3Folder:
        """List the folder; one that is not there is empty. Names that are unsafe on a disk are left out.

        Raises:
            StoreRefused: no such bucket, no permission, wrong region.
            StoreUnavailable: S3 did not answer.
        """
        client = _client(location.options, _environment())
        prefix = f"{location.prefix}/" if location.prefix else ""
        files: dict[str, _Listed] = {}
        below: list[str] = []
        with translating(location.place):
            pages = client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=location.bucket, Prefix=prefix, Delimiter="/"):
                for one in page.get("Contents", []):
                    files[one["Key"].removeprefix(prefix)] = _Listed(one["Size"], one["ETag"])
                below += [
                    one["Prefix"].removeprefix(prefix).rstrip("/") for one in page.get("CommonPrefixes", [])
                ]
        safe = {name: files[name] for name in sorted(files) if is_key(name)}
        return cls(location, safe, tuple(sorted(filter(is_key, below))), client)

    def names(self) -> tuple[str, ...]:
        """See `Folder.names`."""
        return tuple(self._files)

    def folders(self) -> tuple[Folder, ...]:
        """See `Folder.folders`."""
        return tuple(S3Folder.open(self._at.below(name)) for name in self._below)

    def size(self, name: str) -> int:
        """See `Folder.size`."""
        return self._listed(name).size

    def identity(self, name: str) -> list[str | int]:
        """See `Folder.identity`."""
        listed = self._listed(name)
        return [self._at.options.endpoint or "", self.where(name), listed.size, listed.etag]

    def read(self, name: str) -> bytes:
        """See `Folder.read`; an ETag that is no MD5 is told from spoiled bytes by reading twice."""
        where, attempts = self._request(name), self._at.options.attempts
        with self._reading(name):
            data, answer = read_whole(self._client, where, attempts=attempts)
            if _agrees(data, answer):
                return data
            again, answer = read_whole(self._client, where, attempts=attempts)
            if again == data or _agrees(again, answer):
                return again
        remedy = "They are spoiled on the way; the same command can be run again."
        raise StoreUnavailable("the same bytes twice", "others each time", self.where(name), remedy)

    def pieces(self, name: str, start: int, stop: int, *, size: int) -> Iterator[bytes]:
        """See `Folder.pieces`; one request, or of many bytes several at once."""
        options = self._at.options
        how = {"piece": size, "attempts": options.attempts, "streams": options.streams}
        with self._reading(name):
            yield from read_parts(self._client, self._request(name), start, stop, **how)

    def download(self, name: str, path: Path) -> None:
        """See `Folder.download`; over several streams at once."""
        where, size, options = self._request(name), self._listed(name).size, self._at.options
        with self._reading(name):
            download(self._client, where, size, path, attempts=options.attempts, streams=options.streams)

    def local(self, names: Sequence[str], check: Callable[[Path], None]) -> Path:
        """See `Folder.local`; in the cache folder of the options."""
        options = self._at.options
        cache = FolderCache((options.cache or default_cache()) / "folders", options.cache_bytes)
        return cache.copy(self, names, check)

    def where(self, name: str = "") -> str:
        """See `Folder.where`."""
        return (self._at.below(name) if name else self._at).place

    def file_location(self, name: str) -> str:
        """See `Folder.file_location`."""
        return self._at.below(name).url

    def _listed(self, name: str) -> _Listed:
        try:
            return self._files[name]
        except KeyError:
            raise FileNotFoundError(f"no such object: {self.where(name)}") from None

    def _request(self, name: str) -> dict[str, Any]:
        return {
            "Bucket": self._at.bucket,
            "Key": self._at.below(name).prefix,
            "IfMatch": self._listed(name).etag,
        }

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        try:
            with translating(self.where(name)):
                yield
        except ObjectNotFound as error:
            raise FileNotFoundError(f"deleted since it was listed: {self.where(name)}") from error
        except AlreadyThere as error:  # the precondition that failed is that of `If-Match`
            raise OSError(f"replaced since it was listed: {self.where(name)}") from error


def _agrees(data: bytes, answer: Mapping[str, Any]) -> bool:
    """Whether the bytes have the MD5 that the ETag of an object put whole mostly is."""
    etag: str = answer.get("ETag", "")
    if not _MD5.fullmatch(etag) or answer.get("ServerSideEncryption", "AES256") != "AES256":
        return True
    return hashlib.md5(data, usedforsecurity=False).hexdigest() == etag.strip('"')


@lru_cache(maxsize=8)
def _client(options: S3Options, _environment: str) -> S3Client:
    """One connection for all folders that are reached alike, while the environment stays as it is."""
    return connect(options)


def _environment() -> str:
    found = sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))
    return hashlib.sha256(repr(found).encode()).hexdigest()
