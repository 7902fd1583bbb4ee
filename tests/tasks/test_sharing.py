"""Leases on shared results: waiting for another worker, taking over from a dead one."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks import sharing
from tasks.runtime import open_catalog, open_stored

KEY = "factors/base/spec/layers-000-001.safetensors"
pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(sharing, "_LOOK_SECONDS", 0.01)


def hold(holder: str, seconds: float = 3600) -> None:
    with open_catalog().begin() as work:
        assert work.take_lease(KEY, holder, seconds).holder == holder


def write(path: Path) -> None:
    path.write_bytes(b"factors")


def lease():
    with open_catalog().begin() as work:
        return work.lease(KEY)


def dead_process() -> int:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def test_the_lease_is_held_while_computing_and_free_afterwards():
    def looking(path: Path) -> None:
        assert lease().holder.startswith(f"{socket.gethostname()}/")
        write(path)

    stored, computed = sharing.put_shared(KEY, looking)
    assert computed
    assert open_stored().get(stored.key) == b"factors"
    assert lease() is None
    assert sharing.put_shared(KEY, looking) == (stored, False)


def test_a_failure_frees_the_lease():
    def failing(_path: Path) -> None:
        raise OSError("no luck")

    with pytest.raises(OSError, match="no luck"):
        sharing.put_shared(KEY, failing)
    assert lease() is None


def test_many_at_once_compute_once():
    calls = []

    def slowly(path: Path) -> None:
        calls.append(threading.get_ident())
        time.sleep(0.2)
        write(path)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: sharing.put_shared(KEY, slowly), range(8)))
    assert len(calls) == 1
    assert sorted(computed for _, computed in results) == [False] * 7 + [True]


def test_a_dead_holder_of_this_machine_is_replaced_at_once():
    hold(f"{socket.gethostname()}/{dead_process()}/x")
    assert sharing.put_shared(KEY, write)[1]


def test_a_holder_elsewhere_is_waited_for_until_it_stores_or_its_lease_expires():
    hold("another-host/1/x")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(sharing.put_shared, KEY, write)
        time.sleep(0.2)
        assert not waiting.done()
        stored = open_stored().put(KEY, b"of the other host")
        assert waiting.result(timeout=30) == (stored, False)
    open_stored().delete(KEY)
    hold("another-host/1/x", seconds=0)
    assert sharing.put_shared(KEY, write)[1]


def test_the_heartbeat_keeps_the_lease(monkeypatch):
    monkeypatch.setattr(sharing, "_HEARTBEAT_SECONDS", 0.05)
    seen = []

    def slowly(path: Path) -> None:
        first = lease().expires_at
        deadline = time.monotonic() + 30
        while lease().expires_at <= first and time.monotonic() < deadline:
            time.sleep(0.02)
        seen.append(lease().expires_at > first)
        write(path)

    sharing.put_shared(KEY, slowly)
    assert seen == [True]
