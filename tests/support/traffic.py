"""Every request this process sends to S3 while a block runs, and the bytes of objects that it moves."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from botocore.endpoint import Endpoint

DOWN, UP = ("GetObject",), ("PutObject", "UploadPart")


@dataclass(frozen=True)
class Exchange:
    """One request that got an answer or none; `sent` and `received` count the bytes of objects only."""

    operation: str
    key: str
    sent: int
    received: int

    @property
    def area(self) -> str:
        """What the key is about: `bases`, `adapters`, or of what is in the store `store/projections`."""
        first, _, rest = self.key.partition("/")
        return f"{first}/{rest.partition('/')[0]}" if first == "store" and rest else first


class Traffic(list[Exchange]):
    """What was exchanged, in the order of the answers."""

    def of(self, *areas: str, operation: str = "") -> Traffic:
        """Of some areas, or of those below them; of one operation if it is named."""
        return Traffic(
            one
            for one in self
            if (not areas or one.area.startswith(areas)) and operation in ("", one.operation)
        )

    @property
    def sent(self) -> int:
        return sum(one.sent for one in self)

    @property
    def received(self) -> int:
        return sum(one.received for one in self)

    def summary(self) -> dict[str, Any]:
        """Bytes and requests, in all and by area."""
        areas: dict[str, Traffic] = defaultdict(Traffic)
        for one in self:
            areas[one.area].append(one)
        whole = {"received": self.received, "sent": self.sent, "requests": len(self)}
        return whole | {"areas": {name: _figures(areas[name]) for name in sorted(areas)}}


def _figures(traffic: Traffic) -> dict[str, Any]:
    kinds = Counter(one.operation for one in traffic)
    return {"received": traffic.received, "sent": traffic.sent, **dict(sorted(kinds.items()))}


@contextmanager
def counting() -> Iterator[Traffic]:
    """The traffic of all clients and threads of this process, attempts that failed among it."""
    traffic, real = Traffic(), Endpoint._get_response

    def noting(self: Any, request: Any, operation: Any, context: Any) -> Any:
        answer, error = real(self, request, operation, context)
        if operation.service_model.service_name == "s3":
            traffic.append(_exchange(operation.name, request, answer))
        return answer, error

    Endpoint._get_response = noting
    try:
        yield traffic
    finally:
        Endpoint._get_response = real


def _exchange(operation: str, request: Any, answer: Any) -> Exchange:
    """Path-style URLs: the bucket, then the key; of a list the prefix."""
    parts = urlsplit(request.url)
    key = unquote(parts.path).lstrip("/").partition("/")[2]
    if not key and "prefix=" in parts.query:
        key = unquote(parts.query.rpartition("prefix=")[2].partition("&")[0])
    sent = _number(request.headers, "X-Amz-Decoded-Content-Length") or _number(
        request.headers, "Content-Length"
    )
    received = _number(answer[0].headers, "Content-Length") if answer else 0
    return Exchange(operation, key, sent if operation in UP else 0, received if operation in DOWN else 0)


def _number(headers: Any, name: str) -> int:
    found = headers.get(name, 0)
    return int(found.decode() if isinstance(found, bytes) else found)
