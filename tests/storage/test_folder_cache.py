"""Copies of remote folders: whole, checked, bounded, made once."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cross_lora_core.errors import ObjectCorrupted, StoreRefused, StoreUnavailable
from cross_lora_core.storage import LocalFolder
from cross_lora_core.storage.folder_cache import FolderCache
from cross_lora_core.storage.turns import one_at_a_time

NAMES = ("a", "b")


class Remote(LocalFolder):
    """A folder that counts how often its files are read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.read_files: list[str] = []

    def download(self, name: str, path: Path) -> None:
        self.read_files.append(name)
        super().download(name, path)


def fine(_copy: Path) -> None:
    pass


def remote(path: Path, size: int = 10) -> Remote:
    path.mkdir()
    for name in NAMES:
        (path / name).write_bytes(name.encode() * size)
    return Remote(path)


@pytest.fixture
def source(tmp_path: Path) -> Remote:
    return remote(tmp_path / "source")


@pytest.fixture
def cache(tmp_path: Path) -> FolderCache:
    return FolderCache(tmp_path / "cache", 1 << 20)


def copies(cache: FolderCache) -> list[Path]:
    return [path for path in cache.root.iterdir() if path.is_dir()]


def test_a_copy_is_made_once_and_then_found(source, cache):
    copy = cache.copy(source, NAMES, fine)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == {"a": b"a" * 10, "b": b"b" * 10}
    assert cache.copy(source, NAMES, fine) == copy
    assert source.read_files == ["a", "b"]


def test_a_changed_file_makes_another_copy(source, cache):
    before = cache.copy(source, NAMES, fine)
    (source.path / "a").write_bytes(b"changed")
    after = cache.copy(source, NAMES, fine)
    assert (after / "a").read_bytes() == b"changed"
    assert after != before


def test_a_copy_that_lost_a_file_or_some_bytes_is_made_again(source, cache):
    copy = cache.copy(source, NAMES, fine)
    (copy / "a").unlink()
    assert (cache.copy(source, NAMES, fine) / "a").read_bytes() == b"a" * 10
    (copy / "b").write_bytes(b"b")
    assert (cache.copy(source, NAMES, fine) / "b").read_bytes() == b"b" * 10


def test_a_wrong_copy_is_made_once_more_and_never_seen(source, cache):
    seen = []

    def wrong(times: int):
        def check(copy: Path) -> None:
            seen.append(copy)
            if len(seen) <= times:
                raise ObjectCorrupted("a", "b", "c", "d")

        return check

    copy = cache.copy(source, NAMES, wrong(1))
    assert len(seen) == 2
    assert copies(cache) == [copy]
    seen.clear()
    (source.path / "a").write_bytes(b"other")
    with pytest.raises(ObjectCorrupted):
        cache.copy(source, NAMES, wrong(9))
    assert len(seen) == 2
    assert copies(cache) == [copy]


def test_an_interrupted_copy_is_not_seen(source, cache):
    def interrupt(_copy: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.copy(source, NAMES, interrupt)
    assert copies(cache) == []


def test_who_wants_the_same_copy_waits_for_it(source, cache):
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(lambda _: cache.copy(source, NAMES, fine), range(8)))
    assert len(paths) == 1
    assert sorted(source.read_files) == ["a", "b"]


def test_copies_that_were_not_asked_for_lately_make_room(tmp_path):
    cache = FolderCache(tmp_path / "cache", 50)
    first = cache.copy(remote(tmp_path / "1"), NAMES, fine)
    second = cache.copy(remote(tmp_path / "2"), NAMES, fine)
    for age, path in ((9_000, first), (8_000, second)):
        os.utime(path, (time.time() - age,) * 2)
    third = cache.copy(remote(tmp_path / "3"), NAMES, fine)
    assert [path.exists() for path in (first, second, third)] == [False, True, True]
    fourth = cache.copy(remote(tmp_path / "4", size=100), NAMES, fine)
    assert third.exists(), "somebody may be reading it"
    assert fourth.exists()


def test_a_copy_that_somebody_asks_for_right_now_stays(tmp_path):
    cache = FolderCache(tmp_path / "cache", 20)
    first = cache.copy(remote(tmp_path / "1"), NAMES, fine)
    os.utime(first, (time.time() - 9_000,) * 2)
    with one_at_a_time(cache.root / f".lock-{first.name}"):
        cache.copy(remote(tmp_path / "2"), NAMES, fine)
        assert first.exists()
    cache.copy(remote(tmp_path / "3"), NAMES, fine)
    assert not first.exists()


def test_what_killed_processes_left_is_removed_after_a_day(source, cache):
    (cache.root / ".killed").mkdir(parents=True)
    (cache.root / ".killed" / "a").write_bytes(b"half")
    os.utime(cache.root / ".killed", (time.time() - 100_000,) * 2)
    cache.copy(source, NAMES, fine)
    assert not (cache.root / ".killed").exists()


def test_a_file_that_ends_early_is_not_kept(source, cache, monkeypatch):
    monkeypatch.setattr(source, "size", lambda _name: 11)
    with pytest.raises(StoreUnavailable, match="11 bytes"):
        cache.copy(source, NAMES, fine)
    assert copies(cache) == []


def test_a_cache_that_cannot_be_written_is_a_clear_error(source, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreRefused, match="A file stands where a folder should be"):
        FolderCache(tmp_path / "file", 100).copy(source, NAMES, fine)


def test_a_copy_of_fewer_files_is_another_copy(source, cache):
    assert cache.copy(source, ("a",), fine) != cache.copy(source, NAMES, fine)
