from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from cross_lora_core.storage import StoredObject, sha256_of
from cross_lora_core.storage.cache import ReadCache, default_cache
from tests.support.files import settle


def kept(cache: ReadCache, data: bytes, used_seconds_ago: float = 0) -> Path:
    wanted = StoredObject("k", *sha256_of(data))
    with cache.filling(wanted) as aside:
        aside.write_bytes(data)
    path = cache.find(wanted)
    assert path is not None
    os.utime(cache.folder / f".used-{path.name}", (time.time() - used_seconds_ago,) * 2)
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

    real = Path.touch

    def dropped(mark, *_args):
        path.unlink()
        real(mark)

    monkeypatch.setattr(Path, "touch", dropped)
    assert cache.find(wanted) is None
    assert not path.exists()


def test_a_copy_whose_last_use_is_not_noted_counts_from_when_it_came(tmp_path):
    cache = ReadCache(tmp_path / "c", 15)
    path = kept(cache, b"a" * 10)
    (cache.folder / f".used-{path.name}").unlink()
    os.utime(path, (time.time() - 2_000,) * 2)
    kept(cache, b"b" * 10)
    assert not path.exists()


def test_a_copy_spoiled_after_it_was_verified_is_not_found(tmp_path):
    cache = ReadCache(tmp_path / "c", 100)
    path = kept(cache, b"precious")
    settle(path)
    assert cache.find(StoredObject("k", *sha256_of(b"precious"))) == path
    times = path.stat()
    path.write_bytes(b"spoiled!")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert cache.find(StoredObject("k", *sha256_of(b"precious"))) is None


def test_a_copy_that_is_used_stays_as_it_is_known(tmp_path, monkeypatch):
    """Noting its use changes none of its times, so that it is not hashed again."""
    cache = ReadCache(tmp_path / "c", 100)
    wanted = StoredObject("k", *sha256_of(b"x"))
    settle(kept(cache, b"x"))
    assert cache.find(wanted)
    monkeypatch.setattr(hashlib, "file_digest", None)
    assert cache.find(wanted)
    assert cache.find(wanted)


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
