"""Process workers of a Prefect server's pools, and what they work on."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.servers import kill_all, start, with_descendants


def start_worker(pool: str, folder: Path, environment: dict[str, str]) -> subprocess.Popen:
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
    return start(command, folder / f"{pool}.log", env=environment)


@contextmanager
def running_worker(pool: str, folder: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen]:
    """A worker for a pool and the flow runs it starts, all ended with the block."""
    worker = start_worker(pool, folder, environment)
    try:
        yield worker
    finally:
        kill_all(with_descendants(worker.pid))


def wait_for(condition, what: str, seconds: float = 240):
    """The condition's first true value; fails, saying what was waited for."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.3)
    return found
