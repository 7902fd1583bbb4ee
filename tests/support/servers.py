"""Servers that tests start on loopback: free ports, waiting until they answer, stopping them with what they started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def wait_until(condition, process: subprocess.Popen | None, log: Path, seconds: float = 120) -> None:
    """Return when the condition holds; fail with the log's end if the process died or time is over."""
    deadline = time.monotonic() + seconds
    while not condition():
        dead = process is not None and process.poll() is not None
        if dead or time.monotonic() > deadline:
            said = log.read_text(errors="replace")[-3000:] if log.exists() else ""
            raise AssertionError(f"a server {'ended' if dead else f'was not up in {seconds:.0f} s'}: {said}")
        time.sleep(0.1)


def start(
    command: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.Popen:
    """Start a process at the head of its own group; what it says is added to the log."""
    with log.open("ab") as file:
        return subprocess.Popen(
            [str(one) for one in command],
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )


def stop(process: subprocess.Popen, *, hard: bool = False, seconds: float = 20) -> None:
    """End a process and those it started."""
    for number in (signal.SIGKILL,) if hard else (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            break
    with suppress(ProcessLookupError):  # those whose parent ended first
        os.killpg(process.pid, signal.SIGKILL)


def with_descendants(pid: int) -> list[int]:
    """A process and all that it started, itself first; also those in sessions of their own."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(path.parent.name))
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found


def kill_all(processes: Sequence[int], seconds: float = 20) -> None:
    """SIGKILL in order, and return when none runs any more."""
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + seconds
    while any(map(is_running, processes)):
        assert time.monotonic() < deadline, "a killed process still runs"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Whether the process exists and is not merely waiting for its parent to ask how it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextmanager
def running(
    command: Sequence[str],
    log: Path,
    *,
    port: int,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Iterator[subprocess.Popen]:
    """The command, from when its port answers until the block ends."""
    process = start(command, log, env=env, cwd=cwd)
    try:
        wait_until(lambda: answers(port), process, log)
        yield process
    finally:
        stop(process)
