"""Buckets of a mock S3, folders put into one as others would, and the requests that reading them takes."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from cross_lora_core.storage import S3Store


@contextmanager
def mocked_buckets(
    monkeypatch: pytest.MonkeyPatch, *names: str, key: str = "own", secret: str = "s3cret"
) -> Iterator[Any]:
    """A client of a mock S3 with these buckets; its credentials are in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        client = boto3.client("s3")
        for name in names:
            client.create_bucket(Bucket=name)
        yield client


def upload(client: Any, folder: Path, bucket: str, prefix: str) -> str:
    """Every file of a folder and of those in it; the prefix's s3:// URL without options."""
    for path in folder.rglob("*"):
        if path.is_file():
            key = f"{prefix}/{path.relative_to(folder).as_posix()}"
            client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())
    return f"s3://{bucket}/{prefix}"


def elsewhere(store: S3Store) -> S3Store:
    """The same store as another machine sees it, with nothing in its cache."""
    cache = (store.options.cache or Path()) / uuid.uuid4().hex
    return S3Store(store.bucket, store.prefix, replace(store.options, cache=cache))


class Requests(list[tuple[str, int]]):
    """(key, bytes asked for) of each ranged GET of a client from now on; 0 bytes for a whole object."""

    def __init__(self, client: Any) -> None:
        super().__init__()
        client.meta.events.register_first("before-send.s3.GetObject", self._note)

    def _note(self, request: Any, **_kwargs: Any) -> None:
        asked = request.headers.get("Range", b"")
        text = asked.decode() if isinstance(asked, bytes) else asked
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", text)
        size = int(found[2]) - int(found[1]) + 1 if found else 0
        self.append((request.url.partition("?")[0].rpartition("/")[2], size))

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self)
