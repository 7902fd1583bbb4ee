"""Open a store by its URL."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from cross_lora_core.errors import ConfigurationError
from cross_lora_core.storage.base import Store
from cross_lora_core.storage.local import LocalStore
from cross_lora_core.storage.s3 import S3Store

__all__ = ["open_store"]

_OPTIONS = {"endpoint", "region", "path_style", "cache"}


def open_store(url: str) -> Store:
    """Open `file:///folder`, a plain path, or `s3://bucket/prefix`.

    An S3 URL may carry `?endpoint=…&region=…&path_style=true&cache=/folder`; never credentials.

    Raises:
        ConfigurationError: another scheme, a missing bucket, an unknown option, or credentials in the URL.
        StoreRefused: a local folder that cannot be written.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        return LocalStore(Path(unquote(parts.path)))
    if parts.scheme == "":
        return LocalStore(Path(url))
    if parts.scheme != "s3" or not parts.netloc:
        raise _refused("file:///folder or s3://bucket/prefix", url)
    if "@" in parts.netloc:
        raise _refused("no credentials in the URL", "a URL with credentials")
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    if not options.keys() <= _OPTIONS:
        raise _refused(f"options among {sorted(_OPTIONS)}", str(sorted(options.keys() - _OPTIONS)))
    return S3Store(
        parts.netloc,
        parts.path,
        endpoint=options.get("endpoint"),
        region=options.get("region"),
        path_style=options.get("path_style", "").lower() in ("1", "true", "yes"),
        cache=Path(options["cache"]) if "cache" in options else None,
    )


def _refused(expected: str, got: str) -> ConfigurationError:
    return ConfigurationError(expected, got, "store URL (CROSS_LORA_STORE)", "Correct the URL.")
