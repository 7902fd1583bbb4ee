"""Distinctive secrets in every setting that takes one, and every form in which one could show."""

from __future__ import annotations

import base64
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

from sqlalchemy import make_url

from tests.support.postgres import find_binary


@dataclass(frozen=True)
class Secret:
    """A value that must not show, and what it is."""

    name: str
    value: str

    def forms(self) -> set[bytes]:
        """As it is, quoted for URLs, as base64 at any offset of a longer text."""
        raw = self.value.encode()
        inside = {base64.b64encode(b"x" * pad + raw)[4 if pad else 0 : -4].rstrip(b"=") for pad in range(3)}
        whole = base64.b64encode(raw).rstrip(b"=")
        return {raw, quote(self.value, safe="").encode(), quote_plus(self.value).encode(), whole} | inside


def shown(secrets: Iterable[Secret], where: str, content: bytes) -> list[str]:
    """Which secrets show in something, and where."""
    return [f"{one.name} in {where}" for one in secrets if any(form in content for form in one.forms())]


def contents(folder: Path, *without: Path) -> Iterator[tuple[str, bytes]]:
    """Every file of a folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path not in without:
            yield str(path.relative_to(folder)), path.read_bytes()


def dump(url: str) -> bytes:
    """A PostgreSQL database as SQL."""
    tool = find_binary("pg_dump") or shutil.which("pg_dump")
    assert tool is not None
    where = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    return subprocess.run([tool, f"--dbname={where}"], check=True, capture_output=True).stdout


def objects(client: Any, bucket: str) -> Iterator[tuple[str, bytes]]:
    """Every object of a bucket: its bytes, and its metadata."""
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for one in page.get("Contents", []):
            found = client.get_object(Bucket=bucket, Key=one["Key"])
            yield one["Key"], found["Body"].read() + repr(found["Metadata"]).encode()
