from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cross_lora_core.errors import (
    ObjectCorrupted,
    ObjectExists,
    ObjectNotFound,
    StoreRefused,
    StoreUnavailable,
)
from cross_lora_core.storage import LocalStore, Store, open_store
from tests.support.store_contract import StoreContract, test_accepted_keys_stay_below_the_root  # noqa: F401


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


class TestLocalStore(StoreContract):
    def damage(self, store: Store, key: str) -> None:
        path = store.root / key
        path.write_bytes(b"x" + path.read_bytes()[1:])

    def reopen(self, store: Store) -> Store:
        return open_store(store.url)


def visible(store: LocalStore) -> list[str]:
    return list(store.list())


@pytest.mark.parametrize("step", ["os.link", "os.fsync", "shutil.copyfile"])
def test_an_interrupted_put_leaves_nothing_visible(store, monkeypatch, tmp_path, step):
    source = tmp_path / "source"
    source.write_bytes(b"precious")

    def fail(*_args, **_kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(step, fail)
        with pytest.raises(KeyboardInterrupt):
            store.put("a/b", source)
    assert visible(store) == []
    assert store.stat("a/b") is None
    assert not list((store.root / ".staging").iterdir())
    assert store.put("a/b", source).size == 8
    assert store.get("a/b") == b"precious"


def test_an_interrupted_put_folder_leaves_nothing_visible(store, monkeypatch, tmp_path):
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "one").write_text("1")

    def fail(*_args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", fail)
        with pytest.raises(KeyboardInterrupt):
            store.put_folder("x/y", folder)
    assert visible(store) == []
    assert store.put_folder("x/y", folder)


def test_a_killed_writer_leaves_nothing_visible(tmp_path):
    root = tmp_path / "store"
    code = f"""
import shutil, time
from pathlib import Path
from cross_lora_core.storage import LocalStore
real = shutil.copyfile
def slow(source, target):
    real(source, target)
    print("copied", flush=True)
    time.sleep(60)
shutil.copyfile = slow
source = Path({str(tmp_path / "source")!r})
source.write_bytes(b"x" * 1000)
LocalStore(Path({str(root)!r})).put("a/b", source)
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=Path.cwd())
    assert child.stdout is not None
    assert child.stdout.readline() == b"copied\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    store = LocalStore(root)
    assert visible(store) == []
    assert store.put("a/b", b"y").size == 1


def test_what_killed_writers_left_is_swept_after_a_week(tmp_path):
    store = LocalStore(tmp_path / "store")
    old, young = store.root / ".staging" / "old", store.root / ".staging" / "young"
    old.mkdir()
    young.write_bytes(b"x")
    os.utime(old, (time.time() - 700_000,) * 2)
    LocalStore(store.root)
    assert not old.exists()
    assert young.exists()


def _race(root: Path, number: int, same: bool, results) -> None:
    data = b"same" if same else f"writer {number}".encode()
    try:
        LocalStore(root).put("raced", data)
        results.put((number, "won"))
    except ObjectExists:
        results.put((number, "lost"))


@pytest.mark.parametrize("same", [True, False])
def test_racing_writers(tmp_path, same):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    writers = [
        context.Process(target=_race, args=(tmp_path / "store", number, same, results)) for number in range(8)
    ]
    for writer in writers:
        writer.start()
    answers = [results.get(timeout=60) for _ in writers]
    for writer in writers:
        writer.join()
    winners = [number for number, answer in answers if answer == "won"]
    stored = LocalStore(tmp_path / "store").get("raced")  # verified against its checksum
    if same:
        assert len(winners) == 8
        assert stored == b"same"
    else:
        assert len(winners) == 1
        assert stored == f"writer {winners[0]}".encode()


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only"), (errno.EACCES, "write permission")],
)
def test_a_refusing_disk_is_a_clear_error(store, monkeypatch, number, words):
    def fail(*_args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("cross_lora_core.storage.local.LocalStore._stage", fail)
    with pytest.raises(StoreRefused, match=words):
        store.put("a", b"x")
    assert visible(store) == []


def test_a_root_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreRefused, match="A file stands where a folder should be"):
        LocalStore(tmp_path / "file" / "store")


def test_an_object_without_its_checksum_is_not_trusted(store):
    store.put("a", b"x")
    (store.root / ".checksums" / "a").unlink()
    found = store.stat("a")
    assert found is not None
    assert found.sha256 == "unknown"


@pytest.mark.parametrize("step", ["_write_checksum", "os.link", "sync after link"])
@pytest.mark.parametrize("same", [True, False])
def test_a_writer_killed_at_any_step_spoils_nothing(tmp_path, step, same):
    """Killed while it holds the lock; the next writer, of the same or of other bytes, succeeds or is told."""

    def die(*_args, **_kwargs):
        os.kill(os.getpid(), signal.SIGKILL)

    def killed() -> None:
        store = LocalStore(tmp_path / "store")
        if step == "_write_checksum":
            LocalStore._write_checksum = die
        elif step == "os.link":
            os.link = die
        else:
            link = os.link
            os.link = lambda *paths: (link(*paths), die())
        store.put("a/b", b"first")

    child = multiprocessing.get_context("fork").Process(target=killed)
    child.start()
    child.join(timeout=60)
    assert child.exitcode == -signal.SIGKILL
    store = LocalStore(tmp_path / "store")
    there = step == "sync after link"
    assert visible(store) == (["a/b"] if there else [])
    data = b"first" if same else b"second"
    if there and not same:
        with pytest.raises(ObjectExists):
            store.put("a/b", data)
        assert store.get("a/b") == b"first"
    else:
        store.put("a/b", data)
        assert store.get("a/b") == data


def _race_folder(root: Path, number: int, results) -> None:
    source = root.parent / f"source-{number}"
    source.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (source / name).write_text(f"{name} of {number}")
    try:
        LocalStore(root).put_folder("adapters/x", source)
        results.put((number, "won"))
    except ObjectExists:
        results.put((number, "lost"))


def test_one_of_racing_folders_wins_whole(tmp_path):
    context = multiprocessing.get_context("fork")
    for trial in range(5):
        root, results = tmp_path / str(trial) / "store", context.Queue()
        root.mkdir(parents=True)
        writers = [context.Process(target=_race_folder, args=(root, number, results)) for number in range(6)]
        for writer in writers:
            writer.start()
        answers = [results.get(timeout=60) for _ in writers]
        for writer in writers:
            writer.join()
        (winner,) = [number for number, answer in answers if answer == "won"]
        store = LocalStore(root)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            assert store.get(f"adapters/x/{name}") == f"{name} of {winner}".encode()


def test_writers_and_deleters_at_once_never_show_a_spoiled_object(store):
    def work(number: int) -> None:
        for turn in range(15):
            store.put("deep/er/k", b"always the same")
            with contextlib.suppress(ObjectNotFound):
                assert store.get("deep/er/k") == b"always the same"
            if turn % 3 == 0:
                store.delete("deep/er/k")

    with ThreadPoolExecutor(6) as pool:
        for future in [pool.submit(work, number) for number in range(6)]:
            future.result(timeout=60)
    assert visible(store) in ([], ["deep/er/k"])


def test_an_object_and_a_folder_cannot_share_a_name(store, tmp_path):
    store.put("a", b"x")
    store.put("d/e", b"x")
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "one").write_text("1")
    for use in (
        lambda: store.put("a/b", b"y"),
        lambda: store.put("d", b"y"),
        lambda: store.put_folder("a", tmp_path / "f"),
        lambda: store.put_folder("a/b", tmp_path / "f"),
    ):
        with pytest.raises(ObjectExists, match="cannot share a name"):
            use()
    store.delete("d")
    assert visible(store) == ["a", "d/e"]


def test_what_an_interrupted_put_left_is_no_obstacle_to_a_longer_or_shorter_key(store):
    checksums = store.root / ".checksums"
    (checksums / "a").write_text("{}")
    store.put("a/b", b"x")
    (checksums / "c").mkdir()
    (checksums / "c" / "d").write_text("{}")
    store.put("c", b"x")
    assert store.get("a/b") == store.get("c") == b"x"


def test_deleting_leaves_no_empty_folders(store):
    store.put("a/b/c", b"x")
    store.delete("a/b/c")
    assert {path.name for path in store.root.iterdir()} == {".staging", ".checksums", ".lock"}
    assert not list((store.root / ".checksums").iterdir())
    store.put("a", b"x")


def test_a_lost_checksum_is_written_again_when_the_same_bytes_are_put(store):
    put = store.put("a/b", b"x")
    (store.root / ".checksums" / "a" / "b").unlink()
    with pytest.raises(ObjectCorrupted):
        store.get("a/b")
    with pytest.raises(ObjectExists):
        store.put("a/b", b"y")
    assert store.put("a/b", b"x") == store.stat("a/b") == put
    assert store.get("a/b") == b"x"


def test_a_disk_that_does_not_answer_can_be_tried_again(store, monkeypatch):
    def fail(*_args):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("cross_lora_core.storage.local.LocalStore._stage", fail)
    with pytest.raises(StoreUnavailable):
        store.put("a", b"x")


def test_only_what_is_to_be_durable_waits_for_the_disk(store, monkeypatch):
    store.put("seen/first", b"folders are made")
    synced, real = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: [synced.append(descriptor), real(descriptor)][1])
    stored = store.put("seen/passing", b"bytes", durable=False)
    assert not synced
    assert store.stat("seen/passing") == stored
    assert store.get("seen/passing") == b"bytes"
    store.put("seen/lasting", b"bytes")
    assert len(synced) >= 3  # the object, its checksum, their folder


def test_a_file_of_a_workspace_is_taken_as_it_is_and_stays(store):
    with store.workspace() as folder:
        path = folder / "object"
        path.write_bytes(b"precious")
        inode = path.stat().st_ino
        assert store.put("a/b", path).size == 8
        (folder / "f").mkdir()
        (folder / "f" / "one").write_bytes(b"1")
        store.put_folder("x/y", folder / "f")
        assert visible(store) == ["a/b", "x/y/one"]
    assert not list((store.root / ".staging").iterdir())
    assert store.fetch("a/b").stat().st_ino == inode
    assert (store.get("a/b"), store.get("x/y/one")) == (b"precious", b"1")


def test_what_breaks_in_a_workspace_is_not_laid_to_the_store(store):
    with pytest.raises(PermissionError, match="a base"), store.workspace() as folder:
        (folder / "object").write_bytes(b"half")
        raise PermissionError(errno.EACCES, "a base")
    assert visible(store) == []
    assert not list((store.root / ".staging").iterdir())
