"""Processes of one machine that want the same object: one brings it, whatever becomes of the others."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from cross_lora_core.storage import open_store
from tests.support.seaweed import Seaweed
from tests.support.traffic import counting

pytestmark = pytest.mark.services
BUCKET, DATA = "shared-cache", bytes(range(256)) * (80 << 10)
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def url(seaweed: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of a store with one object of 20 MB, of which this machine has no copy."""
    for name, value in seaweed.environment.items():
        monkeypatch.setenv(name, value)
    with suppress(ClientError):  # it is there from the test before
        seaweed.client().create_bucket(Bucket=BUCKET)
    url = seaweed.url(BUCKET, tmp_path.name, cache=tmp_path / "cache")
    open_store(url).put("k", DATA)
    return url


def fetch(url: str, together: Any, answers: Any) -> None:
    store = open_store(url)
    store.stat("k")
    together.wait(60)
    with counting() as traffic:
        path = store.fetch("k")
    gets = sum(one.operation == "GetObject" for one in traffic)
    answers.put((gets, traffic.received, hashlib.sha256(path.read_bytes()).hexdigest()))


def fetch_and_die(url: str, started: Any) -> None:
    """Killed while it writes what it downloads, and holds the lock."""
    real = os.pwrite

    def die(*arguments: Any) -> int:
        real(*arguments)
        started.set()
        signal.pause()
        return 0

    os.pwrite = die
    open_store(url).fetch("k")


def test_two_processes_that_miss_an_object_bring_it_once(url: str) -> None:
    together, answers = SPAWN.Barrier(2), SPAWN.Queue()
    workers = [SPAWN.Process(target=fetch, args=(url, together, answers)) for _ in range(2)]
    for one in workers:
        one.start()
    found = sorted(answers.get(timeout=120) for _ in workers)
    for one in workers:
        one.join(60)
    assert [(gets, received) for gets, received, _ in found] == [(0, 0), (2, len(DATA))]
    assert {sha256 for _, _, sha256 in found} == {hashlib.sha256(DATA).hexdigest()}


def test_a_process_killed_while_it_brings_an_object_is_no_obstacle(url: str) -> None:
    started = SPAWN.Event()
    child = SPAWN.Process(target=fetch_and_die, args=(url, started))
    child.start()
    assert started.wait(120)
    child.kill()
    child.join(60)
    assert open_store(url).get("k") == DATA
