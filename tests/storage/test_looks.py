from __future__ import annotations

import time

from cross_lora_core.storage import StoredObject
from cross_lora_core.storage.looks import RecentLooks

ONE = StoredObject("k", "0" * 64, 1)


def test_what_was_seen_is_there_for_a_moment(monkeypatch):
    looks, now = RecentLooks(seconds=60), time.monotonic()
    looks.note("k", ONE)
    assert looks.found("k") == ONE
    assert not looks.was_missing("k")
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    assert looks.found("k") is None
    assert not looks.was_missing("k")


def test_what_was_missing_is_until_somebody_looks_again():
    looks = RecentLooks(seconds=60)
    assert not looks.was_missing("k")
    looks.note("k", None)
    assert looks.was_missing("k")
    assert looks.found("k") is None
    looks.note("k", ONE)
    assert not looks.was_missing("k")
    looks.forget("k")
    assert looks.found("k") is None
    assert not looks.was_missing("k")


def test_its_memory_is_bounded():
    looks = RecentLooks(seconds=60, most=2)
    for key in ("a", "b", "a", "c"):
        looks.note(key, ONE)
    assert [key for key in "abc" if looks.found(key)] == ["a", "c"]
