"""Files whose times tests must wait for, and those of a cache."""

from __future__ import annotations

import time
from pathlib import Path

from cross_lora_core.storage.verified import FileIdentity


def settle(path: Path) -> Path:
    """Return when a file was written long enough ago that a later write is told by its times."""
    with path.open("rb") as file:
        while not FileIdentity.of(file).is_settled(time.time_ns()):
            time.sleep(0.02)
    return path


def copies_in(cache: Path) -> list[str]:
    """What is in a cache's folder, finished or not, beside the marks of when it was used."""
    return [path.name for path in cache.iterdir() if not path.name.startswith(".used-")]
