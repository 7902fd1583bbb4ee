"""What a store saw when it last looked for keys, so that it need not ask again at once."""

from __future__ import annotations

import threading
import time

from cross_lora_core.storage.base import StoredObject

__all__ = ["RecentLooks"]

_MOST = 100_000


class RecentLooks:
    """A bounded memory of keys.

    Args:
        seconds: how long an object that was seen is taken to be there still. Objects never change, but one
            may be deleted: whoever reads it within this time gets the bytes it had.
        most: keys remembered; the ones noted longest ago are forgotten first.
    """

    def __init__(self, seconds: float, most: int = _MOST) -> None:
        self._seconds, self._most = seconds, most
        self._seen: dict[str, tuple[float, StoredObject | None]] = {}
        self._lock = threading.Lock()

    def note(self, key: str, found: StoredObject | None) -> StoredObject | None:
        """Remember what was found, or that there was nothing; what was found."""
        with self._lock:
            self._seen.pop(key, None)
            self._seen[key] = time.monotonic(), found
            if len(self._seen) > self._most:
                del self._seen[next(iter(self._seen))]
        return found

    def found(self, key: str) -> StoredObject | None:
        """The object, if it was seen a moment ago."""
        seen, found = self._seen.get(key, (0.0, None))
        return found if time.monotonic() - seen < self._seconds else None

    def was_missing(self, key: str) -> bool:
        """Whether there was nothing when it was last looked for, however long ago."""
        seen = self._seen.get(key)
        return seen is not None and seen[1] is None

    def forget(self, key: str) -> None:
        """Look again next time."""
        with self._lock:
            self._seen.pop(key, None)
