"""Open a store by its URL."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from cross_lora_core.errors import ConfigurationError
from cross_lora_core.storage.base import Store
from cross_lora_core.storage.local import LocalStore
from cross_lora_core.storage.s3 import S3Store

__all__ = ["open_store"]

_OPTIONS = {"endpoint", "region", "path_style", "cache"}
_SWITCH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def open_store(url: str) -> Store:
    """Open `file:///folder`, a plain path, or `s3://bucket/prefix`.

    An S3 URL may carry `?endpoint=…&region=…&path_style=true&cache=/folder`; never credentials.

    Raises:
        ConfigurationError: another scheme, a missing bucket, an unknown option, or credentials in the URL.
        StoreRefused: a local folder that cannot be written.
    """
    parts = urlsplit(url)
    if parts.scheme == "":
        return LocalStore(Path(url))
    if parts.scheme == "file":
        return LocalStore(_folder(parts))
    if parts.scheme != "s3":
        raise _refused("file:///folder or s3://bucket/prefix", f"scheme {parts.scheme!r}")
    return _open_bucket(parts)


def _folder(parts: SplitResult) -> Path:
    if (
        parts.netloc not in ("", "localhost")
        or not parts.path.startswith("/")
        or parts.query
        or parts.fragment
    ):
        raise _refused("file:///folder, with three slashes and nothing after the folder", "another form")
    return Path(unquote(parts.path))


def _open_bucket(parts: SplitResult) -> S3Store:
    if not parts.netloc:
        raise _refused("file:///folder or s3://bucket/prefix", "no bucket")
    if parts.fragment:
        raise _refused("s3://bucket/prefix?options", "a part after #")
    if "@" in parts.netloc:
        raise _refused("no credentials in the URL", "a URL with credentials")
    options = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
    if not options.keys() <= _OPTIONS:
        raise _refused(f"options among {sorted(_OPTIONS)}", str(sorted(options.keys() - _OPTIONS)))
    if "@" in options.get("endpoint", ""):
        raise _refused("no credentials in the URL", "an endpoint with credentials")
    empty = sorted(name for name, value in options.items() if not value)
    if empty or options.get("path_style", "true").lower() not in _SWITCH:
        raise _refused("options with a value, path_style=true or false", f"{empty or options['path_style']}")
    return S3Store(
        parts.netloc,
        parts.path,
        endpoint=options.get("endpoint"),
        region=options.get("region"),
        path_style=_SWITCH[options.get("path_style", "false").lower()],
        cache=Path(options["cache"]) if "cache" in options else None,
    )


def _refused(expected: str, got: str) -> ConfigurationError:
    return ConfigurationError(expected, got, "store URL (CROSS_LORA_STORE)", "Correct the URL.")
