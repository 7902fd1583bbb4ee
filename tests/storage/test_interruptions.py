"""A local write may stop anywhere: what is visible is whole, and the next writer is not hindered."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from cross_lora_core.errors import StoreRefused, StoreUnavailable
from cross_lora_core.storage import LocalStore
from tests.support.store_contract import a_folder

SYNCS_OF_A_PUT, SYNCS_OF_A_FOLDER = 8, 12
"""More than either needs, so that the last of the numbered steps is never reached."""


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def failing_at(number: int, real: Callable[..., object], fail: Callable[[], object]) -> Callable[..., object]:
    """The real function, whose call of this number fails instead."""
    calls = 0

    def counted(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        return fail() if calls == number else real(*args, **kwargs)

    return counted


def interrupt() -> None:
    raise KeyboardInterrupt


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def staged(store: LocalStore) -> list[Path]:
    return list((store.root / ".staging").iterdir())


@pytest.mark.parametrize("number", range(1, SYNCS_OF_A_PUT))
def test_a_put_interrupted_at_any_sync(store, monkeypatch, number):
    finished = True
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", failing_at(number, os.fsync, interrupt))
        try:
            store.put("a/b", b"precious")
        except KeyboardInterrupt:
            finished = False
    assert finished == (number == SYNCS_OF_A_PUT - 1) or number > 1
    assert not staged(store)
    if store.exists("a/b"):  # it was linked already: then whole, with its checksum
        assert store.get("a/b") == b"precious"
    else:
        assert list(store.list()) == []
    store.put("a/b", b"precious")
    assert store.get("a/b") == b"precious"


@pytest.mark.parametrize("number", range(1, SYNCS_OF_A_FOLDER))
def test_a_folder_whose_writer_is_killed_at_any_sync(tmp_path, number):
    folder = a_folder(tmp_path, "adapter_config.json", "m", "sub/x")

    def killed() -> None:
        store = LocalStore(tmp_path / "store")
        os.fsync = failing_at(number, os.fsync, die)  # type: ignore[assignment]
        store.put_folder("adapters/x", folder)

    child = multiprocessing.get_context("fork").Process(target=killed)
    child.start()
    child.join(timeout=60)
    assert child.exitcode in (0, -signal.SIGKILL)
    store = LocalStore(tmp_path / "store")
    whole = ["adapters/x/adapter_config.json", "adapters/x/m", "adapters/x/sub/x"]
    assert list(store.list()) in ([], whole)
    assert sorted(one.key for one in store.put_folder("adapters/x", folder)) == whole
    assert [store.get(key) for key in whole] == [b"adapter_config.json", b"m", b"sub/x"]


def test_what_is_staged_is_never_listed_nor_reachable(store):
    (store.root / ".staging" / "half").write_bytes(b"half")
    store.put("a", b"x")
    assert list(store.list()) == ["a"]
    for prefix in (".", ".staging", ".staging/", ".checksums/", ".lock"):
        assert list(store.list(prefix)) == []


@pytest.mark.parametrize("prefix", ["/", "/etc/", "../", "a/../../"])
def test_listing_never_leaves_the_root(store, prefix):
    (store.root.parent / "outside").write_text("x")
    store.put("a/b", b"x")
    assert list(store.list(prefix)) == []


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.ENOSPC, StoreRefused, "disk is full"),
        (errno.EDQUOT, StoreRefused, "quota"),
        (errno.EROFS, StoreRefused, "read-only"),
        (errno.EACCES, StoreRefused, "write permission"),
        (errno.EIO, StoreUnavailable, "run again"),
    ],
)
@pytest.mark.parametrize("step", [(shutil, "copyfile"), (os, "fsync"), (Path, "mkdir"), (Path, "replace")])
def test_a_disk_that_refuses_at_any_step_of_a_put_or_a_folder(
    store, monkeypatch, tmp_path, number, kind, words, step
):
    folder = a_folder(tmp_path, "adapter_config.json", "m")

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    for use in (lambda: store.put("a/b", folder / "m"), lambda: store.put_folder("f/g", folder)):
        with monkeypatch.context() as patched:
            patched.setattr(*step, refuse)
            with pytest.raises(kind, match=words):
                use()
        assert list(store.list()) == []
        assert not staged(store)
    store.put("a/b", folder / "m")
    store.put_folder("f/g", folder)
    assert len(list(store.list())) == 3
