"""Files whose times tests must wait for."""

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
