"""A store in an S3 bucket, over boto3.

Put-if-absent is `If-None-Match: *`; the sha256 travels as object metadata and
as the request's own checksum; `fetch` keeps verified copies in a bounded local
cache, into which files that are put go too. `fetch` asks S3 for an object's
sha256 once a minute at most, so that an object deleted by somebody else may be
read as long as that from its copy; `stat` always asks. Credentials come from
the environment as boto3 finds them.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import IO, Any, cast

from botocore.exceptions import BotoCoreError, ClientError
from s3transfer.utils import ReadFileChunk

from cross_lora_core.errors import ObjectCorrupted, ObjectExists, ObjectNotFound, StoreUnavailable
from cross_lora_core.storage.base import (
    UNKNOWN,
    Store,
    StoredObject,
    check_key,
    files_in,
    missing,
    same_folder_or_raise,
    same_or_raise,
    sha256_of,
    verify,
)
from cross_lora_core.storage.cache import ReadCache, default_cache
from cross_lora_core.storage.looks import RecentLooks
from cross_lora_core.storage.s3_client import connect
from cross_lora_core.storage.s3_errors import AlreadyThere, translating
from cross_lora_core.storage.s3_location import S3Location, S3Options
from cross_lora_core.storage.s3_reading import download, read_pieces, read_whole

__all__ = ["S3Store"]

_PART, _MOST_PARTS = 32 << 20, 10_000
_LOOK_SECONDS = 60.0
_SHA256 = re.compile(r"[0-9a-f]{64}")


class S3Store(Store):
    """Objects below `s3://bucket/prefix`; pickles without its connection or credentials.

    Args:
        bucket: must exist.
        prefix: without slashes at its ends; may be empty.
        options: how the server is spoken to.

    Raises:
        ConfigurationError: the endpoint or the AWS configuration cannot be used.
    """

    always_durable = True

    def __init__(self, bucket: str, prefix: str = "", options: S3Options | None = None) -> None:
        location = S3Location(bucket, prefix.strip("/"), options or S3Options())
        self.bucket, self.prefix, self.options = bucket, location.prefix, location.options
        self.url, self._place = location.url, location.place
        self._cache = ReadCache(self.options.cache or default_cache(), self.options.cache_bytes)
        self._client, self._looks = connect(self.options), RecentLooks(_LOOK_SECONDS)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_client", "_looks")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._client, self._looks = connect(self.options), RecentLooks(_LOOK_SECONDS)

    def put(self, key: str, data: bytes | Path, *, durable: bool = True) -> StoredObject:  # noqa: ARG002
        """See `Store.put`; files above 32 MB go up in parts, several at once.

        A key that nobody had when this store looked is not looked for again: S3 decides.
        """
        wanted = StoredObject(check_key(key), *sha256_of(data))
        found = None if self._looks.was_missing(key) else self.stat(key)
        stored = same_or_raise(found or self._put(wanted, data), wanted.sha256, self._place)
        self._looks.note(key, stored)
        if isinstance(data, Path):
            self._cache.keep(stored, data)
        return stored

    def _put(self, wanted: StoredObject, data: bytes | Path) -> StoredObject:
        key = wanted.key
        try:
            with self._translating(key):
                self._send(wanted, data)
        except AlreadyThere as error:
            found = self.stat(key)
            if found is None:
                remedy = "Another writer was stopped in between; run the command again."
                raise StoreUnavailable(
                    "an object that was just said to exist", "none", f"{self._place}/{key}", remedy
                ) from error
            return same_or_raise(found, wanted.sha256, self._place)
        return wanted

    def _send(self, wanted: StoredObject, data: bytes | Path) -> None:
        if isinstance(data, bytes):
            self._send_whole(wanted, data)
        elif wanted.size > _PART:
            self._send_parts(wanted, data)
        else:
            with data.open("rb") as file:
                self._send_whole(wanted, file)

    def _send_whole(self, wanted: StoredObject, body: bytes | IO[bytes], *, replace: bool = False) -> None:
        condition: dict[str, Any] = {} if replace else {"IfNoneMatch": "*"}
        self._client.put_object(
            **condition,
            Bucket=self.bucket,
            Key=self._full(wanted.key),
            Body=body,
            ChecksumSHA256=base64.b64encode(bytes.fromhex(wanted.sha256)).decode(),
            Metadata={"sha256": wanted.sha256},
            **self._encryption(),
        )

    def _send_parts(self, wanted: StoredObject, path: Path) -> None:
        where: dict[str, Any] = {"Bucket": self.bucket, "Key": self._full(wanted.key)}
        upload = self._client.create_multipart_upload(
            **where,
            Metadata={"sha256": wanted.sha256},
            ChecksumAlgorithm="SHA256",
            **self._encryption(),
        )
        where["UploadId"] = upload["UploadId"]
        try:
            parts = self._upload_parts(where, path, wanted.size)
            self._client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts}, IfNoneMatch="*")
        except BaseException:
            with suppress(ClientError, BotoCoreError):  # the first error is the one to tell
                self._client.abort_multipart_upload(**where)
            raise

    def _upload_parts(self, where: dict[str, Any], path: Path, size: int) -> list[Any]:
        """Each part is read from the file as it is sent; when one fails, none is begun any more."""
        length = max(_PART, -(-size // _MOST_PARTS))
        pool = ThreadPoolExecutor(self.options.streams)
        try:
            starts = range(0, size, length)
            sent = [
                pool.submit(self._upload_part, where, number, path, start, length)
                for number, start in enumerate(starts, start=1)
            ]
            return [one.result() for one in sent]
        finally:
            pool.shutdown(cancel_futures=True)

    def _upload_part(
        self, where: dict[str, Any], number: int, path: Path, start: int, length: int
    ) -> dict[str, Any]:
        with ReadFileChunk.from_filename(str(path), start, length) as chunk:
            part = cast(IO[bytes], chunk)
            digest = hashlib.sha256()
            while piece := part.read(1 << 20):
                digest.update(piece)
            part.seek(0)
            checksum = base64.b64encode(digest.digest()).decode()
            sent = self._client.upload_part(
                **where, PartNumber=number, Body=part, ContentLength=len(chunk), ChecksumSHA256=checksum
            )
        return {"PartNumber": number, "ETag": sent["ETag"], "ChecksumSHA256": checksum}

    def stat(self, key: str) -> StoredObject | None:
        """See `Store.stat`."""
        try:
            with self._translating(key):
                head = self._client.head_object(Bucket=self.bucket, Key=self._full(check_key(key)))
        except ObjectNotFound:
            return self._looks.note(key, None)
        return self._looks.note(key, StoredObject(key, _recorded(head), head["ContentLength"]))

    def fetch(self, key: str) -> Path:
        """See `Store.fetch`; a copy in the cache. What came spoiled is fetched once more."""
        with suppress(ObjectCorrupted):
            return self._fetch(self._looks.found(check_key(key)) or self._known(key))
        return self._fetch(self._known(key))

    def _fetch(self, known: StoredObject) -> Path:
        return self._cache.copy(known, lambda aside: self._download(known, aside))

    def _download(self, known: StoredObject, aside: Path) -> None:
        where = {"Bucket": self.bucket, "Key": self._full(known.key)}
        how = {"attempts": self.options.attempts, "streams": self.options.streams}
        with self._translating(known.key):
            download(self._client, where, known.size, aside, **how)
        verify(aside, known, self._place)

    def _known(self, key: str) -> StoredObject:
        found = self.stat(key)
        if found is None:
            with self._translating(key):  # asking for an object says 404 for a missing bucket too
                self._client.list_objects_v2(Bucket=self.bucket, MaxKeys=1)
            raise missing(f"{self._place}/{key}")
        return found

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """See `Store.read_range`."""
        where = {"Bucket": self.bucket, "Key": self._full(check_key(key))}
        options = {"piece": max(1, stop - start), "attempts": self.options.attempts}
        with self._translating(key):
            return b"".join(read_pieces(self._client, where, start, stop, **options))

    def list(self, prefix: str = "") -> Iterator[str]:
        """See `Store.list`; any number of keys."""
        cut = len(self.prefix) + 1 if self.prefix else 0
        with self._translating(prefix):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self._full(prefix)):
                yield from (one["Key"][cut:] for one in page.get("Contents", []))

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        self._looks.forget(key)
        with self._translating(key):
            self._client.delete_object(Bucket=self.bucket, Key=self._full(check_key(key)))

    def put_folder(self, prefix: str, folder: Path) -> tuple[StoredObject, ...]:
        """See `Store.put_folder`; the file loaders look for first is written last.

        A folder without it was interrupted: the same content finishes it.
        """
        files = files_in(folder, prefix)
        wanted = tuple(StoredObject(key, *sha256_of(path)) for key, path in files.items())
        found = [one for one in map(self.stat, self.list(f"{prefix}/")) if one]
        for key in files.keys() - {one.key for one in found}:
            self._looks.note(key, None)
        if any(one.key == wanted[-1].key for one in found):
            same_folder_or_raise(found, wanted, f"{self._place}/{prefix}")
            return wanted
        self._check_unfinished(found, wanted, prefix)
        return tuple(self.put(key, path) for key, path in files.items())

    def _check_unfinished(
        self, found: Iterable[StoredObject], wanted: tuple[StoredObject, ...], prefix: str
    ) -> None:
        foreign = sorted(one.key for one in found if one not in wanted)
        if foreign:
            raise ObjectExists(
                "no folder, or an unfinished one of the same files",
                f"an unfinished one that differs in {foreign[0].rpartition('/')[2]}",
                f"{self._place}/{prefix}",
                "If no other migration is writing it, delete what is there and run the command again.",
            )

    def put_pointer(self, key: str, data: bytes) -> None:
        """See `Store.put_pointer`; one PUT."""
        wanted = StoredObject(check_key(key), *sha256_of(data))
        with self._translating(key):
            self._send_whole(wanted, data, replace=True)

    def read_pointer(self, key: str) -> bytes | None:
        """See `Store.read_pointer`."""
        where = {"Bucket": self.bucket, "Key": self._full(check_key(key))}
        try:
            for _ in range(2):  # it may be spoiled on the way once
                with self._translating(key):
                    data, answer = read_whole(self._client, where, attempts=self.options.attempts)
                sha256 = sha256_of(data)[0]
                if _recorded(answer) in (sha256, UNKNOWN):
                    return data
        except ObjectNotFound:
            return None
        remedy = "Run the same command again; if it stays so, promote or roll back once more."
        raise ObjectCorrupted("bytes of the sha256 that was put", sha256, f"{self._place}/{key}", remedy)

    def folder_url(self, prefix: str) -> str:
        """The folder's s3:// URL."""
        return f"{self._place}/{check_key(prefix)}"

    def _encryption(self) -> dict[str, Any]:
        asked = {"ServerSideEncryption": self.options.sse, "SSEKMSKeyId": self.options.kms_key}
        return {name: value for name, value in asked.items() if value}

    def _full(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def _translating(self, key: str) -> AbstractContextManager[None]:
        return translating(f"{self._place}/{key}")


def _recorded(answer: Mapping[str, Any]) -> str:
    """The sha256 in an object's metadata, which anybody may have written, its name in any case."""
    metadata = {name.lower(): value for name, value in answer["Metadata"].items()}
    found = metadata.get("sha256", "")
    return found if _SHA256.fullmatch(found) else UNKNOWN
