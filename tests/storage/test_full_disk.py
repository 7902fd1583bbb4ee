"""Disks that really are full and folders that really may not be written: a clear error, and nothing lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cross_lora_core.catalog import Catalog
from cross_lora_core.errors import CrossLoraError, StoreRefused
from cross_lora_core.storage import LocalFolder, LocalStore, StoredObject, sha256_of
from cross_lora_core.storage.cache import ReadCache
from cross_lora_core.storage.folder_cache import FolderCache
from tests.support.store_contract import a_folder

NOBODY = 65534


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=777", "tmpfs", str(mount)]
    done = subprocess.run(command, capture_output=True, text=True) if shutil.which("mount") else None
    if done is None or done.returncode:
        pytest.skip(f"cannot mount a small file system: {done.stderr.strip() if done else 'no mount'}")
    try:
        yield mount
    finally:
        subprocess.run(["umount", "--lazy", str(mount)], check=True)  # a database may still be open


def test_a_full_disk_is_said_and_what_was_there_stays(small_disk: Path, tmp_path: Path) -> None:
    store = LocalStore(small_disk / "store")
    store.put("k", b"precious")
    large = tmp_path / "large"
    large.write_bytes(b"x" * (3 << 20))
    folder = a_folder(tmp_path, "adapter_config.json", "m")
    (folder / "adapter_model.safetensors").write_bytes(b"x" * (3 << 20))
    for use in (
        lambda: store.put("large", large),
        lambda: store.put("large", large.read_bytes()),
        lambda: store.put_folder("f", folder),
    ):
        with pytest.raises(StoreRefused, match="disk is full; free some space"):
            use()
        assert list(store.list()) == ["k"]
        assert not list((store.root / ".staging").iterdir())
    assert store.get("k") == b"precious"
    (folder / "adapter_model.safetensors").write_bytes(b"fits now")
    assert len(store.put_folder("f", folder)) == 3


def test_a_full_disk_keeps_no_half_copy(small_disk: Path, tmp_path: Path) -> None:
    data = b"x" * (3 << 20)
    cache = ReadCache(small_disk / "objects", 1 << 30)
    with pytest.raises(StoreRefused, match="disk is full"):
        cache.copy(StoredObject("k", *sha256_of(data)), lambda aside: aside.write_bytes(data))
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "weights").write_bytes(data)
    folders = FolderCache(small_disk / "folders", 1 << 30)
    with pytest.raises(StoreRefused, match="disk is full"):
        folders.copy(LocalFolder(tmp_path / "base"), ["weights"], lambda _path: None)
    left = [path for path in small_disk.rglob("*") if path.is_file() and path.stat().st_size]
    assert left == []


def test_a_catalog_on_a_full_disk_loses_no_row(small_disk: Path) -> None:
    catalog = Catalog.open(f"sqlite:///{small_disk / 'catalog.db'}", create=True)
    with catalog.begin() as work:
        work.add_base(name="old", digest="d" * 64, location="/x", family="llama", layers=1, d_model=8)
    with (small_disk / "filler").open("wb") as filler, pytest.raises(OSError, match="space"):
        while True:
            os.write(filler.fileno(), b"x" * 4096)
    with pytest.raises(CrossLoraError, match="full"):
        for number in range(2_000):
            with catalog.begin() as work:
                work.add_base(
                    name=f"n{number}",
                    digest=f"{number:064d}",
                    location="/x" * 500,
                    family="llama",
                    layers=1,
                    d_model=8,
                )
    (small_disk / "filler").unlink()
    with catalog.begin() as work:
        kept = {one.name for one in work.bases()}
        assert kept == {"old", *(f"n{number}" for number in range(len(kept) - 1))}
        work.add_base(name="new", digest="e" * 64, location="/x", family="llama", layers=1, d_model=8)


def discard(_result: object) -> None:
    pass


def as_nobody(act: Callable[[], None]) -> str:
    """What an unprivileged user who did this was told; nothing if it went through."""
    groups, group = os.getgroups(), os.getegid()
    root = os.getuid() == 0
    if root:
        os.setgroups([])
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
    try:
        act()
    except BaseException:
        return traceback.format_exc()
    finally:
        if root:
            os.seteuid(0)
            os.setegid(group)
            os.setgroups(groups)
    return ""


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A folder whose parents others may enter; pytest closes those of its own at every start."""
    folder = Path(tempfile.mkdtemp(prefix="open-"))
    folder.chmod(0o755)
    yield folder
    subprocess.run(["chmod", "-R", "u+rwx", str(folder)], check=True)
    shutil.rmtree(folder)


def test_a_store_that_may_not_be_written_is_said_and_stays(open_path: Path) -> None:
    store = LocalStore(open_path / "store")
    store.put("k", b"precious")
    for path in (store.root, *store.root.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    said = as_nobody(lambda: discard(LocalStore(store.root)))
    said_of_put = as_nobody(lambda: discard(store.put("new", b"x")))
    for path in (store.root, *store.root.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert "StoreRefused" in said_of_put
    assert "Give this user write permission" in said_of_put
    assert said == "" or "Give this user write permission" in said
    assert list(store.list()) == ["k"]
    assert store.get("k") == b"precious"


def test_a_home_that_may_not_be_made_is_said(open_path: Path) -> None:
    (open_path / "locked").mkdir(mode=0o555)
    said = as_nobody(lambda: discard(LocalStore(open_path / "locked" / "store")))
    assert "StoreRefused" in said
    assert "Give this user write permission" in said
