from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from cross_lora_core.storage import StoredObject, sha256_of
from cross_lora_core.storage.cache import ReadCache, default_cache


def kept(cache: ReadCache, data: bytes, used_seconds_ago: float = 0) -> Path:
    wanted = StoredObject("k", *sha256_of(data))
    with cache.filling(wanted) as aside:
        aside.write_bytes(data)
    path = cache.find(wanted)
    assert path is not None
    os.utime(path, (time.time() - used_seconds_ago,) * 2)
    return path


def test_the_least_recently_used_goes_first(tmp_path):
    cache = ReadCache(tmp_path / "c", 25)
    older, oldest = kept(cache, b"a" * 10, 2_000), kept(cache, b"b" * 10, 3_000)
    newest = kept(cache, b"c" * 10, 1_000)
    assert [path.exists() for path in (oldest, older, newest)] == [False, True, True]


def test_what_a_reader_may_be_about_to_open_stays(tmp_path):
    cache = ReadCache(tmp_path / "c", 5)
    paths = [kept(cache, bytes([number]) * 10) for number in range(3)]
    assert all(path.exists() for path in paths)


def test_a_copy_dropped_by_another_process_is_not_found_rather_than_empty(tmp_path, monkeypatch):
    cache = ReadCache(tmp_path / "c", 100)
    path = kept(cache, b"x")
    wanted = StoredObject("k", *sha256_of(b"x"))

    def dropped(*_args):
        path.unlink()
        raise FileNotFoundError

    monkeypatch.setattr(os, "utime", dropped)
    assert cache.find(wanted) is None
    assert not path.exists()


def test_what_killed_downloads_left_is_removed_after_a_day(tmp_path):
    cache = ReadCache(tmp_path / "c", 100)
    kept(cache, b"x")
    old, young = cache.folder / ".old", cache.folder / ".young"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 100_000,) * 2)
    kept(cache, b"y")
    assert not old.exists()
    assert young.exists()


def test_an_interrupted_copy_is_not_kept(tmp_path):
    cache = ReadCache(tmp_path / "c", 100)
    with pytest.raises(KeyboardInterrupt), cache.filling(StoredObject("k", *sha256_of(b"xy"))) as aside:
        aside.write_bytes(b"x")
        raise KeyboardInterrupt
    assert not list(cache.folder.iterdir())


def test_where_copies_are_kept_by_default(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "cross-lora" / "objects"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == Path.home() / ".cache" / "cross-lora" / "objects"
