"""What one client may send: so many bytes, so often."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable

__all__ = ["RateLimit", "TooLarge", "read_whole"]

_CLIENTS = 4096


class TooLarge(Exception):
    """A body has more bytes than it may have."""


async def read_whole(chunks: AsyncIterator[bytes], limit: int) -> bytes:
    """The body, read no further than the limit, whatever its headers say of its length.

    Raises:
        TooLarge: it is longer.
    """
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > limit:
            raise TooLarge
    return bytes(body)


class RateLimit:
    """A bucket of tokens per client, refilled steadily; the clients seen last are remembered.

    Args:
        per_minute: tokens a client gets in a minute, and has at first.
        clock: seconds that only grow.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = float(per_minute), clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allows(self, client: str) -> bool:
        """Whether this client may send one more now; it then has one less."""
        now = self._clock()
        held, since = self._buckets.pop(client, (self._most, now))
        held = min(self._most, held + (now - since) * self._most / 60)
        allowed = held >= 1
        self._buckets[client] = (held - 1 if allowed else held, now)
        if len(self._buckets) > _CLIENTS:
            self._buckets.popitem(last=False)
        return allowed
