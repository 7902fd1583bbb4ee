"""Which copies of a cache go when room is needed: those asked for longest ago, none asked for of late."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["drop_oldest", "is_recent"]


def drop_oldest(
    entries: Sequence[tuple[float, int, Path]], excess: int, seconds: float, dropped: Callable[[Path], bool]
) -> None:
    """Drop copies until nothing is in excess, or none is left that was not asked for of late.

    Args:
        entries: of each copy when it was last asked for, in seconds since the epoch, its bytes and its path.
        excess: bytes to free.
        seconds: that a copy stays after it was asked for.
        dropped: drops a copy, and says whether it is gone.
    """
    for used, freed, path in sorted(entries):
        if excess <= 0 or is_recent(used, seconds):
            return
        excess -= freed if dropped(path) else 0


def is_recent(used: float, seconds: float) -> bool:
    """Whether a copy was asked for within these seconds."""
    return time.time() - used < seconds
