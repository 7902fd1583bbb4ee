from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from cross_lora_core.storage import StoredObject, sha256_of
from cross_lora_core.storage.cache import ReadCache, default_cache
from cross_lora_core.storage.turns import one_at_a_time
from tests.support.files import copies_in, settle


def kept(cache: ReadCache, data: bytes, used_seconds_ago: float = 0) -> Path:
    wanted = StoredObject("k", *sha256_of(data))
    path = cache.copy(wanted, lambda aside: aside.write_bytes(data))
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


def test_a_copy_that_was_asked_for_meanwhile_stays(tmp_path, monkeypatch):
    """Another process asks for it while this one decides what to drop."""
    cache = ReadCache(tmp_path / "c", 15)
    path = kept(cache, b"a" * 10, 2_000)
    real = ReadCache._dropped

    def asked_for_first(self, one):
        ReadCache(cache.folder, 15).copy(StoredObject("k", *sha256_of(b"a" * 10)), never)
        return real(self, one)

    monkeypatch.setattr(ReadCache, "_dropped", asked_for_first)
    kept(cache, b"b" * 10)
    assert path.read_bytes() == b"a" * 10


def test_a_copy_that_somebody_holds_stays(tmp_path):
    cache = ReadCache(tmp_path / "c", 15)
    path = kept(cache, b"a" * 10, 2_000)
    with one_at_a_time(cache.folder / f".used-{path.name}"):
        kept(cache, b"b" * 10)
        assert path.exists()
    kept(cache, b"c" * 10)
    assert not path.exists()


def test_an_opened_copy_that_is_dropped_is_read_on(tmp_path):
    cache = ReadCache(tmp_path / "c", 15)
    path = kept(cache, b"a" * 10, 2_000)
    with path.open("rb") as reader:
        kept(cache, b"b" * 10)
        assert not path.exists()
        assert reader.read() == b"a" * 10


def test_a_file_that_was_put_is_the_copy(tmp_path):
    cache, file = ReadCache(tmp_path / "c", 100), tmp_path / "file"
    file.write_bytes(b"x")
    wanted = StoredObject("k", *sha256_of(b"x"))
    cache.keep(wanted, file)
    file.unlink()
    assert cache.copy(wanted, never).read_bytes() == b"x"


def test_a_file_on_another_disk_is_copied(tmp_path, monkeypatch):
    cache, file = ReadCache(tmp_path / "c", 100), tmp_path / "file"
    file.write_bytes(b"x")
    monkeypatch.setattr(os, "link", lambda *_paths: os.open("/nonexistent", os.O_RDONLY))
    wanted = StoredObject("k", *sha256_of(b"x"))
    cache.keep(wanted, file)
    assert cache.copy(wanted, never).read_bytes() == b"x"


def test_a_kept_file_that_its_owner_changes_is_no_copy_any_more(tmp_path):
    cache, file = ReadCache(tmp_path / "c", 100), tmp_path / "file"
    file.write_bytes(b"x")
    wanted = StoredObject("k", *sha256_of(b"x"))
    cache.keep(wanted, file)
    file.write_bytes(b"y")
    assert cache.copy(wanted, lambda aside: aside.write_bytes(b"x")).read_bytes() == b"x"


def test_a_file_larger_than_the_cache_is_not_kept(tmp_path):
    cache, file = ReadCache(tmp_path / "c", 5), tmp_path / "file"
    file.write_bytes(b"a" * 10)
    cache.keep(StoredObject("k", *sha256_of(file)), file)
    assert copies_in(cache.folder) == []


def test_a_disk_that_takes_no_copy_is_no_obstacle(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    ReadCache(tmp_path / "file" / "c", 100).keep(StoredObject("k", *sha256_of(b"x")), tmp_path / "file")


def never(_aside: Path) -> None:
    raise AssertionError("fetched again")


def test_a_copy_whose_last_use_is_not_noted_counts_from_when_it_came(tmp_path):
    cache = ReadCache(tmp_path / "c", 15)
    path = kept(cache, b"a" * 10)
    (cache.folder / f".used-{path.name}").unlink()
    os.utime(path, (time.time() - 2_000,) * 2)
    kept(cache, b"b" * 10)
    assert not path.exists()


def test_a_copy_spoiled_after_it_was_verified_is_fetched_again(tmp_path):
    cache, wanted = ReadCache(tmp_path / "c", 100), StoredObject("k", *sha256_of(b"precious"))
    path = settle(kept(cache, b"precious"))
    assert cache.copy(wanted, never) == path
    times = path.stat()
    path.write_bytes(b"spoiled!")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert cache.copy(wanted, lambda aside: aside.write_bytes(b"precious")).read_bytes() == b"precious"


def test_a_copy_that_is_used_stays_as_it_is_known(tmp_path, monkeypatch):
    """Noting its use changes none of its times, so that it is not hashed again."""
    cache, wanted = ReadCache(tmp_path / "c", 100), StoredObject("k", *sha256_of(b"x"))
    settle(kept(cache, b"x"))
    cache.copy(wanted, never)
    monkeypatch.setattr(hashlib, "file_digest", None)
    cache.copy(wanted, never)
    cache.copy(wanted, never)


def test_what_killed_downloads_left_is_removed_after_a_day(tmp_path):
    cache = ReadCache(tmp_path / "c", 100)
    kept(cache, b"x")
    old, young = cache.folder / ".0ld", cache.folder / ".a-young"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 100_000,) * 2)
    kept(cache, b"y")
    assert not old.exists()
    assert young.exists()


def test_an_interrupted_copy_is_not_kept(tmp_path):
    cache = ReadCache(tmp_path / "c", 100)

    def interrupted(aside: Path) -> None:
        aside.write_bytes(b"x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.copy(StoredObject("k", *sha256_of(b"xy")), interrupted)
    assert copies_in(cache.folder) == []


def test_where_copies_are_kept_by_default(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "cross-lora" / "objects"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == Path.home() / ".cache" / "cross-lora" / "objects"
