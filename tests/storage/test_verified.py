"""A file is hashed once, unless somebody wrote to it."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cross_lora_core.errors import ObjectCorrupted
from cross_lora_core.storage import LocalStore, StoredObject
from cross_lora_core.storage.base import verify
from cross_lora_core.storage.verified import VERIFIED, FileIdentity, VerifiedFiles
from tests.support.files import settle

RIGHT, WRONG = b"precious", b"spoiled!"
SHA256 = hashlib.sha256(RIGHT).hexdigest()
MOMENT, FIRST = 1_700_000_000_123_456_789, 1_700_000_000_000_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(RIGHT)
    return settle(path)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are hashed from now on."""
    names, real = [], hashlib.file_digest
    monkeypatch.setattr(
        hashlib, "file_digest", lambda file, name: names.append(Path(file.name).name) or real(file, name)
    )
    return names


def in_place(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(WRONG)


def by_another(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(WRONG)
    other.replace(path)


def with_its_times_set_back(path: Path) -> None:
    before = path.stat()
    path.write_bytes(WRONG)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_file_is_hashed_once(path, hashed):
    files = VerifiedFiles()
    assert [files.sha256_of(path, SHA256) for _ in range(3)] == [(SHA256, 8)] * 3
    assert hashed == ["file"]


@pytest.mark.parametrize("spoil", [in_place, by_another, with_its_times_set_back])
def test_a_file_that_was_spoiled_after_it_was_verified_is_hashed_again(path, hashed, spoil):
    files = VerifiedFiles()
    files.sha256_of(path, SHA256)
    spoil(path)
    assert files.sha256_of(path, SHA256) == (hashlib.sha256(WRONG).hexdigest(), 8)
    assert len(hashed) == 2


def test_a_file_that_was_just_written_is_not_remembered(path, hashed, monkeypatch):
    """A write within the same tick of the file system's clock would not be told from it."""
    files = VerifiedFiles()
    monkeypatch.setattr(time, "time_ns", lambda: path.stat().st_ctime_ns + 1_000_000)
    files.sha256_of(path, SHA256)
    files.sha256_of(path, SHA256)
    assert len(hashed) == 2


def test_a_wrong_file_is_not_remembered(path, hashed):
    files = VerifiedFiles()
    other = "0" * 64
    assert [files.sha256_of(path, other)[0] for _ in range(2)] == [SHA256] * 2
    assert len(hashed) == 2


def test_what_is_known_under_another_sha256_is_no_answer(path):
    files = VerifiedFiles()
    files.sha256_of(path, SHA256)
    with pytest.raises(ObjectCorrupted):
        verify(path, StoredObject("k", "0" * 64, 8), "here")


def test_threads_that_want_one_file_hash_it_once(path, monkeypatch):
    files, real, hashed = VerifiedFiles(), hashlib.file_digest, []
    all_ask = threading.Barrier(9)

    def slow(file, name):
        hashed.append(file.name)
        all_ask.wait(30)
        time.sleep(0.2)
        return real(file, name)

    def ask(number: int) -> tuple[str, int]:
        if number:  # the one that hashes waits until the others ask
            all_ask.wait(30)
        return files.sha256_of(path, SHA256)

    monkeypatch.setattr(hashlib, "file_digest", slow)
    with ThreadPoolExecutor(9) as pool:
        assert set(pool.map(ask, range(9))) == {(SHA256, 8)}
    assert len(hashed) == 1


def test_the_files_asked_for_longest_ago_are_forgotten(tmp_path, hashed):
    files, paths = VerifiedFiles(most=2), [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_bytes(RIGHT)
    settle(paths[-1])
    for number in (0, 1, 0, 2, 0, 1):
        files.sha256_of(paths[number], SHA256)
    assert hashed == ["a", "b", "c", "b"]


@pytest.mark.parametrize(
    ("ctime", "later", "settled"),
    [
        (MOMENT, 50_000_000, False),
        (MOMENT, 150_000_000, True),
        (FIRST, 1_500_000_000, False),  # a clock of whole seconds
        (FIRST, 2_500_000_000, True),
        (MOMENT, -1, False),
    ],
)
def test_when_another_write_would_be_told(ctime, later, settled):
    assert FileIdentity(1, 1, 1, ctime - 5, ctime).is_settled(ctime + later) is settled


def test_a_forked_process_waits_for_no_lock_of_its_parent(path):
    turns = [*VERIFIED._turns._locks, VERIFIED._memory]
    for one in turns:
        one.acquire()
    forked = multiprocessing.get_context("fork")
    here, there = forked.Pipe(duplex=False)
    child = forked.Process(target=lambda: there.send(VERIFIED.sha256_of(path, SHA256)))
    child.start()
    answered = here.poll(timeout=60)
    child.kill()  # how a copy of a process with threads ends is not this test's matter
    child.join()
    for one in turns:
        one.release()
    assert answered
    assert here.recv() == (SHA256, 8)


def test_a_store_hashes_an_object_once_and_sees_when_it_is_spoiled(tmp_path, hashed):
    store = LocalStore(tmp_path / "store")
    store.put("a/k", RIGHT)
    settle(store.root / "a/k")
    assert [store.get("a/k") for _ in range(3)] == [RIGHT] * 3
    assert hashed == ["k"]
    in_place(store.root / "a/k")
    with pytest.raises(ObjectCorrupted, match="a/k"):
        store.get("a/k")
