"""A store in an S3 bucket, over boto3.

Put-if-absent is `If-None-Match: *`; the sha256 travels as object metadata and
as the request's own checksum; `fetch` keeps verified copies in a bounded local
cache. Credentials come from the environment as boto3 finds them.
"""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from cross_lora_core.errors import CrossLoraError, ObjectNotFound, StoreRefused, StoreUnavailable
from cross_lora_core.storage.base import (
    MARKER,
    Store,
    StoredObject,
    check_key,
    same_or_raise,
    sha256_of,
    verify,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["S3Store"]

_PART = 64 << 20
_DEFAULT_CACHE_BYTES = 20 << 30
_REMEDIES = {
    "NoSuchBucket": "Create the bucket, or correct CROSS_LORA_STORE.",
    "AccessDenied": "Grant s3:GetObject, s3:PutObject, s3:ListBucket and s3:DeleteObject on the bucket.",
    "InvalidAccessKeyId": "Set valid AWS credentials in the environment.",
    "SignatureDoesNotMatch": "Set valid AWS credentials in the environment.",
    "ExpiredToken": "The credentials have expired; renew them and run the same command again.",
    "PermanentRedirect": "The bucket is in another region; set region= in CROSS_LORA_STORE or AWS_REGION.",
    "AuthorizationHeaderMalformed": "The bucket is in another region; set region= in CROSS_LORA_STORE.",
}


class S3Store(Store):
    """Objects below `s3://bucket/prefix`.

    Args:
        bucket: must exist.
        prefix: without slashes at its ends; may be empty.
        endpoint: of an S3-compatible server; otherwise what boto3 finds.
        region: otherwise what boto3 finds.
        path_style: address `endpoint/bucket/key`, as most S3-compatible servers want.
        cache: folder of verified copies.
        cache_bytes: oldest copies are dropped beyond this size.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint: str | None = None,
        region: str | None = None,
        path_style: bool = False,
        cache: Path | None = None,
        cache_bytes: int = _DEFAULT_CACHE_BYTES,
    ) -> None:
        self.bucket, self.prefix = bucket, prefix.strip("/")
        self.url = "/".join(part for part in (f"s3://{bucket}", self.prefix) if part)
        self._client = _client(endpoint, region, path_style)
        self._cache = cache or Path(tempfile.gettempdir()) / f"cross-lora-cache-{os.getuid()}"
        self._cache_bytes = cache_bytes

    def put(self, key: str, data: bytes | Path) -> StoredObject:
        """See `Store.put`; files above 64 MB go up in parts."""
        sha256, size = sha256_of(data)
        wanted = StoredObject(check_key(key), sha256, size)
        found = self.stat(key)
        if found is not None:
            return same_or_raise(found, sha256, self.url)
        try:
            with self._translating(key):
                self._send(wanted, data)
        except _AlreadyThere:
            found = self.stat(key)
            if found is None:
                raise StoreUnavailable(
                    "an object that was just said to exist",
                    "none",
                    f"{self.url}/{key}",
                    "Run the command again.",
                ) from None
            return same_or_raise(found, sha256, self.url)
        return wanted

    def _send(self, wanted: StoredObject, data: bytes | Path) -> None:
        if isinstance(data, Path) and wanted.size > _PART:
            self._send_parts(wanted, data)
            return
        self._client.put_object(
            Bucket=self.bucket,
            Key=self._full(wanted.key),
            Body=data if isinstance(data, bytes) else data.read_bytes(),
            IfNoneMatch="*",
            ChecksumSHA256=base64.b64encode(bytes.fromhex(wanted.sha256)).decode(),
            Metadata={"sha256": wanted.sha256},
        )

    def _send_parts(self, wanted: StoredObject, path: Path) -> None:
        where: dict[str, Any] = {"Bucket": self.bucket, "Key": self._full(wanted.key)}
        upload = self._client.create_multipart_upload(
            **where, Metadata={"sha256": wanted.sha256}, ChecksumAlgorithm="SHA256"
        )
        where["UploadId"] = upload["UploadId"]
        try:
            parts = list(self._upload_parts(where, path))
            self._client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts}, IfNoneMatch="*")
        except BaseException:
            self._client.abort_multipart_upload(**where)
            raise

    def _upload_parts(self, where: dict[str, Any], path: Path) -> Iterator[Any]:
        with path.open("rb") as file:
            number = 0
            while chunk := file.read(_PART):
                number += 1
                checksum = base64.b64encode(hashlib.sha256(chunk).digest()).decode()
                sent = self._client.upload_part(
                    **where, PartNumber=number, Body=chunk, ChecksumSHA256=checksum
                )
                yield {"PartNumber": number, "ETag": sent["ETag"], "ChecksumSHA256": checksum}

    def stat(self, key: str) -> StoredObject | None:
        """See `Store.stat`."""
        try:
            with self._translating(key):
                head = self._client.head_object(Bucket=self.bucket, Key=self._full(check_key(key)))
        except ObjectNotFound:
            return None
        return StoredObject(key, head["Metadata"].get("sha256", "unknown"), head["ContentLength"])

    def fetch(self, key: str) -> Path:
        """See `Store.fetch`; a copy in the cache."""
        known = self.stat(key)
        if known is None:
            raise self._missing(key)
        cached = self._cache / known.sha256
        if cached.is_file() and sha256_of(cached)[0] == known.sha256:
            cached.touch()
            return cached
        self._cache.mkdir(parents=True, exist_ok=True)
        self._make_room(known.size)
        aside = self._cache / f".{uuid.uuid4().hex}"
        try:
            with self._translating(key), aside.open("wb") as file:
                self._client.download_fileobj(self.bucket, self._full(key), file)
            verify(aside, known, self.url).replace(cached)
        finally:
            aside.unlink(missing_ok=True)
        return cached

    def _make_room(self, size: int) -> None:
        entries = sorted(self._cache.glob("[0-9a-f]*"), key=lambda path: path.stat().st_mtime)
        held = sum(path.stat().st_size for path in entries)
        for path in entries:
            if held + size <= self._cache_bytes:
                return
            held -= path.stat().st_size
            path.unlink(missing_ok=True)

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """See `Store.read_range`."""
        if stop <= start:
            return b""
        with self._translating(key):
            answer = self._client.get_object(
                Bucket=self.bucket, Key=self._full(check_key(key)), Range=f"bytes={start}-{stop - 1}"
            )
            return answer["Body"].read()

    def list(self, prefix: str = "") -> Iterator[str]:
        """See `Store.list`; any number of keys."""
        cut = len(self.prefix) + 1 if self.prefix else 0
        with self._translating(prefix):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self._full(prefix)):
                yield from (one["Key"][cut:] for one in page.get("Contents", []))

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        with self._translating(key):
            self._client.delete_object(Bucket=self.bucket, Key=self._full(check_key(key)))

    def put_folder(self, prefix: str, folder: Path) -> tuple[StoredObject, ...]:
        """See `Store.put_folder`; the file loaders look for first is written last."""
        files = sorted(
            (path for path in folder.iterdir() if path.is_file()), key=lambda path: path.name == MARKER
        )
        return tuple(self.put(f"{prefix}/{path.name}", path) for path in files)

    def folder_url(self, prefix: str) -> str:
        """The folder's s3:// URL."""
        return f"{self.url}/{check_key(prefix)}"

    def _full(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def _missing(self, key: str) -> ObjectNotFound:
        remedy = "Run the migration again; it is computed anew."
        return ObjectNotFound("a stored object", "none", f"{self.url}/{key}", remedy)

    @contextmanager
    def _translating(self, key: str) -> Iterator[None]:
        """boto3's errors as ours: not there, refused for good, or worth another try."""
        try:
            yield
        except ClientError as error:
            raise self._translated(error, key) from error
        except NoCredentialsError as error:
            remedy = "Set AWS credentials in the environment."
            raise StoreRefused("credentials", "none", self.url, remedy) from error
        except BotoCoreError as error:
            remedy = "Check the network and the endpoint; the same command can be run again."
            raise StoreUnavailable("an answer", str(error), f"{self.url}/{key}", remedy) from error

    def _translated(self, error: ClientError, key: str) -> CrossLoraError | _AlreadyThere:
        code = error.response.get("Error", {}).get("Code", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in ("PreconditionFailed", "ConditionalRequestConflict") or status in (409, 412):
            return _AlreadyThere()
        if code in ("NoSuchKey", "404", "NotFound"):
            return self._missing(key)
        if status >= 500 or status == 429 or code == "SlowDown":
            remedy = "The store is busy or down; the same command can be run again."
            return StoreUnavailable("an answer", code or str(status), f"{self.url}/{key}", remedy)
        remedy = _REMEDIES.get(
            code, _REMEDIES["AccessDenied"] if status == 403 else "Check CROSS_LORA_STORE."
        )
        return StoreRefused(
            "a store that accepts the request", code or str(status), f"{self.url}/{key}", remedy
        )


class _AlreadyThere(Exception):
    """The key was taken between our look and our write."""


def _client(endpoint: str | None, region: str | None, path_style: bool) -> S3Client:
    style: Any = "path" if path_style else "auto"
    config = Config(
        retries={"mode": "standard", "max_attempts": 5},
        connect_timeout=10,
        read_timeout=60,
        s3={"addressing_style": style},
    )
    return boto3.client("s3", endpoint_url=endpoint, region_name=region, config=config)
