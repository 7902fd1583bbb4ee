"""Where something is in S3 and how the server is spoken to, read from an s3:// URL and written into one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from cross_lora_core.errors import ConfigurationError

__all__ = ["S3Location", "S3Options"]

_ROLE = re.compile(r"arn:[\w-]+:iam::\d{12}:role/[\w+=,.@/-]+")
_SWITCH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_ENCRYPTIONS = ("AES256", "aws:kms")
_MOST_ATTEMPTS, _LONGEST_SECONDS, _MOST_STREAMS = 20, 3600, 32


@dataclass(frozen=True)
class S3Options:
    """How a bucket is reached. Credentials are none of it: boto3 finds them in the environment.

    Attributes:
        endpoint: of an S3-compatible server; otherwise what boto3 finds (`AWS_ENDPOINT_URL_S3`).
        region: otherwise what boto3 finds.
        path_style: address `endpoint/bucket/key`, as most S3-compatible servers want.
        role: ARN of a role to assume through STS; its credentials are renewed before they expire.
        external_id: what the role's owner asks for, if anything.
        sse: how the server shall encrypt what is put, `AES256` or `aws:kms`; otherwise as the bucket says.
        kms_key: id of the key for `aws:kms`; otherwise the account's own.
        attempts: how often a request is sent at most; the pauses between are random and grow.
        timeout: seconds without an answer, or without its next bytes, after which an attempt has failed.
        streams: how many requests move the bytes of one object at once.
        cache: folder of verified copies; otherwise the user's cache folder.
        cache_bytes: least recently used copies are dropped beyond this size.
    """

    endpoint: str | None = None
    region: str | None = None
    path_style: bool = False
    role: str | None = None
    external_id: str | None = None
    sse: str | None = None
    kms_key: str | None = None
    attempts: int = 5
    timeout: float = 60.0
    streams: int = 8
    cache: Path | None = None
    cache_bytes: int = 20 << 30

    @classmethod
    def parse(cls, given: Mapping[str, str], where: str) -> S3Options:
        """Options from the text after `?`.

        Raises:
            ConfigurationError: one is unknown, has no usable value, or needs another one.
        """
        if not given.keys() <= _READERS.keys():
            names = sorted(given.keys() - _READERS.keys())
            raise _refused(f"options among {sorted(_READERS)}", str(names), where)
        if "@" in given.get("endpoint", ""):
            raise _refused("no credentials in the URL", "an endpoint with credentials", where)
        read: dict[str, Any] = {}
        for name, text in given.items():
            expected, reader = _READERS[name]
            try:
                read[name] = reader(text)
            except (ValueError, KeyError):
                raise _refused(f"options with a value, {name}={expected}", repr(text), where) from None
        for name, needed in (("external_id", "role"), ("kms_key", "sse")):
            if name in read and needed not in read:
                raise _refused(f"{needed}= where {name}= is given", "none", where)
        return cls(**read)

    def query(self) -> str:
        """What reads as the same options again; those that are as they are by default are left out."""
        chosen = {one.name: getattr(self, one.name) for one in fields(self) if one.name in _READERS}
        changed = {name: value for name, value in chosen.items() if value != getattr(_DEFAULT, name)}
        return urlencode(
            {name: "true" if value is True else str(value) for name, value in changed.items()}, safe=":/"
        )


@dataclass(frozen=True)
class S3Location:
    """A bucket and what keys in it begin with, without slashes at its ends."""

    bucket: str
    prefix: str
    options: S3Options = field(default_factory=S3Options)

    @classmethod
    def parse(cls, url: str, where: str = "an s3:// URL") -> S3Location:
        """Read `s3://bucket/prefix?option=value&…`.

        Args:
            url: never with credentials.
            where: what the URL is, for the error; the URL itself is not repeated.

        Raises:
            ConfigurationError: no bucket, an option that is unknown or unusable, or credentials.
        """
        parts = urlsplit(url)
        if not parts.netloc:
            raise _refused("s3://bucket/prefix", "no bucket", where)
        if parts.fragment:
            raise _refused("s3://bucket/prefix?options", "a part after #", where)
        if "@" in parts.netloc:
            raise _refused("no credentials in the URL", "a URL with credentials", where)
        given = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        return cls(parts.netloc, parts.path.strip("/"), S3Options.parse(given, where))

    @property
    def place(self) -> str:
        """`s3://bucket/prefix`, without options."""
        return "/".join(part for part in (f"s3://{self.bucket}", self.prefix) if part)

    @property
    def url(self) -> str:
        """What reads as the same location again; never with credentials."""
        query = self.options.query()
        return f"{self.place}?{query}" if query else self.place

    @property
    def name(self) -> str:
        """The last part of the prefix, or the bucket."""
        return self.prefix.rpartition("/")[2] or self.bucket

    def below(self, name: str) -> S3Location:
        """A file or folder in this one."""
        return replace(self, prefix=f"{self.prefix}/{name}" if self.prefix else name)

    def above(self) -> S3Location:
        """The folder this one is in; the bucket is in none."""
        return replace(self, prefix=self.prefix.rpartition("/")[0])


def _text(value: str) -> str:
    if not value:
        raise ValueError(value)
    return value


def _role(value: str) -> str:
    if not _ROLE.fullmatch(value):
        raise ValueError(value)
    return value


def _encryption(value: str) -> str:
    if value not in _ENCRYPTIONS:
        raise ValueError(value)
    return value


def _up_to(most: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        if not 1 <= int(value) <= most:
            raise ValueError(value)
        return int(value)

    return read


def _seconds(value: str) -> float:
    if not 0 < float(value) <= _LONGEST_SECONDS:
        raise ValueError(value)
    return float(value)


def _refused(expected: str, got: str, where: str) -> ConfigurationError:
    return ConfigurationError(expected, got, where, "Correct the URL.")


_READERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "endpoint": ("http(s)://host:port", _text),
    "region": ("such as eu-west-1", _text),
    "path_style": ("true or false", lambda value: _SWITCH[value.lower()]),
    "role": ("arn:aws:iam::123456789012:role/name", _role),
    "external_id": ("text", _text),
    "sse": (" or ".join(_ENCRYPTIONS), _encryption),
    "kms_key": ("id of a key", _text),
    "attempts": (f"1 to {_MOST_ATTEMPTS}", _up_to(_MOST_ATTEMPTS)),
    "timeout": (f"seconds, above 0 and up to {_LONGEST_SECONDS}", _seconds),
    "streams": (f"1 to {_MOST_STREAMS}", _up_to(_MOST_STREAMS)),
    "cache": ("/folder", lambda value: Path(_text(value))),
}
"""Per option of a URL: what its value looks like, and the function that reads it."""

_DEFAULT = S3Options()
