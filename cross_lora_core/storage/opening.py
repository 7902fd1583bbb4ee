"""Open a store by its URL."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from cross_lora_core.errors import ConfigurationError
from cross_lora_core.storage.base import Store
from cross_lora_core.storage.local import LocalStore
from cross_lora_core.storage.s3_location import S3Location

__all__ = ["local_path", "open_store"]

_WHERE = "store URL (CROSS_LORA_STORE)"


def open_store(url: str) -> Store:
    """Open `file:///folder`, a plain path, or `s3://bucket/prefix`.

    An S3 URL may carry the options of `S3Options`, as `?endpoint=…&region=…&path_style=true`; never
    credentials.

    Raises:
        ConfigurationError: another scheme, a missing bucket, an unknown option, or credentials in the URL.
        StoreRefused: a local folder that cannot be written.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3":
        from cross_lora_core.storage.s3 import S3Store  # boto3 takes its time, and files need none of it

        location = S3Location.parse(url, _WHERE)
        return S3Store(location.bucket, location.prefix, location.options)
    return LocalStore(local_path(url, _WHERE))


def local_path(url: str, where: str) -> Path:
    """The path meant by `file:///folder` or a plain path.

    Raises:
        ConfigurationError: another scheme, or a file URL of another form; the URL is not repeated.
    """
    parts = urlsplit(url)
    if parts.scheme == "":
        return Path(url)
    if parts.scheme != "file":
        raise _refused("file:///folder or s3://bucket/prefix", f"scheme {parts.scheme!r}", where)
    if not _is_whole(parts):
        raise _refused(
            "file:///folder, with three slashes and nothing after the folder", "another form", where
        )
    return Path(unquote(parts.path))


def _is_whole(parts: SplitResult) -> bool:
    ours = parts.netloc in ("", "localhost") and parts.path.startswith("/")
    return ours and not parts.query and not parts.fragment


def _refused(expected: str, got: str, where: str) -> ConfigurationError:
    return ConfigurationError(expected, got, where, "Correct the URL.")
