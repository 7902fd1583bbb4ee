"""What every store must do; subclassed once per backend."""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cross_lora_core.errors import ConfigurationError, ObjectCorrupted, ObjectExists, ObjectNotFound
from cross_lora_core.storage import Store, StoredObject, check_key, open_store


def a_folder(parent: Path, *names: str) -> Path:
    """A folder whose files hold their own names."""
    folder = parent / "folder to store"
    folder.mkdir()
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    return folder


class StoreContract:
    """Subclasses give a `store` fixture, `damage` an object behind its back, and `reopen` it."""

    def damage(self, store: Store, key: str) -> None:
        raise NotImplementedError

    def reopen(self, store: Store) -> Store:
        raise NotImplementedError

    def test_what_is_put_is_got(self, store: Store) -> None:
        put = store.put("a/b.bin", b"hello")
        assert put == StoredObject("a/b.bin", put.sha256, 5)
        assert store.get("a/b.bin") == b"hello"
        assert store.stat("a/b.bin") == put
        assert store.fetch("a/b.bin").read_bytes() == b"hello"

    def test_a_file_is_put_like_bytes(self, store: Store, tmp_path: Path) -> None:
        file = tmp_path / "source"
        file.write_bytes(b"x" * 100_000)
        assert store.put("big", file) == store.put("big", b"x" * 100_000)
        assert file.exists()

    def test_an_empty_object_is_an_object(self, store: Store) -> None:
        assert store.put("empty", b"").size == 0
        assert store.get("empty") == b""

    def test_the_same_bytes_again_are_fine_and_others_are_not(self, store: Store) -> None:
        first = store.put("k", b"one")
        assert store.put("k", b"one") == first
        with pytest.raises(ObjectExists, match="never overwritten"):
            store.put("k", b"two")
        assert store.get("k") == b"one"

    def test_what_is_missing(self, store: Store) -> None:
        assert store.stat("nothing") is None
        assert not store.exists("nothing")
        for read in (
            lambda: store.get("nothing"),
            lambda: store.fetch("nothing"),
            lambda: store.read_range("nothing", 0, 1),
        ):
            with pytest.raises(ObjectNotFound):
                read()
        store.delete("nothing")

    def test_ranges(self, store: Store) -> None:
        store.put("r", bytes(range(100)))
        assert store.read_range("r", 10, 20) == bytes(range(10, 20))
        assert store.read_range("r", 95, 200) == bytes(range(95, 100))
        assert store.read_range("r", 5, 5) == b""
        assert store.read_range("r", 100, 110) == store.read_range("r", 500, 510) == b""

    def test_list_is_sorted_and_by_prefix(self, store: Store) -> None:
        for key in ("b/2", "a/1", "b/1", "bb"):
            store.put(key, b"x")
        assert list(store.list()) == ["a/1", "b/1", "b/2", "bb"]
        assert list(store.list("b/")) == ["b/1", "b/2"]

    def test_delete_makes_room(self, store: Store) -> None:
        store.put("k", b"one")
        store.delete("k")
        assert not store.exists("k")
        assert store.put("k", b"two").size == 3

    def test_corruption_is_found_and_named(self, store: Store) -> None:
        store.put("c/x", b"precious")
        self.damage(store, "c/x")
        with pytest.raises(ObjectCorrupted, match="c/x"):
            self.reopen(store).get("c/x")

    def test_a_folder_is_stored_whole_once(self, store: Store, tmp_path: Path) -> None:
        folder = tmp_path / "adapter"
        folder.mkdir()
        for name in ("adapter_config.json", "adapter_model.safetensors", "README.md"):
            (folder / name).write_text(name)
        stored = store.put_folder("adapters/t/a/1", folder)
        assert {one.key for one in stored} == {f"adapters/t/a/1/{path.name}" for path in folder.iterdir()}
        assert store.get("adapters/t/a/1/README.md") == b"README.md"
        assert {one.key for one in store.put_folder("adapters/t/a/1", folder)} == {one.key for one in stored}
        (folder / "README.md").write_text("other")
        with pytest.raises(ObjectExists):
            store.put_folder("adapters/t/a/1", folder)
        assert store.get("adapters/t/a/1/README.md") == b"README.md"
        assert store.folder_url("adapters/t/a/1").endswith("adapters/t/a/1")

    def test_a_folder_inside_a_folder_is_stored_too(self, store: Store, tmp_path: Path) -> None:
        folder = a_folder(tmp_path, "adapter_config.json", "plots/a.txt")
        assert [one.key for one in store.put_folder("f", folder)] == [
            "f/plots/a.txt",
            "f/adapter_config.json",
        ]
        assert store.get("f/plots/a.txt") == b"plots/a.txt"

    def test_a_folder_that_differs_adds_nothing(self, store: Store, tmp_path: Path) -> None:
        folder = a_folder(tmp_path, "adapter_config.json", "m")
        store.put_folder("f", folder)
        (folder / "extra").write_text("x")
        with pytest.raises(ObjectExists, match="extra"):
            store.put_folder("f", folder)
        assert list(store.list("f/")) == ["f/adapter_config.json", "f/m"]
        (folder / "extra").unlink()
        (folder / "m").unlink()
        with pytest.raises(ObjectExists, match="differs in m"):
            store.put_folder("f", folder)

    def test_a_deleted_folder_makes_room(self, store: Store, tmp_path: Path) -> None:
        folder = a_folder(tmp_path, "adapter_config.json", "sub/m")
        for one in store.put_folder("f/1", folder):
            store.delete(one.key)
        (folder / "sub/m").write_text("other")
        store.put_folder("f/1", folder)
        assert store.get("f/1/sub/m") == b"other"

    @pytest.mark.parametrize("names", [[], [".hidden"], ["with space"]])
    def test_folders_that_cannot_be_stored_are_refused(
        self, store: Store, tmp_path: Path, names: list[str]
    ) -> None:
        with pytest.raises(ConfigurationError):
            store.put_folder("f", a_folder(tmp_path, *names))
        assert list(store.list()) == []

    def test_a_pointer_is_replaced(self, store: Store) -> None:
        assert store.read_pointer("adapters/x/latest.json") is None
        for data in (b"first", b"second", b"second"):
            store.put_pointer("adapters/x/latest.json", data)
            assert store.read_pointer("adapters/x/latest.json") == data
        assert list(store.list("adapters/x/")) == ["adapters/x/latest.json"]
        with pytest.raises(ConfigurationError):
            store.put_pointer("../latest.json", b"x")

    def test_a_pointer_is_never_seen_half_written(self, store: Store) -> None:
        contents = [letter * 20_000 for letter in (b"a", b"b")]
        store.put_pointer("latest", contents[0])
        done = threading.Event()

        def write() -> None:
            for turn in range(40):
                store.put_pointer("latest", contents[turn % 2])
            done.set()

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            while not done.is_set() and not writing.done():
                assert store.read_pointer("latest") in contents
            writing.result()

    def test_it_travels_by_pickle_and_by_url(self, store: Store) -> None:
        put = store.put("k", b"one")
        for copy in (pickle.loads(pickle.dumps(store)), open_store(store.url)):
            assert copy.url == store.url
            assert copy.stat("k") == put
            assert copy.get("k") == b"one"

    def test_another_opening_sees_the_same(self, store: Store) -> None:
        store.put("k", b"one")
        assert self.reopen(store).get("k") == b"one"

    @pytest.mark.parametrize(
        "key",
        [
            "",
            "/a",
            "a/",
            "a//b",
            "../a",
            "a/../b",
            ".hidden",
            "a/.b",
            "a\\b",
            "a\nb",
            "a b",
            "a" * 256,
            "a/" * 451 + "a",
        ],
    )
    def test_unsafe_keys_are_refused(self, store: Store, key: str) -> None:
        for use in (lambda: store.put(key, b"x"), lambda: store.stat(key), lambda: store.delete(key)):
            with pytest.raises(ConfigurationError):
                use()


@given(st.text(max_size=30))
def test_accepted_keys_stay_below_the_root(key: str) -> None:
    try:
        check_key(key)
    except ConfigurationError:
        return
    resolved = (Path("/root-of-store") / key).resolve()
    assert resolved.is_relative_to("/root-of-store")
    assert resolved != Path("/root-of-store")
